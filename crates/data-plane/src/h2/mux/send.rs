//! What goes out: heads at once, data as the windows allow, one frame of each stream in turn.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::frame::{self, END_HEADERS, END_STREAM, HEAD, LARGEST};
use super::super::hpack::Encoder;
use super::super::stream::{Sending, Stream};
use super::{AHEAD, Mux};
use crate::fields::Fields;

/// Bytes of a connection that wait to be written, before streams wait for their turn.
pub(super) const HIGH: usize = 128 * 1024;

impl Mux {
    /// Begins a stream of ours; whether it was seen is for the other side.
    pub(crate) fn begin(&mut self, is_head: bool) -> u32 {
        let id = self.number;
        self.number += 2;
        let mut stream = Stream::new(self.first_window(), self.peer_window);
        stream.is_head = is_head;
        stream.begins_at = self.out.written() + self.out.len() as u64;
        self.streams.insert(id, stream);
        id
    }

    /// Whether anything of the stream has left.
    pub(crate) fn has_left(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|stream| self.out.written() > stream.begins_at)
    }

    /// Writes a head.
    ///
    /// - `ends`: whether nothing follows it.
    pub(crate) fn write_head(&mut self, id: u32, ends: bool, fields: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.sending == Sending::Open) else { return };
        if ends {
            stream.sending = Sending::Done;
        }
        self.write_block(id, ends, fields);
        self.wake_driver();
    }

    fn write_block(&mut self, id: u32, ends: bool, fields: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        self.calm.useful();
        let out = self.out.tail();
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        self.encoder.begin(out);
        fields(&mut self.encoder, out);
        let length = out.len() - start - HEAD;
        let mut flags = if ends { END_STREAM } else { 0 };
        if length <= LARGEST {
            flags |= END_HEADERS;
        }
        let head = frame::Head { length: length.min(LARGEST), kind: frame::HEADERS, flags, stream: id };
        if let Some(place) = out.get_mut(start..start + HEAD) {
            place.copy_from_slice(&head.bytes());
        }
        if length <= LARGEST {
            return;
        }
        // Too large for one frame: the rest goes on in others, and none comes between.
        let rest = out.split_off(start + HEAD + LARGEST);
        let mut parts = rest.chunks(LARGEST).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            frame::Head { length: part.len(), kind: frame::CONTINUATION, flags, stream: id }.write(out);
            out.extend_from_slice(part);
        }
    }

    /// Ready while the stream takes more data.
    pub(crate) fn poll_room(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.waiting_bytes >= AHEAD => {
                stream.note(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Ready once nothing of the stream waits for its windows.
    pub(crate) fn poll_sent(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id) {
            Some(stream) if stream.sending != Sending::Done => {
                stream.note(cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// Sends a part of a body.
    ///
    /// - `ends`: whether nothing follows it.
    pub(crate) fn send(&mut self, id: u32, data: Bytes, ends: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.sending == Sending::Open) else { return };
        if ends {
            stream.sending = Sending::End;
        }
        if !data.is_empty() {
            stream.waiting_bytes += data.len();
            stream.waiting.push(data);
        }
        self.proceed(id);
    }

    /// Sends the end of a body.
    pub(crate) fn finish(&mut self, id: u32, trailers: Option<Fields>) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.sending == Sending::Open) else { return };
        stream.sending = trailers.map_or(Sending::End, Sending::Trailers);
        self.proceed(id);
    }

    /// What the stream has goes as far as it can.
    fn proceed(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.waiting.is_empty() {
            self.write_end(id);
        } else if !stream.is_queued && stream.send_window > 0 {
            stream.is_queued = true;
            self.line.push_back(id);
        }
        self.fill();
        self.wake_driver();
    }

    /// Writes data as long as there is room for it, a frame of each stream that stands in line.
    pub(crate) fn fill(&mut self) {
        while self.send_window > 0 && self.out.len() < HIGH {
            let Some(id) = self.line.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.is_queued = false;
            self.write_data(id);
        }
    }

    fn write_data(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(first) = stream.waiting.first() else { return };
        let room = stream.send_window.min(self.send_window).max(0) as usize;
        let length = first.len().min(room).min(self.peer_frame).min(LARGEST);
        if length == 0 {
            return;
        }
        let data = first.split_to(length);
        if first.is_empty() {
            stream.waiting.pop();
        }
        stream.waiting_bytes -= length;
        stream.send_window -= length as i64;
        self.send_window -= length as i64;
        let is_last = stream.waiting.is_empty();
        let ends = is_last && stream.sending == Sending::End;
        if ends {
            stream.sending = Sending::Done;
        }
        if !is_last && stream.send_window > 0 {
            stream.is_queued = true;
            self.line.push_back(id);
        }
        if ends || stream.waiting_bytes < AHEAD && stream.waiting_bytes + length >= AHEAD {
            stream.wake();
        }
        let flags = if ends { END_STREAM } else { 0 };
        frame::Head { length, kind: frame::DATA, flags, stream: id }.write(self.out.tail());
        self.out.push(data);
        self.calm.useful();
        if is_last && !ends {
            self.write_end(id);
        }
    }

    /// Nothing waits: the end of the stream goes, where it is known.
    fn write_end(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        match std::mem::replace(&mut stream.sending, Sending::Done) {
            Sending::Open => stream.sending = Sending::Open,
            Sending::Done => {}
            Sending::End => {
                stream.wake();
                frame::Head { length: 0, kind: frame::DATA, flags: END_STREAM, stream: id }.write(self.out.tail());
            }
            Sending::Trailers(trailers) => {
                stream.wake();
                self.write_block(id, true, |encoder, out| encoder.fields(out, &trailers));
            }
        }
    }
}
