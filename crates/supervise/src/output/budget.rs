//! How much one instance may print: what is read and kept of it costs time and memory that others need.

use std::time::Instant;

/// Lines a second, in the long run.
const LINES: f64 = 10_000.0;
/// Bytes a second, in the long run.
const BYTES: f64 = 4.0 * 1024.0 * 1024.0;
/// How many seconds' worth may come at once.
const BURST: f64 = 2.0;
/// What must have come back, in seconds' worth, before anything is kept again: what is shown of a flood are whole stretches
/// with one word on each gap, and not a line here and there.
const RESUME: f64 = 0.1;

/// What is left of it, and what was dropped since that was last said.
#[derive(Debug)]
pub(super) struct Budget {
    lines: f64,
    bytes: f64,
    at: Instant,
    is_dry: bool,
    dropped: Dropped,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { lines: LINES * BURST, bytes: BYTES * BURST, at: now, is_dry: false, dropped: Dropped::default() }
    }

    /// Whether anything may be kept now.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.lines = (self.lines + passed * LINES).min(LINES * BURST);
        self.bytes = (self.bytes + passed * BYTES).min(BYTES * BURST);
        let needed = if self.is_dry { (LINES * RESUME, BYTES * RESUME) } else { (1.0, 1.0) };
        self.is_dry = self.lines < needed.0 || self.bytes < needed.1;
        !self.is_dry
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

    /// Whether something was dropped that was not said yet.
    pub(super) fn has_gap(&self) -> bool {
        self.dropped.bytes > 0
    }

    /// What was dropped since this was asked last.
    pub(super) fn take_gap(&mut self) -> Option<Dropped> {
        self.has_gap().then(|| std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn once_dry_it_stays_so_until_a_stretch_can_be_kept() {
        let begun = synego_runtime::clock::now();
        let mut budget = Budget::new(begun);
        while budget.is_open(begun) {
            budget.take(10);
        }
        assert!(!budget.is_open(begun + Duration::from_millis(99)));
        assert!(budget.is_open(begun + Duration::from_millis(101)));
    }

    #[test]
    fn a_gap_is_said_once() {
        let mut budget = Budget::new(synego_runtime::clock::now());
        assert_eq!(budget.take_gap(), None);
        budget.dropped(2, 20);
        budget.dropped(3, 30);
        assert!(budget.has_gap());
        assert_eq!(budget.take_gap(), Some(Dropped { lines: 5, bytes: 50 }));
        assert!(!budget.has_gap());
    }
}
