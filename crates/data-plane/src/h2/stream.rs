//! One request and its answer, as the connection and whoever drives the stream both see it.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::StatusCode;

use super::head::Gathered;
use super::{Code, Error};
use crate::fields::Fields;
use crate::message::Answer;

/// Interim answers (1xx) before the one that counts.
const MAX_INTERIM: u32 = 10;

/// How far what comes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiving {
    Open,
    Ended,
    Failed(Error),
}

/// How far what goes is; what waits for its windows comes first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    Open,
    /// Its end goes with the last of what waits.
    End,
    Trailers(Fields),
    Done,
}

/// Parts of a body in their order: mostly there is one at most, which needs no memory of its own.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
}

impl Parts {
    pub(super) fn push(&mut self, part: Bytes) {
        match &self.first {
            None => self.first = Some(part),
            Some(_) => self.rest.push_back(part),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let part = self.first.take();
        if part.is_some() {
            self.first = self.rest.pop_front();
        }
        part
    }

    pub(super) fn first(&mut self) -> Option<&mut Bytes> {
        self.first.as_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.first.iter().chain(&self.rest).map(Bytes::len).sum()
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) receiving: Receiving,
    /// The head of an answer, until it is taken.
    pub(super) answer: Option<Answer>,
    /// Whether the head has come.
    pub(super) has_head: bool,
    /// Interim answers so far, and those that nobody has taken yet.
    pub(super) interim: u32,
    pub(super) early: Vec<Answer>,
    pub(super) data: Parts,
    pub(super) trailers: Option<Fields>,
    /// Bytes of the body that are still to come, where its length was told.
    pub(super) expected: Option<u64>,
    /// What the other side may still send, and what was read and not given back.
    pub(super) window: i64,
    pub(super) taken: u32,

    pub(super) sending: Sending,
    pub(super) waiting: Parts,
    pub(super) waiting_bytes: usize,
    pub(super) send_window: i64,
    /// Whether it stands in line.
    pub(super) is_queued: bool,
    /// Whether it is an answer to `HEAD`, whose length says nothing of its body.
    pub(super) is_head: bool,
    /// The place of its head among all bytes of the connection.
    pub(super) begins_at: u64,

    /// Who drives it.
    pub(super) waker: Option<Waker>,
    /// Whether anyone was at work on it.
    pub(super) is_seen: bool,
    /// Whether nothing more goes in either direction, because one side gave it up.
    pub(super) is_gone: bool,
}

impl Stream {
    pub(super) fn new(window: i64, send_window: i64) -> Self {
        Self {
            receiving: Receiving::Open,
            answer: None,
            has_head: false,
            interim: 0,
            early: Vec::new(),
            data: Parts::default(),
            trailers: None,
            expected: None,
            window,
            taken: 0,
            sending: Sending::Open,
            waiting: Parts::default(),
            waiting_bytes: 0,
            send_window,
            is_queued: false,
            is_head: false,
            begins_at: 0,
            waker: None,
            is_seen: false,
            is_gone: false,
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn note(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// A part of the body came.
    ///
    /// # Errors
    /// The code, when it is more than was told, or nothing was to come.
    pub(super) fn take(&mut self, data: Bytes) -> Result<(), Code> {
        match self.receiving {
            Receiving::Open if self.has_head => {}
            Receiving::Open => return Err(Code::PROTOCOL_ERROR),
            Receiving::Ended | Receiving::Failed(_) => return Err(Code::STREAM_CLOSED),
        }
        if let Some(expected) = &mut self.expected {
            *expected = expected.checked_sub(data.len() as u64).ok_or(Code::PROTOCOL_ERROR)?;
        }
        if !data.is_empty() {
            self.data.push(data);
        }
        Ok(())
    }

    /// The end came.
    ///
    /// # Errors
    /// The code, when less came than was told.
    pub(super) fn end(&mut self) -> Result<(), Code> {
        if self.expected.is_some_and(|left| left > 0) {
            return Err(Code::PROTOCOL_ERROR);
        }
        self.receiving = Receiving::Ended;
        Ok(())
    }

    /// The head of an answer came, or an interim one.
    pub(super) fn answered(&mut self, fields: Gathered, ends: bool) -> Result<(), Code> {
        let (answer, length) = fields.answer().map_err(|_| Code::PROTOCOL_ERROR)?;
        let status = answer.status;
        if status.is_informational() {
            self.interim += 1;
            let is_sound = !ends && self.interim <= MAX_INTERIM && status != StatusCode::SWITCHING_PROTOCOLS;
            if !is_sound {
                return Err(Code::PROTOCOL_ERROR);
            }
            self.early.push(answer);
            return Ok(());
        }
        self.has_head = true;
        let is_bare = self.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.expected = if is_bare { None } else { length };
        if ends {
            self.end()?;
        }
        self.answer = Some(answer);
        Ok(())
    }

    /// What stands behind a body came: nothing follows it.
    pub(super) fn trailers(&mut self, fields: Gathered, ends: bool) -> Result<(), Code> {
        if self.receiving != Receiving::Open {
            return Err(Code::STREAM_CLOSED);
        }
        if !ends {
            return Err(Code::PROTOCOL_ERROR);
        }
        let trailers = fields.trailers().map_err(|_| Code::PROTOCOL_ERROR)?;
        self.end()?;
        self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        Ok(())
    }

    /// It is over; what came whole can still be read.
    pub(super) fn fail(&mut self, error: Error) {
        if self.receiving == Receiving::Open {
            self.receiving = Receiving::Failed(error);
        }
        self.sending = Sending::Done;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.wake();
    }

    /// Bytes that were never read.
    pub(super) fn unread(&self) -> usize {
        self.data.bytes()
    }
}
