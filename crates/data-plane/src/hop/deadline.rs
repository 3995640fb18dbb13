//! Deadlines: what the caller gives, what policy gives, and what is left for the next hop. They only ever shrink.
//!
//! The clock of a request that is no stream starts when its body has been taken: an upload has progress limits, never a
//! total one. gRPC is different: its calls cannot be told from streams, so only a deadline that the caller gives limits
//! them as a whole, and then strictly; without one their silence is limited.

use std::time::{Duration, Instant};

use synego_model::{Limits, Policy};

use super::intake::Progress;
use crate::fields::{Fields, Name, Names};

/// Times that a caller gives.
const TIMES: Names = Names::of(&[Name::ConnectTimeout, Name::GrpcTimeout, Name::Timeout]);
/// How much earlier than here a service may see the same time run out: timers are rounded.
const ROUNDED: Duration = Duration::from_millis(5);
/// The longest time that a caller can give in milliseconds.
const MAX_MS: u64 = 86_400_000;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// The request as a whole.
    Total,
    /// This try; another may still fit.
    Try,
    /// The client does not go on sending its body.
    ClientSilent,
    /// Nothing moved in either direction for as long as a stream may be silent.
    Idle,
}

/// The limits of one request.
#[derive(Debug, Clone)]
pub(crate) struct Deadline {
    started: Instant,
    total: Option<Duration>,
    one_try: Option<Duration>,
    is_grpc: bool,
    idle: Duration,
    body_idle: Duration,
    write_stall: Duration,
}

impl Deadline {
    /// The limits of a request that began at `started`; `has_try`: whether single tries are limited too.
    pub(crate) fn of(
        fields: &Fields,
        is_grpc: bool,
        has_try: bool,
        policy: &Policy,
        limits: &Limits,
        started: Instant,
    ) -> Self {
        let given = given(fields);
        let total = if is_grpc { given } else { Some(given.map_or(policy.timeout, |given| given.min(policy.timeout))) };
        Self {
            started,
            total,
            one_try: (has_try && !is_grpc).then_some(policy.try_timeout),
            is_grpc,
            idle: policy.idle,
            body_idle: limits.body_idle,
            write_stall: limits.write_stall,
        }
    }

    /// When to look again whether a limit is reached. While the body still comes its end may set nearer ones than those
    /// that hold now, but none before they have passed from now on.
    pub(crate) fn look(&self, try_started: Instant, progress: Progress, now: Instant) -> Instant {
        let (when, _) = self.next(try_started, progress);
        match progress {
            Progress::Ended { .. } => when,
            _ => [self.total, self.one_try].into_iter().flatten().map(|limit| now + limit).fold(when, Instant::min),
        }
    }

    /// When the next limit is reached if nothing moves, and which.
    pub(crate) fn next(&self, try_started: Instant, progress: Progress) -> (Instant, Lapse) {
        let mut nearest = match progress {
            Progress::Waiting { since } if self.is_grpc => (since + self.idle, Lapse::Idle),
            Progress::Waiting { since } => (since + self.body_idle, Lapse::ClientSilent),
            Progress::Flowing { last } if self.is_grpc => (last.max(try_started) + self.idle, Lapse::Idle),
            Progress::Flowing { last } => {
                let stall = self.one_try.map_or(self.write_stall, |limit| limit.min(self.write_stall));
                (last.max(try_started) + stall, Lapse::Try)
            }
            Progress::Ended { at } => match self.one_try {
                Some(limit) => (at.max(try_started) + limit, Lapse::Try),
                None => (at.max(try_started) + self.idle, Lapse::Idle),
            },
        };
        if let Some(total) = self.ends(progress)
            && total <= nearest.0
        {
            nearest = (total, Lapse::Total);
        }
        nearest
    }

    /// When the request as a whole is over; `None`: no such limit, or its clock has not started.
    pub(crate) fn ends(&self, progress: Progress) -> Option<Instant> {
        let total = self.total?;
        match progress {
            _ if self.is_grpc => Some(self.started + total),
            Progress::Ended { at } => Some(at.max(self.started) + total),
            _ => None,
        }
    }

    /// What limits the answer of gRPC as a whole.
    pub(crate) fn of_stream(&self) -> Option<Instant> {
        self.total.filter(|_| self.is_grpc).map(|total| self.started + total)
    }

    /// Tells the next hop what is left.
    pub(crate) fn write(&self, fields: &mut Fields, now: Instant, progress: Progress) {
        fields.remove(Name::ConnectTimeout);
        let Some(total) = self.total else { return };
        let left = self.ends(progress).map_or(total, |end| end.saturating_duration_since(now));
        let ms = (left.as_millis() as u64).clamp(1, MAX_MS);
        fields.set_number(Name::Timeout, ms);
        if self.is_grpc {
            fields.set(Name::GrpcTimeout, grpc_timeout(left).as_bytes());
        }
    }
}

/// Whether an answer that broke off at `now` did so because the time of its call, which `ends` then, was over: services
/// reset such calls (gRPC's own servers do), and may be a little ahead of us.
pub(crate) fn was_its_time(ends: Option<Instant>, now: Instant) -> bool {
    ends.is_some_and(|end| end <= now + ROUNDED)
}

