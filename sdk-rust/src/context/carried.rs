//! What a request hands on to the calls it causes: id, trace, baggage, deadline and priority.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::deadline::{self, Transport};
use super::trace::Trace;

pub(crate) const REQUEST_ID: &str = "x-request-id";
pub(crate) const CALLER: &str = "x-synego-caller";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";
const PRIORITY: &str = "x-synego-priority";

/// How much a request matters when not all can be served; the greater is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// May wait or fail: batch work.
    Background,
    /// What a request is unless it says otherwise.
    Normal,
    /// Served as long as anything is.
    Critical,
}

impl Priority {
    /// The word, as it stands in the header.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Normal => "normal",
            Self::Critical => "critical",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Background, Self::Normal, Self::Critical].into_iter().find(|priority| priority.word() == word)
    }
}

/// The part of a context that travels.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    pub(crate) request_id: Option<String>,
    pub(crate) trace: Trace,
    tracestate: Option<HeaderValue>,
    pub(crate) baggage: Option<HeaderValue>,
    pub(crate) deadline: Option<Instant>,
    priority: Option<Priority>,
}

impl Carried {
    /// Reads the headers of a request that came at `arrived`.
    pub(crate) fn read(headers: &HeaderMap, arrived: Instant) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let trace = text(TRACEPARENT).and_then(Trace::parse);
        Self {
            request_id: text(REQUEST_ID).and_then(request_id),
            tracestate: trace.and_then(|_| headers.get(TRACESTATE).cloned()),
            trace: trace.unwrap_or_else(Trace::begin),
            baggage: headers.get(BAGGAGE).cloned(),
            deadline: deadline::read(headers).map(|left| arrived + left),
            priority: text(PRIORITY).and_then(Priority::from_word),
        }
    }

    /// What a call outside of any request carries: a trace of its own.
    pub(crate) fn begin() -> Self {
        Self {
            request_id: None,
            trace: Trace::begin(),
            tracestate: None,
            baggage: None,
            deadline: None,
            priority: None,
        }
    }

    pub(crate) fn priority(&self) -> Priority {
        self.priority.unwrap_or(Priority::Normal)
    }

    /// Time left for a call that has `limit` of its own; `None`: no limit, zero: it is over.
    pub(crate) fn left(&self, now: Instant, limit: Option<Duration>) -> Option<Duration> {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
        match (left, limit) {
            (Some(left), Some(limit)) => Some(left.min(limit)),
            (left, limit) => left.or(limit),
        }
    }

    /// The priority that a call says: what was asked, but never above the request's; `None`: nothing is said.
    pub(crate) fn call_priority(&self, asked: Option<Priority>) -> Option<Priority> {
        match asked {
            Some(asked) if asked < self.priority() => Some(asked),
            _ => self.priority,
        }
    }

    /// Sets the headers of a call, replacing what the caller set under these names.
    pub(crate) fn write(
        &self,
        headers: &mut HeaderMap,
        transport: Transport,
        left: Option<Duration>,
        asked: Option<Priority>,
    ) {
        let visible = |text: &str| HeaderValue::from_str(text).ok();
        set(headers, REQUEST_ID, self.request_id.as_deref().and_then(visible));
        set(headers, TRACEPARENT, visible(&self.trace.call()));
        set(headers, TRACESTATE, self.tracestate.clone());
        set(headers, BAGGAGE, self.baggage.clone());
        set(headers, PRIORITY, self.call_priority(asked).map(|priority| HeaderValue::from_static(priority.word())));
        deadline::write(left, transport, headers);
    }
}

/// Outside of a request what the caller set itself stays: there is nothing to replace it with.
fn set(headers: &mut HeaderMap, name: &'static str, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A request id is at most 128 visible ASCII characters; anything else is none.
pub(crate) fn request_id(value: &str) -> Option<String> {
    let is_sound = (1..=128).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
    is_sound.then(|| value.to_owned())
}
