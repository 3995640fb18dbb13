//! What the process tells of itself: memory, CPU, files, panics, lost log lines; read at scrape.

use prometheus::core::{Collector, Desc};
use prometheus::{Gauge, IntCounter, proto};

use crate::{logs, tasks};

pub(super) struct ProcessCollector {
    memory: Option<Gauge>,
    cpu: Option<Gauge>,
    files: Option<Gauge>,
    threads: Option<Gauge>,
    panics: Option<IntCounter>,
    restarts: Option<IntCounter>,
    dropped: Option<IntCounter>,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let gauge = |name: &str, help: &str| Gauge::new(name, help).ok();
        let counter = |name: &str, help: &str| IntCounter::new(name, help).ok();
        Self {
            memory: gauge("synego_process_resident_memory_bytes", "Resident memory of this process in bytes."),
            cpu: gauge("synego_process_cpu_seconds", "CPU time of this process, user and system, in seconds."),
            files: gauge("synego_process_open_files", "Open file descriptors of this process."),
            threads: gauge("synego_process_threads", "Threads of this process."),
            panics: counter("synego_task_panics_total", "Panics in tasks and threads since the start."),
            restarts: counter("synego_task_restarts_total", "Tasks begun again after a failure since the start."),
            dropped: counter(
                "synego_log_lines_dropped_total",
                "Log lines dropped: a queue was full, a disk took nothing, or a service printed too much.",
            ),
        }
    }

    fn gauges(&self) -> impl Iterator<Item = &Gauge> {
        [&self.memory, &self.cpu, &self.files, &self.threads].into_iter().flatten()
    }

    fn counters(&self) -> impl Iterator<Item = &IntCounter> {
        [&self.panics, &self.restarts, &self.dropped].into_iter().flatten()
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().flat_map(Gauge::desc).chain(self.counters().flat_map(IntCounter::desc)).collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let set = |gauge: &Option<Gauge>, value: Option<f64>| {
            if let (Some(gauge), Some(value)) = (gauge, value) {
                gauge.set(value);
            }
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may hold blanks; what follows it is counted from field 3.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        set(&self.memory, field(24).map(|pages| pages * rustix::param::page_size() as f64));
        set(&self.cpu, field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks));
        set(&self.threads, field(20));
        set(&self.files, std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64));
        for (counter, value) in [
            (&self.panics, tasks::panics()),
            (&self.restarts, tasks::restarts()),
            (&self.dropped, logs::dropped_lines()),
        ] {
            if let Some(counter) = counter {
                counter.inc_by(value.saturating_sub(counter.get()));
            }
        }
        self.gauges().flat_map(Gauge::collect).chain(self.counters().flat_map(IntCounter::collect)).collect()
    }
}
