//! The body of a request on its way in: streamed to the upstream, a bounded part kept for a further try.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use synego_runtime::clock;

use super::body::BodyError;
use crate::fields::Fields;
use crate::h1::pipe::Piped;
use crate::message::{Body, Frame, NextFrame};
use crate::spare::{Shelf, Spare};
use crate::{h1, h2};

/// After so much waiting for the client its body must come at the lowest rate allowed.
const RATE_AFTER: Duration = Duration::from_secs(10);

/// How long the rest of a refused request's body is read.
const DISCARD: Duration = Duration::from_secs(1);

/// How far the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The upstream wants more and the client does not send it.
    Waiting { since: Instant },
    /// The client could send, the upstream does not want.
    Flowing { last: Instant },
    /// All of it was taken.
    Ended { at: Instant },
}

/// Where the body of a request comes from.
pub(crate) enum Source {
    /// There is none.
    None,
    Http1(h1::server::RequestBody),
    Http2(h2::body::RequestBody),
}

impl Body for Source {
    type Error = BodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        match self {
            Self::None => Poll::Ready(None),
            Self::Http1(body) => body.poll_frame(cx).map_err(|error| match error {
                h1::Error::Fault(fault) => BodyError::Unreadable(fault),
                error => BodyError::Client(error.into()),
            }),
            Self::Http2(body) => body.poll_frame(cx).map_err(|error| BodyError::Client(error.into())),
        }
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        match self {
            Self::Http1(body) => body.piped(cx),
            Self::None | Self::Http2(_) => None,
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(body) => body.is_ended(),
            Self::Http2(body) => body.is_ended(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Http1(body) => body.length(),
            Self::Http2(body) => body.length(),
        }
    }
}

thread_local! {
    static SPARE: Spare<Rc<RefCell<Inner>>, 64> = const { Spare::new() };
}

/// The body of a request, shared by the tries that send it.
#[derive(Clone)]
pub(crate) struct Intake(Rc<RefCell<Inner>>);

impl Drop for Intake {
    /// The last one leaves its room to another request, and keeps nothing of its own.
    fn drop(&mut self) {
        if Rc::strong_count(&self.0) > 1 {
            return;
        }
        {
            let mut inner = self.0.borrow_mut();
            inner.body = Source::None;
            inner.kept.clear();
            inner.trailers = None;
        }
        SPARE.keep(self.0.clone());
    }
}

struct Inner {
    body: Source,
    /// What was read and may be wanted again; with `keeps` all of it.
    kept: VecDeque<Bytes>,
    kept_bytes: u64,
    keeps: bool,
    limit: u64,
    trailers: Option<Fields>,
    /// The try that reads; older ones read nothing any more.
    reader: u32,
    /// How many of `kept` that try has read.
    read: usize,
    length: Option<u64>,
    bytes: u64,
    started: bool,
    last: Instant,
    waiting_since: Option<Instant>,
    waited: Duration,
    ended: bool,
    /// The client broke it off.
    broken: bool,
    lowest_rate: u64,
}

impl Intake {
    /// - `limit`: bytes kept for a further try.
    /// - `lowest_rate`: bytes a second, once the client was waited for long enough; 0: none.
    pub(crate) fn new(body: Source, limit: u64, lowest_rate: u64, now: Instant) -> Self {
        let ended = body.is_ended();
        let length = if ended { Some(0) } else { body.length() };
        let spare = SPARE.take();
        let kept = spare.as_ref().map(|spare| std::mem::take(&mut spare.borrow_mut().kept)).unwrap_or_default();
        let inner = Inner {
            body,
            kept,
            kept_bytes: 0,
            keeps: true,
            limit,
            trailers: None,
            reader: 0,
            read: 0,
            length,
            bytes: 0,
            started: false,
            last: now,
            waiting_since: None,
            waited: Duration::ZERO,
            ended,
            broken: false,
            lowest_rate,
        };
        match spare {
            Some(spare) => {
                *spare.borrow_mut() = inner;
                Self(spare)
            }
            None => Self(Rc::new(RefCell::new(inner))),
        }
    }

    /// The body for the next try.
    pub(crate) fn next_try(&self) -> TryBody {
        let mut inner = self.0.borrow_mut();
        inner.reader += 1;
        inner.read = 0;
        let reader = inner.reader;
        let is_empty = inner.length == Some(0);
        TryBody { intake: (!is_empty).then(|| self.clone()), reader }
    }

    /// Whether a further try would send the same body.
    pub(crate) fn can_repeat(&self) -> bool {
        let inner = self.0.borrow();
        inner.keeps || !inner.started
    }

