//! The body of an answer on its way out: streamed from the upstream, with limits on silence, to its last frame.
//!
//! It holds all that lasts as long as the answer: the connection (in the upstream's body), the count of requests in
//! flight, the record of the exchange. Dropping it ends them, whether the client read all of it or went away.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use synego_model::{Limits, Policy, Reason};
use synego_runtime::clock;
use tokio::time::Sleep;

use super::answer;
use super::deadline::{self, Deadline};
use super::headers;
use super::intake::Intake;
use super::leave::Leave;
use super::record::Exchange;
use crate::h1::Fault;
use crate::h1::pipe::Piped;
use crate::message::{Body, Frame, NextFrame};
use crate::pool::Received;
use crate::spare::{Shelf, Spare};
use crate::upstreams::Flight;

/// What a protocol says of its failure.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke off the body of its request.
    #[error("the client's body broke off")]
    Client(#[source] Cause),
    /// The body of a request breaks the rules.
    #[error("{0}")]
    Unreadable(Fault),
    /// The upstream broke off the body of its answer.
    #[error("the upstream's body broke off")]
    Upstream(#[source] Cause),
    /// A later try reads the body now.
    #[error("the try was given up")]
    Superseded,
    /// Nothing moved for too long.
    #[error("the stream was silent for {0:?}")]
    Silent(Duration),
}

thread_local! {
    static SPARE: Spare<Box<Option<Relayed>>, 64> = const { Spare::new() };
}

/// The body of an answer.
pub(crate) struct AnswerBody(Kind);

enum Kind {
    Empty,
    Full(Option<Bytes>),
    /// In a box that may have been used before.
    Relayed(Box<Option<Relayed>>),
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Kind::Relayed(mut place) = std::mem::replace(&mut self.0, Kind::Empty) {
            *place = None;
            SPARE.keep(place);
        }
    }
}

/// An answer that comes from an upstream.
pub(crate) struct Relayed {
    upstream: Received,
    flight: Option<Flight>,
    intake: Intake,
    exchange: Exchange,
    /// How long nothing may move in either direction.
    silence: Duration,
    /// When a call of gRPC is over.
    ends: Option<Instant>,
    is_grpc: bool,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Ends it when the process it comes of does.
    leave: Option<Leave>,
    ended: bool,
}

impl AnswerBody {
    pub(crate) fn empty() -> Self {
        Self(Kind::Empty)
    }

    pub(crate) fn full(text: Bytes) -> Self {
        Self(Kind::Full(Some(text)))
    }

    pub(crate) fn relayed(body: Relayed) -> Self {
        let mut place = SPARE.take().unwrap_or_default();
        *place = Some(body);
        Self(Kind::Relayed(place))
    }
}

/// What limits an answer beside its bytes.
pub(crate) struct Bounds {
    pub(crate) silence: Duration,
    pub(crate) ends: Option<Instant>,
    pub(crate) is_grpc: bool,
}

impl Bounds {
    /// A body of known length may be silent as long as any body; a stream as long as its policy says.
    pub(crate) fn of(is_grpc: bool, has_length: bool, policy: &Policy, limits: &Limits, deadline: &Deadline) -> Self {
        let silence = if has_length && !is_grpc { limits.body_idle } else { policy.idle };
        Self { silence, ends: deadline.of_stream(), is_grpc }
    }
}

impl Relayed {
    pub(crate) fn new(
        upstream: Received,
        flight: Option<Flight>,
        intake: Intake,
        exchange: Exchange,
        bounds: Bounds,
        now: Instant,
        leave: Option<Leave>,
    ) -> Self {
        let Bounds { silence, ends, is_grpc } = bounds;
        let (timer, ended) = (None, false);
        let mut relayed =
            Self { upstream, flight, intake, exchange, silence, ends, is_grpc, last: now, timer, leave, ended };
        if relayed.upstream.is_ended() {
            relayed.finish(true);
        }
        relayed
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.upstream.poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                self.last = clock::now();
                self.note(&mut frame);
                if self.upstream.is_ended() {
                    self.finish(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let was_its_time = deadline::was_its_time(self.ends, clock::now());
                let reason = if was_its_time { Reason::DeadlineExceeded } else { Reason::UpstreamReset };
                Poll::Ready(Some(self.break_off(reason, error)))
            }
            Poll::Ready(None) => {
                self.last = clock::now();
                self.finish(true);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let (reason, limit) = ready!(self.poll_limits(cx));
                if reason == Reason::Draining && self.leave.as_ref().is_some_and(|leave| leave.is_events) {
                    // Its client comes back by itself, and is told nothing but that it is over.
                    self.finish(true);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(self.break_off(reason, BodyError::Silent(limit))))
            }
        }
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        // One that may have to leave is read, for its events.
        if self.ended || self.leave.is_some() {
            return None;
        }
        let piped = self.upstream.piped(cx)?;
        self.last = clock::now();
        self.exchange.sent(piped.len());
        if self.upstream.is_ended() {
            self.finish(true);
        }
        Some(piped)
    }

