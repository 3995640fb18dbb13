//! What comes in, frame by frame.

use bytes::{Buf, Bytes, BytesMut};

use super::super::calm::TooMuch;
use super::super::frame::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FIRST_WINDOW, GOAWAY, HEAD, HEADERS, Head, LARGEST, PADDED,
    PING, PRIORITY, PUSH_PROMISE, RESET, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, word,
};
use super::super::head::{Gathered, Refused};
use super::super::stream::{Receiving, Sending, Stream};
use super::super::{Code, Error};
use super::{Block, Mux, Role};
use crate::message::Request;

/// Frames of one head.
const MAX_FRAMES: u32 = 64;

/// The connection cannot go on: its other side is told why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fatal(pub(crate) Code);

/// What came.
#[derive(Debug)]
pub(crate) enum Received {
    /// Nothing more can be read before more bytes come: at least so many.
    More(usize),
    /// A client began a stream.
    Begun(Begun),
}

/// A stream that a client began.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) id: u32,
    /// `None`: its head is larger than what is read.
    pub(crate) request: Option<Box<Request>>,
    /// Whether no body follows.
    pub(crate) is_bare: bool,
}

/// What is wrong with one stream alone.
pub(super) struct Wrong(pub(super) u32, pub(super) Code);

/// What a frame means.
pub(super) enum Fault {
    Connection(Code),
    Stream(Wrong),
}

impl From<TooMuch> for Fault {
    fn from(_: TooMuch) -> Self {
        Self::Connection(Code::ENHANCE_YOUR_CALM)
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::Connection(code)
    }
}

