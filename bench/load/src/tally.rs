//! What a generator counted, and the one line of JSON that the harness reads.

use std::time::{Duration, Instant};

/// Requests, or messages, and how long each took.
#[derive(Default)]
pub(crate) struct Tally {
    nanoseconds: Vec<u64>,
    errors: u64,
    first_error: Option<String>,
    took: Duration,
}

impl Tally {
    /// One that was answered as expected.
    pub(crate) fn answered(&mut self, latency: Duration) {
        self.nanoseconds.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// One that was not, and why.
    pub(crate) fn failed(&mut self, why: impl ToString) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| why.to_string());
    }

    /// Adds what another connection counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.nanoseconds.extend(other.nanoseconds);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// The whole, which began at `began`.
    pub(crate) fn over(mut self, began: Instant) -> Self {
        self.took = began.elapsed();
        self.nanoseconds.sort_unstable();
        self
    }

    fn microseconds(&self, share: f64) -> f64 {
        let index = ((self.nanoseconds.len() as f64 * share) as usize).min(self.nanoseconds.len().saturating_sub(1));
        self.nanoseconds.get(index).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1e3)
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        let (requests, seconds) = (self.nanoseconds.len(), self.took.as_secs_f64());
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.microseconds(share));
        let first = self.first_error.as_deref().unwrap_or_default().replace(['"', '\\', '\n'], " ");
        println!(
            "{{\"requests\":{requests},\"seconds\":{seconds:.6},\"p50\":{p50:.1},\"p99\":{p99:.1},\"p999\":{p999:.1},\
             \"errors\":{},\"first_error\":\"{first}\"}}",
            self.errors
        );
    }
}
