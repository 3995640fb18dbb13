//! A small mesh in one process: real services on loopback, their inbounds, an outbound and an ingress, two workers.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::panic,
    reason = "each test file uses its own part of this"
)]

pub mod client;
pub mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use synego_data_plane::*;
use synego_identity::{Acceptor, Admit, Authority, Connector, Credential, Own, PrivateKey};
use synego_model::process::ServiceAddress;
use synego_model::*;
use synego_runtime::clock;
use synego_runtime::logs::{AccessLog, To};
use synego_runtime::telemetry::Metrics;

pub use client::*;
pub use service::*;

/// A mesh that is built step by step and ends with the test.
pub struct Mesh {
    workers: Option<Workers>,
    pub handle: WorkersHandle,
    pub metrics: Metrics,
    writer: SnapshotWriter,
    pub reader: SnapshotReader,
    state: Mutex<State>,
    pub calls: CallBook,
    pub denials: DenialBook,
    pub permits: Arc<ArcSwap<Permits>>,
    pub asked: Arc<Asked>,
    pub log_dir: tempfile::TempDir,
    access: AccessLog,
    epoch: AtomicU64,
    /// With it every hop speaks mutual TLS.
    authority: Option<Authority>,
}

#[derive(Default)]
struct State {
    tables: BTreeMap<ServiceName, ServiceTable>,
    routes: Vec<Route>,
    limits: Limits,
}

/// One instance: a service and its inbound.
pub struct Instance {
    pub id: InstanceId,
    pub service: Service,
    pub inbound: Server,
    pub target: Arc<ArcSwap<InboundTarget>>,
    pub parking: Parking,
    pub load: LoadMeter,
}

/// Remembers which services were asked for.
#[derive(Default)]
pub struct Asked {
    pub names: Mutex<Vec<ServiceName>>,
    pub unknown: Mutex<Vec<ServiceName>>,
}

impl Wanted for Asked {
    fn want(&self, service: &ServiceName) {
        self.names.lock().expect("lock").push(service.clone());
    }

    fn known(&self, service: &ServiceName) -> Option<bool> {
        self.unknown.lock().expect("lock").contains(service).then_some(false)
    }
}

impl Mesh {
    pub fn start() -> Self {
        Self::with_workers(2)
    }

    pub fn with_workers(count: usize) -> Self {
        let metrics = Metrics::new("test");
        let config = WorkersConfig { count, file_limit: 4096, metrics: metrics.clone() };
        let workers = Workers::start(config).expect("threads");
        let (writer, reader) = snapshot_channel(Snapshot::empty());
        let log_dir = tempfile::tempdir().expect("a folder");
        let to = To::Dir { dir: log_dir.path().to_owned(), name: "access".to_owned() };
        Self {
            handle: workers.handle(),
            workers: Some(workers),
            metrics,
            writer,
            reader,
            state: Mutex::default(),
            calls: CallBook::default(),
            denials: DenialBook::default(),
            permits: Arc::default(),
            asked: Arc::default(),
            access: AccessLog::open(to).expect("a log"),
            log_dir,
            epoch: AtomicU64::new(0),
            authority: None,
        }
    }

    /// A mesh in which everyone proves who it is.
    pub fn mutual() -> Self {
        Self::mutual_with_workers(2)
    }

    pub fn mutual_with_workers(count: usize) -> Self {
        let authority = Authority::create(mesh_name(), now()).expect("an authority");
        Self { authority: Some(authority), ..Self::with_workers(count) }
    }

    /// The certificate of a part of the mesh.
    pub fn own(&self, role: Role) -> Option<Own> {
        let authority = self.authority.as_ref()?;
        let id = Identity { mesh: mesh_name(), role };
        let key = PrivateKey::generate().expect("a key");
        let request = key.request().expect("a request");
        let issued = authority.issue(&request, &id, Duration::from_secs(3600), now()).expect("issued");
        let own = Own::new(id);
        own.install(&Credential { chain_der: vec![issued.certificate_der], key }).expect("installed");
        own.trust(&[authority.root().certificate_der.clone()]).expect("trusted");
        Some(own)
    }