    /// The last of an answer that does not come to its end.
    fn break_off(&mut self, reason: Reason, error: BodyError) -> Result<Frame, BodyError> {
        self.exchange.failed(reason);
        let last = if self.is_grpc {
            // The head has gone out, but a call of gRPC can still be told why it ends.
            self.exchange.set_grpc_status(reason.code() as u16);
            Ok(Frame::Trailers(answer::grpc_trailers(reason, reason.meaning())))
        } else {
            Err(error)
        };
        self.finish(false);
        last
    }

    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.upstream.pump(cx);
        let (reason, _) = ready!(self.poll_limits(cx));
        self.exchange.failed(reason);
        self.finish(false);
        Poll::Ready(())
    }

    /// Ready when the answer must end: what for, and the limit of silence.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<(Reason, Duration)> {
        loop {
            let now = clock::now();
            let silent = self.last.max(self.intake.last()) + self.silence;
            let ends = self.ends.filter(|end| *end < silent);
            let next = ends.unwrap_or(silent);
            if next <= now {
                let reason = if ends.is_some() { Reason::DeadlineExceeded } else { Reason::IdleTimeout };
                return Poll::Ready((reason, self.silence));
            }
            let mut look = None;
            if let Some(leave) = &mut self.leave {
                if leave.poll(cx, now).is_ready() {
                    return Poll::Ready((Reason::Draining, self.silence));
                }
                look = leave.look(now);
            }
            let next = look.map_or(next, |look| look.min(next));
            // An armed timer that is early is left alone: it fires, and this looks again.
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next.into())));
            if timer.deadline().into_std() > next || timer.is_elapsed() {
                timer.as_mut().reset(next.into());
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    fn note(&mut self, frame: &mut Frame) {
        match frame {
            Frame::Data(data) => {
                self.exchange.sent(data.len());
                if let Some(leave) = &mut self.leave {
                    leave.pass(data);
                }
            }
            Frame::Trailers(trailers) => {
                self.exchange.clear_answer(trailers);
                if let Some(reason) = headers::reason(trailers) {
                    self.exchange.failed(reason);
                }
                if let Some(status) = answer::grpc_status(trailers) {
                    self.exchange.set_grpc_status(status);
                }
            }
        }
    }

    fn finish(&mut self, complete: bool) {
        self.ended = true;
        self.timer = None;
        self.flight = None;
        // What ends an answer well came just now.
        if complete { self.exchange.finish_at(true, self.last) } else { self.exchange.finish(false) }
    }
}

impl AnswerBody {
    /// While the client takes nothing more: the request still flows, and the limits hold. Ready when the answer must end.
    pub(crate) fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Kind::Relayed(relayed) => match &mut **relayed {
                Some(relayed) if !relayed.ended => relayed.poll_blocked(cx),
                _ => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}

impl Body for AnswerBody {
    type Error = BodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(text) => Poll::Ready(text.take().map(|text| Ok(Frame::Data(text)))),
            Kind::Relayed(relayed) => relayed.as_mut().as_mut().map_or(Poll::Ready(None), |relayed| relayed.poll(cx)),
        }
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        match &mut self.0 {
            Kind::Empty | Kind::Full(_) => None,
            Kind::Relayed(relayed) => relayed.as_mut().as_mut()?.piped(cx),
        }
    }

    fn is_ended(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(text) => text.is_none(),
            Kind::Relayed(relayed) => relayed.as_ref().as_ref().is_none_or(|relayed| relayed.ended),
        }
    }

    fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Full(text) => Some(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Relayed(relayed) => relayed.as_ref().as_ref().and_then(|relayed| relayed.upstream.length()),
        }
    }
}
