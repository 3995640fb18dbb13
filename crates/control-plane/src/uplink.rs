//! A sidecar's side of the mesh: reports to every master, snapshots from one of them.
//!
//! One task for each master holds its link (`report`); the task of [`Uplink::run`] decides whose snapshots
//! count (`subscribe`) and is the only one that publishes.

mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use synego_identity::Connector;
use synego_model::{Announcement, HealthReport, Limits, MeshName, NodeName, ServiceName, Snapshot};
use synego_runtime::clock;
use synego_runtime::telemetry::Metrics;
pub use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::table::MAX_SERVICES;
use tokio::sync::{Notify, watch};

use crate::credential::CredentialHandle;
pub use crate::lines::OutputSource;
pub use crate::master::InProcessMaster;
use crate::metrics::UplinkMetrics;
use crate::order::Commanded;
pub use crate::{LogLevel, OutputLine};

/// A fresh value for [`Announcement::incarnation`]: 128 random bits in hex.
#[must_use]
pub fn new_incarnation() -> String {
    crate::master::new_incarnation()
}

/// Where a master is.
#[derive(Debug, Clone)]
pub enum MasterAddress {
    /// Its mesh API at `host:port`; a name is looked up at each connect.
    Tcp(String),
    /// In this process.
    InProcess(InProcessMaster),
}

impl std::fmt::Display for MasterAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::InProcess(master) => f.write_str(master.name()),
        }
    }
}

/// What an uplink runs on.
pub struct UplinkConfig {
    /// The mesh; `None`: whichever the masters serve.
    pub mesh: Option<MeshName>,
    /// This machine.
    pub node: NodeName,
    /// Its zone; may be empty.
    pub zone: String,
    /// Version of the sidecar program.
    pub version: String,
    /// The one that stands in each [`Announcement`].
    pub incarnation: String,
    /// The masters, the preferred one first.
    pub masters: Vec<MasterAddress>,
    /// Who opens connections.
    pub connector: Connector,
    /// The certificate that the sidecar speaks with; `None`: the mesh runs without.
    pub credential: Option<CredentialHandle>,
    /// Where the last snapshot is kept; `None`: nowhere.
    pub snapshot_file: Option<PathBuf>,
    /// What is announced; a change is told at once.
    pub announcement: watch::Receiver<Announcement>,
    /// How the instance is; called by one task, each second and at [`UplinkHandle::report_now`].
    pub report: Arc<dyn Fn() -> HealthReport + Send + Sync>,
    /// Services that are subscribed from the start.
    pub uses: Vec<ServiceName>,
    /// Bounds that hold in the snapshots.
    pub limits: Limits,
    /// Takes each new routing state.
    pub publish: Arc<dyn Fn(Arc<Snapshot>) + Send + Sync>,
    /// Lines of the process's output, where the sidecar holds it.
    pub output: Option<Arc<dyn OutputSource>>,
    /// Who obeys what a person orders; `None`: nobody.
    pub commanded: Option<Arc<dyn Commanded>>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// How the links are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UplinkStatus {
    /// The masters, in the order of the configuration.
    pub masters: Vec<MasterLink>,
    /// Index of the one whose snapshots count.
    pub subscribed: Option<usize>,
    /// Whether a snapshot is in force, be it from the disk.
    pub taken_up: bool,
}

/// One master and the link to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MasterLink {
    /// As configured.
    pub address: String,
    /// What it said of itself; `None`: no link stands.
    pub linked: Option<LinkedMaster>,
    /// Why the last link could not be made or ended.
    pub last_error: Option<String>,
}

/// What a linked master said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedMaster {
    /// Its name.
    pub name: String,
    /// Where its ingress listens.
    pub ingress: Option<SocketAddr>,
    /// Since when the link stands: milliseconds since 1970-01-01 UTC.
    pub since_unix_ms: u64,
}

/// The uplink of one sidecar, to be [`run`](Uplink::run).
pub struct Uplink {
    pub(crate) config: UplinkConfig,
    pub(crate) shared: Arc<Shared>,
}

/// What the parts of an uplink share.
pub(crate) struct Shared {
    /// Names that someone asked for beyond `uses`.
    pub(crate) wanted: watch::Sender<BTreeSet<ServiceName>>,
    /// What is known of each subscribed name.
    pub(crate) known: watch::Sender<Arc<BTreeMap<ServiceName, bool>>>,
    pub(crate) changed: watch::Sender<u64>,
    pub(crate) urgent: Notify,
    pub(crate) settings: watch::Sender<SidecarSettings>,
    pub(crate) status: watch::Sender<UplinkStatus>,
    /// Masters whose callers all know that the instance drains.
    pub(crate) drain_known: watch::Sender<BTreeSet<usize>>,
    pub(crate) metrics: UplinkMetrics,
    fresh: Mutex<Freshness>,
}