    pub fn connector(&self, role: Role) -> Connector {
        self.own(role).map_or_else(Connector::plain, Connector::mutual)
    }

    fn acceptor(&self, service: &str) -> Acceptor {
        let own = self.own(Role::Service(name(service)));
        own.map_or_else(Acceptor::plain, |own| Acceptor::mutual(own, Admit::Services))
    }

    /// What callers and the ingress are told of who may call a service.
    pub fn access(&self, service: &str, access: Access) -> &Self {
        let access = Arc::new(access);
        self.change(|state| state.tables.get_mut(service).expect("a service").access = access)
    }

    /// A route with rules of its own.
    pub fn ruled_route(&self, place: &str, service: &str, rules: AccessRules) -> &Self {
        let route = Route::new(place.parse().expect("a place"), name(service), "test");
        self.change(|state| state.routes.push(Route { rules, ..route }))
    }

    /// A service with this policy and no instance yet.
    pub fn service(&self, service: &str, protocol: Protocol, policy: Policy) -> &Self {
        let name = name(service);
        let table = ServiceTable {
            name: name.clone(),
            protocol,
            policy: Arc::new(policy),
            access: Arc::default(),
            callers: Arc::default(),
            endpoints: Vec::new(),
        };
        self.change(|state| drop(state.tables.insert(name, table)))
    }

    pub fn route(&self, place: &str, service: &str) -> &Self {
        let route = Route::new(place.parse().expect("a place"), name(service), "test");
        self.change(|state| state.routes.push(route))
    }

    pub fn limits(&self, change: impl FnOnce(&mut Limits)) -> &Self {
        self.change(|state| change(&mut state.limits))
    }

    /// An instance of a service, ready, and in the snapshot.
    pub async fn instance(&self, service: &str, of: Service) -> Instance {
        let known =
            self.state.lock().expect("lock").tables.get(service).map(|table| (table.protocol, table.policy.clone()));
        let (protocol, policy) = match known {
            Some(known) => known,
            None => {
                // Published together with its first instance, as a master does.
                let (name, policy) = (name(service), Arc::<Policy>::default());
                let table = ServiceTable {
                    name: name.clone(),
                    protocol: Protocol::Http,
                    policy: policy.clone(),
                    access: Arc::default(),
                    callers: Arc::default(),
                    endpoints: Vec::new(),
                };
                self.state.lock().expect("lock").tables.insert(name, table);
                (Protocol::Http, policy)
            }
        };
        let address = Some(ServiceAddress::Tcp(of.address));
        let target = InboundTarget {
            http: address.clone().filter(|_| protocol == Protocol::Http),
            grpc: address.clone().filter(|_| protocol == Protocol::Grpc),
            tcp: address.filter(|_| protocol == Protocol::Tcp),
            ready: true,
            policy,
            // As a sidecar that was told that nobody is refused; `Instance::admits` says otherwise.
            gate: Arc::new(Gate::new(&Access::undeclared(AccessMode::Open), &[])),
            ..InboundTarget::default()
        };
        let number = self.state.lock().expect("lock").tables.get(service).map_or(0, |table| table.endpoints.len());
        let id: InstanceId = format!("{service}-{}@here", number + 1).parse().expect("an id");
        let target = Arc::new(ArcSwap::from_pointee(target));
        let load = LoadMeter::new(self.handle.count());
        let parking = Parking::default();
        let config = InboundConfig {
            name: id.as_str().into(),
            service: name(service),
            protocol,
            target: target.clone(),
            parking: parking.clone(),
            snapshot: self.reader.clone(),
            acceptor: self.acceptor(service),
            connector: Connector::plain(),
            access: self.access.clone(),
            load: load.clone(),
            denials: self.denials.clone(),
        };
        let inbound = self.handle.serve(any(), Hop::Inbound(config)).expect("a port");
        self.endpoint(service, &id, inbound.local_addr(), InstanceState::Ready);
        Instance { id, service: of, inbound, target, parking, load }
    }

