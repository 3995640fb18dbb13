//! When an ended process is started again. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use synego_model::{RestartSpec, RestartWhen};

use crate::state::ExitOutcome;

/// What follows the end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// After which ends it is started again.
    pub when: RestartWhen,
    /// First wait; doubled with each end.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
    /// A process that was ready for so long begins anew with the first wait.
    pub reset_after: Duration,
    /// So many ends within `window` are a crash loop.
    pub ends: usize,
    /// See `ends`.
    pub window: Duration,
}

impl Default for RestartPolicy {
    /// 100 ms × 2 up to 30 s, reset after 30 s ready, a crash loop from 5 ends in 60 s.
    fn default() -> Self {
        Self {
            when: RestartWhen::Always,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
            reset_after: Duration::from_secs(30),
            ends: 5,
            window: Duration::from_secs(60),
        }
    }
}

impl RestartPolicy {
    /// It is not started again: its end is the supervisor's.
    #[must_use]
    pub fn never() -> Self {
        Self { when: RestartWhen::Never, ..Self::default() }
    }

    /// As the manifest says it.
    #[must_use]
    pub fn of(spec: RestartSpec) -> Self {
        let (first, longest, window) = (spec.backoff, spec.max, spec.window);
        let ends = usize::try_from(spec.tries).unwrap_or(usize::MAX);
        Self { when: spec.when, first, longest, ends, window, ..Self::default() }
    }

    /// Whether an end is the last; `None`: it was not even started.
    pub(crate) fn is_last(&self, exit: Option<ExitOutcome>) -> bool {
        match self.when {
            RestartWhen::Always => false,
            RestartWhen::OnFailure => exit.is_some_and(ExitOutcome::is_done),
            RestartWhen::Never => true,
        }
    }
}

/// The ends so far, and the wait that follows.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RestartPolicy,
    wait: Duration,
    ends: VecDeque<Instant>,
}

/// What follows one end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next {
    /// The wait, before jitter.
    pub(crate) wait: Duration,
    /// Whether the ends so far are a crash loop.
    pub(crate) is_loop: bool,
    /// Ends within the window, this one included.
    pub(crate) ends: usize,
}

impl Backoff {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self { wait: policy.first, policy, ends: VecDeque::new() }
    }

    /// Another policy, from the next end on.
    pub(crate) fn set(&mut self, policy: RestartPolicy) {
        if self.policy != policy {
            self.wait = policy.first;
            self.policy = policy;
        }
    }

    pub(crate) fn policy(&self) -> &RestartPolicy {
        &self.policy
    }

    /// Takes an end of a process that had been ready for `ready_for` (zero: never).
    pub(crate) fn ended(&mut self, ready_for: Duration, now: Instant) -> Next {
        if ready_for >= self.policy.reset_after {
            self.wait = self.policy.first;
            self.ends.clear();
        }
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|end| now.duration_since(*end) > self.policy.window) {
            self.ends.pop_front();
        }
        // What is long past decides nothing: only as many are kept as the decision needs.
        while self.ends.len() > self.policy.ends.max(1) {
            self.ends.pop_front();
        }
        let wait = self.wait;
        self.wait = (self.wait * 2).min(self.policy.longest);
        // Once waits are at their longest the window empties between ends, and the loop goes on all the same.
        let is_loop = self.ends.len() >= self.policy.ends || wait >= self.policy.longest;
        Next { wait, is_loop, ends: self.ends.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        synego_runtime::clock::now()
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let (mut backoff, start) = (Backoff::new(RestartPolicy::default()), start());
        let waits: Vec<u128> = (0..10).map(|_| backoff.ended(Duration::ZERO, start).wait.as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
    }

    #[test]
    fn an_end_with_code_0_is_the_last_of_a_job_and_of_what_restarts_on_failure() {
        let ended = |code| Some(ExitOutcome { code: Some(code), signal: None, killed: false });
        let killed = Some(ExitOutcome { code: None, signal: Some(9), killed: false });
        let last = |when, exit| RestartPolicy { when, ..RestartPolicy::default() }.is_last(exit);
        for (when, wanted) in [
            (RestartWhen::Always, [false, false, false, false]),
            (RestartWhen::OnFailure, [true, false, false, false]),
            (RestartWhen::Never, [true, true, true, true]),
        ] {
            assert_eq!([ended(0), ended(1), killed, None].map(|exit| last(when, exit)), wanted, "{when:?}");
        }
    }

    #[test]
    fn the_fifth_end_within_a_minute_is_a_crash_loop() {
        let (mut backoff, start) = (Backoff::new(RestartPolicy::default()), start());
        let loops: Vec<bool> =
            (0..5).map(|n| backoff.ended(Duration::ZERO, start + Duration::from_secs(n * 10)).is_loop).collect();
        assert_eq!(loops, [false, false, false, false, true]);
    }

    #[test]
    fn rare_ends_are_no_crash_loop() {
        let (mut backoff, start) = (Backoff::new(RestartPolicy::default()), start());
        for n in 0..6 {
            assert!(!backoff.ended(Duration::from_secs(5), start + Duration::from_secs(n * 20)).is_loop);
        }
    }

    #[test]
    fn a_crash_loop_goes_on_when_the_waits_are_longer_than_the_window_allows() {
        let (mut backoff, mut now) = (Backoff::new(RestartPolicy::default()), start());
        let last = (0..20).map(|_| {
            let next = backoff.ended(Duration::ZERO, now);
            now += next.wait;
            next
        });
        assert!(last.skip(8).all(|next| next.is_loop));
    }

    #[test]
    fn a_process_that_was_ready_long_enough_begins_anew() {
        let (mut backoff, start) = (Backoff::new(RestartPolicy::default()), start());
        for _ in 0..8 {
            backoff.ended(Duration::ZERO, start);
        }
        let next = backoff.ended(Duration::from_secs(30), start + Duration::from_secs(40));
        assert_eq!(next, Next { wait: Duration::from_millis(100), is_loop: false, ends: 1 });
    }
}
