//! How much is going on at an inbound: what the sidecar reports of its instance.
//!
//! Each worker writes cells of its own; whoever reads sums them. Times of answers are kept as counts in log-spaced
//! buckets for each of the last seconds, so that quantiles cost nothing on the way of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use synego_model::InstanceLoad;
use synego_runtime::clock;

/// Seconds over which rates and quantiles are taken.
const WINDOW: u64 = 10;
/// Seconds that are kept: the window and the one that is being filled.
const KEPT: usize = 12;
/// Buckets of times; each is wider by 2^(1/4) than the one before.
const BUCKETS: usize = 96;
/// Upper bound of the first bucket; seconds.
const FIRST: f64 = 50e-6;

/// The load of one instance, over all workers. Cheap to clone.
#[derive(Clone)]
pub struct LoadMeter(Arc<Meter>);

struct Meter {
    started: Instant,
    workers: Vec<Cells>,
}

/// What one worker counts; aligned so that workers do not share a cache line.
#[repr(align(128))]
struct Cells {
    in_flight: AtomicU32,
    streams: AtomicU32,
    requests: AtomicU64,
    errors: AtomicU64,
    seconds: [Second; KEPT],
}

struct Second {
    number: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

/// One request in flight at an inbound.
pub(crate) struct Permit {
    meter: LoadMeter,
    worker: usize,
    stream: bool,
    ended: bool,
}

impl LoadMeter {
    /// Nothing is going on; `workers`: how many will count.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let cells = || Cells {
            in_flight: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            seconds: std::array::from_fn(|_| Second {
                number: AtomicU64::new(0),
                buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            }),
        };
        // Seconds count from the window on, so that the empty cells of the beginning lie outside it.
        let started = clock::now();
        Self(Arc::new(Meter { started, workers: (0..workers.max(1)).map(|_| cells()).collect() }))
    }

    /// The load now. What the inbound cannot know (queue, utilisation, memory, CPU) is left at its default.
    #[must_use]
    pub fn load(&self) -> InstanceLoad {
        let now = self.second(clock::now());
        let mut counts = [0_u64; BUCKETS];
        let mut load = InstanceLoad::default();
        for cells in &self.0.workers {
            load.in_flight += cells.in_flight.load(Relaxed);
            load.open_streams += cells.streams.load(Relaxed);
            load.requests_total += cells.requests.load(Relaxed);
            load.errors_total += cells.errors.load(Relaxed);
            // The second that is being filled would make every rate too low.
            let whole = |second: &&Second| (now - WINDOW..now).contains(&second.number.load(Relaxed));
            for second in cells.seconds.iter().filter(whole) {
                for (sum, bucket) in counts.iter_mut().zip(&second.buckets) {
                    *sum += u64::from(bucket.load(Relaxed));
                }
            }
        }
        let total: u64 = counts.iter().sum();
        let lived = (now - WINDOW - 1).clamp(1, WINDOW);
        load.requests_per_second = total as f64 / lived as f64;
        load.p50_seconds = quantile(&counts, total, 0.5);
        load.p99_seconds = quantile(&counts, total, 0.99);
        load
    }

    /// Takes a place among `limit` requests in flight; `None`: there is none.
    pub(crate) fn begin(&self, worker: usize, limit: u32) -> Option<Permit> {
        let in_flight: u32 = self.0.workers.iter().map(|cells| cells.in_flight.load(Relaxed)).sum();
        let cells = self.0.workers.get(worker).filter(|_| in_flight < limit)?;
        cells.in_flight.fetch_add(1, Relaxed);
        Some(Permit { meter: self.clone(), worker, stream: false, ended: false })
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0.started).as_secs() + WINDOW + 1
    }
}

impl Permit {
    /// It lasts: it no longer counts as a request in flight.
    pub(crate) fn becomes_stream(&mut self) {
        if let (Some(cells), false) = (self.meter.0.workers.get(self.worker), self.stream) {
            self.stream = true;
            cells.in_flight.fetch_sub(1, Relaxed);
            cells.streams.fetch_add(1, Relaxed);
        }
    }

    /// It was answered after `duration`; `failed`: with a status of 500 or more.
    pub(crate) fn end(mut self, duration: Duration, failed: bool) {
        self.release();
        let Some(cells) = self.meter.0.workers.get(self.worker) else { return };
        cells.requests.fetch_add(1, Relaxed);
        cells.errors.fetch_add(u64::from(failed), Relaxed);
        if self.stream {
            return;
        }
        let number = self.meter.second(clock::now());
        let Some(second) = cells.seconds.get((number % KEPT as u64) as usize) else { return };
        if second.number.load(Relaxed) != number {
            second.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
            second.number.store(number, Relaxed);
        }
        if let Some(bucket) = second.buckets.get(bucket_of(duration.as_secs_f64())) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn release(&mut self) {
        if let (Some(cells), false) = (self.meter.0.workers.get(self.worker), self.ended) {
            self.ended = true;
            let count = if self.stream { &cells.streams } else { &cells.in_flight };
            count.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

fn bucket_of(seconds: f64) -> usize {
    // Casts to integers saturate: what is faster than the first bound is in the first bucket.
    ((libm::log2(seconds / FIRST) * 4.0).ceil() as usize).min(BUCKETS - 1)
}

/// The upper bound of the bucket in which the quantile lies; 0 without any.
fn quantile(counts: &[u64], total: u64, share: f64) -> f64 {
    let rank = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (index, count) in counts.iter().enumerate() {
        seen += count;
        if total > 0 && seen >= rank {
            return FIRST * libm::exp2(index as f64 / 4.0);
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_and_quantiles_are_those_of_the_last_ten_seconds() {
        let meter = LoadMeter::new(2);
        for worker in [0, 1] {
            for _ in 0..99 {
                meter.begin(worker, 1000).expect("room").end(Duration::from_millis(10), false);
            }
            meter.begin(worker, 1000).expect("room").end(Duration::from_secs(1), true);
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        let load = meter.load();
        assert_eq!((load.requests_total, load.errors_total, load.in_flight), (200, 2, 0));
        assert!((load.requests_per_second - 40.0).abs() < 1.0, "{}", load.requests_per_second);
        assert!((0.008..0.013).contains(&load.p50_seconds), "{}", load.p50_seconds);
        assert!((0.008..0.013).contains(&load.p99_seconds), "{}", load.p99_seconds);
        tokio::time::advance(Duration::from_secs(12)).await;
        let later = meter.load();
        assert_eq!((later.requests_per_second, later.p50_seconds, later.requests_total), (0.0, 0.0, 200));
    }

    #[test]
    fn places_are_limited_over_all_workers() {
        let meter = LoadMeter::new(2);
        let first = meter.begin(0, 2);
        let mut second = meter.begin(1, 2).expect("room");
        assert!(meter.begin(0, 2).is_none());
        second.becomes_stream();
        assert_eq!((meter.load().in_flight, meter.load().open_streams), (1, 1));
        assert!(meter.begin(0, 2).is_some(), "a stream takes no place");
        drop((first, second));
        assert_eq!((meter.load().in_flight, meter.load().open_streams), (0, 0));
    }
}
