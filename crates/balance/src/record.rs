//! What a caller remembers of one instance.

use std::time::{Duration, Instant};

use synego_model::Endpoint;

use crate::eject::Failure;
use crate::ewma::PeakEwma;

/// A handle of one instance within one [`Balancer`](crate::Balancer); stale ones are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// What a caller remembers of one instance.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) endpoint: Endpoint,
    pub(crate) generation: u32,
    /// Still part of the table; a record outlives it while requests are in flight.
    pub(crate) listed: bool,
    pub(crate) response_time: PeakEwma,
    pub(crate) in_flight: u32,
    /// Those of them that are streams: they weigh in a choice, and take no place.
    pub(crate) streams: u32,
    /// Requests in flight whose head has not come.
    pub(crate) waiting: u32,
    /// Since when nothing was heard though something waits.
    pub(crate) silent_since: Option<Instant>,
    pub(crate) failures: u32,
    pub(crate) ejected: Option<Ejection>,
    /// How often it was left out in a row.
    pub(crate) times: u32,
    /// When this caller first could use it at full share; `None`: at once.
    pub(crate) slow_until: Option<(Instant, Duration)>,
}

/// Until when an instance is left out, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ejection {
    pub(crate) until: Instant,
    pub(crate) failure: Failure,
    pub(crate) failures: u32,
}

impl Record {
    pub(crate) fn new(endpoint: Endpoint, generation: u32) -> Self {
        Self {
            endpoint,
            generation,
            listed: true,
            response_time: PeakEwma::default(),
            in_flight: 0,
            streams: 0,
            waiting: 0,
            silent_since: None,
            failures: 0,
            ejected: None,
            times: 0,
            slow_until: None,
        }
    }

    /// Forgets what was seen of a former process: it is another one now.
    pub(crate) fn renew(&mut self) {
        self.response_time = PeakEwma::default();
        self.failures = 0;
        self.ejected = None;
        self.times = 0;
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected.is_some_and(|ejection| now < ejection.until)
    }

    /// Response time in seconds; at least as long as it has been silent while something waits, so that an instance that
    /// stopped answering looks slower with every moment.
    pub(crate) fn seconds(&self, now: Instant) -> Option<f64> {
        let measured = self.response_time.value(now);
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since).as_secs_f64());
        match (measured, silent) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        }
    }

    /// Share of its full weight that it may get now: 0.1 to 1.
    pub(crate) fn warmth(&self, now: Instant) -> f64 {
        match self.slow_until {
            Some((until, window)) if now < until => {
                let left = until.saturating_duration_since(now).as_secs_f64() / window.as_secs_f64();
                (1.0 - left).clamp(0.1, 1.0)
            }
            _ => 1.0,
        }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        self.silent_since = (self.waiting > 0).then_some(now);
    }
}
