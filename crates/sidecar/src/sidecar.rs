//! Builds a sidecar from the leaves up, serves, and drains it: the one place where the two planes meet.

mod bind;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use synego_control_plane::attach::{AttachHandle, AttachServer};
use synego_control_plane::uplink::{Uplink, UplinkHandle, UplinkStatus};
use synego_data_plane::{InboundTarget, Parking, Permits, Server, WorkersHandle};
use synego_identity::Connector;
use synego_model::{Announcement, InstanceId, ServiceName};
use synego_runtime::admin::{self};
use synego_runtime::logs::{Journal, LogHandle};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::telemetry::Metrics;
use synego_runtime::{Readiness, Stop, keeper};
use synego_supervise::{ExitOutcome, OutputSink, ProcessSpec, ProcessState};
use tokio::sync::{mpsc, watch};

use crate::conductor::{Conductor, Recipe};
use crate::config::{ProcessConfig, SidecarConfig};
use crate::drain::Drain;
use crate::environment::{self, Told};
use crate::follow::{follow_access_lines, follow_readiness, show};
use crate::generation::{Generation, Pids};
use crate::handover;
use crate::instance::{DrainStep, Keeper, View, Wishes};
use crate::left::{self, Left};
use crate::orders::{Ordered, Orders};
use crate::output::LevelOf;
use crate::proof::{self, ProbePlace};
use crate::sockets::Sockets;

/// What several sidecars of one process share.
#[derive(Clone)]
pub struct Shared {
    /// The threads that move requests.
    pub workers: WorkersHandle,
    /// Metrics of the process.
    pub metrics: Metrics,
    /// Where lines are kept.
    pub journal: Journal,
    /// In whose name the program of the sidecar speaks, where nobody else tells of it.
    pub program: Option<(String, LogHandle)>,
}

/// How a sidecar ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ended {
    /// How its process ended, where it was the parent.
    pub exit: Option<ExitOutcome>,
    /// Whether its process is not started again, though it could never be started.
    pub gave_up: bool,
    /// Requests that were cut off.
    pub cut_requests: u32,
    /// Streams that were cut off.
    pub cut_streams: u32,
}

/// A sidecar with every port taken and nothing served yet.
pub struct Sidecar {
    config: SidecarConfig,
    inbound: Server,
    outbounds: Vec<Server>,
    attach: AttachServer,
    attached: AttachHandle,
    uplink: Uplink,
    linked: UplinkHandle,
    admin: Option<(admin::Listener, Metrics, Readiness)>,
    target: Arc<ArcSwap<InboundTarget>>,
    parking: Parking,
    current: watch::Sender<Arc<Generation>>,
    pids: Pids,
    orders: (Orders, mpsc::Receiver<Ordered>),
    permits: Arc<ArcSwap<Permits>>,
    announcement: watch::Sender<Announcement>,
    /// Whether a former part of this program was told that it takes no requests.
    drained: bool,
    view: watch::Sender<View>,
    process: watch::Sender<Option<ProcessState>>,
    output: OutputSink,
    levels: LevelOf,
    sockets: Sockets,
    used: Vec<(ServiceName, SocketAddr)>,
    workers: WorkersHandle,
}

impl Sidecar {
    /// Where peers reach the instance.
    #[must_use]
    pub fn inbound(&self) -> SocketAddr {
        self.inbound.local_addr()
    }

    /// Where the process reaches others.
    #[must_use]
    pub fn outbound(&self) -> SocketAddr {
        self.outbounds.first().map_or(self.config.outbound, Server::local_addr)
    }

    /// The state of the instance, and every change of it.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// What the instance announces, and every change of it.
    #[must_use]
    pub fn announcement(&self) -> watch::Receiver<Announcement> {
        self.announcement.subscribe()
    }

    /// The process, once it was started; `None` where the sidecar is not its parent.
    #[must_use]
    pub fn process(&self) -> watch::Receiver<Option<ProcessState>> {
        self.process.subscribe()
    }

    /// The links to the masters.
    #[must_use]
    pub fn links(&self) -> watch::Receiver<UplinkStatus> {
        self.linked.status()
    }

    /// By which it is told to reload or drain.
    #[must_use]
    pub fn orders(&self) -> Orders {
        self.orders.0.clone()
    }

    /// The lines of the process.
    #[must_use]
    pub fn output(&self) -> OutputSink {
        self.output.clone()
    }