/// Until when the snapshot in force was known to be current.
#[derive(Debug, Clone, Copy)]
struct Freshness {
    /// Its age at `at`; `None`: it is current as long as this stands.
    age: Option<Duration>,
    at: Instant,
}

impl Shared {
    /// From now on the snapshot is current, or it was `age` old just now and ages.
    pub(crate) fn set_age(&self, age: Option<Duration>) {
        let now = Freshness { age, at: clock::now() };
        *self.fresh.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    pub(crate) fn age(&self) -> Duration {
        let fresh = *self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.age.map_or(Duration::ZERO, |age| age + clock::now().saturating_duration_since(fresh.at))
    }
}

impl Uplink {
    /// An uplink and the handle to it; nothing runs yet.
    #[must_use]
    pub fn new(config: UplinkConfig) -> (Self, UplinkHandle) {
        let masters = config.masters.iter();
        let masters =
            masters.map(|master| MasterLink { address: master.to_string(), ..MasterLink::default() }).collect();
        let (service, id) = {
            let announcement = config.announcement.borrow();
            (announcement.service.clone(), announcement.id.clone())
        };
        let shared = Arc::new(Shared {
            wanted: watch::Sender::new(config.uses.iter().cloned().collect()),
            known: watch::Sender::new(Arc::default()),
            changed: watch::Sender::new(0),
            urgent: Notify::new(),
            settings: watch::Sender::new(SidecarSettings::default()),
            status: watch::Sender::new(UplinkStatus { masters, ..UplinkStatus::default() }),
            drain_known: watch::Sender::new(BTreeSet::new()),
            metrics: UplinkMetrics::new(&config.metrics, &service, id.instance()),
            fresh: Mutex::new(Freshness { age: Some(Duration::ZERO), at: clock::now() }),
        });
        let handle = UplinkHandle { shared: Arc::clone(&shared) };
        (Self { config, shared }, handle)
    }
}

/// A way to a running [`Uplink`].
#[derive(Clone)]
pub struct UplinkHandle {
    shared: Arc<Shared>,
}

impl UplinkHandle {
    /// Subscribes a service from now on; asking again changes nothing.
    pub fn want(&self, service: &ServiceName) {
        self.shared.wanted.send_if_modified(|wanted| {
            let fits = wanted.len() < MAX_SERVICES && !wanted.contains(service);
            fits && wanted.insert(service.clone())
        });
    }

    /// Whether the mesh knows a service; `None`: no master has said so yet.
    #[must_use]
    pub fn known(&self, service: &ServiceName) -> Option<bool> {
        self.shared.known.borrow().get(service).copied()
    }

    /// Turns with each snapshot that was taken up.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Reports at once, since something changed.
    pub fn report_now(&self) {
        self.shared.urgent.notify_one();
    }

    /// Reports at once that the instance drains, and returns when every master that is linked has said that all callers
    /// whom it tells know of it. Without a master there is nobody to tell.
    pub async fn announce_drain(&self) {
        self.shared.drain_known.send_modify(BTreeSet::clear);
        self.drain_known().await;
    }

    /// The same of a drain, or an end, that was reported before.
    pub async fn drain_known(&self) {
        self.report_now();
        let (mut known, mut status) = (self.shared.drain_known.subscribe(), self.status());
        loop {
            let all_know = {
                let (known, status) = (known.borrow_and_update(), status.borrow_and_update());
                let linked = status.masters.iter().enumerate().filter(|(_, master)| master.linked.is_some());
                linked.map(|(index, _)| index).all(|index| known.contains(&index))
            };
            if all_know {
                return;
            }
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What the manifest says about this sidecar's service.
    #[must_use]
    pub fn settings(&self) -> watch::Receiver<SidecarSettings> {
        self.shared.settings.subscribe()
    }

    /// How the links are.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<UplinkStatus> {
        self.shared.status.subscribe()
    }

    /// For how long no master has confirmed the snapshot in force; zero while the subscribed one's link stands.
    #[must_use]
    pub fn snapshot_age(&self) -> Duration {
        self.shared.age()
    }
}
