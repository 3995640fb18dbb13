//! Looks again and again, and decides: down after failures in a row, up after successes in a row.

use std::time::Duration;

use synego_model::HealthSpec;
use synego_runtime::clock;
use synego_runtime::tasks::{self, Kind};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::probe::{self, ProbeContext};

/// Time between looks as long as nothing was decided, and after a first failure: what is down is known sooner.
const SOON: Duration = Duration::from_millis(100);

/// What the looks came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeState {
    /// Whether it is well; `None`: not decided yet.
    pub ok: Option<bool>,
    /// What the last failed look said; empty after a good one.
    pub cause: String,
    /// Looks in a row with the result of the last one.
    pub consecutive: u32,
    /// When the last look ended: milliseconds since 1970-01-01 UTC; 0: none yet.
    pub last_unix_ms: u64,
    /// How long it took.
    pub took: Duration,
}

impl ProbeState {
    /// Takes the result of one look.
    fn take(&mut self, outcome: Result<(), String>, spec: &HealthSpec, unix_ms: u64, took: Duration) {
        let is_ok = outcome.is_ok();
        let was_ok = self.last_unix_ms != 0 && self.cause.is_empty();
        self.consecutive = if self.last_unix_ms != 0 && was_ok == is_ok { self.consecutive + 1 } else { 1 };
        self.cause = outcome.err().unwrap_or_default();
        self.last_unix_ms = unix_ms;
        self.took = took;
        let needed = match (is_ok, self.ok) {
            // The first word of a service that comes up is enough; one that was down must prove itself.
            (true, None) => 1,
            (true, _) => spec.up,
            (false, _) => spec.down,
        };
        if self.consecutive >= needed {
            self.ok = Some(is_ok);
        }
    }

    /// Time until the next look, before jitter.
    fn pause(&self, every: Duration) -> Duration {
        let is_in_doubt = self.ok.is_none() || (self.ok == Some(true) && !self.cause.is_empty());
        if is_in_doubt { every.min(SOON) } else { every }
    }
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Prober {
    state: watch::Receiver<ProbeState>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Begins to look, the first time at once.
    #[must_use]
    pub fn start(spec: HealthSpec, context: ProbeContext) -> Self {
        let (decided, state) = watch::channel(ProbeState::default());
        let task = tasks::spawn("probe", Kind::Connection, async move {
            loop {
                let began = clock::now();
                let outcome = probe::run(&spec.probe, &context, spec.timeout).await;
                let took = clock::now().duration_since(began);
                decided.send_modify(|state| state.take(outcome, &spec, clock::unix_ms(), took));
                let pause = decided.borrow().pause(spec.every);
                tokio::time::sleep(tasks::jittered(pause)).await;
            }
        });
        Self { state, task }
    }

    /// What the looks came to, and every change of it.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ProbeState> {
        self.state.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use synego_model::Probe;

    use super::*;

    fn after(outcomes: &str) -> ProbeState {
        let spec = HealthSpec { down: 3, up: 2, ..HealthSpec::of(Probe::Tcp) };
        let mut state = ProbeState::default();
        for (n, outcome) in outcomes.chars().enumerate() {
            let outcome = if outcome == '+' { Ok(()) } else { Err("no".to_owned()) };
            state.take(outcome, &spec, n as u64 + 1, Duration::ZERO);
        }
        state
    }

    #[test]
    fn one_success_is_enough_at_first_and_two_after_a_fall() {
        assert_eq!(after("").ok, None);
        assert_eq!(after("--").ok, None);
        assert_eq!(after("--+").ok, Some(true));
        assert_eq!(after("---").ok, Some(false));
        assert_eq!(after("---+").ok, Some(false));
        assert_eq!(after("---+-+").ok, Some(false));
        assert_eq!(after("---++").ok, Some(true));
    }

    #[test]
    fn three_failures_in_a_row_are_a_fall() {
        assert_eq!(after("+--").ok, Some(true));
        assert_eq!(after("+--+--").ok, Some(true));
        let fallen = after("+----");
        assert_eq!((fallen.ok, fallen.consecutive, fallen.cause.as_str()), (Some(false), 4, "no"));
    }

    #[test]
    fn in_doubt_the_next_look_comes_soon() {
        let every = Duration::from_secs(1);
        assert_eq!(after("").pause(every), SOON);
        assert_eq!(after("+").pause(every), every);
        assert_eq!(after("+-").pause(every), SOON);
        assert_eq!(after("+---").pause(every), every);
        assert_eq!(after("+-").pause(Duration::from_millis(20)), Duration::from_millis(20));
    }
}
