//! The course of a supervised process, from its first build to its last end.

use std::time::Duration;

use synego_model::{Cause, Reason, RestartWhen};
use synego_runtime::keeper::{self, Holding};
use synego_runtime::{Stop, clock, tasks};
use tokio::sync::{broadcast, watch};

use super::Orders;
use super::watch_process::{End, Failure};
use crate::build;
use crate::keep::{self, Adopted, Over};
use crate::output::{Level, OutputSink};
use crate::place;
use crate::readiness::Proof;
use crate::restart::Backoff;
use crate::spec::ProcessSpec;
use crate::state::{ExitOutcome, Phase, ProcessEvent, ProcessState};

pub(super) struct Course {
    pub(super) spec: ProcessSpec,
    pub(super) output: OutputSink,
    pub(super) stop: Stop,
    pub(super) state: watch::Sender<ProcessState>,
    pub(super) events: broadcast::Sender<ProcessEvent>,
    orders: watch::Receiver<Orders>,
    restarts_seen: u32,
    backoff: Backoff,
    is_built: bool,
    /// What a former part of this program left; until it is taken up.
    adopted: Option<Adopted>,
}

/// What the supervisor was told.
pub(super) enum Told {
    /// End, with so much grace.
    Stop(Duration),
    /// End with so much grace, and start anew.
    Restart(Duration),
}

impl Course {
    pub(super) fn new(
        spec: ProcessSpec,
        output: OutputSink,
        stop: Stop,
        orders: watch::Receiver<Orders>,
        events: broadcast::Sender<ProcessEvent>,
    ) -> (Self, watch::Receiver<ProcessState>) {
        let adopted = spec.keep.as_deref().and_then(keep::adopt);
        let note = adopted.as_ref().map(|adopted| adopted.note.clone()).unwrap_or_default();
        let first = ProcessState {
            phase: match (note.ready, spec.build.is_some() && adopted.is_none()) {
                (true, _) => Phase::Ready,
                (_, true) => Phase::Building,
                _ => Phase::Starting,
            },
            pid: adopted.as_ref().map_or(0, |adopted| adopted.leader.pid()),
            started_unix_ms: note.started_unix_ms,
            // It is counted on when it is taken up.
            starts: note.starts.saturating_sub(1),
            restarts: spec.restarts.max(note.restarts),
            cause: (!note.ready).then(|| cause(Reason::Starting, what_starts(&spec))),
            exit: None,
            last_lines: Vec::new(),
            status: String::new(),
            memory_bytes: 0,
            caps: String::new(),
            cpu_cores: None,
        };
        let (state, listening) = watch::channel(first);
        let backoff = Backoff::new(spec.restart.clone());
        let is_built = adopted.is_some();
        let course = Self { spec, output, stop, state, events, orders, restarts_seen: 0, backoff, is_built, adopted };
        (course, listening)
    }

    /// Goes on until it is told to end, or the policy says that an end is the last.
    ///
    /// Also returns what tells the next part of this program that it is over, where that does not follow from an order.
    pub(super) async fn run(mut self) -> (ExitOutcome, Option<Holding>) {
        if let Some(over) = self.spec.keep.as_deref().and_then(Over::left) {
            let (exit, name) = (over.exit(), self.spec.keep.as_deref().unwrap_or_default());
            let held = over.hold(name);
            self.set(|state| over.show(state));
            self.tell(ProcessEvent::Stopped { exit });
            return (exit, held);
        }
        loop {
            self.set(|state| state.starts += 1);
            let adopted = self.adopted.take();
            let prepared = if adopted.is_some() { None } else { self.prepare().await };
            let end = match prepared {
                None => self.watch_process(adopted).await,
                Some(end) => end,
            };
            let has_failed = matches!(end, End::Failed(_));
            let last = match end {
                End::Told(exit) => Some((exit, None)),
                End::Again => None,
                End::Failed(failure) if self.is_last(&failure) => Some(self.over(failure)),
                End::Failed(failure) => self.back_off(failure).await.map(|exit| (exit, None)),
            };
            if let Some((exit, cause)) = last {
                let over = cause.is_some().then(|| Over::of(&self.state.borrow(), exit, cause.as_ref()));
                let held = over.zip(self.spec.keep.as_deref()).and_then(|(over, name)| over.hold(name));
                self.set(|state| {
                    (state.phase, state.pid, state.exit, state.cause) = (Phase::Stopped, 0, Some(exit), cause)
                });
                if let Some(address) = &self.spec.address {
                    place::leave(address);
                }
                self.tell(ProcessEvent::Stopped { exit });
                tracing::info!(instance = self.spec.name, outcome = %exit, killed = exit.killed, "process over");
                return (exit, held);
            }
            // A start that was ordered is no sign of trouble.
            self.set(|state| state.restarts += u32::from(has_failed));
        }
    }

    /// Whether it is not started again after this.
    fn is_last(&mut self, failure: &Failure) -> bool {
        if let Some(policy) = self.orders.borrow().policy.clone() {
            self.backoff.set(policy);
        }
        // One that was not ready in time did not end by itself, whatever code it ended with.
        let exit = failure.exit.filter(|_| failure.reason == Reason::ProcessExited);
        self.backoff.policy().is_last(exit) || self.is_on_trial()
    }

