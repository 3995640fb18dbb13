//! Builds a master from the leaves up, serves, and drains it: the one place where the two planes meet.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use synego_control_plane::credential::Keeper;
use synego_control_plane::lines::JournalLines;
use synego_control_plane::master::{
    Audit, InProcessMaster, LoginBook, MasterConfig as ControlConfig, MasterControl, MasterFacts, MasterHandle,
};
use synego_control_plane::store::{RedbStore, StoreError};
use synego_data_plane::{CallBook, DenialBook, Server, SnapshotWriter, WorkersHandle, snapshot_channel};
use synego_identity::{Acceptor, Admit, Connector};
use synego_manifest::Manifest;
use synego_model::Snapshot;
use synego_runtime::admin::{self, BindAddr, Listener};
use synego_runtime::logs::Journal;
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Host, Readiness, Stop, clock, config as machine, keeper};
use tokio::sync::watch;

use crate::config::MasterConfig;
use crate::handover;
use crate::identity;
use crate::ingress::Ingress;
use crate::planner::{self, ManifestPlanner};

/// Time for the requests that are in flight at the stop.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a master that comes back waits for the sidecars before it takes requests.
const SETTLE: Duration = Duration::from_millis(1500);
/// How often the ingress tells whom it leaves out.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A master with every port taken.
pub struct Master {
    handle: MasterHandle,
    control: MasterControl,
    mesh: Option<TcpListener>,
    admin: Vec<Listener>,
    /// Where other machines reach the admin API.
    far_admin: Vec<tokio::net::TcpListener>,
    ingress: Ingress,
    servers: Vec<Server>,
    waiting: Option<SocketAddr>,
    snapshots: SnapshotWriter,
    calls: CallBook,
    denials: DenialBook,
    readiness: Readiness,
    host: Host,
    addresses: Addresses,
    keeper: Option<Keeper>,
    manifests: watch::Receiver<Manifest>,
    /// Closed once a successor wants it.
    store: Option<Arc<RedbStore>>,
}

struct Addresses {
    ingress: SocketAddr,
    public: Vec<SocketAddr>,
    mesh: Option<SocketAddr>,
    admin: Vec<BindAddr>,
}

/// Opens the store.
async fn open_store(file: Option<PathBuf>) -> anyhow::Result<Option<Arc<RedbStore>>> {
    let Some(file) = file else { return Ok(None) };
    let until = clock::now() + handover::LETS_GO;
    loop {
        let own = file.clone();
        match tasks::spawn_blocking("store-open", move || RedbStore::open(&own)).await? {
            // A part whose keeper was just killed is on its way out.
            Err(StoreError::InUse { .. }) if clock::now() < until => {
                tokio::time::sleep(handover::LETS_GO / 20).await;
            }
            opened => return Ok(Some(Arc::new(opened?))),
        }
    }
}

/// Whether other machines reach the admin API at `address`. A token must not cross a network as it is: without
/// certificates there is no TLS, and it stays on this machine.
fn is_far(address: &BindAddr, has_certificate: bool) -> anyhow::Result<bool> {
    match address {
        BindAddr::Tcp(address) if !address.ip().is_loopback() => {
            let port = address.port();
            anyhow::ensure!(
                has_certificate,
                "the admin API at {address} would take tokens over the network without TLS, since `identity: {{ mtls: off \
                 }}` leaves this mesh without certificates: keep it on the loopback, `masters: {{ admin: {port} }}`, and \
                 reach it from elsewhere by `ssh -L {port}:127.0.0.1:{port} HOST`"
            );
            Ok(true)
        }
        _ => Ok(false),
    }
}

