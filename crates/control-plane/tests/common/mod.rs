//! What the tests of this crate share: masters and sidecars on loopback, and waiting for conditions.
#![expect(clippy::expect_used, reason = "a failed test panics")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "no test file uses all of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synego_control_plane::master::{
    Audit, LoginBook, MasterConfig, MasterControl, MasterFacts, MasterHandle, NoPlanner, Planner,
};
use synego_control_plane::uplink::{MasterAddress, OutputSource, Uplink, UplinkConfig, UplinkHandle, new_incarnation};
use synego_identity::{Acceptor, Connector};
use synego_model::declaration::Liveness;
use synego_model::{
    AccessMode, AccessRules, Announcement, Declaration, HealthReport, InstanceId, InstanceLoad, InstanceState, Limits,
    MeshName, NodeName, Policy, Protocol, ServiceName, ServiceSpec, Snapshot,
};
use synego_runtime::lifecycle::Stopper;
use synego_runtime::tasks;
use synego_runtime::telemetry::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait for anything that must happen.
pub const WITHIN: Duration = Duration::from_secs(10);

pub fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

pub fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

pub fn spec(service: &str, uses: &[&str]) -> ServiceSpec {
    ServiceSpec {
        name: name(service),
        protocol: Protocol::Http,
        routes: None,
        uses: uses.iter().map(|service| name(service)).collect(),
        rules: AccessRules::default(),
        health: None,
        policy: Arc::new(Policy::default()),
        instances: 1,
        labels: BTreeMap::new(),
    }
}

pub fn declaration(specs: impl IntoIterator<Item = ServiceSpec>) -> Declaration {
    Declaration {
        mesh: MeshName::new("shop").expect("a name"),
        services: specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect(),
        access: AccessMode::default(),
        limits: Limits::default(),
        liveness: Liveness::default(),
        access_lines: synego_model::AccessLines::default(),
        life: synego_model::declaration::LIFE,
    }
}

/// Waits until `holds` of a watched value.
pub async fn until<T: Clone>(what: &str, mut watched: watch::Receiver<T>, holds: impl FnMut(&T) -> bool) -> T {
    let found = tokio::time::timeout(WITHIN, watched.wait_for(holds)).await;
    found.unwrap_or_else(|_| panic!("not in time: {what}")).expect("still watched").clone()
}

