//! The control plane of a master: one task owns the registry, everything else asks it.
//!
//! Sidecars link over the mesh port or inside the process ([`InProcessMaster`]); both go through the same server. The
//! ingress of the same master gets every snapshot by [`MasterHandle::snapshots`].

mod links;
mod run;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngCore as _;
use synego_identity::{Acceptor, Digest};
use synego_model::{
    Access, AccessLines, Announcement, CallFigures, Cause, Declaration, Denial, EjectionReport, Engine, InstanceState,
    Snapshot,
};
use synego_runtime::clock;
use synego_runtime::lifecycle::Stop;
use synego_runtime::telemetry::Metrics;
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::pb;
use tokio::sync::{mpsc, oneshot, watch};

use crate::admin::identity::Known;
pub use crate::admin::{
    ApplyAsked, Audit, DownAsked, DownOutcome, DownStep, LoginBook, ManifestText, NoPlanner, Planned, PlannedChange,
    Planner, Refusal,
};
use crate::authority::AuthorityHandle;
use crate::credential::CredentialHandle;
use crate::enrol::Door;
use crate::health::Health;
use crate::link::{self, Carrier};
use crate::lockout::Lockout;
use crate::metrics::{DoorMetrics, MasterMetrics};
use crate::order::Commanded;
use crate::registry::{At, Event, Link, Registry};
pub use crate::registry::{Notice, ServiceStatus};

pub(crate) use links::{Asked, Filter, Linked, Links};

/// Time between two ticks of the registry.
const TICK: Duration = Duration::from_millis(200);
/// Questions and events that wait for the task that owns the registry.
const INBOX: usize = 1024;

/// What a master's control plane runs on.
#[derive(Clone)]
pub struct MasterConfig {
    /// Name of this master, such as `master@vm1`.
    pub name: String,
    /// What the manifest declares at the start.
    pub declaration: Declaration,
    /// What is told of this master.
    pub facts: MasterFacts,
    /// Who understands manifests for `apply`.
    pub planner: Arc<dyn Planner>,
    /// The tokens by which people are known over TCP.
    pub logins: LoginBook,
    /// Where changes are written down.
    pub audit: Audit,
    /// Who issues the certificates of the mesh; `None`: it runs without.
    pub authority: Option<AuthorityHandle>,
    /// The master's own certificate.
    pub credential: Option<CredentialHandle>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// What is told of a master to sidecars and people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MasterFacts {
    /// Where its ingress listens.
    pub ingress: Option<SocketAddr>,
    /// Where it takes links.
    pub mesh: Option<SocketAddr>,
    /// Where its admin API listens.
    pub admin: Option<SocketAddr>,
    /// Version of the program.
    pub version: String,
    /// When it started: milliseconds since 1970-01-01 UTC.
    pub started_unix_ms: u64,
}

/// What faces the world on this machine, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayStatus {
    /// Who serves.
    pub engine: Engine,
    /// Version of Nginx; may be empty.
    pub nginx_version: String,
    /// Addresses, as `name address`.
    pub listen: Vec<String>,
    /// Its state.
    pub state: InstanceState,
    /// Why, and what is missing.
    pub cause: Option<Cause>,
    /// Static places.
    pub static_places: Vec<String>,
    /// SPA places.
    pub spa_places: Vec<String>,
    /// URL to open.
    pub url: String,
}

/// What is declared, with the version that goes up by each change of it.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) revision: u64,
    pub(crate) declaration: Arc<Declaration>,
}

/// A question to the task that owns the registry, or an event for it.
pub(crate) enum Ask {
    /// Something happened.
    Event(Box<Event>),
    /// A sidecar wants to link: taken, or why not.
    Join(Link, Box<Announcement>, oneshot::Sender<Result<(), String>>),
    /// The whole, for people; of these services, or all.
    View(Vec<String>, oneshot::Sender<pb::MeshView>),
    /// Who each instance is by its certificate.
    Identities(oneshot::Sender<Vec<Known>>),
}

/// A machine, by name, and who obeys orders there.
pub(crate) type Machine = (String, Arc<dyn Commanded>);