    /// The last end: as it should be, or a failure that is kept with its last lines.
    fn over(&self, failure: Failure) -> (ExitOutcome, Option<Cause>) {
        let exit = failure.exit.unwrap_or(ExitOutcome::NONE);
        let is_job = self.backoff.policy().when != RestartWhen::Always && !self.is_on_trial();
        let why = if failure.reason == Reason::ProcessExited && exit.is_done() && is_job {
            cause(Reason::JobDone, "exit 0")
        } else {
            cause(failure.reason, &failure.message)
        };
        self.set(|state| state.last_lines.clone_from(&failure.last_lines));
        self.tell(ProcessEvent::Exited { exit, last_lines: failure.last_lines, restart_in: None });
        (exit, Some(why))
    }

    /// What comes before a start: the build, once for each generation, and a free port.
    async fn prepare(&mut self) -> Option<End> {
        if let (false, Some(command)) = (self.is_built, self.spec.build.clone()) {
            self.set(|state| (state.phase, state.cause) = (Phase::Building, Some(cause(Reason::Starting, "building"))));
            self.tell(ProcessEvent::Building);
            let built = build::of(&self.spec, &command, &self.output);
            let outcome = tokio::select! {
                outcome = built => outcome,
                told = self.told() => return Some(self.obey_idle(told)),
            };
            if let Err(message) = outcome {
                return Some(End::Failed(Failure::before_start(Reason::BuildFailed, message)));
            }
        }
        self.is_built = true;
        let free = match &self.spec.address {
            Some(address) => place::free(address).await,
            None => Ok(()),
        };
        free.err().map(|message| End::Failed(Failure::before_start(Reason::StartFailed, message)))
    }

    /// Waits as the policy says. `Some`: it was told to end meanwhile.
    async fn back_off(&mut self, failure: Failure) -> Option<ExitOutcome> {
        let next = self.backoff.ended(failure.ready_for, clock::now());
        let wait = tasks::jittered(next.wait);
        let message = match next.ends {
            0 | 1 => failure.message.clone(),
            times => failure.message.replacen(": ", &format!(", {times} times: "), 1),
        };
        let was_loop = self.state.borrow().phase == Phase::CrashLoop;
        let is_crash = failure.exit.is_some() && failure.reason != Reason::OutOfMemory;
        let reason = if next.is_loop && is_crash { Reason::CrashLoop } else { failure.reason };
        let phase = if next.is_loop { Phase::CrashLoop } else { Phase::Backoff };
        tracing::warn!(instance = self.spec.name, reason = %reason, cause = message, again_in_ms = wait.as_millis(), "process failed");
        self.set(|state| {
            (state.phase, state.pid, state.cause) = (phase, 0, Some(cause(reason, &message)));
            state.exit = failure.exit.or(state.exit);
            state.last_lines.clone_from(&failure.last_lines);
        });
        let note = format!("{message}; starts again in {}", synego_model::text::duration(in_whole_ms(wait)));
        self.output.note(Level::Error, note, failure.pid);
        self.tell(failure.event(wait));
        if next.is_loop && !was_loop {
            self.tell(ProcessEvent::CrashLoop);
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => None,
            told = self.told() => match self.obey_idle(told) {
                End::Told(exit) => Some(failure.exit.unwrap_or(exit)),
                _ => None,
            },
        }
    }

    /// Obeys while no process runs.
    fn obey_idle(&mut self, told: Told) -> End {
        match told {
            Told::Stop(_) => End::Told(ExitOutcome::NONE),
            Told::Restart(_) => self.begin_anew(),
        }
    }

    /// Whether its first failure is its last.
    fn is_on_trial(&self) -> bool {
        self.spec.trial && !self.orders.borrow().adopted
    }

    /// Whoever orders a new start has built what it needs.
    pub(super) fn begin_anew(&mut self) -> End {
        let orders = self.orders.borrow().clone();
        self.restarts_seen = orders.restarts;
        if let Some(spec) = orders.spec {
            self.spec = *spec;
        }
        self.is_built = true;
        End::Again
    }

    /// Returns when it is told something.
    pub(super) fn told(&self) -> impl Future<Output = Told> + use<> {
        let (mut orders, stop) = (self.orders.clone(), self.stop.clone());
        let (grace, seen) = (self.spec.grace, self.restarts_seen);
        async move {
            let told = tokio::select! {
                () = stop.stopped() => Told::Stop(grace),
                orders = orders.wait_for(|orders| orders.stop.is_some() || orders.restarts != seen) => match orders {
                    Ok(orders) => orders.stop.map_or(Told::Restart(orders.grace), Told::Stop),
                    // The handle was dropped.
                    Err(_) => Told::Stop(grace),
                },
            };
            if keeper::has_left() || (matches!(told, Told::Stop(_)) && keeper::is_anothers()) {
                // What ends here goes on in another part.
                std::future::pending::<()>().await;
            }
            told
        }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut ProcessState)) {
        self.state.send_modify(change);
    }

    pub(super) fn tell(&self, event: ProcessEvent) {
        // Nobody may be listening.
        let _listeners = self.events.send(event);
    }
}

/// What people are told while it starts.
pub(super) fn what_starts(spec: &ProcessSpec) -> &'static str {
    if Proof::of(spec) == Proof::Done { "the job runs" } else { "" }
}

pub(super) fn cause(reason: Reason, message: &str) -> Cause {
    Cause { reason, message: message.to_owned(), since_unix_ms: clock::unix_ms() }
}

/// What is written does not need more.
fn in_whole_ms(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}
