//! HTTP/1.1 to an upstream: one request at a time on a connection, driven by whoever waits for its answer.
//!
//! The request is still being sent while its answer is read; an answer that comes early is passed on, and the rest of
//! the request with it.

use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use synego_identity::Stream;

use super::body::{Decoder, Part};
use super::input::Input;
use super::out::Out;
use super::parse::{self, Facts};
use super::pipe::{self, Piped};
use super::{Error, Fault, write};
use crate::fields::Fields;
use crate::hop::early::Early;
use crate::hop::intake::TryBody;
use crate::hop::outgoing::Outgoing;
use crate::message::{Answer, Body, Frame, NextFrame};
use crate::pool::{SendError, Target};

/// Interim answers (1xx) before the one that counts.
const MAX_INTERIM: u32 = 10;
/// Bytes of a request's body that are read before they are written, as of an answer's.
const AT_ONCE: usize = 128 * 1024;
/// Bytes of a request that wait to be written before more of its body is read.
const AHEAD: usize = 256 * 1024;

/// A connection to an upstream, and the request that it carries.
pub(crate) struct Conn {
    stream: Stream,
    input: Input,
    out: Out,
    is_reused: bool,
    /// What is still to be sent.
    body: Option<TryBody>,
    framing: write::Framing,
    /// Whether the upstream takes nothing more; it may have answered all the same.
    is_deaf: bool,
    largest_head: usize,
    /// Interim answers so far.
    interim: u32,
}

/// The body of an answer.
pub(crate) struct AnswerBody {
    /// `None`: the connection was given back, or has ended.
    conn: Option<Box<Conn>>,
    decoder: Decoder,
    keeps: bool,
    target: Rc<Target>,
}

impl Conn {
    /// In a box from the beginning: it goes from the idle ones to its requests and back.
    pub(crate) fn new(stream: Stream) -> Box<Self> {
        Box::new(Self {
            stream,
            input: Input::default(),
            out: Out::default(),
            is_reused: false,
            body: None,
            framing: write::Framing::None,
            is_deaf: false,
            largest_head: 0,
            interim: 0,
        })
    }

    /// Whether it was used or put aside before: then it may have died unseen.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// It is put aside: what happens to it from now on is not seen.
    pub(crate) fn put_aside(&mut self) {
        self.is_reused = true;
    }

    /// Whether it is still open, as far as is known here; an upstream has nothing to say before it is asked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.input.poll_fill(&mut self.stream, 0, &mut cx).is_pending()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// Why there is none, and what that says of the request.
    pub(crate) async fn send(
        mut self: Box<Self>,
        outgoing: &Outgoing<'_>,
        target: Rc<Target>,
        largest_head: usize,
    ) -> Result<Answer<AnswerBody>, SendError> {
        let is_head = outgoing.head.method == Method::HEAD;
        self.begin(outgoing, largest_head);
        let (answer, facts) = std::future::poll_fn(|cx| self.poll_head(outgoing.early, cx)).await?;
        let status = answer.status;
        let bare = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let decoder = match status {
            StatusCode::SWITCHING_PROTOCOLS => Decoder::ToEnd,
            _ if bare => Decoder::Done,
            _ => Decoder::of_answer(facts.framing),
        };
        let keeps = facts.keeps && decoder != Decoder::ToEnd;
        let mut body = AnswerBody { conn: Some(self), decoder, keeps, target };
        body.give_back_when_done();
        Ok(answer.with(body))
    }

