//! The proof that a new generation is better than none: ready by its own rule, by its own word, and to its probe.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use synego_control_plane::attach::Attachments;
use synego_control_plane::uplink::SidecarSettings;
use synego_model::{Cause, HealthSpec, Probe, Reason};
use synego_runtime::clock;
use synego_supervise::{Phase, ProbeContext, ProcessState};
use tokio::sync::watch;

use crate::generation::Generation;
use crate::instance::ATTACH;

/// Time between two looks of a probe.
const LOOK: Duration = Duration::from_millis(100);

/// Where a probe looks, beside the address.
#[derive(Debug, Clone)]
pub(crate) struct ProbePlace {
    pub(crate) service: String,
}

impl ProbePlace {
    pub(crate) fn at(&self, generation: &Generation) -> ProbeContext {
        ProbeContext {
            service: self.service.clone(),
            address: generation.address.clone(),
            env: generation.env.clone(),
            cwd: generation.cwd.clone(),
            run_as: generation.run_as.clone(),
        }
    }
}

/// The probe of the manifest, else that of the configuration, else (where no parent sees the process) its port.
///
/// - `own`: what the configuration says; the manifest, once it reached the sidecar, wins.
pub(crate) fn health_in_force(
    own: Option<&HealthSpec>,
    settings: &SidecarSettings,
    has_parent: bool,
) -> Option<HealthSpec> {
    let exec = own.filter(|spec| matches!(spec.probe, Probe::Exec(_)));
    // A probe by command comes from this machine's own file alone.
    let said = exec.or(if settings.declared { settings.health.as_ref() } else { own });
    said.cloned().or_else(|| (!has_parent).then(|| HealthSpec::of(Probe::Tcp)))
}

/// Why a generation failed to prove itself, and what it printed last.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) cause: Cause,
    pub(crate) lines: Vec<String>,
}

/// What a proof needs beside the generation.
pub(crate) struct Proof {
    pub(crate) attachments: watch::Receiver<Attachments>,
    pub(crate) health: Option<HealthSpec>,
    pub(crate) place: ProbePlace,
    /// Time from its start to its readiness.
    pub(crate) within: Duration,
}

impl Proof {
    /// Returns once the generation has proved itself.
    ///
    /// # Errors
    /// Why it has not.
    pub(crate) async fn of(mut self, generation: &Generation) -> Result<(), Failed> {
        let Some(mut process) = generation.process.clone() else { return Ok(()) };
        let own = process.wait_for(|state| matches!(state.phase, Phase::Ready | Phase::Stopped)).await;
        match own.map(|state| state.clone()) {
            Ok(state) if state.phase == Phase::Ready => {}
            Ok(state) => return Err(failed(&state)),
            Err(_) => return Err(ended("its supervisor ended")),
        }
        let began = clock::now();
        let rest = async {
            self.own_word(generation.number, began).await?;
            self.probe(generation, began).await
        };
        let over =
            async { process.wait_for(|state| matches!(state.phase, Phase::Stopped)).await.map(|state| state.clone()) };
        tokio::select! {
            proved = rest => proved.map_err(|cause| Failed { cause, lines: Vec::new() }),
            state = over => Err(state.map_or_else(|_| ended("its supervisor ended"), |state| failed(&state))),
        }
    }

    /// Waits for what the service says of itself; one that does not attach soon says nothing.
    async fn own_word(&mut self, number: u32, began: Instant) -> Result<(), Cause> {
        let (settled, end) = (began + ATTACH, began + self.within);
        loop {
            let said = self.attachments.borrow_and_update().get(&number).and_then(|found| found.said.clone());
            let now = clock::now();
            let waits_until = match &said {
                Some(said) if said.state.takes_requests() => return Ok(()),
                None if now >= settled => return Ok(()),
                Some(said) if now >= end => {
                    let why = said.cause.as_ref().map(ToString::to_string).unwrap_or_default();
                    let within = synego_model::text::duration(self.within);
                    let message = format!("not ready after {within}: it says that it is {} {why}", said.state);
                    return Err(cause(Reason::NotReadyInTime, message.trim_end()));
                }
                Some(_) => end,
                None => settled,
            };
            tokio::select! {
                changed = self.attachments.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(waits_until.into()) => {}
            }
        }
    }

    /// Asks its probe as often as one that was down is asked before it counts as up. One that is good and bad by turns does
    /// not count for ever.
    async fn probe(&self, generation: &Generation, began: Instant) -> Result<(), Cause> {
        let Some(health) = &self.health else { return Ok(()) };
        let context = self.place.at(generation);
        let (mut good, mut bad) = (0, 0);
        loop {
            match synego_supervise::probe(&health.probe, &context, health.timeout).await {
                Ok(()) => (good, bad) = (good + 1, 0),
                Err(problem) => {
                    (good, bad) = (0, bad + 1);
                    if bad >= health.down || clock::now() >= began + self.within {
                        return Err(cause(Reason::ProbeFailed, &problem));
                    }
                }
            }
            if good >= health.up {
                return Ok(());
            }
            tokio::time::sleep(LOOK.min(health.every)).await;
        }
    }
}

pub(crate) fn cause(reason: Reason, message: &str) -> Cause {
    Cause { reason, message: message.to_owned(), since_unix_ms: clock::unix_ms() }
}

fn failed(state: &ProcessState) -> Failed {
    let exit = || state.exit.map_or_else(|| "it ended".to_owned(), |exit| exit.to_string());
    let cause = state.cause.clone().unwrap_or_else(|| cause(Reason::ProcessExited, &exit()));
    Failed { cause, lines: state.last_lines.clone() }
}

fn ended(message: &str) -> Failed {
    Failed { cause: cause(Reason::StartFailed, message), lines: Vec::new() }
}

/// The variables of a generation, over those that all of them have.
pub(crate) fn with_number(mut env: BTreeMap<String, String>, number: u32) -> BTreeMap<String, String> {
    env.insert("SYNEGO_GENERATION".to_owned(), number.to_string());
    env
}