impl Mux {
    /// Reads the frames at the front of `buf`, up to the first that somebody must be told of.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub(crate) fn receive(&mut self, buf: &mut BytesMut) -> Result<Received, Fatal> {
        loop {
            let Some(head) = Head::read(buf) else { return Ok(Received::More(HEAD - buf.len())) };
            if head.length > LARGEST {
                return Err(Fatal(Code::FRAME_SIZE_ERROR));
            }
            let size = HEAD + head.length;
            if buf.len() < size {
                return Ok(Received::More(size - buf.len()));
            }
            let mut payload = buf.split_to(size).freeze();
            payload.advance(HEAD);
            match self.frame(head, payload) {
                Ok(None) => {}
                Ok(Some(begun)) => return Ok(Received::Begun(begun)),
                Err(Fault::Connection(code)) => return Err(Fatal(code)),
                Err(Fault::Stream(wrong)) => self.refuse(&wrong)?,
            }
        }
    }

    /// Resets a stream on which something is wrong; the others go on, unless it happens all the time.
    fn refuse(&mut self, wrong: &Wrong) -> Result<(), Fatal> {
        let Wrong(id, code) = *wrong;
        self.fail(id, Error::Broken(code));
        self.write_reset(id, code);
        let counted = if code == Code::REFUSED_STREAM { self.calm.idle() } else { self.calm.caused() };
        counted.map_err(|_| Fatal(Code::ENHANCE_YOUR_CALM))
    }

    /// Nothing more goes on a stream.
    pub(super) fn fail(&mut self, id: u32, error: Error) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.fail(error);
        self.gone += usize::from(!std::mem::replace(&mut stream.is_gone, true));
    }

    fn frame(&mut self, head: Head, payload: Bytes) -> Result<Option<Begun>, Fault> {
        if !self.has_settings && (head.kind != SETTINGS || head.has(ACK)) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        if self.block.is_some() != (head.kind == CONTINUATION) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        match head.kind {
            DATA => self.data(head, payload)?,
            HEADERS => return self.headers(head, payload),
            CONTINUATION => return self.continuation(head, &payload),
            PRIORITY => self.priority(head, &payload)?,
            RESET => self.was_reset(head, &payload)?,
            SETTINGS => self.settings(head, &payload)?,
            PING => self.pinged(head, &payload)?,
            GOAWAY => self.gone_away(head, &payload)?,
            WINDOW_UPDATE => self.window_update(head, &payload)?,
            PUSH_PROMISE => return Err(Code::PROTOCOL_ERROR.into()),
            _ => self.calm.idle()?,
        }
        Ok(None)
    }

    fn data(&mut self, head: Head, payload: Bytes) -> Result<(), Fault> {
        let Head { stream: id, length, .. } = head;
        if id == 0 || self.is_unborn(id) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        // Padding takes room in the windows like data.
        self.open_window -= length as i64;
        if self.open_window < 0 {
            return Err(Code::FLOW_CONTROL_ERROR.into());
        }
        let data = unpadded(head, payload).ok_or(Code::PROTOCOL_ERROR)?;
        let ends = head.has(END_STREAM);
        if data.is_empty() && !ends {
            self.calm.idle()?;
        } else {
            self.calm.useful();
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_gone) else {
            self.give_back_to_all(length);
            // What is under way when a stream is reset comes to nothing.
            return if self.reset.contains(&id) { Ok(()) } else { Err(Fault::Stream(Wrong(id, Code::STREAM_CLOSED))) };
        };
        stream.window -= length as i64;
        let size = data.len();
        let taken = if stream.window < 0 { Err(Code::FLOW_CONTROL_ERROR) } else { stream.take(data) };
        let kept = if taken.is_ok() { size } else { 0 };
        let taken = taken.and_then(|()| if ends { stream.end() } else { Ok(()) });
        stream.wake();
        match taken {
            Ok(()) if size < length => self.give_back(id, length - size),
            Ok(()) => {}
            Err(code) => {
                // What was kept is given back with the stream.
                self.give_back_to_all(length - kept);
                return Err(Fault::Stream(Wrong(id, code)));
            }
        }
        Ok(())
    }

    fn headers(&mut self, head: Head, payload: Bytes) -> Result<Option<Begun>, Fault> {
        let id = head.stream;
        let is_clients = id % 2 == 1;
        if !is_clients || (self.role == Role::Client && self.is_unborn(id)) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let mut block = unpadded(head, payload).ok_or(Code::PROTOCOL_ERROR)?;
        if head.has(WITH_PRIORITY) {
            if block.len() < 5 {
                return Err(Code::FRAME_SIZE_ERROR.into());
            }
            if word(&block.split_to(5)).is_some_and(|other| other & frame::LAST_STREAM == id) {
                return Err(Code::PROTOCOL_ERROR.into());
            }
        }
        let ends_stream = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.whole(id, ends_stream, block);
        }
        self.block = Some(Block { stream: id, ends_stream, bytes: BytesMut::from(&block[..]), frames: 1 });
        Ok(None)
    }

    fn continuation(&mut self, head: Head, payload: &[u8]) -> Result<Option<Begun>, Fault> {
        let Some(mut block) = self.block.take().filter(|block| block.stream == head.stream) else {
            return Err(Code::PROTOCOL_ERROR.into());
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        if block.frames > MAX_FRAMES || block.bytes.len() > self.largest_head {
            return Err(Code::ENHANCE_YOUR_CALM.into());
        }
        if head.has(END_HEADERS) {
            return self.whole(block.stream, block.ends_stream, block.bytes.freeze());
        }
        self.block = Some(block);
        Ok(None)
    }

    /// All of a head has come. It is read in any case: what follows on the connection builds on it.
    fn whole(&mut self, id: u32, ends: bool, block: Bytes) -> Result<Option<Begun>, Fault> {
        let mut fields = Gathered::new(self.largest_head);
        self.decoder.decode(&block, |field| fields.put(&field)).map_err(|_| Code::COMPRESSION_ERROR)?;
        if fields.is_bomb() {
            return Err(Code::ENHANCE_YOUR_CALM.into());
        }
        self.calm.useful();
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_gone) {
            let taken = if stream.has_head { stream.trailers(fields, ends) } else { stream.answered(fields, ends) };
            stream.wake();
            return taken.map(|()| None).map_err(|code| Fault::Stream(Wrong(id, code)));
        }
        match self.role {
            Role::Client => Ok(None),
            Role::Server if id > self.number => self.begun(id, ends, fields),
            Role::Server if self.reset.contains(&id) || self.streams.contains_key(&id) => Ok(None),
            Role::Server => Err(Code::STREAM_CLOSED.into()),
        }
    }

    /// A client begins a stream.
    fn begun(&mut self, id: u32, ends: bool, fields: Gathered) -> Result<Option<Begun>, Fault> {
        self.number = id;
        if self.told_last.is_some_and(|last| id > last) {
            // It knows, or will soon, that nobody looks at it.
            return Ok(None);
        }
        if self.open() >= self.max_streams {
            return Err(Fault::Stream(Wrong(id, Code::REFUSED_STREAM)));
        }
        let (request, length) = match fields.request() {
            Ok((request, length)) => (Some(request.boxed()), length),
            Err(Refused::TooLarge) => (None, None),
            Err(Refused::Malformed) => return Err(Fault::Stream(Wrong(id, Code::PROTOCOL_ERROR))),
        };
        let mut stream = Stream::new(self.first_window(), self.peer_window);
        stream.has_head = true;
        stream.expected = length;
        if ends {
            stream.end().map_err(|code| Fault::Stream(Wrong(id, code)))?;
        }
        self.streams.insert(id, stream);
        Ok(Some(Begun { id, request, is_bare: ends }))
    }

    /// What the other side may send on a stream: until it has seen our settings, what everyone may.
    pub(super) fn first_window(&self) -> i64 {
        if self.is_acknowledged { self.window } else { self.window.max(FIRST_WINDOW) }
    }

    /// Whether the stream was never begun.
    pub(super) fn is_unborn(&self, id: u32) -> bool {
        match self.role {
            Role::Server => id > self.number || id.is_multiple_of(2),
            Role::Client => id >= self.number || id.is_multiple_of(2),
        }
    }

    fn was_reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let id = head.stream;
        let code = word(payload).filter(|_| payload.len() == 4).ok_or(Code::FRAME_SIZE_ERROR)?;
        if id == 0 || self.is_unborn(id) {
            return Err(Code::PROTOCOL_ERROR.into());
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_gone) else {
            return Ok(self.calm.idle()?);
        };
        if self.role == Role::Client && stream.receiving == Receiving::Ended {
            // It has answered, and wants no more of the request.
            stream.fail(Error::Reset(Code(code)));
            return Ok(());
        }
        let (was_seen, is_sent) = (stream.is_seen, stream.sending == Sending::Done);
        self.fail(id, Error::Reset(Code(code)));
        if self.role == Role::Server && !is_sent {
            self.calm.given_up(was_seen)?;
        }
        Ok(())
    }
}

/// The payload without what only fills it up; `None`: there is more of that than payload.
fn unpadded(head: Head, mut payload: Bytes) -> Option<Bytes> {
    if head.has(PADDED) {
        let padding = usize::from(*payload.first()?);
        payload.advance(1);
        payload.truncate(payload.len().checked_sub(padding)?);
    }
    Some(payload)
}