    /// Starts the process, tells the masters, and serves until the stop; returns once drained or cut.
    ///
    /// The order of the end: announce and wait until callers know → refuse new requests → those in flight finish → the
    /// process ends → the outbound closes. `config.stop` is the limit of all of it.
    pub async fn serve(mut self, stop: Stop) -> Ended {
        // Ends after the drain, or with a cut of the whole.
        let (end, life) = stop.outliving();
        let (wishes, wished) = watch::channel(Wishes::default());
        let place = ProbePlace { service: self.config.service.to_string() };
        // Processes and links are one part's alone.
        keeper::turn().await;
        let share = keeper::share();
        let id = InstanceId::new(&self.config.instance, &self.config.node);
        if let Some(left) = Left::of(&id) {
            // It was reloaded or drained since this part was begun.
            self.drained = left.drained;
            // What runs without us is where we were told that it is.
            let address = left.address().filter(|_| self.config.process.is_some());
            self.current.send_modify(|current| {
                let current = Arc::make_mut(current);
                current.number = left.number;
                address.into_iter().for_each(|address| current.address = address);
            });
        }
        if self.drained {
            wishes.send_modify(|wishes| wishes.drain = DrainStep::Refusing);
        }
        let number = self.current.borrow().number;
        left::end_others(&id, number, self.config.stop);
        let env = proof::with_number(self.variables(), number);
        self.current.send_modify(|current| Arc::make_mut(current).env = env);
        let mut conductor = Conductor {
            id: id.clone(),
            recipe: self.config.process.take().map(|process| self.recipe(process, life.clone())),
            current: self.current.clone(),
            wishes: wishes.clone(),
            pids: self.pids.clone(),
            attached: self.attached.clone(),
            settings: self.linked.settings(),
            linked: self.linked.clone(),
            health: self.config.health.clone(),
            place: place.clone(),
            within: self.config.stop,
            workers: self.workers.count(),
            levels: self.levels.clone(),
            orders: self.orders.1,
            supervisor: None,
            is_built: self.config.is_built,
            stays: self.config.stays,
            obeyed_wish: 0,
            retiring: Vec::new(),
        };
        // Before there is a process: whoever finds that one must know where it was told to listen.
        left::keep(&id, self.announcement.borrow().incarnation.clone(), self.current.subscribe(), wishes.subscribe());
        conductor.start();
        tasks::spawn("process-state", Kind::Connection, show(self.current.subscribe(), self.process.clone()));
        let keeper = Keeper {
            current: self.current.subscribe(),
            protocol: self.config.protocol,
            health: self.config.health.clone(),
            probe: place,
            attachments: self.attached.attachments(),
            settings: self.linked.settings(),
            wishes: wished,
            target: self.target.clone(),
            parking: self.parking.clone(),
            permits: self.permits.clone(),
            uses: self.config.uses.clone(),
            announcement: self.announcement.clone(),
            view: self.view.clone(),
            uplink: self.linked.clone(),
        };
        let (end_attach, attached_life) = life.child();
        let parts = [
            tasks::spawn("attach", Kind::Critical, self.attach.run(attached_life)),
            tasks::spawn("uplink", Kind::Critical, self.uplink.run(life.clone())),
            tasks::spawn("instance", Kind::Critical, keeper.run(life.clone())),
        ];
        let lines = follow_access_lines(self.linked.settings(), self.workers.clone());
        tasks::spawn("access-lines", Kind::Connection, lines);
        if let Some((listener, metrics, readiness)) = self.admin.take() {
            tasks::spawn("readiness", Kind::Connection, follow_readiness(self.view.subscribe(), readiness.clone()));
            let router = admin::router(metrics, readiness);
            let life = life.clone();
            tasks::spawn("admin", Kind::Critical, async move { admin::serve(vec![listener], router, life).await });
        }

        let opening =
            handover::open(self.inbound.clone(), self.outbounds.clone(), self.view.subscribe(), self.linked.status());
        tasks::spawn("opening", Kind::Connection, opening);
        let led = tokio::select! {
            led = conductor.run(stop.clone()) => led,
            () = keeper::yielding() => {
                let [attach, uplink, instance] = parts;
                // What is known stays as it is, and so does what the inbound does.
                instance.abort();
                end_attach.stop();
                // A part that panicked has been reported by its task.
                let _outcome = attach.await;
                drop(share);
                keeper::leaving().await;
                end.stop();
                let ended = handover::leave(&self.inbound, &self.outbounds, &stop).await;
                let _outcome = uplink.await;
                return ended;
            }
        };
        let drained = Drain {
            led,
            wishes,
            inbound: self.inbound,
            outbounds: self.outbounds,
            attached: self.attached,
            linked: self.linked,
        };
        let ended = tokio::select! {
            ended = drained.run() => ended,
            () = stop.cut() => Ended::default(),
        };
        end.stop();
        end.cut();
        for part in parts {
            // A part that panicked has been reported by its task.
            let _outcome = part.await;
        }
        ended
    }

    fn variables(&self) -> BTreeMap<String, String> {
        environment::variables(&Told {
            address: &self.current.borrow().address,
            service: &self.config.service,
            instance: &self.config.instance,
            socket: self.attached.socket(),
            outbound: self.outbound(),
            used: &self.used,
        })
    }

    fn recipe(&self, process: ProcessConfig, life: Stop) -> Recipe {
        let spec = ProcessSpec {
            name: self.config.instance.to_string(),
            command: process.command,
            build: process.build,
            cwd: process.cwd,
            // Address, variables and trial are each generation's own.
            env: BTreeMap::new(),
            user_env: process.env,
            env_files: process.env_files,
            ready: process.ready,
            address: None,
            health: self.config.health.clone(),
            grace: self.config.stop,
            stop_by: process.stop_by,
            run_as: process.run_as,
            caps: process.caps,
            restart: process.restart,
            trial: false,
            restarts: 0,
            run_dir: self.sockets.dir().to_owned(),
            // Each generation has its own.
            keep: None,
        };
        let (listens, sockets) = (self.config.listens.clone(), self.sockets.clone());
        Recipe { spec, listens, sockets, output: self.output.clone(), life }
    }
}

/// Who opens connections to other parts of the mesh.
pub(crate) fn peers(config: &SidecarConfig) -> Connector {
    config.credential.as_ref().map_or_else(Connector::plain, |credential| Connector::mutual(credential.own()))
}
