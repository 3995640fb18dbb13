//! Keeps the picture of one instance: gathers what is known of it, and tells the inbound and the masters what follows.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use synego_control_plane::attach::Attachment;
use synego_control_plane::uplink::{SidecarSettings, UplinkHandle};
use synego_data_plane::{Gate, InboundTarget, Permits};
use synego_model::process::ServiceAddress;
use synego_model::{Announcement, Cause, HealthSpec, InstanceState, Probe, Protocol, Reason, ServiceName};
use synego_runtime::{Stop, clock};
use synego_supervise::{Phase, ProbeContext, ProbeState, Prober, ProcessState};
use tokio::sync::watch;

use crate::state::{self, Facts, ProcessFacts};
use crate::target::{self, Basis};

/// The state of an instance and why.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Its state.
    pub state: InstanceState,
    /// Why.
    pub cause: Option<Cause>,
    /// Process id, 0: not known.
    pub pid: u32,
    /// Restarts of the process.
    pub restarts: u32,
}

impl Default for View {
    fn default() -> Self {
        Self { state: InstanceState::Starting, cause: None, pid: 0, restarts: 0 }
    }
}

/// Everything that is gathered, and everyone who is told.
pub(crate) struct Keeper {
    pub(crate) address: ServiceAddress,
    pub(crate) protocol: Protocol,
    pub(crate) process: Option<watch::Receiver<ProcessState>>,
    /// What the configuration says of health; the manifest, once it reached the sidecar, wins.
    pub(crate) health: Option<HealthSpec>,
    pub(crate) probe: ProbePlace,
    pub(crate) attachment: watch::Receiver<Attachment>,
    pub(crate) settings: watch::Receiver<SidecarSettings>,
    pub(crate) drain: watch::Receiver<DrainStep>,
    pub(crate) target: Arc<ArcSwap<InboundTarget>>,
    pub(crate) permits: Arc<ArcSwap<Permits>>,
    /// What this sidecar was told that its service calls; it counts where the manifest does not name the service.
    pub(crate) uses: Vec<ServiceName>,
    pub(crate) announcement: watch::Sender<Announcement>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) uplink: UplinkHandle,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DrainStep {
    /// There is none.
    No,
    /// Callers are being told.
    Announced,
    /// New requests are refused.
    Refusing,
}

/// Where a probe looks.
pub(crate) struct ProbePlace {
    pub(crate) service: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: PathBuf,
}

impl Keeper {
    /// Gathers and tells until the stop is cut: the picture is kept through the whole drain.
    pub(crate) async fn run(mut self, stop: Stop) {
        let mut spec = self.health_in_force();
        let mut probed = self.run_of_the_process();
        let mut prober = self.prober(spec.as_ref());
        let mut settle = clock::now();
        let mut gate = self.admit();
        loop {
            // What a probe saw of a process before it was ready, or of its predecessor, says nothing about it.
            let run = self.run_of_the_process();
            if run != probed {
                prober = self.prober(spec.as_ref());
                probed = run;
                settle = clock::now() + ATTACH;
            }
            let settled = clock::now() >= settle;
            self.tell(prober.as_mut(), settled, &gate);
            tokio::select! {
                () = changed(self.process.as_mut()) => {}
                () = looked(prober.as_mut()) => {}
                _ = self.attachment.changed() => {}
                _ = self.drain.changed() => {}
                _ = self.settings.changed() => {
                    gate = self.admit();
                    let wanted = self.health_in_force();
                    if wanted != spec {
                        prober = self.prober(wanted.as_ref());
                        spec = wanted;
                    }
                }
                () = tokio::time::sleep_until(settle.into()), if !settled => {}
                () = stop.cut() => return,
            }
        }
    }

    /// Who may call this service, prepared once for each change of it; tells the outbound whom it may call.
    fn admit(&mut self) -> Arc<Gate> {
        let settings = self.settings.borrow_and_update();
        // Until a master has spoken, now or before a restart, nothing is known: neither who may call, nor whom to call.
        let Some(access) = &settings.access else { return Arc::default() };
        let uses = if settings.declared { &settings.uses } else { &self.uses };
        self.permits.store(Arc::new(Permits::new(uses, settings.declared)));
        Arc::new(Gate::new(access, &settings.callers))
    }

    /// The probe of the manifest, else that of the configuration, else (where no parent sees the process) its port.
    fn health_in_force(&self) -> Option<HealthSpec> {
        let settings = self.settings.borrow();
        let exec = self.health.clone().filter(|spec| matches!(spec.probe, Probe::Exec(_)));
        // A probe by command comes from this machine's own file alone.
        let said = exec.or_else(|| if settings.declared { settings.health.clone() } else { self.health.clone() });
        said.or_else(|| self.process.is_none().then(|| HealthSpec::of(Probe::Tcp)))
    }

    /// Which run of the process is ready now: the time of its start; `None`: none is. Without a process: always the same.
    fn run_of_the_process(&self) -> Option<u64> {
        let Some(process) = &self.process else { return Some(0) };
        let process = process.borrow();
        matches!(process.phase, Phase::Ready | Phase::Paused).then_some(process.started_unix_ms)
    }