impl Master {
    /// Takes the ports and builds all parts.
    ///
    /// # Errors
    /// A port or socket that cannot be taken, with its name.
    pub async fn bind(
        mut config: MasterConfig,
        workers: &WorkersHandle,
        journal: Journal,
        host: &Host,
    ) -> anyhow::Result<Self> {
        let name = format!("master@{}", config.node);
        let program = config.program.clone().unwrap_or_else(|| name.clone());
        // A former part of this program has it until it is told.
        keeper::turn().await;
        let cores = u32::try_from(machine::cores()).unwrap_or(u32::MAX);
        config.manifest = planner::applied(cores).unwrap_or(config.manifest);
        let store = open_store(config.store.clone()).await?;
        let opened = store.clone();
        let (authority, keeper) = match config.identity.clone().zip(store.clone()) {
            Some((identity, store)) => {
                let (authority, keeper) = identity::open(identity, store, &config.manifest, &name, host).await?;
                (Some(authority), Some(keeper))
            }
            None => (None, None),
        };
        let credential = keeper.as_ref().map(Keeper::handle);
        let (snapshots, snapshot) = snapshot_channel(Snapshot::empty());
        let (calls, denials) = (CallBook::default(), DenialBook::default());
        let ingress = Ingress {
            workers: workers.clone(),
            name: name.as_str().into(),
            snapshot,
            access: journal.writer(),
            calls: calls.clone(),
            denials: denials.clone(),
            hosts: config.manifest.gateway.hosts.clone(),
            connector: credential.as_ref().map_or_else(Connector::plain, |own| Connector::mutual(own.own())),
        };
        workers.log_lines(config.manifest.declaration.access_lines);
        let mut servers = Vec::new();
        // A free port must be known now; a fixed one may wait until the sidecars have reported.
        let waits = config.settle && config.ingress.port() != 0;
        let mut own = config.ingress;
        if !waits {
            let server = ingress.serve(config.ingress)?;
            own = server.local_addr();
            servers.push(server);
        }
        let mut public = Vec::new();
        for listen in &config.public {
            let server = ingress.serve_world(listen)?;
            public.push(server.local_addr());
            servers.push(server);
        }
        let mesh = match config.mesh {
            Some(address) => Some(handover::mesh_listener(address).with_context(|| format!("mesh API {address}"))?),
            None => None,
        };
        let (mut admin, mut far_admin) = (Vec::new(), Vec::new());
        for address in &config.admin {
            let is_far = is_far(address, keeper.is_some())?;
            match admin::bind(address).await.with_context(|| format!("admin API {address}"))? {
                Listener::Tcp(listener) if is_far => far_admin.push(listener),
                near => admin.push(near),
            }
        }
        if let Some(socket) = &config.socket {
            // Two masters of one mesh may run here: the first one has the socket.
            match admin::bind(&BindAddr::Unix(socket.clone())).await {
                Ok(listener) => admin.push(listener),
                Err(error) => tracing::warn!(cause = %error, "no admin socket: ask by TCP"),
            }
        }
        let addresses = Addresses {
            ingress: own,
            public,
            mesh: mesh.as_ref().map(TcpListener::local_addr).transpose()?,
            admin: (admin.iter().map(Listener::address))
                .chain(far_admin.iter().map(|listener| listener.local_addr().map(BindAddr::Tcp)))
                .collect::<Result<_, _>>()?,
        };
        let lines = JournalLines { journal, access_of: Some(name.clone()), program: Some((program, host.logs())) };
        let planner = ManifestPlanner::new(config.manifest.clone(), cores, config.is_machine);
        let manifests = planner.manifests();
        let (control, handle) = MasterControl::new(ControlConfig {
            name,
            declaration: config.manifest.declaration.clone(),
            facts: MasterFacts {
                ingress: Some(own),
                mesh: addresses.mesh,
                admin: addresses.admin.iter().find_map(|address| match address {
                    BindAddr::Tcp(address) => Some(*address),
                    BindAddr::Unix(_) => None,
                }),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_unix_ms: clock::unix_ms(),
            },
            planner: Arc::new(planner),
            logins: store.map_or_else(LoginBook::default, |store| LoginBook::new(store)),
            audit: config.audit.map(Audit::to).unwrap_or_default(),
            authority,
            credential,
            lines: Some(Arc::new(lines)),
            metrics: host.metrics(),
        });
        Ok(Self {
            handle,
            control,
            mesh,
            admin,
            far_admin,
            ingress,
            servers,
            waiting: waits.then_some(own),
            snapshots,
            calls,
            denials,
            readiness: host.readiness(),
            host: host.clone(),
            addresses,
            keeper,
            manifests,
            store: opened,
        })
    }

    /// What the rest of the process asks and tells the control plane.
    #[must_use]
    pub fn handle(&self) -> MasterHandle {
        self.handle.clone()
    }

    /// The manifest in force, and every change of it by `apply`.
    #[must_use]
    pub fn manifests(&self) -> watch::Receiver<Manifest> {
        self.manifests.clone()
    }

    /// The way to this master for sidecars of the same process.
    #[must_use]
    pub fn in_process(&self) -> InProcessMaster {
        self.handle.in_process()
    }

    /// Where Nginx reaches it.
    #[must_use]
    pub fn ingress(&self) -> SocketAddr {
        self.addresses.ingress
    }

