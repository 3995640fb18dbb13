//! When a caller leaves an instance out.

use std::time::{Duration, Instant};

use rand::Rng;
use synego_model::{Eject, InstanceId};

use crate::record::{Ejection, Record};

/// How a request failed before the head of its answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made: the instance is left out at once.
    Connect,
    /// The connection ended.
    Reset,
    /// The time of the try was over.
    TimedOut,
    /// The head said that the service failed (status 5xx).
    Status,
    /// The instance refused because it is busy or ends: nobody's failure.
    Shed,
    /// The client went away: nobody's failure.
    Abandoned,
}

impl Failure {
    /// The word, for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::Reset => "upstream_reset",
            Self::TimedOut => "deadline_exceeded",
            Self::Status => "status_5xx",
            Self::Shed => "shed",
            Self::Abandoned => "abandoned",
        }
    }

    fn is_blamed(self) -> bool {
        !matches!(self, Self::Shed | Self::Abandoned)
    }
}

/// An instance that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    /// Which.
    pub id: InstanceId,
    /// The last failure.
    pub failure: Failure,
    /// How many in a row.
    pub failures: u32,
    /// For how long still.
    pub remaining: Duration,
}

/// Counts a failure of `record`; true when it shall be left out now.
pub(crate) fn count(record: &mut Record, failure: Failure, policy: &Eject) -> bool {
    if !failure.is_blamed() {
        return false;
    }
    record.failures = record.failures.saturating_add(1);
    failure == Failure::Connect || record.failures >= policy.failures
}

/// Leaves `record` out: `first` × how often in a row, at most `max`, less up to a fifth so that callers do not come back
/// all at once.
pub(crate) fn eject(
    record: &mut Record,
    failure: Failure,
    policy: &Eject,
    now: Instant,
    rng: &mut impl Rng,
) -> Ejected {
    record.times = record.times.saturating_add(1);
    let span = policy.first.saturating_mul(record.times).min(policy.max);
    let remaining = span.mul_f64(rng.random_range(0.8..=1.0));
    record.ejected = Some(Ejection { until: now + remaining, failure, failures: record.failures });
    Ejected { id: record.endpoint.id.clone(), failure, failures: record.failures, remaining }
}

/// Whether one more of `listed` instances may be left out when `out` are already and `usable` would stay usable.
pub(crate) fn may_eject(policy: &Eject, listed: usize, out: usize, usable: usize) -> bool {
    usable >= 1 && (out + 1) * 100 <= listed * policy.at_most_percent as usize
}