    fn prober(&self, spec: Option<&HealthSpec>) -> Option<Watched> {
        self.run_of_the_process()?;
        let context = ProbeContext {
            service: self.probe.service.clone(),
            address: self.address.clone(),
            env: self.probe.env.clone(),
            cwd: self.probe.cwd.clone(),
        };
        spec.map(|spec| {
            let prober = Prober::start(spec.clone(), context);
            Watched { state: prober.state(), _prober: prober }
        })
    }

    fn tell(&self, prober: Option<&mut Watched>, settled: bool, gate: &Arc<Gate>) {
        let attachment = self.attachment.borrow().clone();
        let process = self.process.as_ref().map(|process| process.borrow().clone());
        let former = self.view.borrow().clone();
        let drain = *self.drain.borrow();
        let facts = Facts {
            process: process.as_ref().map(|process| process_facts(process, attachment.attached || settled)),
            is_probed: prober.is_some(),
            probe: prober.and_then(|watched| verdict(&watched.state.borrow_and_update(), &former)),
            said: attachment.said.as_ref().map(|said| (said.state, said.cause.clone())),
            is_draining: drain != DrainStep::No,
        };
        let (state, cause) = state::of(&facts);
        let view = View {
            state,
            cause,
            pid: process.as_ref().map_or(attachment.pid, |process| process.pid),
            restarts: process.as_ref().map_or(0, |process| process.restarts),
        };
        let target = target::of(Basis {
            address: &self.address,
            protocol: self.protocol,
            attachment: &attachment,
            state,
            cause: view.cause.clone(),
            refuses: drain == DrainStep::Refusing,
            policy: Arc::new(self.settings.borrow().policy.clone()),
            gate: gate.clone(),
        });
        self.target.store(Arc::new(target));
        let is_new = self.view.send_if_modified(|current| {
            let is_new = *current != view;
            current.clone_from(&view);
            is_new
        });
        let started = process.map_or(0, |process| process.started_unix_ms);
        self.announcement.send_if_modified(|announcement| announce(announcement, &attachment, view.pid, started));
        if is_new {
            log(&former, &view);
            self.uplink.report_now();
        }
    }
}

fn log(former: &View, view: &View) {
    let cause = view.cause.as_ref().map(ToString::to_string).unwrap_or_default();
    if former.state != view.state {
        tracing::info!(from = %former.state, to = %view.state, cause, pid = view.pid, "instance state");
    }
}

/// Takes over what the service said of itself; true when that changed something.
fn announce(announcement: &mut Announcement, attachment: &Attachment, pid: u32, started: u64) -> bool {
    let before = announcement.clone();
    announcement.pid = pid;
    announcement.started_unix_ms = started;
    if let Some(hello) = &attachment.hello {
        announcement.generation = hello.generation;
        announcement.sdk.clone_from(&hello.sdk);
        // What the manifest or the command line says is what routes name; the service's own word fills the gap.
        if announcement.version.is_empty() {
            announcement.version.clone_from(&hello.version);
        }
        announcement.handlers = attachment.handlers.handlers.iter().map(|handler| handler.pattern.clone()).collect();
        let places = &attachment.handlers.routes;
        if !places.is_empty() && announcement.routes.is_none() {
            announcement.routes = Some(places.iter().map(ToString::to_string).collect());
        }
    }
    *announcement != before
}

/// Time after its port opened in which a service with an SDK attaches: until then an open port proves nothing, since the
/// service may be about to say that it is still starting.
const ATTACH: Duration = Duration::from_millis(250);

fn process_facts(process: &ProcessState, is_known: bool) -> ProcessFacts {
    ProcessFacts {
        is_ready: matches!(process.phase, Phase::Ready | Phase::Paused) && is_known,
        is_halted: process.phase == Phase::Paused,
        has_failed: matches!(process.phase, Phase::CrashLoop | Phase::Stopped),
        cause: process.cause.clone(),
    }
}

/// What the probe decided; the cause keeps the time at which it first failed.
fn verdict(probe: &ProbeState, former: &View) -> Option<Result<(), Cause>> {
    Some(if probe.ok? {
        Ok(())
    } else {
        let since = former.cause.as_ref().filter(|cause| cause.reason == Reason::ProbeFailed);
        Err(Cause {
            reason: Reason::ProbeFailed,
            message: probe.cause.clone(),
            since_unix_ms: since.map_or_else(clock::unix_ms, |cause| cause.since_unix_ms),
        })
    })
}

async fn changed(process: Option<&mut watch::Receiver<ProcessState>>) {
    match process {
        Some(process) => {
            if process.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// Waits until the probe has looked again.
async fn looked(prober: Option<&mut Watched>) {
    match prober {
        Some(watched) => {
            if watched.state.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// A probe and what it came to.
struct Watched {
    state: watch::Receiver<ProbeState>,
    _prober: Prober,
}
