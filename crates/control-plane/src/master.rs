//! The control plane of a master: one task owns the registry, everything else asks it.
//!
//! Sidecars link over the mesh port or inside the process ([`InProcessMaster`]); both go through the same server. The
//! ingress of the same master gets every snapshot by [`MasterHandle::snapshots`].

mod handle;
mod links;
mod run;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngCore as _;
use synego_identity::Digest;
use synego_model::{Access, Announcement, Cause, Declaration, Engine, InstanceState, Snapshot};
use synego_runtime::clock;
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
use crate::lines::OutputSource;
use crate::link::Carrier;
use crate::lockout::Lockout;
use crate::metrics::{DoorMetrics, MasterMetrics};
use crate::order::Commanded;
use crate::registry::{At, Event, Link, Registry};
pub use crate::registry::{Notice, ServiceStatus};

pub use handle::{InProcessMaster, MasterHandle};
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
    /// What the master's own program and ingress say; `None`: nobody is told.
    pub lines: Option<Arc<dyn OutputSource>>,
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
    pub(crate) lines: Option<Arc<dyn OutputSource>>,
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
            lines: config.lines,
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