    /// Where it faces the world itself.
    #[must_use]
    pub fn public(&self) -> Vec<SocketAddr> {
        self.addresses.public.clone()
    }

    /// Where sidecars of other processes reach it.
    #[must_use]
    pub fn mesh(&self) -> Option<SocketAddr> {
        self.addresses.mesh
    }

    /// Where people reach it.
    #[must_use]
    pub fn admin(&self) -> Vec<BindAddr> {
        self.addresses.admin.clone()
    }

    /// Runs until the stop, then lets the requests in flight finish. The mesh and admin APIs end last.
    ///
    /// # Errors
    /// When the ingress cannot be opened.
    pub async fn serve(mut self, stop: Stop) -> anyhow::Result<()> {
        let (end, life) = stop.outliving();
        let guard = self.readiness.guard("ingress");
        let share = keeper::share();
        let mut latest = self.handle.snapshots();
        let snapshots = self.snapshots;
        let publishing = tasks::spawn("snapshots", Kind::Critical, async move {
            loop {
                snapshots.publish(latest.borrow_and_update().clone());
                if latest.changed().await.is_err() {
                    return;
                }
            }
        });
        tasks::spawn("ingress-report", Kind::Critical, {
            let (handle, calls, denials) = (self.handle.clone(), self.calls.clone(), self.denials.clone());
            let life = life.clone();
            async move {
                let mut every = tokio::time::interval(REPORT_EVERY);
                loop {
                    tokio::select! {
                        _ = every.tick() => {
                            handle.ingress_report(calls.ejections(), calls.take_figures(), denials.take());
                        }
                        () = life.stopped() => return,
                    }
                }
            }
        });
        tasks::spawn("access-lines", Kind::Connection, {
            let (handle, workers) = (self.handle.clone(), self.ingress.workers.clone());
            async move { handle.follow_access_lines(|lines| workers.log_lines(lines)).await }
        });
        let pages = admin::router(self.host.metrics(), self.readiness.clone());
        if let Some(keeper) = &self.keeper {
            for listener in self.far_admin {
                let (handle, own) = (self.handle.clone(), keeper.handle().own());
                let (pages, life) = (pages.clone(), life.clone());
                tasks::spawn("admin-far", Kind::Critical, async move {
                    handle.serve_admin_under_tls(listener, Acceptor::mutual(own, Admit::Operators), pages, life).await;
                });
            }
        }
        let router = self.handle.admin_router().merge(pages);
        let api = tasks::spawn("admin", Kind::Critical, {
            let life = life.clone();
            async move { admin::serve(self.admin, router, life).await }
        });
        let door = self
            .keeper
            .as_ref()
            .map_or_else(Acceptor::plain, |keeper| Acceptor::mutual(keeper.handle().own(), Admit::MasterDoor));
        if let Some(keeper) = self.keeper {
            tasks::spawn("identity", Kind::Critical, keeper.run(life.clone()));
        }
        let control = tasks::spawn("control", Kind::Critical, {
            let listeners = self.mesh.into_iter().collect();
            let life = life.clone();
            async move { self.control.run(listeners, door, life).await }
        });
        if self.waiting.is_some() || self.servers.iter().any(Server::is_waiting) {
            self.handle.settled(SETTLE).await;
            handover::known_again(self.ingress.snapshot.clone()).await;
        }
        handover::remember(self.ingress.snapshot.clone());
        if let Some(address) = self.waiting {
            self.servers.push(self.ingress.serve(address)?);
        }
        self.servers.iter().for_each(Server::open);
        drop(guard);
        tokio::select! {
            () = stop.stopped() => {}
            () = keeper::yielding() => {
                // The ingress routes on by what is known now; sidecars, people and the store go to the successor.
                publishing.abort();
                end.stop();
                let _outcomes = (control.await, api.await);
                if let Some(store) = &self.store {
                    store.close().await;
                }
                drop(share);
                handover::leave(&self.servers, &stop).await;
                return Ok(());
            }
        }
        self.readiness.fail("stopping");
        let drains = self.servers.iter().map(|server| server.drain(DRAIN));
        tokio::select! {
            _ = futures_util::future::join_all(drains) => {}
            () = stop.cut() => {}
        }
        end.stop();
        // Last words may still be on their way to whoever asked for this end: both linger for them, within a limit.
        // What they failed with has been reported by their tasks.
        let _outcomes = (control.await, api.await);
        Ok(())
    }
}
