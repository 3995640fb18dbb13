//! How much one instance may print: what is read and kept of it costs time and memory that others need.

use std::time::{Duration, Instant};

/// Lines a second, in the long run.
const LINES: f64 = 10_000.0;
/// Bytes a second, in the long run.
const BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// How many seconds' worth may come at once.
const BURST: f64 = 2.0;
/// How often it is said that lines were dropped.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// What is left of it, and what was dropped since that was last said.
#[derive(Debug)]
pub(super) struct Budget {
    lines: f64,
    bytes: f64,
    at: Instant,
    dropped: Dropped,
    said: Option<Instant>,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { lines: LINES * BURST, bytes: BYTES * BURST, at: now, dropped: Dropped::default(), said: None }
    }

    /// Whether anything may be kept now.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.lines = (self.lines + passed * LINES).min(LINES * BURST);
        self.bytes = (self.bytes + passed * BYTES).min(BYTES * BURST);
        self.lines >= 1.0 && self.bytes >= 1.0
    }

    /// A line of this many bytes is kept.
    pub(super) fn take(&mut self, bytes: usize) {
        self.lines -= 1.0;
        self.bytes -= bytes as f64;
    }

    /// So much was not.
    pub(super) fn dropped(&mut self, lines: u64, bytes: u64) {
        self.dropped.lines += lines;
        self.dropped.bytes += bytes;
    }

    /// What was dropped and is to be said now; at the `end` at once.
    pub(super) fn due(&mut self, now: Instant, end: bool) -> Option<Dropped> {
        let is_due = end || self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_EVERY);
        if self.dropped.bytes == 0 || !is_due {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_kept_and_then_so_much_a_second() {
        let begun = synego_runtime::clock::now();
        let mut budget = Budget::new(begun);
        let mut keep = |now: Instant| {
            (0..1_000_000)
                .take_while(|_| {
                    budget.is_open(now) && {
                        budget.take(10);
                        true
                    }
                })
                .count()
        };
        assert_eq!(keep(begun), 20_000);
        assert_eq!(keep(begun), 0);
        assert_eq!(keep(begun + Duration::from_secs(1)), 10_000);
        assert_eq!(keep(begun + Duration::from_secs(100)), 20_000);
    }

    #[test]
    fn long_lines_use_it_up_by_their_bytes() {
        let begun = synego_runtime::clock::now();
        let mut budget = Budget::new(begun);
        let mut kept = 0_usize;
        while budget.is_open(begun) {
            budget.take(64 * 1024);
            kept += 64 * 1024;
        }
        assert_eq!(kept, 8 * 1024 * 1024);
    }

    #[test]
    fn what_was_dropped_is_said_once_a_second_and_at_the_end() {
        let begun = synego_runtime::clock::now();
        let mut budget = Budget::new(begun);
        assert_eq!(budget.due(begun, true), None);
        budget.dropped(2, 20);
        assert_eq!(budget.due(begun, false), Some(Dropped { lines: 2, bytes: 20 }));
        budget.dropped(3, 30);
        assert_eq!(budget.due(begun, false), None);
        assert_eq!(budget.due(begun, true), Some(Dropped { lines: 3, bytes: 30 }));
    }
}
