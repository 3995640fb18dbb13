//! How many further tries a caller may make.

use std::time::{Duration, Instant};

/// Length of the window in which requests earn tries.
const WINDOW_SECONDS: u64 = 10;
/// Tries that are free in each second.
const FLOOR_PER_SECOND: u64 = 10;
/// Requests that earn one try: 20 %.
const REQUESTS_A_TRY: u64 = 5;

/// At most 20 % of the requests of the last 10 s may be tried again, and 10 a second besides.
///
/// Source: the retry budget of Twitter's Finagle (`RetryBudget.scala`).
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    start: Option<Instant>,
    seconds: [Second; WINDOW_SECONDS as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    requests: u64,
    tries: u64,
}

impl RetryBudget {
    /// Counts a request (not a further try).
    pub fn deposit(&mut self, now: Instant) {
        self.second(now).requests += 1;
    }

    /// Takes one further try out of the budget; false when it is used up.
    pub fn try_withdraw(&mut self, now: Instant) -> bool {
        let number = self.second(now).number;
        let recent = self.seconds.iter().filter(|second| second.number + WINDOW_SECONDS > number);
        let (requests, tries) = recent.fold((0, 0), |(r, t), second| (r + second.requests, t + second.tries));
        let allowed = requests / REQUESTS_A_TRY + FLOOR_PER_SECOND * WINDOW_SECONDS;
        if tries >= allowed {
            return false;
        }
        self.second(now).tries += 1;
        true
    }

    fn second(&mut self, now: Instant) -> &mut Second {
        let start = *self.start.get_or_insert(now);
        // Numbers begin above the window, so that the empty seconds of a new budget lie outside it.
        let number = now.saturating_duration_since(start).as_secs() + WINDOW_SECONDS;
        let second = &mut self.seconds[(number % WINDOW_SECONDS) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second
    }
}

/// How long to wait before the try of this number (1: the first further one), at most: 25 ms × 2 each; to be drawn from
/// zero to this (full jitter).
#[must_use]
pub fn backoff_ceiling(number: u32) -> Duration {
    Duration::from_millis(25).saturating_mul(1 << number.saturating_sub(1).min(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_and_a_floor_may_be_tried_again() {
        let now = Instant::now();
        let mut budget = RetryBudget::default();
        assert_eq!((0..1000).filter(|_| budget.try_withdraw(now)).count(), 100, "the floor of ten seconds");
        (0..500).for_each(|_| budget.deposit(now));
        assert_eq!((0..1000).filter(|_| budget.try_withdraw(now)).count(), 100, "a fifth of 500");
        let later = now + Duration::from_secs(11);
        assert_eq!((0..1000).filter(|_| budget.try_withdraw(later)).count(), 100, "old seconds are forgotten");
    }

    #[test]
    fn the_back_off_doubles_and_is_bounded() {
        assert_eq!(backoff_ceiling(1), Duration::from_millis(25));
        assert_eq!(backoff_ceiling(2), Duration::from_millis(50));
        assert_eq!(backoff_ceiling(40), Duration::from_millis(1600));
    }
}
