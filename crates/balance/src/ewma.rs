//! Response time of one instance as a peak-sensitive moving average.

use std::time::{Duration, Instant};

/// Time in which an old figure loses all but 1/e of its weight.
const DECAY: Duration = Duration::from_secs(10);

/// A moving average that a slow answer raises at once and fast ones lower slowly; without answers it expires.
///
/// Source: the peak EWMA of Twitter's Finagle (`PeakEwma.scala`), as also used by Linkerd.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PeakEwma {
    seconds: f64,
    at: Option<Instant>,
}

impl PeakEwma {
    /// Takes up one response time.
    pub(crate) fn observe(&mut self, latency: Duration, now: Instant) {
        let sample = latency.as_secs_f64();
        self.seconds = match self.at {
            Some(at) if sample < self.seconds => {
                let weight = decay(now.saturating_duration_since(at));
                self.seconds * weight + sample * (1.0 - weight)
            }
            _ => sample,
        };
        self.at = Some(now);
    }

    /// The figure at `now`, in seconds; `None` without any, or when the last one is too old to mean something.
    pub(crate) fn value(&self, now: Instant) -> Option<f64> {
        let age = now.saturating_duration_since(self.at?);
        (age < DECAY * 6).then(|| self.seconds * decay(age))
    }
}

fn decay(age: Duration) -> f64 {
    libm::exp(-age.as_secs_f64() / DECAY.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.value(start), None);
        ewma.observe(Duration::from_millis(10), start);
        ewma.observe(Duration::from_millis(500), start);
        assert_eq!(ewma.value(start), Some(0.5));
        ewma.observe(Duration::from_millis(10), start + Duration::from_secs(1));
        let value = ewma.value(start + Duration::from_secs(1)).unwrap_or_default();
        assert!((0.4..0.5).contains(&value), "{value}");
        assert_eq!(ewma.value(start + Duration::from_secs(100)), None);
    }
}
