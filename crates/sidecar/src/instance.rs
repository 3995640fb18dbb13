//! Keeps the picture of one instance: gathers what is known of it, and tells the inbound and the masters what follows.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use synego_control_plane::attach::{Attachment, Attachments};
use synego_control_plane::uplink::{SidecarSettings, UplinkHandle};
use synego_data_plane::{Gate, InboundTarget, Parking, Permits};
use synego_model::{Announcement, Cause, HealthSpec, InstanceState, Protocol, Reason, ServiceName};
use synego_runtime::{Stop, clock};
use synego_supervise::{Phase, ProbeState, Prober, ProcessState};
use tokio::sync::watch;

use crate::generation::Generation;
use crate::proof::{self, ProbePlace};
use crate::state::{self, Facts, ProcessFacts};
use crate::target::{self, Basis};

/// Time between looks at what a drain still waits for.
const OPEN_LOOK: Duration = Duration::from_secs(1);

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
    /// The generation that serves.
    pub(crate) current: watch::Receiver<Arc<Generation>>,
    pub(crate) protocol: Protocol,
    /// What the configuration says of health; the manifest, once it reached the sidecar, wins.
    pub(crate) health: Option<HealthSpec>,
    pub(crate) probe: ProbePlace,
    pub(crate) attachments: watch::Receiver<Attachments>,
    pub(crate) settings: watch::Receiver<SidecarSettings>,
    pub(crate) wishes: watch::Receiver<Wishes>,
    pub(crate) target: Arc<ArcSwap<InboundTarget>>,
    pub(crate) parking: Parking,
    pub(crate) permits: Arc<ArcSwap<Permits>>,
    /// What this sidecar was told that its service calls; it counts where the manifest does not name the service.
    pub(crate) uses: Vec<ServiceName>,
    pub(crate) announcement: watch::Sender<Announcement>,
    pub(crate) view: watch::Sender<View>,
    pub(crate) uplink: UplinkHandle,
}

/// What is wished of the instance, and what people are told beside its state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    /// How far its drain is.
    pub(crate) drain: DrainStep,
    /// Its process is started again in its place, and its requests wait.
    pub(crate) parks: bool,
    /// How its last reload goes or went.
    pub(crate) notice: Option<Cause>,
    /// What a former generation still finishes.
    pub(crate) finishing: Option<Cause>,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum DrainStep {
    /// There is none.
    #[default]
    No,
    /// Callers are being told.
    Announced,
    /// New requests are refused.
    Refusing,
}

