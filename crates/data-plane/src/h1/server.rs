//! HTTP/1.1 to clients: the task of a connection reads a request, has it answered, and writes the answer, one after the
//! other. What a client sends ahead waits.

mod io;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{Method, Version};
use synego_identity::Stream;
use synego_runtime::clock;
use tokio::io::AsyncWrite;

pub(crate) use io::RequestBody;

use self::io::ClientIo;
use super::Fault;
use super::parse::{self, Facts};
use super::write::{self, Asked, Framing};
use crate::hop::body::AnswerBody;
use crate::hop::connection::{Client, Ended, JUST_SENT, Late};
use crate::hop::early::Early;
use crate::hop::ending::Watching;
use crate::hop::hand::{Job, Work};
use crate::hop::station::Station;
use crate::hop::timer::Alarm;
use crate::hop::upgrade::Tunnel;
use crate::hop::{self, Reply};
use crate::message::{Answer, Body, Frame, Request};

/// Bytes of an answer that are read before they are written: few enough to be in the processor's cache still, and in the
/// same buffer again and again.
const AT_ONCE: usize = 128 * 1024;
/// Bytes of an answer that wait for a client that does not take them before no more of it is read.
const AHEAD: usize = 512 * 1024;
/// What a client may send ahead of the answer that it waits for; more is left to the kernel.
const SENT_AHEAD: usize = 64 * 1024;
/// Of a body that nobody wanted this much is read, for so long: a client that still writes while its connection is
/// closed may never see the answer.
const DISCARD: (usize, Duration) = (256 * 1024, Duration::from_secs(1));

/// One connection.
struct Session {
    station: Rc<Station>,
    client: Rc<Client>,
    io: Rc<RefCell<ClientIo>>,
    alarm: Alarm,
    ending: Watching,
    /// When it began, then when its last answer ended.
    used: Instant,
    /// Since when the next head comes.
    head_since: Option<Instant>,
    /// When the server began to end it.
    drained_at: Option<Instant>,
    /// From when on its next answer is its last.
    age: Instant,
}

/// What comes next on a connection.
enum Next {
    Request(Box<Request>, Facts),
    Unreadable(Fault),
    End(Ended),
}

/// What follows an exchange.
enum After {
    Next,
    Close,
    Tunnel(Box<Tunnel>),
}

/// Serves a connection to its end.
///
/// - `front`: what was read of it already.
/// - `age`: from when on its next answer is its last.
pub(crate) async fn serve(
    station: Rc<Station>,
    stream: Stream,
    front: BytesMut,
    client: Rc<Client>,
    age: Instant,
) -> Ended {
    let now = clock::now();
    let ending = station.ending.watch();
    let io = Rc::new(RefCell::new(ClientIo::new(stream, front)));
    let head_since = Some(now);
    let alarm = Alarm::default();
    let mut session = Session { station, client, io, alarm, ending, used: now, head_since, drained_at: None, age };
    loop {
        // What lasts as long as a request is in a box, so that a connection that rests is small.
        match std::future::poll_fn(|cx| session.poll_next(cx)).await {
            Next::End(ended) => return ended,
            Next::Unreadable(fault) => {
                Box::pin(session.refuse(fault)).await;
                return Ended::Well;
            }
            Next::Request(request, facts) => match Box::pin(session.exchange(request, facts)).await {
                Ok(After::Next) => session.rest(),
                Ok(After::Close) => {
                    Box::pin(session.close()).await;
                    return Ended::Well;
                }
                Ok(After::Tunnel(tunnel)) => {
                    let Session { station, io, .. } = session;
                    if let Some(io) = Rc::into_inner(io).map(RefCell::into_inner) {
                        Box::pin(tunnel.run(&station, io.stream, io.input.buf.freeze())).await;
                    }
                    return Ended::Well;
                }
                Err(ended) => return ended,
            },
        }
    }
}

