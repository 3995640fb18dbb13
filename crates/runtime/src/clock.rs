//! The one place that reads clocks: monotonic time for timers, wall time for stamps.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::Date};
use pin_project_lite::pin_project;

thread_local! {
    /// The time of the step that this thread is taking.
    static STEP: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Now, on the clock that never goes back. Under tokio's paused test clock it is that clock's time; within a step of a
/// task (see [`in_steps`]) it is the time at which the step began.
#[must_use]
pub fn now() -> Instant {
    STEP.get().unwrap_or_else(read)
}

#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn read() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Reads the clock once for each wake-up of `task`, however often the task asks for the time: where the machine is a
/// virtual one, reading it may cost as much as parsing a small head.
pub fn in_steps<F: Future>(task: F) -> InSteps<F> {
    InSteps { task }
}

pin_project! {
    /// A task for which time stands still while it takes a step.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct InSteps<F> {
        #[pin]
        task: F,
    }
}

impl<F: Future> Future for InSteps<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _step = Step(STEP.replace(Some(read())));
        self.project().task.poll(cx)
    }
}

/// Ends a step, also when its task panics: the time before it, where one step is taken within another.
struct Step(Option<Instant>);

impl Drop for Step {
    fn drop(&mut self) {
        STEP.set(self.0);
    }
}

/// Wall time in milliseconds since 1970-01-01 UTC; for stamps, never for timers.
#[must_use]
pub fn unix_ms() -> u64 {
    unix_us() / 1000
}

/// Wall time in microseconds since 1970-01-01 UTC; for stamps, never for timers.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A stamp as text: RFC 3339, UTC, with milliseconds, such as `2026-03-01T09:05:00.042Z`.
///
/// - `unix_ms`: milliseconds since 1970-01-01 UTC; what lies past the year 9999 is written as its end.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    format!("{:.3}", timestamp(unix_ms))
}

/// The time of day of a stamp in the machine's time zone, such as `14:03:07.123`: for people at a terminal.
#[must_use]
pub fn time_of_day(unix_ms: u64) -> String {
    timestamp(unix_ms).to_zoned(zone()).strftime("%H:%M:%S%.3f").to_string()
}

/// The date of a stamp in the machine's time zone: log files are named after it.
#[must_use]
pub fn local_date(unix_ms: u64) -> Date {
    timestamp(unix_ms).to_zoned(zone()).date()
}

/// Milliseconds since 1970-01-01 UTC of an RFC 3339 text; `None` when it is none or lies before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    text.parse::<Timestamp>().ok().and_then(|time| u64::try_from(time.as_millisecond()).ok())
}

fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn zone() -> TimeZone {
    TimeZone::system()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_written_in_utc_with_milliseconds_and_read_back() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_772_355_900_042), "2026-03-01T09:05:00.042Z");
        assert_eq!(parse_rfc3339("2026-03-01T09:05:00.042Z"), Some(1_772_355_900_042));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn time_stands_still_within_a_step_and_goes_on_with_the_next() {
        let spin = || {
            let until = read() + std::time::Duration::from_millis(2);
            while read() < until {}
        };
        let (first, second, third) = in_steps(async {
            let first = now();
            spin();
            let second = now();
            tokio::task::yield_now().await;
            (first, second, now())
        })
        .await;
        assert_eq!(first, second);
        assert!(third >= first + std::time::Duration::from_millis(2));
        let after = now();
        spin();
        assert!(now() > after, "outside of steps the clock is read each time");
    }

    #[test]
    fn a_stamp_past_the_calendar_is_written_as_its_end() {
        assert!(rfc3339(u64::MAX).starts_with("9999-12-3"));
    }

    #[test]
    fn both_stamps_are_of_the_same_clock() {
        let (us, ms) = (unix_us(), unix_ms());
        assert!(ms >= us / 1000 && ms - us / 1000 < 10_000);
    }
}
