//! Metrics: one registry for a process, rendered as Prometheus text; what every process tells of itself.

mod process;

use prometheus::core::Collector;
use prometheus::{Encoder, IntGauge, Opts, Registry, TextEncoder};

/// Latency buckets in seconds, log-spaced from 1 ms to 30 s; 14 of them.
pub const LATENCY_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Which build runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Version of the programs.
    pub version: &'static str,
    /// Commit they were built from; `unknown` when the build did not say.
    pub commit: &'static str,
    /// Day of that commit, `YYYY-MM-DD`; `unknown` likewise.
    pub date: &'static str,
    /// All three, as `--version` prints them.
    pub line: &'static str,
}

/// This build: `SYNEGO_COMMIT`, `SYNEGO_COMMIT_DATE` and `SYNEGO_VERSION_LINE` of the environment it was compiled in, as
/// `make release` sets them.
#[must_use]
pub fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("SYNEGO_COMMIT").unwrap_or("unknown"),
        date: option_env!("SYNEGO_COMMIT_DATE").unwrap_or("unknown"),
        line: option_env!("SYNEGO_VERSION_LINE").unwrap_or(env!("CARGO_PKG_VERSION")),
    }
}

/// The metrics of one process. Cheap to clone: all clones are the same registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// With the build and the process itself already in it. `program`: its name, such as `synego-master`.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let metrics = Self { registry: Registry::new() };
        let build = build();
        let info = Opts::new("synego_build_info", "Always 1; the labels say which build runs.")
            .const_label("program", program)
            .const_label("version", build.version)
            .const_label("commit", build.commit);
        if let Ok(info) = IntGauge::with_opts(info) {
            info.set(1);
            metrics.register(info);
        }
        metrics.register(process::ProcessCollector::new());
        metrics
    }

    /// Adds a collector. One whose names are taken already is left out, with a line in the log: it is a mistake of the
    /// program, never worth its life.
    pub fn register(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.registry.register(Box::new(collector)) {
            tracing::error!(cause = %error, "metric left out");
        }
    }

    /// Takes back a collector that was added, for parts that end before the process.
    pub fn unregister(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.registry.unregister(Box::new(collector)) {
            tracing::debug!(cause = %error, "metric was not there");
        }
    }

    /// Everything as Prometheus text (version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        let families = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::error!(cause = %error, "metrics could not be written");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::IntCounter;

    use super::*;

    #[test]
    fn a_process_tells_its_build_and_itself() {
        let text = Metrics::new("synego-test").render();
        assert!(text.contains("synego_build_info{commit="), "{text}");
        assert!(text.contains(r#"program="synego-test""#), "{text}");
        for name in ["synego_process_resident_memory_bytes", "synego_process_open_files", "synego_task_panics_total"] {
            let value = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            assert!(value.is_some_and(|value| value.parse::<f64>().is_ok()), "{name} in {text}");
        }
    }

    #[test]
    fn a_name_that_is_taken_is_left_out_and_the_first_stays() -> prometheus::Result<()> {
        let metrics = Metrics::new("synego-test");
        let counter = IntCounter::new("synego_test_total", "Test.")?;
        counter.inc();
        metrics.register(counter.clone());
        metrics.register(IntCounter::new("synego_test_total", "Test.")?);
        assert!(metrics.render().contains("synego_test_total 1\n"));
        metrics.unregister(counter);
        assert!(!metrics.render().contains("synego_test_total"));
        Ok(())
    }
}