/// A master on loopback, on a runtime of its own, so that it can be killed like a process.
pub struct Master {
    pub handle: MasterHandle,
    pub address: SocketAddr,
    stopper: Stopper,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Master {
    pub fn start(declaration: Declaration) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), declaration, Arc::new(NoPlanner))
    }

    pub fn start_at(address: SocketAddr, declaration: Declaration, planner: Arc<dyn Planner>) -> Self {
        Self::start_with(address, declaration, planner, LoginBook::default(), Audit::default())
    }

    pub fn start_with(
        address: SocketAddr,
        declaration: Declaration,
        planner: Arc<dyn Planner>,
        logins: LoginBook,
        audit: Audit,
    ) -> Self {
        let listener = synego_identity::listen(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let facts = MasterFacts { mesh: Some(address), version: "test".into(), ..MasterFacts::default() };
        let (control, handle) = MasterControl::new(MasterConfig {
            name: format!("master-{}", address.port()),
            declaration,
            facts,
            planner,
            logins,
            audit,
            lines: None,
            authority: None,
            credential: None,
            metrics: Metrics::new("test"),
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (stopper, stop) = Stopper::new();
        tasks::spawn_on(
            runtime.handle(),
            "test-master",
            tasks::Kind::Connection,
            control.run(vec![listener], Acceptor::plain(), stop),
        );
        Self { handle, address, stopper, runtime: Some(runtime) }
    }

    pub fn tcp(&self) -> MasterAddress {
        MasterAddress::Tcp(self.address.to_string())
    }

    /// Ends it as `kill -9` does: its sockets close, nothing is said.
    pub fn kill(mut self) -> SocketAddr {
        // Dropped where it may block: its port is free when this returns.
        let runtime = self.runtime.take();
        let dropped = tasks::thread("test-kill", tasks::Kind::Connection, move || drop(runtime));
        dropped.expect("a thread").join().expect("no panic");
        self.address
    }

    /// Ends it politely.
    pub fn stop(&self) {
        self.stopper.stop();
    }

    pub async fn until_ready(&self, service: &str, instances: usize) -> Arc<Snapshot> {
        until(&format!("{instances} of {service}"), self.handle.snapshots(), |snapshot| {
            ready(snapshot, service).len() == instances
        })
        .await
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ids of the instances of a service that take requests.
pub fn ready(snapshot: &Snapshot, service: &str) -> Vec<String> {
    let table = snapshot.service(service);
    let endpoints = table.into_iter().flat_map(|table| &table.endpoints);
    endpoints.filter(|found| found.state.takes_requests()).map(|found| found.id.to_string()).collect()
}

pub fn announcement(instance: &str) -> Announcement {
    let id = id(instance);
    let (service, _) = id.instance().rsplit_once('-').expect("name-number");
    Announcement {
        service: name(service),
        node: NodeName::new(id.node()).expect("a name"),
        id,
        zone: String::new(),
        incarnation: new_incarnation(),
        address: SocketAddr::from(([127, 0, 0, 1], 4000)),
        protocol: Protocol::Http,
        version: "1.0".into(),
        labels: BTreeMap::new(),
        routes: None,
        uses: Vec::new(),
        pid: std::process::id(),
        generation: 0,
        started_unix_ms: 0,
        sdk: String::new(),
        handlers: Vec::new(),
        listens: String::new(),
        caps: String::new(),
    }
}

pub fn report(state: InstanceState) -> HealthReport {
    HealthReport {
        state,
        cause: None,
        load: InstanceLoad::default(),
        restarts: 0,
        ejections: Vec::new(),
        calls: Vec::new(),
        denials: Vec::new(),
        snapshot_age_ms: 0,
        identity: None,
    }
}

/// A sidecar's uplink with a service that is always in `state`.
pub struct Sidecar {
    pub handle: UplinkHandle,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub state: Arc<Mutex<InstanceState>>,
    pub announcement: watch::Sender<Announcement>,
    stopper: Stopper,
    running: JoinHandle<()>,
}

/// How a test's sidecar differs from the usual one.
#[derive(Default)]
pub struct Options {
    pub uses: Vec<ServiceName>,
    pub snapshot_file: Option<PathBuf>,
    pub output: Option<Arc<dyn OutputSource>>,
    pub mesh: Option<MeshName>,
}

impl Sidecar {
    pub fn start(instance: &str, masters: Vec<MasterAddress>) -> Self {
        Self::start_with(announcement(instance), masters, Options::default())
    }

    pub fn start_with(said: Announcement, masters: Vec<MasterAddress>, options: Options) -> Self {
        let (publish, snapshots) = watch::channel(Arc::new(Snapshot::empty()));
        let state = Arc::new(Mutex::new(InstanceState::Ready));
        let reported = Arc::clone(&state);
        let (node, incarnation) = (said.node.clone(), said.incarnation.clone());
        let announcement = watch::Sender::new(said);
        let (uplink, handle) = Uplink::new(UplinkConfig {
            mesh: options.mesh,
            node,
            zone: String::new(),
            version: "test".into(),
            incarnation,
            masters,
            connector: Connector::plain(),
            credential: None,
            snapshot_file: options.snapshot_file,
            announcement: announcement.subscribe(),
            report: Arc::new(move || report(*reported.lock().expect("no panic"))),
            uses: options.uses,
            limits: Limits::default(),
            publish: Arc::new(move |snapshot| {
                publish.send_replace(snapshot);
            }),
            commanded: None,
            output: options.output,
            metrics: Metrics::new("test"),
        });
        let (stopper, stop) = Stopper::new();
        let running = tasks::spawn("test-uplink", tasks::Kind::Connection, uplink.run(stop));
        Self { handle, snapshots, state, announcement, stopper, running }
    }

    pub fn turn(&self, state: InstanceState) {
        *self.state.lock().expect("no panic") = state;
        self.handle.report_now();
    }

    /// Ends it politely.
    pub async fn stop(self) {
        self.stopper.stop();
        tokio::time::timeout(WITHIN, self.running).await.expect("it ends in time").expect("without a panic");
    }

    /// Ends it as `kill -9` does.
    pub fn kill(self) {
        self.running.abort();
    }

    pub async fn until_ready(&self, service: &str, instances: usize) -> Arc<Snapshot> {
        until(&format!("{instances} of {service}"), self.snapshots.clone(), |snapshot| {
            ready(snapshot, service).len() == instances
        })
        .await
    }
}