/// What the parts of a master's control plane share.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) incarnation: String,
    pub(crate) facts: MasterFacts,
    pub(crate) planner: Arc<dyn Planner>,
    /// Who gives certificates; `None`: the mesh runs without.
    pub(crate) door: Option<Arc<Door>>,
    pub(crate) credential: Option<CredentialHandle>,
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) links: Arc<Links>,
    pub(crate) logins: LoginBook,
    /// Who guessed tokens of the admin API.
    pub(crate) guesses: Mutex<Lockout>,
    pub(crate) audit: Audit,
    pub(crate) metrics: MasterMetrics,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) services: watch::Sender<Arc<Vec<ServiceStatus>>>,
    pub(crate) declared: watch::Sender<Declared>,
    pub(crate) gateway: watch::Sender<Option<GatewayStatus>>,
    pub(crate) notices: watch::Sender<Vec<Notice>>,
    /// Turns with every event, for those that watch.
    pub(crate) turned: watch::Sender<u64>,
    /// One apply at a time.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// `NOT_SERVING` once the end began.
    pub(crate) health: Health,
    pub(crate) downs: mpsc::Sender<DownAsked>,
    downs_taken: Mutex<Option<mpsc::Receiver<DownAsked>>>,
    /// Who obeys for the machine that this master shares its process with.
    machine: Mutex<Option<Machine>>,
    carriers: mpsc::Sender<Carrier>,
    next_link: AtomicU64,
}

