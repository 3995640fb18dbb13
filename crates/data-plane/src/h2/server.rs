//! HTTP/2 to clients: the task of a connection reads and writes it; each request has a task of its own.

mod hands;

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::{Method, Version};
use synego_identity::Stream;
use synego_runtime::clock;

use super::Code;
use super::body::{Held, RequestBody};
use super::frame::{LAST_STREAM, PREFACE};
use super::mux::{Begun, GOODBYE, Mux, Role, Shared};
use super::wire::Wire;
use crate::fields::Name;
use crate::h1::{Fault, write};
use crate::hop;
use crate::hop::body::AnswerBody;
use crate::hop::connection::{Client, Ended, Late};
use crate::hop::early::Early;
use crate::hop::ending::Watching;
use crate::hop::intake::Source;
use crate::hop::station::Station;
use crate::hop::timer::Alarm;
use crate::message::{Answer, Body, Frame};
use crate::metrics::HopKind;

/// How long a connection that is to end may rest before it is closed.
const LAST_REST: Duration = Duration::from_secs(5);

/// One connection.
struct Session {
    station: Rc<Station>,
    client: Rc<Client>,
    mux: Shared,
    wire: Wire,
    alarm: Alarm,
    ending: Watching,
    /// When it becomes too old.
    age: Instant,
    end: End,
}

/// A stream that was begun, and what it takes to answer it.
struct Job {
    station: Rc<Station>,
    client: Rc<Client>,
    held: Held,
    begun: Begun,
}

/// How far its end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// The client was told so, and may have begun streams in the meantime.
    Told(Instant),
    /// No further stream is taken.
    Last(Instant),
}

/// Serves a connection to its end.
///
/// - `front`: what was read of it already, the preface at least.
/// - `age`: when it becomes too old.
pub(crate) async fn serve(
    station: Rc<Station>,
    stream: Stream,
    mut front: BytesMut,
    client: Rc<Client>,
    age: Instant,
) -> Ended {
    front.advance(PREFACE.len());
    // A peer passes on what its own clients give up: those who share its connection must not pay for them.
    let resets = (station.kind != HopKind::Inbound).then_some(client.limits.resets);
    let mux = Mux::new(Role::Server, &client.limits, resets).shared();
    let ending = station.ending.watch();
    let wire = Wire::new(stream, front);
    let alarm = Alarm::default();
    let mut session = Session { station, client, mux, wire, alarm, ending, age, end: End::No };
    let ended = std::future::poll_fn(|cx| session.poll(cx)).await;
    let Session { mux, wire, .. } = session;
    mux.borrow_mut().die();
    let why = match &ended {
        Ended::Well if mux.borrow().is_told() => None,
        Ended::Well => Some(Code::NO_ERROR),
        Ended::Faulty(code) => Some(*code),
        Ended::Late(Late::Idle) => Some(Code::NO_ERROR),
        Ended::Broken(_) | Ended::Cut | Ended::Late(_) => return ended,
    };
    Box::pin(wire.close(&mux, why)).await;
    ended
}

impl Session {
    /// Ready at the end of the connection.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let begin = |begun: Begun| {
                let held = Held { mux: self.mux.clone(), id: begun.id };
                hands::work(Job { station: self.station.clone(), client: self.client.clone(), held, begun });
            };
            if let Poll::Ready(ended) = self.wire.poll(&self.mux, cx, begin) {
                return Poll::Ready(ended);
            }
            if self.ending.is_cut(cx) {
                return Poll::Ready(Ended::Cut);
            }
            if self.end == End::No && self.ending.is_drained(cx) {
                self.tell();
                continue;
            }
            if self.is_over() {
                return Poll::Ready(Ended::Well);
            }
            match self.poll_time(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
            }
        }
    }

    /// Whether nothing is left to do on a connection that ends.
    fn is_over(&mut self) -> bool {
        let mux = &mut *self.mux.borrow_mut();
        if let End::Told(since) = self.end
            && mux.is_parted
        {
            self.end = End::Last(since);
            let last = mux.last_begun();
            mux.go_away(last, Code::NO_ERROR);
        }
        let takes_none = matches!(self.end, End::Last(_)) || mux.is_away;
        takes_none && mux.is_idle()
    }

    /// Ready when something is to be done because of the time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let limits = &self.client.limits;
        let mut mux = self.mux.borrow_mut();
        let now = clock::now();
        let next = match self.wire.next(&mut mux, limits, now) {
            Ok(next) => next,
            Err(ended) => return Poll::Ready(Err(ended)),
        };
        let idle = mux.is_idle().then(|| match self.end {
            End::No => mux.used + limits.client_idle,
            End::Told(since) | End::Last(since) => mux.used.max(since) + LAST_REST,
        });
        let age = (self.end == End::No).then_some(self.age);
        let is_over = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_over(idle) && self.end != End::No {
            return Poll::Ready(Err(Ended::Late(Late::Idle)));
        }
        if !mux.out.is_empty() && !self.wire.is_stalled() {
            return Poll::Ready(Ok(()));
        }
        drop(mux);
        if is_over(idle) || is_over(age) {
            // Idle, or too old: the client is told, and what it has just begun is still served.
            self.tell();
            return Poll::Ready(Ok(()));
        }
        let when = [idle, age].into_iter().flatten().fold(next, Instant::min);
        self.alarm.poll(when, cx).map(Ok)
    }

    /// Tells the client that the connection ends.
    fn tell(&mut self) {
        let mut mux = self.mux.borrow_mut();
        mux.go_away(LAST_STREAM, Code::NO_ERROR);
        mux.ping(GOODBYE);
        self.end = End::Told(clock::now());
    }
}