    fn begin(&mut self, outgoing: &Outgoing<'_>, largest_head: usize) {
        let (body, framing) = outgoing.write(&mut self.out);
        self.body = Some(body).filter(|_| framing != write::Framing::None);
        (self.framing, self.is_deaf, self.largest_head, self.interim) = (framing, false, largest_head, 0);
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    /// When the client's own body broke off.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), SendError> {
        let mut room = AT_ONCE;
        let by_pipe = matches!(self.framing, write::Framing::Length(_)) && matches!(self.stream, Stream::Tcp(_));
        while !self.is_deaf {
            let mut waits = self.body.is_none();
            // Parts that are there already leave in one write.
            while let Some(body) = self.body.as_mut().filter(|_| !waits && self.out.has_room(room)) {
                if by_pipe && let Some(piped) = body.piped(cx) {
                    self.out.push_piped(piped);
                    break;
                }
                match body.poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => self.frame(frame),
                    Poll::Ready(Some(Err(error))) => return Err(SendError::Client(error.into())),
                    Poll::Ready(None) => self.end(None),
                    Poll::Pending => waits = true,
                }
            }
            match self.out.poll_flush(&mut self.stream, cx) {
                Poll::Ready(Ok(())) if waits || self.body.is_none() => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // It may have said why before it stopped reading.
                    self.is_deaf = true;
                    self.body = None;
                }
                Poll::Pending if waits || room == AHEAD => break,
                Poll::Pending => room = AHEAD,
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Data(data) => write::data(&mut self.out, self.framing, data),
            Frame::Trailers(trailers) => self.end(Some(&trailers)),
        }
    }

    fn end(&mut self, trailers: Option<&Fields>) {
        write::end(&mut self.out, self.framing, trailers);
        self.body = None;
    }

    /// Whether all of the request was sent.
    fn is_sent(&self) -> bool {
        !self.is_deaf && self.body.is_none() && self.out.is_empty()
    }

    fn poll_head(&mut self, early: &Early, cx: &mut Context<'_>) -> Poll<Result<(Answer, Facts), SendError>> {
        self.poll_send(cx)?;
        loop {
            let head = if self.input.buf.is_empty() { Ok(None) } else { parse::answer(&mut self.input.buf) };
            match head {
                Ok(Some((answer, facts))) => {
                    let status = answer.status;
                    if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Ok((answer, facts)));
                    }
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Poll::Ready(Err(SendError::BadResponse(Fault::TooManyInterim.into())));
                    }
                    early.came(answer);
                    continue;
                }
                Ok(None) if self.input.buf.len() > self.largest_head => {
                    return Poll::Ready(Err(SendError::BadResponse(Fault::TooLarge.into())));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(SendError::BadResponse(fault.into()))),
            }
            let read = match self.input.poll_fill(&mut self.stream, 0, cx) {
                Poll::Ready(read) => read,
                Poll::Pending => return Poll::Pending,
            };
            let error = match read {
                Ok(0) => Error::Short,
                Ok(_) => continue,
                Err(error) => error.into(),
            };
            let is_unsent = self.is_reused && self.is_deaf && self.out.written() == 0;
            return Poll::Ready(Err(if is_unsent { SendError::Unsent } else { SendError::Reset(error.into()) }));
        }
    }
}

impl AnswerBody {
    /// The bare connection after a change of its protocol, and what came behind the head.
    pub(crate) fn into_tunnel(mut self) -> Option<(Stream, Bytes)> {
        let Conn { stream, input, .. } = *self.conn.take()?;
        Some((stream, input.buf.freeze()))
    }

    /// Once all of the answer was read, and all of the request sent, the connection may take another one.
    fn give_back_when_done(&mut self) {
        if !self.decoder.is_done() {
            return;
        }
        let Some(mut conn) = self.conn.take() else { return };
        // What an upstream says unasked belongs to no answer.
        if self.keeps && conn.body.is_none() && !conn.is_deaf && conn.out.is_empty() && conn.input.buf.is_empty() {
            conn.input.rest();
            conn.out.restart();
            conn.is_reused = true;
            self.target.put(conn);
        }
    }

    /// Sends more of the request.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>) {
        let Some(conn) = &mut self.conn else { return };
        if !conn.is_sent() && conn.poll_send(cx).is_err() {
            // The client's own body broke off: the upstream will not get the rest.
            conn.is_deaf = true;
            conn.body = None;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        loop {
            self.pump(cx);
            let Some(conn) = &mut self.conn else { return Poll::Ready(None) };
            match self.decoder.next(&mut conn.input.buf)? {
                Part::Data(data) => {
                    self.give_back_when_done();
                    return Poll::Ready(Some(Ok(Frame::Data(data))));
                }
                Part::Trailers(trailers) => {
                    self.give_back_when_done();
                    return Poll::Ready(Some(Ok(Frame::Trailers(trailers))));
                }
                Part::End => {
                    self.give_back_when_done();
                    return Poll::Ready(None);
                }
                Part::More => {}
            }
            let expected = self.decoder.expected();
            if conn.input.is_large(expected) {
                match conn.input.poll_part(&mut conn.stream, expected, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(data)) if !data.is_empty() => {
                        self.decoder.took(data.len());
                        self.give_back_when_done();
                        return Poll::Ready(Some(Ok(Frame::Data(data))));
                    }
                    Poll::Ready(read) => {
                        self.conn = None;
                        return Poll::Ready(Some(Err(read.map_or_else(Error::from, |_| Error::Short))));
                    }
                }
            }
            match conn.input.poll_fill(&mut conn.stream, expected, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if self.decoder.ends() => {
                    self.conn = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    self.conn = None;
                    return Poll::Ready(Some(Err(Error::Short)));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => {
                    self.conn = None;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
    }
}

impl Body for AnswerBody {
    type Error = Error;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        self.poll(cx)
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        // Most bodies are small, and sending goes on where they are read.
        if !pipe::is_worth(self.decoder.expected()) {
            return None;
        }
        self.pump(cx);
        let conn = self.conn.as_mut().filter(|conn| conn.input.buf.is_empty())?;
        let piped = Piped::read(&conn.stream, self.decoder.expected(), cx)?;
        self.decoder.took(piped.len());
        self.give_back_when_done();
        Some(piped)
    }

    fn is_ended(&self) -> bool {
        self.decoder.is_done()
    }

    fn length(&self) -> Option<u64> {
        self.decoder.length()
    }
}