    /// No further try comes: nothing more is kept.
    pub(crate) fn settle(&self) {
        let mut inner = self.0.borrow_mut();
        inner.keeps = false;
        inner.drop_read();
    }

    /// Reads what is left and forgets it, at most `limit` bytes and [`DISCARD`] long: a client that still writes while
    /// its connection is closed may never see the answer.
    pub(crate) async fn discard(&self, limit: u64) {
        self.settle();
        let mut rest = self.next_try();
        let end = self.bytes() + limit;
        let all = std::future::poll_fn(|cx| {
            loop {
                match ready!(rest.poll_frame(cx)) {
                    Some(Ok(_)) if self.bytes() < end => {}
                    _ => return Poll::Ready(()),
                }
            }
        });
        let _ = tokio::time::timeout(DISCARD, all).await;
    }

    /// Bytes taken from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    pub(crate) fn progress(&self) -> Progress {
        let inner = self.0.borrow();
        match inner.waiting_since {
            _ if inner.ended => Progress::Ended { at: inner.last },
            Some(since) => Progress::Waiting { since },
            None => Progress::Flowing { last: inner.last },
        }
    }

    /// Whether the client broke it off: nobody waits for an answer any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.0.borrow().broken
    }

    /// When something last came from the client.
    pub(crate) fn last(&self) -> Instant {
        self.0.borrow().last
    }

    /// Whether the client was waited for long and sent less than the lowest rate.
    pub(crate) fn is_too_slow(&self, now: Instant) -> bool {
        let inner = self.0.borrow();
        let waited = inner.waited + inner.waiting_since.map_or(Duration::ZERO, |since| now.duration_since(since));
        !inner.ended && waited > RATE_AFTER && inner.bytes < inner.lowest_rate.saturating_mul(waited.as_secs())
    }
}

impl Inner {
    fn drop_read(&mut self) {
        let read = self.read.min(self.kept.len());
        self.kept.drain(..read);
        self.read = 0;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        if let Some(kept) = self.kept.get(self.read).cloned() {
            self.read += 1;
            if !self.keeps {
                self.drop_read();
            }
            return Poll::Ready(Some(Ok(Frame::Data(kept))));
        }
        if self.ended {
            let trailers = if self.keeps { self.trailers.clone() } else { self.trailers.take() };
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::Trailers(trailers))));
        }
        self.started = true;
        let polled = self.body.poll_frame(cx);
        let Poll::Ready(frame) = polled else {
            self.waiting_since.get_or_insert_with(clock::now);
            return Poll::Pending;
        };
        self.came();
        match frame {
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.ended = true;
                self.broken = matches!(error, BodyError::Client(_));
                self.keeps = false;
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(frame)) => {
                self.note(&frame);
                self.ended |= self.body.is_ended();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    /// A part that needs not be kept.
    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        if self.keeps || self.ended || !self.kept.is_empty() {
            return None;
        }
        let piped = self.body.piped(cx)?;
        self.came();
        self.bytes += piped.len() as u64;
        self.ended |= self.body.is_ended();
        Some(piped)
    }

    /// The client has sent something.
    fn came(&mut self) {
        self.last = clock::now();
        if let Some(since) = self.waiting_since.take() {
            self.waited += self.last.duration_since(since);
        }
    }

    /// Counts a frame, and keeps it while there is room.
    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Data(data) => {
                self.bytes += data.len() as u64;
                self.kept_bytes += data.len() as u64;
                if self.keeps && self.kept_bytes <= self.limit {
                    self.kept.push_back(data.clone());
                    self.read += 1;
                } else if self.keeps {
                    self.keeps = false;
                    self.kept.clear();
                    self.read = 0;
                }
            }
            Frame::Trailers(trailers) => {
                self.ended = true;
                self.trailers = self.keeps.then(|| trailers.clone());
            }
        }
    }
}

/// The body of one try.
pub(crate) struct TryBody {
    /// `None`: the request has no body.
    intake: Option<Intake>,
    reader: u32,
}

impl Body for TryBody {
    type Error = BodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        let Some(intake) = &self.intake else { return Poll::Ready(None) };
        let mut inner = intake.0.borrow_mut();
        if inner.reader != self.reader {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        inner.poll(cx)
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        let mut inner = self.intake.as_ref()?.0.borrow_mut();
        if inner.reader == self.reader { inner.piped(cx) } else { None }
    }

    fn is_ended(&self) -> bool {
        self.intake.as_ref().is_none_or(|intake| {
            let inner = intake.0.borrow();
            inner.ended && inner.read >= inner.kept.len() && inner.trailers.is_none()
        })
    }

    fn length(&self) -> Option<u64> {
        match &self.intake {
            None => Some(0),
            Some(intake) => intake.0.borrow().length,
        }
    }
}
