//! How busy the service is: its handlers, the lag of its scheduler, and its own figures.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use synego_wire::pb;
use tokio::time::Instant;

/// How often the scheduler's lag is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// Most samples kept between two reports: those of the longest period, 10 s.
const MAX_SAMPLES: usize = 200;

/// A lag of this much counts as all that the service can do.
const FULL_LAG: Duration = Duration::from_millis(100);

/// One figure of the service's own, 0 to 1.
pub(crate) type Figure = Arc<dyn Fn() -> f64 + Send + Sync>;

/// What one handler is doing; shared with the requests that run in it.
#[derive(Debug, Default)]
pub(crate) struct HandlerMeter {
    pub(crate) running: AtomicU32,
    pub(crate) timed_out: AtomicU64,
    pub(crate) is_streaming: bool,
}

/// Counts a run for as long as it lives.
pub(crate) struct Run(Arc<HandlerMeter>);

impl Run {
    pub(crate) fn begin(meter: &Arc<HandlerMeter>) -> Self {
        meter.running.fetch_add(1, Relaxed);
        Self(meter.clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// All that is measured for `Load`.
pub(crate) struct Meter {
    handlers: Vec<Arc<HandlerMeter>>,
    figures: Vec<(String, Figure)>,
    lags: Mutex<Vec<Duration>>,
    sequence: AtomicU64,
}

impl Meter {
    pub(crate) fn new(handlers: Vec<Arc<HandlerMeter>>, figures: Vec<(String, Figure)>) -> Self {
        Self { handlers, figures, lags: Mutex::default(), sequence: AtomicU64::new(0) }
    }

    /// Samples the lag of the scheduler until it is dropped: how much later than asked a task is woken.
    pub(crate) async fn watch_lag(&self) {
        loop {
            let due = Instant::now() + SAMPLE_EVERY;
            tokio::time::sleep_until(due).await;
            let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
            if lags.len() < MAX_SAMPLES {
                lags.push(due.elapsed());
            }
        }
    }

    /// The figures since the last report.
    pub(crate) fn report(&self) -> pb::Load {
        let mut lags = std::mem::take(&mut *self.lags.lock().unwrap_or_else(PoisonError::into_inner));
        lags.sort_unstable();
        let lag = lags.get(lags.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        let named: std::collections::HashMap<String, f64> =
            self.figures.iter().map(|(name, figure)| (name.clone(), share(figure()))).collect();
        let own = named.values().copied().fold(0.0, f64::max);
        let handler = self.handlers.iter().enumerate().filter_map(|(index, meter)| {
            let (running, timed_out_total) = (meter.running.load(Relaxed), meter.timed_out.load(Relaxed));
            (running > 0 || timed_out_total > 0).then(|| pb::HandlerLoad {
                index: index as u32,
                running,
                timed_out_total,
                ..pb::HandlerLoad::default()
            })
        });
        let open_streams =
            self.handlers.iter().filter(|meter| meter.is_streaming).map(|meter| meter.running.load(Relaxed));
        pb::Load {
            sequence: self.sequence.fetch_add(1, Relaxed) + 1,
            utilization: own.max(share(lag.as_secs_f64() / FULL_LAG.as_secs_f64())),
            loop_lag_ms: lag.as_millis() as u32,
            open_streams: open_streams.sum(),
            handler: handler.collect(),
            named,
            ..pb::Load::default()
        }
    }
}

/// A share between 0 and 1; what is no number counts as nothing, since the protocol refuses it.
fn share(value: f64) -> f64 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilization_is_the_largest_figure_and_never_outside_its_range() {
        let figures: Vec<(String, Figure)> = vec![
            ("gpu".to_owned(), Arc::new(|| 0.4)),
            ("disk".to_owned(), Arc::new(|| 7.0)),
            ("odd".to_owned(), Arc::new(|| f64::NAN)),
        ];
        let load = Meter::new(Vec::new(), figures).report();
        assert_eq!(load.utilization, 1.0);
        assert_eq!((load.named["gpu"], load.named["disk"], load.named["odd"]), (0.4, 1.0, 0.0));
    }

    #[test]
    fn sequence_goes_up_by_one_from_one() {
        let meter = Meter::new(Vec::new(), Vec::new());
        assert_eq!([meter.report().sequence, meter.report().sequence], [1, 2]);
    }

    #[test]
    fn a_run_counts_while_it_lives() {
        let handler = Arc::new(HandlerMeter { is_streaming: true, ..HandlerMeter::default() });
        let meter = Meter::new(vec![Arc::default(), handler.clone()], Vec::new());
        let run = Run::begin(&handler);
        let load = meter.report();
        assert_eq!((load.handler[0].index, load.handler[0].running, load.open_streams), (1, 1, 1));
        drop(run);
        assert!(meter.report().handler.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn lag_is_measured_when_the_scheduler_is_late() {
        let meter = Arc::new(Meter::new(Vec::new(), Vec::new()));
        let watched = meter.clone();
        let task = tokio::spawn(async move { watched.watch_lag().await });
        tokio::task::yield_now().await;
        tokio::time::advance(SAMPLE_EVERY + Duration::from_millis(80)).await;
        tokio::task::yield_now().await;
        let load = meter.report();
        assert!(load.loop_lag_ms >= 80 && load.utilization > 0.75, "{load:?}");
        task.abort();
    }
}
