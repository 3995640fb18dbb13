//! Frames that say something of the connection or of its windows, and carry nothing of a message.

use super::super::frame::{self, ACK, Head, Setting, WIDEST, word};
use super::super::{Code, Error};
use super::receive::{Fault, Wrong};
use super::{GOODBYE, Mux, Role};

impl Mux {
    pub(super) fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let id = head.stream;
        let depends = word(payload).filter(|_| payload.len() == 5).ok_or(Code::FRAME_SIZE_ERROR)?;
        if depends & frame::LAST_STREAM == id {
            return Err(Fault::Stream(Wrong(id, Code::PROTOCOL_ERROR)));
        }
        Ok(self.calm.idle()?)
    }

    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if !payload.len().is_multiple_of(6) || (head.has(ACK) && !payload.is_empty()) {
            return Err(Code::FRAME_SIZE_ERROR.into());
        }
        if head.has(ACK) {
            self.is_acknowledged = true;
            return Ok(());
        }
        if std::mem::replace(&mut self.has_settings, true) {
            self.calm.idle()?;
        } else {
            self.peer_streams = usize::MAX;
        }
        for setting in Setting::read(payload) {
            match setting? {
                Setting::Table(size) => self.encoder.resize(size as usize),
                Setting::Streams(most) => self.peer_streams = most as usize,
                Setting::Window(window) => self.resize_windows(window)?,
                Setting::Frame(largest) => self.peer_frame = largest,
                Setting::Push(true) if self.role == Role::Client => return Err(Code::PROTOCOL_ERROR.into()),
                Setting::Push(_) | Setting::List(_) | Setting::Other => {}
            }
        }
        frame::acknowledge_settings(self.out.tail());
        self.fill();
        Ok(())
    }

    /// The first window of streams changes: so do those of the open ones (RFC 9113 §6.9.2).
    fn resize_windows(&mut self, window: i64) -> Result<(), Code> {
        let more = window - std::mem::replace(&mut self.peer_window, window);
        for (id, stream) in &mut self.streams {
            stream.send_window += more;
            if stream.send_window > WIDEST {
                return Err(Code::FLOW_CONTROL_ERROR);
            }
            if stream.send_window > 0 && !stream.is_queued && !stream.waiting.is_empty() {
                stream.is_queued = true;
                self.line.push_back(*id);
            }
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let id = head.stream;
        let more = word(payload).filter(|_| payload.len() == 4).ok_or(Code::FRAME_SIZE_ERROR)?;
        let more = i64::from(more & frame::LAST_STREAM);
        if id != 0 && self.is_unborn(id) || id == 0 && more == 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if id == 0 {
            self.send_window += more;
            if self.send_window > WIDEST {
                return Err(Code::FLOW_CONTROL_ERROR.into());
            }
        } else if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_gone) {
            if more == 0 {
                return Err(Fault::Stream(Wrong(id, Code::PROTOCOL_ERROR)));
            }
            stream.send_window += more;
            if stream.send_window > WIDEST {
                return Err(Fault::Stream(Wrong(id, Code::FLOW_CONTROL_ERROR)));
            }
            if stream.send_window > 0 && !stream.is_queued && !stream.waiting.is_empty() {
                stream.is_queued = true;
                self.line.push_back(id);
            }
        }
        self.fill();
        Ok(())
    }

    pub(super) fn pinged(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let payload: [u8; 8] = payload.try_into().map_err(|_| Code::FRAME_SIZE_ERROR)?;
        if head.has(ACK) {
            self.is_parted |= payload == GOODBYE;
            return Ok(());
        }
        self.calm.idle()?;
        frame::ping(self.out.tail(), ACK, payload);
        Ok(())
    }

    pub(super) fn gone_away(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let last = word(payload).filter(|_| payload.len() >= 8).ok_or(Code::FRAME_SIZE_ERROR)? & frame::LAST_STREAM;
        self.is_away = true;
        if self.role == Role::Client {
            // Those above were not looked at (RFC 9113 §6.8).
            let above: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
            above.into_iter().for_each(|id| self.fail(id, Error::Away));
        }
        Ok(self.calm.idle()?)
    }
}