impl Shared {
    pub(crate) fn new_link(&self) -> Link {
        Link(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether someone listens for the wish to end everything.
    pub(crate) fn may_go_down(&self) -> bool {
        self.downs_taken.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The machine that this master shares its process with.
    pub(crate) fn machine(&self) -> Option<Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By which what is declared now is told from what was before.
    pub(crate) fn digest(&self) -> String {
        let declaration = Arc::clone(&self.declared.borrow().declaration);
        serde_json::to_vec(&*declaration).map_or_else(|error| error.to_string(), |text| Digest::of(&text).short())
    }

    pub(crate) fn settings(&self, service: &synego_model::ServiceName) -> SidecarSettings {
        let mut settings = settings_of(&self.declared.borrow().declaration, service);
        if let Some(table) = self.snapshot.borrow().service(service.as_str()) {
            settings.access = Some(table.access.as_ref().clone());
            settings.callers = table.callers.to_vec();
        }
        settings
    }
}

/// What a manifest says about the sidecars of `service`, but for who may call it.
pub(crate) fn settings_of(declaration: &Declaration, service: &synego_model::ServiceName) -> SidecarSettings {
    let of_all = SidecarSettings {
        access_lines: Some(declaration.access_lines),
        access: Some(Access::undeclared(declaration.access)),
        ..SidecarSettings::default()
    };
    match declaration.services.get(service) {
        None => of_all,
        Some(spec) => SidecarSettings {
            declared: true,
            policy: spec.policy.as_ref().clone(),
            health: spec.health.clone(),
            uses: spec.uses.clone(),
            ..of_all
        },
    }
}

/// The control plane of one master, to be [`run`](MasterControl::run).
pub struct MasterControl {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Registry,
    pub(crate) asks: mpsc::Receiver<Ask>,
    pub(crate) carriers: mpsc::Receiver<Carrier>,
    /// When the last snapshot was published; `None`: not yet.
    published: Option<std::time::Instant>,
    /// Whether those who watch services were not told of all changes yet.
    untold: bool,
}

impl MasterControl {
    /// A control plane and the handle to it; nothing runs yet.
    #[must_use]
    pub fn new(config: MasterConfig) -> (Self, MasterHandle) {
        let (asks, asked) = mpsc::channel(INBOX);
        let (carriers, carried) = mpsc::channel(16);
        let (downs, downs_taken) = mpsc::channel(1);
        let tick_ms = u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX);
        let registry = Registry::new(config.declaration.clone(), tick_ms);
        let declared = Declared { revision: 1, declaration: Arc::new(config.declaration) };
        let shared = Arc::new(Shared {
            name: config.name,
            incarnation: new_incarnation(),
            facts: config.facts,
            planner: config.planner,
            door: config.authority.map(|authority| Door::new(authority, DoorMetrics::new(&config.metrics))),
            credential: config.credential,
            asks,
            links: Arc::default(),
            logins: config.logins,
            guesses: Mutex::default(),
            audit: config.audit,
            metrics: MasterMetrics::new(&config.metrics),
            snapshot: watch::Sender::new(Arc::clone(registry.snapshot())),
            services: watch::Sender::new(Arc::new(registry.services())),
            declared: watch::Sender::new(declared),
            gateway: watch::Sender::new(None),
            notices: watch::Sender::new(Vec::new()),
            turned: watch::Sender::new(0),
            applying: tokio::sync::Mutex::new(()),
            health: Health::new(),
            downs,
            downs_taken: Mutex::new(Some(downs_taken)),
            machine: Mutex::new(None),
            carriers,
            next_link: AtomicU64::new(1),
        });
        let handle = MasterHandle { shared: Arc::clone(&shared) };
        (Self { shared, registry, asks: asked, carriers: carried, published: None, untold: false }, handle)
    }
}

/// A way to a running [`MasterControl`].
#[derive(Clone)]
pub struct MasterHandle {
    pub(crate) shared: Arc<Shared>,
}

impl MasterHandle {
    /// Every routing state: all services and all routes.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshot.subscribe()
    }

    /// How each service is, by name.
    #[must_use]
    pub fn services(&self) -> watch::Receiver<Arc<Vec<ServiceStatus>>> {
        self.shared.services.subscribe()
    }

    /// This master for sidecars of the same process.
    #[must_use]
    pub fn in_process(&self) -> InProcessMaster {
        InProcessMaster { name: self.shared.name.clone(), carriers: self.shared.carriers.clone() }
    }

    /// The admin API and `grpc.health.v1`, to be merged into the router of the admin port.
    pub fn admin_router(&self) -> axum::Router {
        crate::admin::router(Arc::clone(&self.shared))
    }

    /// Serves the admin API, and `pages` beside it, where other machines reach it, until `stop`: under TLS alone, and
    /// to those who say by a token or an operator's certificate who they are.
    pub async fn serve_admin_under_tls(
        &self,
        listener: tokio::net::TcpListener,
        acceptor: Acceptor,
        pages: axum::Router,
        stop: Stop,
    ) {
        let pages = crate::admin::guarded(pages, Arc::clone(&self.shared));
        crate::admin::serve_under_tls(listener, acceptor, self.admin_router().merge(pages), stop).await;
    }

    /// Tells what faces the world from this process.
    pub fn set_gateway(&self, gateway: Option<GatewayStatus>) {
        self.shared.gateway.send_replace(gateway);
        self.shared.turned.send_modify(|turns| *turns += 1);
    }

    /// Replaces what the assembly wants people to know.
    pub fn warn(&self, notices: Vec<Notice>) {
        self.shared.notices.send_replace(notices);
        self.shared.turned.send_modify(|turns| *turns += 1);
    }

    /// Tells what this master's own ingress sees as a caller: which instances it leaves out, what it called and what
    /// access refused since the last time. To be told each second; one that finds the registry busy is dropped.
    pub fn ingress_report(&self, ejections: Vec<EjectionReport>, calls: Vec<CallFigures>, denials: Vec<Denial>) {
        let _full = self.shared.asks.try_send(Ask::Event(Box::new(Event::Ingress(ejections, calls, denials))));
    }

    /// Puts another declaration in force.
    pub fn declare(&self, declaration: Declaration) {
        let declaration = Arc::new(declaration);
        self.shared.declared.send_modify(|declared| {
            declared.revision += 1;
            declared.declaration = declaration;
        });
    }

    /// Which exchanges get a line in the access log: hands over what is declared, and again whenever that changes.
    /// Ends with the control plane.
    pub async fn follow_access_lines(&self, mut take: impl FnMut(AccessLines)) {
        let mut declared = self.shared.declared.subscribe();
        loop {
            let lines = declared.borrow_and_update().declaration.access_lines;
            take(lines);
            if declared.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is declared, as it is now.
    #[must_use]
    pub fn declaration(&self) -> Arc<Declaration> {
        Arc::clone(&self.shared.declared.borrow().declaration)
    }

    /// Says who obeys orders for the machine that this master shares its process with, also while no sidecar runs there.
    pub fn set_machine(&self, node: &str, machine: Arc<dyn Commanded>) {
        *self.shared.machine.lock().unwrap_or_else(PoisonError::into_inner) = Some((node.to_owned(), machine));
    }

    /// Wishes to end everything that this process runs. `None` once it was taken; never taken: the wish is refused.
    #[must_use]
    pub fn downs(&self) -> Option<mpsc::Receiver<DownAsked>> {
        self.shared.downs_taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns once every declared service has as many instances ready as are wanted, or after `within`. A master that
    /// comes back waits for this before it takes requests: it does not know yet who is there.
    pub async fn settled(&self, within: Duration) {
        let mut services = self.services();
        let all_ready = services.wait_for(|all| all.iter().all(|service| service.ready >= service.wanted));
        let _ready_or_late = tokio::time::timeout(within, all_ready).await;
    }
}

/// A master in the same process: nothing of its links crosses the network.
#[derive(Clone, Debug)]
pub struct InProcessMaster {
    name: String,
    carriers: mpsc::Sender<Carrier>,
}

impl InProcessMaster {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A carrier to it; `None` when it ended.
    pub(crate) async fn carrier(&self) -> Option<Carrier> {
        let (ours, theirs) = link::in_memory();
        self.carriers.send(theirs).await.ok().map(|()| ours)
    }
}

/// 128 random bits in hex: tells one start of a program from another.
#[must_use]
pub(crate) fn new_incarnation() -> String {
    let mut bytes = [0_u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time of an event.
pub(crate) fn now(began: std::time::Instant) -> At {
    let ms = clock::now().saturating_duration_since(began).as_millis();
    At { ms: u64::try_from(ms).unwrap_or(u64::MAX), unix_ms: clock::unix_ms() }
}
