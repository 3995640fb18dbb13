//! Looks at a process from outside: what earlier ones saw, and how often they are taken.

use std::time::{Duration, Instant};

use synego_runtime::clock;

use crate::{caps, stat};

/// Time between looks at the kernel's view of the process.
pub(super) const LOOK: Duration = Duration::from_millis(500);

/// What earlier looks saw.
pub(super) struct Looks {
    pub(super) pid: u32,
    pub(super) is_paused: bool,
    last: Option<(Instant, u64)>,
}

impl Looks {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, is_paused: false, last: None }
    }

    /// Whether figures are taken: at most once a second.
    pub(super) fn are_due(&self) -> bool {
        self.last.is_none_or(|(at, _)| clock::now().duration_since(at) >= 2 * LOOK - LOOK / 5)
    }

    /// CPU over the time since the last look, of which all together used so many ticks until now.
    pub(super) fn cores(&mut self, ticks: u64) -> Option<f64> {
        let now = clock::now();
        let cores = self.last.map(|(at, before)| {
            let used = ticks.saturating_sub(before) as f64;
            used / rustix::param::clock_ticks_per_second() as f64 / now.duration_since(at).as_secs_f64()
        });
        self.last = Some((now, ticks));
        cores
    }
}

/// Returns when the process has so much memory that no more can be waited for.
pub(super) async fn grows_far(pid: u32, cap: u64) {
    loop {
        if stat::usage(pid).is_some_and(|usage| caps::is_far(usage.memory_bytes, cap)) {
            return;
        }
        tokio::time::sleep(LOOK / 10).await;
    }
}

/// As people read it.
pub(super) fn whole_mib(bytes: u64) -> String {
    synego_model::text::size(bytes.div_ceil(1 << 20) << 20)
}
