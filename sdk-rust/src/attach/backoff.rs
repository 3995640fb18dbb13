//! What follows when the link ends, and how long to wait before it is opened again.

use std::time::Duration;

use rand::Rng;
use tonic::Code;

const FIRST_MS: u64 = 50;
const MAX_MS: u64 = 1000;

/// What follows when an attachment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another one after a delay.
    Wait,
    /// Another one at once: a successor of the sidecar is there already.
    Now,
    /// None: the sidecar said that it never will work.
    Refused,
}

/// What follows a status of the stream.
pub(crate) fn after_status(code: Code) -> Next {
    match code {
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => Next::Refused,
        _ => Next::Wait,
    }
}

/// Bounds of the wait before the next attempt, after `attempt` in a row that failed; milliseconds.
pub(crate) fn bounds(attempt: u32) -> (u64, u64) {
    let doubled = FIRST_MS.checked_shl(attempt.saturating_sub(1).min(16)).unwrap_or(MAX_MS);
    let middle = doubled.min(MAX_MS);
    (middle * 8 / 10, middle * 12 / 10)
}

/// A wait between the bounds, so that services do not come back in step.
pub(super) fn delay(attempt: u32) -> Duration {
    let (min, max) = bounds(attempt);
    Duration::from_millis(rand::rng().random_range(min..=max))
}
