//! Reload: a successor beside the former process, or after it.
//!
//! A new generation starts at an address of its own, proves itself, is put into service by one store of the inbound's
//! target, and the former one finishes what it has begun. Where both have no room, the process ends and starts at its one
//! address while its requests wait at the inbound.

use std::sync::Arc;
use std::time::Duration;

use synego_control_plane::attach::DrainCause;
use synego_control_plane::order::{Outcome, Step};
use synego_data_plane::Tenure;
use synego_model::{Reason, RestartWhen};
use synego_runtime::clock;
use synego_runtime::tasks::{self, Kind};
use synego_supervise::{Phase, ProcessSpec};

use super::Conductor;
use super::retire::{self, Retiring};
use crate::environment;
use crate::generation::Generation;
use crate::instance::DrainStep;
use crate::orders::{ReloadHow, Teller};
use crate::proof::{self, Failed, cause};

/// Grace for a generation that failed to prove itself: nobody depends on it.
const FAILED_GRACE: Duration = Duration::from_secs(2);
/// Time beyond its own limit that a process started in place has to be ready: it may be started twice.
const SLACK: Duration = Duration::from_secs(5);

impl Conductor {
    /// Puts another process in the place of the one that runs, and tells each step.
    pub(super) async fn reload(&mut self, how: ReloadHow, steps: Teller) {
        let former = Arc::clone(&self.current.borrow());
        let generations = (former.number, former.number);
        let Some(recipe) = &self.recipe else {
            let message = "its process was not started by its sidecar, which therefore cannot start a successor";
            return steps.tell(Step { generations, ..Step::of(Outcome::Skipped, message) }).await;
        };
        // A further generation would be one too many.
        self.retiring.retain(|task| !task.is_finished());
        if !self.retiring.is_empty() {
            steps.tell(Step { generations, ..Step::of(Outcome::Waiting, "a former process still finishes") }).await;
            for retiring in std::mem::take(&mut self.retiring) {
                // One that panicked was reported by its task.
                let _ended = retiring.await;
            }
        }
        if how.builds && recipe.spec.build.is_some() {
            self.note(Some(cause(Reason::Starting, "a successor of its process is built")));
            steps.tell(Step { generations, ..Step::of(Outcome::Building, "") }).await;
            let spec = ProcessSpec { env: former.env.clone(), ..recipe.spec.clone() };
            if let Err(message) = synego_supervise::build(&spec, &recipe.output).await {
                let cause = cause(Reason::BuildFailed, &message);
                return self.failed(Failed { cause, lines: Vec::new() }, &former, steps).await;
            }
        }
        let is_job = recipe.spec.restart.when == RestartWhen::Never;
        if is_job || former.state().is_some_and(|state| state.is_done()) {
            self.once_more(&former, steps).await;
        } else if recipe.listens.fixed() == Some(&former.address) || how.in_place {
            self.in_place(&former, steps).await;
        } else {
            self.beside(&former, steps).await;
        }
    }

    /// New before old.
    async fn beside(&mut self, former: &Arc<Generation>, steps: Teller) {
        let generations = (former.number, former.number);
        self.note(Some(cause(Reason::Starting, "a successor of its process proves itself")));
        steps.tell(Step { generations, ..Step::of(Outcome::Starting, "") }).await;
        let number = former.number.wrapping_add(1);
        let restarts = former.state().map_or(0, |state| state.restarts);
        let Some(recipe) = &self.recipe else { return };
        let address = match recipe.sockets.place(&recipe.listens, number) {
            Ok(address) => address,
            Err(error) => {
                let cause = cause(Reason::StartFailed, &format!("no free port for the process: {error}"));
                return self.failed(Failed { cause, lines: Vec::new() }, former, steps).await;
            }
        };
        let mut env = proof::with_number(former.env.clone(), number);
        environment::tell_place(&mut env, &address);
        let tenure = Tenure::new(self.workers);
        let (cwd, run_as) = (recipe.spec.cwd.clone(), recipe.spec.run_as.clone());
        let next = Generation { number, address, env, cwd, run_as, process: None, tenure };
        let Some((supervisor, state)) = self.launch(&next, true, restarts) else { return };
        let next = Generation { process: Some(state), ..next };
        if let Err(failed) = self.proof().of(&next).await {
            tasks::spawn("failed-generation", Kind::Connection, async move {
                supervisor.stop(FAILED_GRACE).await;
            });
            return self.failed(failed, former, steps).await;
        }
        supervisor.adopt();
        tracing::info!(from = former.number, to = number, address = %next.address, "a new generation serves");
        self.current.send_replace(Arc::new(next));
        // Wishes are counted by each attachment: a successor begins anew.
        self.obeyed_wish = 0;
        self.note(None);
        self.linked.report_now();
        let Some(old) = self.supervisor.replace(supervisor) else { return };
        let retiring = Retiring {
            generation: Arc::clone(former),
            successor: number,
            supervisor: old,
            attached: self.attached.clone(),
            wishes: self.wishes.clone(),
            within: self.within,
        };
        self.retiring.push(tasks::spawn("former-generation", Kind::Connection, retiring.run(steps)));
    }