    /// Says where an instance is and how.
    pub fn endpoint(&self, service: &str, id: &InstanceId, address: SocketAddr, state: InstanceState) -> &Self {
        let endpoint = Endpoint {
            id: id.clone(),
            address,
            state,
            version: String::new(),
            zone: String::new(),
            utilization: None,
            ready_unix_ms: 1,
            incarnation: "1".to_owned(),
        };
        self.change(|all| {
            let table = all.tables.get_mut(service).expect("a service");
            table.endpoints.retain(|known| known.id != endpoint.id);
            table.endpoints.push(endpoint);
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> &Self {
        let mut state = self.state.lock().expect("lock");
        change(&mut state);
        let epoch = Epoch(self.epoch.fetch_add(1, Ordering::Relaxed));
        let tables: Vec<_> = state.tables.values().cloned().map(Arc::new).collect();
        let snapshot = Snapshot::new(epoch, tables, state.routes.clone(), state.limits.clone());
        self.writer.publish(Arc::new(snapshot));
        drop(state);
        self
    }

    pub fn ingress(&self) -> Server {
        self.ingress_with(|_| {})
    }

    pub fn ingress_with(&self, change: impl FnOnce(&mut IngressConfig)) -> Server {
        let mut config = IngressConfig {
            name: "master@here".into(),
            snapshot: self.reader.clone(),
            acceptor: Acceptor::plain(),
            connector: self.connector(Role::Master),
            access: self.access.clone(),
            calls: self.calls.clone(),
            denials: self.denials.clone(),
            trusted: Network::loopback(),
            introduced_by: Vec::new(),
            hosts: Vec::new(),
        };
        change(&mut config);
        self.handle.serve(any(), Hop::Ingress(config)).expect("a port")
    }

    pub fn outbound(&self, caller: &str) -> Server {
        self.outbound_of(caller, None)
    }

    pub fn outbound_of(&self, caller: &str, fixed: Option<&str>) -> Server {
        let config = OutboundConfig {
            name: format!("{caller}-1@here").into(),
            caller: name(caller),
            fixed_service: fixed.map(name),
            snapshot: self.reader.clone(),
            wanted: self.asked.clone(),
            acceptor: Acceptor::plain(),
            connector: self.connector(Role::Service(name(caller))),
            access: self.access.clone(),
            calls: self.calls.clone(),
            permits: self.permits.clone(),
            denials: self.denials.clone(),
        };
        self.handle.serve(any(), Hop::Outbound(config)).expect("a port")
    }

    /// The lines of the access log so far that hold `text`, with their fields among their other members.
    pub fn logged(&self, text: &str) -> Vec<serde_json::Value> {
        self.access.flush(Duration::from_secs(5));
        let files = std::fs::read_dir(self.log_dir.path()).expect("the folder");
        let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.iter().filter(|line| line.contains(text)).map(|line| flat(line)).collect()
    }

    pub async fn end(mut self) {
        if let Some(workers) = self.workers.take() {
            workers.shutdown().await;
        }
    }
}

fn flat(line: &str) -> serde_json::Value {
    let mut line: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("JSON");
    let fields = line.remove("fields");
    line.extend(fields.as_ref().and_then(serde_json::Value::as_object).expect("fields").clone());
    line.into()
}

pub fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

pub fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn mesh_name() -> MeshName {
    "shop".parse().expect("a name")
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(clock::unix_ms())
}

impl Instance {
    /// Who may call it from now on.
    pub fn admits(&self, access: &Access, callers: &[&str]) {
        let callers: Vec<ServiceName> = callers.iter().map(|caller| name(caller)).collect();
        let gate = Arc::new(Gate::new(access, &callers));
        let target = InboundTarget::clone(&self.target.load());
        self.target.store(Arc::new(InboundTarget { gate, ..target }));
    }
}

/// Waits until something holds; the test fails when it does not within ten seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::now() + Duration::from_secs(10);
    while !holds() {
        assert!(clock::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
