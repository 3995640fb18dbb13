//! The connection of a client, shared by its session and the body of its request.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use synego_identity::Stream;

use super::super::body::{Decoder, Part};
use super::super::input::Input;
use super::super::out::Out;
use super::super::parse::Facts;
use super::super::pipe::Piped;
use super::super::{Error, write};
use super::SENT_AHEAD;
use crate::hop::connection::Ended;
use crate::hop::intake::Source;
use crate::message::{Body, Frame, NextFrame};

/// Of a body that nobody wanted, so much is worth reading for the sake of the connection.
const WORTH: u64 = 64 * 1024;

/// A connection, and how far its request is.
pub(super) struct ClientIo {
    pub(super) stream: Stream,
    pub(super) input: Input,
    pub(super) out: Out,
    decoder: Decoder,
    /// Whether the client waits for a word before it sends the body.
    waits: bool,
    /// The request whose body may be read; bodies of earlier ones read nothing any more.
    number: u32,
    /// Whether the body can be read no further.
    is_broken: bool,
    /// Who watches the connection once the body was read.
    session: Option<Waker>,
}

impl ClientIo {
    pub(super) fn new(stream: Stream, front: BytesMut) -> Self {
        Self {
            stream,
            input: Input::new(front),
            out: Out::default(),
            decoder: Decoder::Done,
            waits: false,
            number: 0,
            is_broken: false,
            session: None,
        }
    }

    /// A request begins whose head says this: its body.
    pub(super) fn begin(io: &Rc<RefCell<Self>>, facts: Facts) -> Source {
        let mut this = io.borrow_mut();
        this.decoder = Decoder::of_request(facts.framing);
        this.waits = facts.waits;
        this.number += 1;
        if this.decoder.is_done() {
            return Source::None;
        }
        let length = match this.decoder {
            Decoder::Length(length) => Some(length),
            _ => None,
        };
        Source::Http1(RequestBody { io: io.clone(), number: this.number, length, is_read: false })
    }

    /// Whether the next request can be told from the rest of this one.
    pub(super) fn can_go_on(&self) -> bool {
        !self.is_broken && (self.decoder.is_done() || (!self.waits && self.decoder.expected() <= WORTH))
    }

    pub(super) fn is_read(&self) -> bool {
        self.decoder.is_done() && !self.is_broken
    }

    /// Whether nothing is under way from the client.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_read() && self.input.buf.is_empty()
    }

    pub(super) fn rest(&mut self) {
        self.input.rest();
        self.session = None;
    }

    /// Whether all of the body was read; then whoever watches the connection is woken.
    fn note_end(&mut self) -> bool {
        let is_done = self.decoder.is_done();
        if is_done && let Some(session) = self.session.take() {
            session.wake();
        }
        is_done
    }

    /// Ready once the client has gone away. Reads ahead what a client sends before it has its answer.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if !self.decoder.is_done() {
            // The body is read by whoever wants it; its end wakes this.
            if !self.session.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                self.session = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while self.input.buf.len() < SENT_AHEAD {
            match ready!(self.input.poll_fill(&mut self.stream, 0, cx)) {
                Ok(0) => return Poll::Ready(Ended::Well),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Ended::Broken(error.into())),
            }
        }
        Poll::Pending
    }

    /// Reads the rest of a body and forgets it, as long as there is `room`; false when there is not, or the client waits
    /// to be asked for it.
    pub(super) fn poll_discard(&mut self, room: &mut usize, cx: &mut Context<'_>) -> Poll<bool> {
        self.number += 1;
        if self.waits || self.is_broken || self.decoder.expected() > *room as u64 {
            return Poll::Ready(false);
        }
        loop {
            match self.decoder.next(&mut self.input.buf) {
                Ok(Part::End | Part::Trailers(_)) => return Poll::Ready(true),
                Ok(Part::Data(_)) => continue,
                Ok(Part::More) if *room > 0 => {}
                _ => return Poll::Ready(false),
            }
            match ready!(self.input.poll_fill(&mut self.stream, 0, cx)) {
                Ok(0) | Err(_) => return Poll::Ready(false),
                Ok(bytes) => *room = room.saturating_sub(bytes),
            }
        }
    }

    /// Reads whatever comes until the client goes away or there is no more `room`.
    pub(super) fn poll_discard_all(&mut self, room: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
        while *room > 0 {
            self.input.buf.clear();
            match ready!(self.input.poll_fill(&mut self.stream, 0, cx)) {
                Ok(0) | Err(_) => break,
                Ok(bytes) => *room = room.saturating_sub(bytes),
            }
        }
        Poll::Ready(())
    }
}

/// The body of a request.
pub(crate) struct RequestBody {
    io: Rc<RefCell<ClientIo>>,
    number: u32,
    length: Option<u64>,
    is_read: bool,
}

impl RequestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        let io = &mut *self.io.borrow_mut();
        if io.number != self.number {
            return Poll::Ready(Some(Err(Error::Superseded)));
        }
        loop {
            let part = io.decoder.next(&mut io.input.buf);
            self.is_read = io.note_end();
            match part {
                Ok(Part::Data(data)) => return Poll::Ready(Some(Ok(Frame::Data(data)))),
                Ok(Part::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::Trailers(trailers)))),
                Ok(Part::End) => return Poll::Ready(None),
                Ok(Part::More) => {}
                Err(fault) => {
                    io.is_broken = true;
                    return Poll::Ready(Some(Err(fault.into())));
                }
            }
            if std::mem::take(&mut io.waits) {
                write::go_on(&mut io.out);
                // What cannot be written now is written by the session.
                let _ = io.out.poll_flush(&mut io.stream, cx);
            }
            let expected = io.decoder.expected();
            if io.input.is_large(expected) {
                match ready!(io.input.poll_part(&mut io.stream, expected, cx)) {
                    Ok(data) if !data.is_empty() => {
                        io.decoder.took(data.len());
                        self.is_read = io.note_end();
                        return Poll::Ready(Some(Ok(Frame::Data(data))));
                    }
                    read => {
                        io.is_broken = true;
                        return Poll::Ready(Some(Err(read.map_or_else(Error::from, |_| Error::Short))));
                    }
                }
            }
            match ready!(io.input.poll_fill(&mut io.stream, expected, cx)) {
                Ok(0) => {
                    io.is_broken = true;
                    return Poll::Ready(Some(Err(Error::Short)));
                }
                Ok(_) => {}
                Err(error) => {
                    io.is_broken = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }
}

impl Body for RequestBody {
    type Error = Error;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        self.poll(cx)
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        let io = &mut *self.io.borrow_mut();
        if io.number != self.number || io.waits || !io.input.buf.is_empty() {
            return None;
        }
        let piped = Piped::read(&io.stream, io.decoder.expected(), cx)?;
        io.decoder.took(piped.len());
        self.is_read = io.note_end();
        Some(piped)
    }

    fn is_ended(&self) -> bool {
        self.is_read
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}