impl Session {
    /// The next head, or the end of the connection.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let limits = &self.client.limits;
        let io = &mut *self.io.borrow_mut();
        loop {
            let head = if io.input.buf.is_empty() { Ok(None) } else { parse::request(&mut io.input.buf) };
            match head {
                Ok(Some((request, facts))) => return Poll::Ready(Next::Request(request.boxed(), facts)),
                Ok(None) if io.input.buf.len() > self.client.largest_head() => {
                    return Poll::Ready(Next::Unreadable(Fault::TooLarge));
                }
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Next::Unreadable(fault)),
            }
            match io.input.poll_fill(&mut io.stream, 0, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Next::End(Ended::Well)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Next::End(Ended::Broken(error.into()))),
                Poll::Pending => break,
            }
        }
        if self.ending.is_cut(cx) {
            return Poll::Ready(Next::End(Ended::Cut));
        }
        if self.head_since.is_none() && !io.input.buf.is_empty() {
            self.head_since = Some(clock::now());
        }
        let (mut when, mut late) = match self.head_since {
            Some(since) => (since + limits.header_read, Ended::Late(Late::Head)),
            None => (self.used + limits.client_idle, Ended::Late(Late::Idle)),
        };
        if self.ending.is_drained(cx) && io.input.buf.is_empty() {
            // What was just sent is still served.
            let grace = *self.drained_at.get_or_insert_with(clock::now) + JUST_SENT;
            if grace < when {
                (when, late) = (grace, Ended::Well);
            }
        }
        self.alarm.poll(when, cx).map(|()| Next::End(late))
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// How the connection ended.
    async fn exchange(&mut self, request: Box<Request>, facts: Facts) -> Result<After, Ended> {
        self.head_since = None;
        let source = ClientIo::begin(&self.io, facts);
        let (is_head, version) = (request.method == Method::HEAD, request.version);
        let mut work =
            Work::begin(Job { station: self.station.clone(), client: self.client.clone(), request, body: source });
        let reply = std::future::poll_fn(|cx| match work.poll(|early| self.tell(early, version), cx) {
            Poll::Ready(reply) => Poll::Ready(Ok(reply)),
            Poll::Pending => self.poll_waiting(cx).map(Err),
        });
        let reply = reply.await?;
        let ends = self.ending.has_begun() || self.used >= self.age;
        let keeps = facts.keeps && !ends && self.io.borrow().can_go_on();
        let asked = Asked { is_head, version, keeps };
        let Reply { answer, tunnel } = reply;
        let goes_on = self.answer(answer, asked).await?;
        Ok(match tunnel {
            Some(tunnel) => After::Tunnel(tunnel),
            None if goes_on => After::Next,
            None => After::Close,
        })
    }

    /// Passes on what came before the answer, to a client that knows of such.
    fn tell(&self, early: &Early, version: Version) {
        for answer in early.take(&self.station) {
            if version == Version::HTTP_11 {
                write::interim(&mut self.io.borrow_mut().out, &answer);
            }
        }
    }

    /// Says what is wrong with a head, and ends the connection.
    async fn refuse(&mut self, fault: Fault) {
        let answer = hop::unreadable(&self.station, &self.client, fault, Version::HTTP_11);
        let asked = Asked { is_head: false, version: Version::HTTP_11, keeps: false };
        let _ = self.answer(answer, asked).await;
        self.station.metrics.connection_refused(self.station.kind);
        self.close().await;
    }

    /// While an answer is waited for: is the client still there, and the server?
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.ending.is_cut(cx) {
            return Poll::Ready(Ended::Cut);
        }
        let io = &mut *self.io.borrow_mut();
        if !io.out.is_empty()
            && let Poll::Ready(Err(error)) = io.out.poll_flush(&mut io.stream, cx)
        {
            return Poll::Ready(Ended::Broken(error.into()));
        }
        io.poll_gone(cx)
    }

    /// Writes an answer; whether the connection goes on.
    async fn answer(&mut self, answer: Answer<AnswerBody>, asked: Asked) -> Result<bool, Ended> {
        let length = answer.body.length();
        let (framing, keeps) = write::answer(&mut self.io.borrow_mut().out, &answer, length, asked);
        let Answer { fields, body, .. } = answer;
        drop(fields);
        let mut body = Some(body).filter(|_| framing != Framing::None);
        let (mut stalled, mut broken): (Option<Instant>, Option<Ended>) = (None, None);
        std::future::poll_fn(|cx| {
            let mut room = AT_ONCE;
            loop {
                let waits = match self.poll_body(&mut body, framing, room, cx) {
                    Ok(polled) => polled.is_pending(),
                    Err(ended) => {
                        // What came of it goes out; the connection ends without its end.
                        broken = Some(ended);
                        body = None;
                        true
                    }
                };
                let io = &mut *self.io.borrow_mut();
                let written = io.out.written();
                match io.out.poll_flush(&mut io.stream, cx) {
                    Poll::Ready(Ok(())) if body.is_none() => return Poll::Ready(broken.take().map_or(Ok(()), Err)),
                    Poll::Ready(Ok(())) => {
                        stalled = None;
                        if waits {
                            break;
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Broken(error.into()))),
                    Poll::Pending => {
                        if io.out.written() > written || stalled.is_none() {
                            stalled = Some(clock::now());
                        }
                        if waits || room == AHEAD {
                            break;
                        }
                        room = AHEAD;
                    }
                }
            }
            if self.ending.is_cut(cx) {
                return Poll::Ready(Err(Ended::Cut));
            }
            if let Poll::Ready(ended) = self.io.borrow_mut().poll_gone(cx) {
                return Poll::Ready(Err(ended));
            }
            match stalled {
                Some(since) => {
                    let when = since + self.client.limits.write_stall;
                    self.alarm.poll(when, cx).map(|()| Err(Ended::Late(Late::Write)))
                }
                None => Poll::Pending,
            }
        })
        .await?;
        Ok(keeps && self.is_read().await)
    }

    /// Takes what there is of the body, until so many bytes wait to be written; pending when it has to be waited for.
    ///
    /// # Errors
    /// Why the answer breaks off.
    fn poll_body(
        &self,
        body: &mut Option<AnswerBody>,
        framing: Framing,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Result<Poll<()>, Ended> {
        let by_pipe = matches!(framing, Framing::Length(_)) && matches!(self.io.borrow().stream, Stream::Tcp(_));
        while let Some(source) = body {
            if !self.io.borrow().out.has_room(room) {
                break;
            }
            if by_pipe && let Some(piped) = source.piped(cx) {
                self.io.borrow_mut().out.push_piped(piped);
                body.take_if(|source| source.is_ended());
                continue;
            }
            let polled = source.poll_frame(cx);
            let out = &mut self.io.borrow_mut().out;
            match polled {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Some(Ok(Frame::Data(data)))) => write::data(out, framing, data),
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    write::end(out, framing, Some(&trailers));
                    *body = None;
                }
                Poll::Ready(Some(Err(error))) => return Err(Ended::Broken(error.into())),
                Poll::Ready(None) => {
                    write::end(out, framing, None);
                    *body = None;
                }
            }
            if body.as_ref().is_some_and(Body::is_ended) {
                write::end(out, framing, None);
                *body = None;
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Whether all of the request was read, or what is left of it could be thrown away.
    async fn is_read(&mut self) -> bool {
        if self.io.borrow().is_read() {
            return true;
        }
        let mut room = DISCARD.0;
        let discarded = std::future::poll_fn(|cx| self.io.borrow_mut().poll_discard(&mut room, cx));
        tokio::time::timeout(DISCARD.1, discarded).await.unwrap_or(false)
    }

    /// Between two requests.
    fn rest(&mut self) {
        self.used = clock::now();
        let io = &mut *self.io.borrow_mut();
        io.rest();
        self.head_since = (!io.input.buf.is_empty()).then_some(self.used);
    }

    /// Ends the connection so that its client can still read what was written.
    async fn close(&mut self) {
        let shut = std::future::poll_fn(|cx| Pin::new(&mut self.io.borrow_mut().stream).poll_shutdown(cx));
        if shut.await.is_ok() && !self.io.borrow().is_quiet() {
            let mut room = DISCARD.0;
            let gone = std::future::poll_fn(|cx| self.io.borrow_mut().poll_discard_all(&mut room, cx));
            let _ = tokio::time::timeout(DISCARD.1, gone).await;
        }
    }
}