impl Keeper {
    /// Gathers and tells until the stop is cut: the picture is kept through the whole drain.
    pub(crate) async fn run(mut self, stop: Stop) {
        let mut generation = self.current.borrow_and_update().clone();
        let mut process = generation.process.clone();
        let mut was_ready = false;
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
            let now = self.current.borrow_and_update().clone();
            if now.number != generation.number || now.process.is_some() != process.is_some() {
                // It has proved itself before it came here.
                settle = clock::now();
                process = now.process.clone();
            }
            generation = now;
            let settled = clock::now() >= settle;
            was_ready |= self.tell(prober.as_mut(), settled, &gate, was_ready);
            let drains = self.wishes.borrow().drain != DrainStep::No;
            tokio::select! {
                () = tokio::time::sleep(OPEN_LOOK), if drains => {}
                () = changed(process.as_mut()) => {}
                Ok(()) = self.current.changed() => {}
                () = looked(prober.as_mut()) => {}
                Ok(()) = self.attachments.changed() => {}
                Ok(()) = self.wishes.changed() => {}
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

    fn health_in_force(&self) -> Option<HealthSpec> {
        let has_parent = self.current.borrow().process.is_some();
        proof::health_in_force(self.health.as_ref(), &self.settings.borrow(), has_parent)
    }

    /// Which run of the process is ready now: its generation and the time of its start; `None`: none is. Without a
    /// process: always the same.
    fn run_of_the_process(&self) -> Option<(u32, u64)> {
        let current = self.current.borrow();
        let Some(process) = &current.process else { return Some((0, 0)) };
        let process = process.borrow();
        matches!(process.phase, Phase::Ready | Phase::Paused).then_some((current.number, process.started_unix_ms))
    }

    fn prober(&self, spec: Option<&HealthSpec>) -> Option<Watched> {
        self.run_of_the_process()?;
        let context = self.probe.at(&self.current.borrow());
        spec.map(|spec| {
            let prober = Prober::start(spec.clone(), context);
            Watched { state: prober.state(), _prober: prober }
        })
    }

    /// Of the generation that serves; where another is the parent, of the highest there is.
    fn attachment(&self, current: &Generation) -> Attachment {
        let all = self.attachments.borrow();
        let found = match &current.process {
            Some(_) => all.get(&current.number),
            None => all.last_key_value().map(|(_, last)| last),
        };
        found.cloned().unwrap_or_default()
    }

    /// Tells what is known now; whether the instance takes requests.
    fn tell(&self, prober: Option<&mut Watched>, settled: bool, gate: &Arc<Gate>, was_ready: bool) -> bool {
        let current = self.current.borrow().clone();
        let attachment = self.attachment(&current);
        let process = current.state();
        let former = self.view.borrow().clone();
        let wishes = self.wishes.borrow().clone();
        let settings = self.settings.borrow().clone();
        let facts = Facts {
            process: process.as_ref().map(|process| process_facts(process, attachment.attached || settled)),
            is_probed: prober.is_some(),
            probe: prober.and_then(|watched| verdict(&watched.state.borrow_and_update(), &former)),
            said: attachment.said.as_ref().map(|said| (said.state, said.cause.clone())),
            is_draining: wishes.drain != DrainStep::No,
        };
        let (mut state, mut cause) = state::of(&facts);
        let restarts = process.is_some() && was_ready && state == InstanceState::Starting;
        // Where others are ready, callers go there at once.
        let may_park = settings.policy.park.is_some() && !settings.others_ready && wishes.drain == DrainStep::No;
        let parks = may_park && (wishes.parks || restarts);
        if parks {
            let why =
                cause.take().unwrap_or_else(|| proof::cause(Reason::Starting, "its process is reloaded in its place"));
            let message = format!("{}; its requests wait", why.message);
            (state, cause) = (InstanceState::Degraded, Some(Cause { message, ..why }));
        }
        if state == InstanceState::Draining && wishes.drain != DrainStep::No {
            cause = Some(still_open(&current, &former));
        }
        if state == InstanceState::Ready && cause.is_none() {
            cause = wishes.notice.or(wishes.finishing);
        }
        let view = View {
            state,
            cause,
            pid: process.as_ref().map_or(attachment.pid, |process| process.pid),
            restarts: process.as_ref().map_or(0, |process| process.restarts),
        };
        let target = target::of(Basis {
            address: &current.address,
            protocol: self.protocol,
            attachment: &attachment,
            state,
            cause: view.cause.clone(),
            refuses: wishes.drain == DrainStep::Refusing,
            parks,
            tenure: current.tenure.clone(),
            policy: Arc::new(settings.policy),
            gate: gate.clone(),
        });
        self.target.store(Arc::new(target));
        self.parking.turn();
        let is_new = self.view.send_if_modified(|shown| {
            let is_new = *shown != view;
            shown.clone_from(&view);
            is_new
        });
        let started = process.as_ref().map_or(0, |process| process.started_unix_ms);
        let caps = process.as_ref().map_or("", |process| process.caps.as_str());
        self.announcement.send_if_modified(|announcement| {
            let is_other = announcement.caps != caps;
            caps.clone_into(&mut announcement.caps);
            announce(announcement, &current, &attachment, view.pid, started) || is_other
        });
        if is_new {
            log(&former, &view);
            self.uplink.report_now();
        }
        process.is_some() && state.takes_requests()
    }
}

/// What a drain still waits for; the cause keeps the time at which it began.
fn still_open(current: &Generation, former: &View) -> Cause {
    let (requests, streams) = current.open();
    let since = former.cause.as_ref().filter(|cause| cause.reason == Reason::Draining);
    Cause {
        reason: Reason::Draining,
        message: format!("{} and {} are open", counted(requests, "request"), counted(streams, "stream")),
        since_unix_ms: since.map_or_else(clock::unix_ms, |cause| cause.since_unix_ms),
    }
}

/// `1 request`, `2 requests`.
pub(crate) fn counted(count: u32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn log(former: &View, view: &View) {
    let cause = view.cause.as_ref().map(ToString::to_string).unwrap_or_default();
    if former.state != view.state {
        tracing::info!(from = %former.state, to = %view.state, cause, pid = view.pid, "instance state");
    }
}

/// Takes over what the service said of itself; true when that changed something.
fn announce(
    announcement: &mut Announcement,
    current: &Generation,
    attachment: &Attachment,
    pid: u32,
    started: u64,
) -> bool {
    let before = announcement.clone();
    announcement.pid = pid;
    announcement.started_unix_ms = started;
    announcement.listens = current.address.to_string();
    announcement.generation = current.number;
    if let Some(hello) = &attachment.hello {
        if current.process.is_none() {
            announcement.generation = hello.generation;
        }
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
pub(crate) const ATTACH: Duration = Duration::from_millis(250);

fn process_facts(process: &ProcessState, is_known: bool) -> ProcessFacts {
    ProcessFacts {
        is_ready: matches!(process.phase, Phase::Ready | Phase::Paused) && is_known,
        is_halted: process.phase == Phase::Paused,
        is_done: process.is_done(),
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