/// One request and its answer.
async fn serve_stream(job: Box<Job>, alarm: &mut Alarm) {
    let Job { station, client, held, begun: Begun { request, is_bare, .. } } = *job;
    let Some(request) = request else {
        let answer = hop::unreadable(&station, &client, Fault::TooLarge, Version::HTTP_2);
        return give(&client, &held, answer, false).await;
    };
    let is_head = request.method == Method::HEAD;
    let source = if is_bare { Source::None } else { Source::Http2(RequestBody::new(held.mux.clone(), held.id)) };
    let reply = {
        let early = Early::default();
        let mut work = std::pin::pin!(hop::exchange(station.clone(), client.clone(), request, source, alarm, &early));
        let reply = std::future::poll_fn(|cx| {
            if held.mux.borrow_mut().is_given_up(held.id, cx) {
                return Poll::Ready(None);
            }
            let reply = work.as_mut().poll(cx);
            for Answer { status, fields, .. } in early.take(&station) {
                held.mux.borrow_mut().write_head(held.id, false, |encoder, out| {
                    encoder.status(out, status);
                    encoder.fields(out, &fields);
                });
            }
            reply.map(Some)
        });
        reply.await
    };
    // Nothing changes its protocol on a stream: there is no tunnel.
    if let Some(reply) = reply {
        give(&client, &held, reply.answer, is_head).await;
    }
}

/// Writes an answer to its end, or gives it up with the stream.
async fn give(client: &Client, held: &Held, answer: Answer<AnswerBody>, is_head: bool) {
    let Answer { status, mut fields, mut body } = answer;
    let ends = is_head || body.is_ended();
    if !fields.has(Name::Date) {
        // RFC 9110 §6.6.1.
        fields.set(Name::Date, &write::date());
    }
    held.mux.borrow_mut().write_head(held.id, ends, |encoder, out| {
        encoder.status(out, status);
        encoder.fields(out, &fields);
    });
    drop(fields);
    if ends {
        return;
    }
    let (mut alarm, mut last) = (Alarm::default(), None);
    let mut is_read = false;
    std::future::poll_fn(|cx| {
        if held.mux.borrow_mut().is_given_up(held.id, cx) {
            return Poll::Ready(());
        }
        while !is_read {
            if held.mux.borrow_mut().poll_room(held.id, cx).is_pending() {
                return body.poll_blocked(cx);
            }
            match std::task::ready!(body.poll_frame(cx)) {
                Some(Ok(Frame::Data(data))) => {
                    is_read = body.is_ended();
                    held.mux.borrow_mut().send(held.id, data, is_read);
                }
                Some(Ok(Frame::Trailers(trailers))) => {
                    is_read = true;
                    held.mux.borrow_mut().finish(held.id, Some(trailers));
                }
                None => {
                    is_read = true;
                    held.mux.borrow_mut().finish(held.id, None);
                }
                // What came of it goes out before its end.
                Some(Err(_)) => return Poll::Ready(()),
            }
        }
        if held.mux.borrow_mut().poll_sent(held.id, cx).is_ready() {
            return Poll::Ready(());
        }
        let last = *last.get_or_insert_with(clock::now);
        alarm.poll(last + client.limits.body_idle, cx)
    })
    .await;
}