    /// Old before new: requests wait, or, where other instances are ready, go there.
    async fn in_place(&mut self, former: &Arc<Generation>, steps: Teller) {
        let generations = (former.number, former.number);
        let Some(supervisor) = &self.supervisor else { return };
        let settings = self.settings.borrow().clone();
        let waits = !settings.others_ready && settings.policy.park.is_some();
        let deadline = clock::now() + self.within;
        let left = || deadline.saturating_duration_since(clock::now());
        if waits {
            self.wishes.send_modify(|wishes| wishes.parks = true);
            steps.tell(Step { generations, open: former.open(), ..Step::of(Outcome::Parking, "") }).await;
            self.linked.report_now();
        } else {
            steps.tell(Step { generations, open: former.open(), ..Step::of(Outcome::Draining, "") }).await;
            retire::refuse(&self.wishes, &self.linked, self.within).await;
        }
        retire::finish(
            former,
            &self.attached,
            DrainCause::Reload,
            left().saturating_sub(retire::last_grace(self.within)),
        )
        .await;
        let starts = former.state().map_or(0, |state| state.starts);
        // What is open from now on is open on the new process.
        let mut fresh = Generation { tenure: Tenure::new(self.workers), ..former.as_ref().clone() };
        if let Some(recipe) = &self.recipe {
            (fresh.cwd, fresh.run_as) = (recipe.spec.cwd.clone(), recipe.spec.run_as.clone());
        }
        let restarts = former.state().map_or(0, |state| state.restarts);
        if let Some(spec) = self.spec(&fresh, false, restarts) {
            supervisor.restart(left(), spec);
        }
        steps.tell(Step { generations, ..Step::of(Outcome::Starting, "") }).await;
        self.current.send_replace(Arc::new(fresh));
        let ready = self.started_again(former, starts).await;
        self.wishes.send_modify(|wishes| wishes.parks = false);
        if !waits {
            self.wishes.send_modify(|wishes| wishes.drain = DrainStep::No);
        }
        self.linked.report_now();
        match ready {
            Ok(()) => {
                self.note(None);
                steps.tell(Step { generations, ..Step::of(Outcome::Done, "") }).await;
            }
            Err(failed) => {
                let message = format!("{}; there is no former process: it is started again", failed.cause);
                self.note(Some(cause(Reason::ReloadFailed, &message)));
                let step = Step { generations, lines: failed.lines, ..Step::of(Outcome::Failed, message) };
                steps.tell(step).await;
            }
        }
    }

    /// Waits until the process was started again and is ready to its probe and by its own word.
    async fn started_again(&self, former: &Generation, starts: u32) -> Result<(), Failed> {
        let Some(mut process) = former.process.clone() else { return Ok(()) };
        let within = self.recipe.as_ref().map_or(Duration::ZERO, |recipe| recipe.spec.ready.within);
        let again = process.wait_for(|state| {
            let is_again = state.starts > starts;
            is_again && matches!(state.phase, Phase::Ready | Phase::Backoff | Phase::CrashLoop | Phase::Stopped)
        });
        let again = tokio::time::timeout(within + SLACK, async { again.await.ok().map(|state| state.clone()) }).await;
        match again {
            Ok(Some(state)) if state.phase == Phase::Ready => {}
            Ok(Some(state)) => {
                let cause = state.cause.clone().unwrap_or_else(|| cause(Reason::ProcessExited, "it ended"));
                return Err(Failed { cause, lines: state.last_lines.clone() });
            }
            _ => {
                let cause = cause(Reason::NotReadyInTime, "the process was not ready in time");
                return Err(Failed { cause, lines: Vec::new() });
            }
        }
        self.proof().of(former).await
    }

    /// The new generation is ended and the former one goes on.
    async fn failed(&self, failed: Failed, former: &Generation, steps: Teller) {
        let is_well = former.state().is_some_and(|state| matches!(state.phase, Phase::Ready | Phase::Paused));
        let rest = if is_well { "the former process serves on" } else { "the former process is not ready either" };
        let message = format!("{}; {rest}", failed.cause);
        tracing::warn!(generation = former.number, cause = message, "reload failed");
        self.note(Some(cause(Reason::ReloadFailed, &message)));
        self.linked.report_now();
        let generations = (former.number, former.number);
        steps.tell(Step { generations, lines: failed.lines, ..Step::of(Outcome::Failed, message) }).await;
    }
}