/// The smallest time that the caller gives; what is malformed counts as not given.
pub(crate) fn given(fields: &Fields) -> Option<Duration> {
    if !fields.names().meets(TIMES) {
        return None;
    }
    let ms = |name| {
        let is_number = |text: &&str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|b| b.is_ascii_digit());
        let ms: u64 = fields.text(name).filter(is_number)?.parse().ok()?;
        (1..=MAX_MS).contains(&ms).then_some(Duration::from_millis(ms))
    };
    [ms(Name::Timeout), ms(Name::ConnectTimeout), fields.text(Name::GrpcTimeout).and_then(parse_grpc)]
        .into_iter()
        .flatten()
        .min()
}

/// Up to eight digits and a unit. Source: gRPC over HTTP/2, "Timeout".
fn parse_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The finest unit whose number has at most eight digits, rounded down: a deadline is never lengthened.
fn grpc_timeout(left: Duration) -> String {
    let units: [(u128, char); 5] =
        [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let nanos = left.as_nanos();
    let fits = units.into_iter().map(|(size, unit)| (nanos / size, unit)).find(|(number, _)| *number < 100_000_000);
    fits.map_or_else(|| "99999999H".to_owned(), |(number, unit)| format!("{number}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> Fields {
        fields.iter().copied().collect()
    }

    fn policy() -> Policy {
        Policy { timeout: Duration::from_secs(2), ..Policy::default() }
    }

    #[test]
    fn the_smallest_time_given_wins_and_malformed_ones_do_not_count() {
        let ms = |fields: &[(&'static str, &str)]| given(&map(fields)).map(|left| left.as_millis());
        assert_eq!(ms(&[("x-synego-timeout", "500"), ("grpc-timeout", "1S")]), Some(500));
        assert_eq!(ms(&[("connect-timeout-ms", "70"), ("x-synego-timeout", "500")]), Some(70));
        assert_eq!(ms(&[("grpc-timeout", "100000u")]), Some(100));
        for bad in ["", "0", "-1", "1.5", "86400001", "x", "99999999999"] {
            assert_eq!(ms(&[("x-synego-timeout", bad)]), None, "{bad}");
        }
        for bad in ["", "S", "1", "123456789S", "1x", "-1S", "1 S"] {
            assert_eq!(ms(&[("grpc-timeout", bad)]), None, "{bad}");
        }
    }

    #[test]
    fn what_is_left_is_never_lengthened() {
        assert_eq!(grpc_timeout(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(grpc_timeout(Duration::from_millis(1999)), "1999000u");
        assert_eq!(grpc_timeout(Duration::from_secs(3600)), "3600000m");
        assert_eq!(grpc_timeout(Duration::from_secs(86_400 * 30)), "2592000S");
        for text in ["99999999n", "1999000u", "3600000m", "2592000S"] {
            assert_eq!(parse_grpc(text).map(grpc_timeout).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_request_has_its_policys_time_counted_from_the_end_of_its_body() {
        let start = synego_runtime::clock::now();
        let deadline = Deadline::of(&map(&[]), false, true, &policy(), &Limits::default(), start);
        let taken = start + Duration::from_secs(60);
        assert_eq!(deadline.ends(Progress::Flowing { last: start }), None, "an upload has no total limit");
        assert_eq!(deadline.ends(Progress::Ended { at: taken }), Some(taken + Duration::from_secs(2)));
        let (when, what) = deadline.next(start, Progress::Waiting { since: taken });
        assert_eq!((when, what), (taken + Duration::from_secs(30), Lapse::ClientSilent));
    }

    #[test]
    fn a_try_ends_before_the_whole() {
        let start = synego_runtime::clock::now();
        let policy = Policy { try_timeout: Duration::from_secs(1), ..policy() };
        let deadline = Deadline::of(&map(&[]), false, true, &policy, &Limits::default(), start);
        let ended = Progress::Ended { at: start };
        assert_eq!(deadline.next(start, ended), (start + Duration::from_secs(1), Lapse::Try));
        let second = start + Duration::from_millis(1500);
        assert_eq!(deadline.next(second, ended), (start + Duration::from_secs(2), Lapse::Total));
    }

    #[test]
    fn grpc_has_a_total_limit_only_when_its_caller_gives_one() {
        let start = synego_runtime::clock::now();
        let (policy, limits, ended) = (policy(), Limits::default(), Progress::Ended { at: start });
        let without = Deadline::of(&map(&[]), true, true, &policy, &limits, start);
        assert_eq!(without.next(start, ended), (start + policy.idle, Lapse::Idle));
        let mut headers = map(&[("grpc-timeout", "5S")]);
        let with = Deadline::of(&headers, true, true, &policy, &limits, start);
        assert_eq!(with.next(start, ended), (start + Duration::from_secs(5), Lapse::Total));
        with.write(&mut headers, start + Duration::from_secs(1), ended);
        assert_eq!(headers.text(Name::GrpcTimeout), Some("4000000u"));
        assert_eq!(headers.text(Name::Timeout), Some("4000"));
    }
}
