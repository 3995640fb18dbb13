//! A running Nginx of a test, and its ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use synego_model::ReadySpec;
use synego_model::gateway::{GatewaySpec, Listen, ListenProtocol, SpaPlace, StaticPlace};
use synego_model::process::{ReadyBy, ServiceAddress};
use synego_nginx::{NginxBinary, NginxConfig};
use synego_runtime::Stopper;
use synego_runtime::logs::LineWriter;
use synego_supervise::{OutputSink, Phase, ProcessSpec, ProcessState, RestartPolicy, StopBy, Supervisor, free_port};
use tokio::sync::watch;

/// Longest wait for a condition; only a failed test waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub(crate) fn free() -> SocketAddr {
    local(free_port().expect("a free port"))
}

/// The Nginx that `scripts/setup` installs: without it these tests fail, they are never passed over.
pub(crate) async fn binary() -> NginxBinary {
    synego_nginx::find().await.expect("nginx on this machine: run scripts/setup")
}

pub(crate) fn gateway() -> GatewaySpec {
    let listen =
        |name: &str, protocol| Listen { name: name.to_owned(), protocol, address: free(), proxy_protocol: Vec::new() };
    GatewaySpec {
        engine: None,
        listen: vec![listen("http", ListenProtocol::Http), listen("grpc", ListenProtocol::Grpc)],
        hosts: Vec::new(),
        static_places: Vec::new(),
        spa_places: Vec::new(),
    }
}

pub(crate) fn files(place: &str, dir: &Path) -> StaticPlace {
    let place = place.parse().expect("a place");
    let cache = Duration::from_secs(3_600);
    StaticPlace { place, dir: dir.to_owned(), index: "index.html".to_owned(), cache, list: false }
}

pub(crate) fn spa(place: &str, dir: &Path) -> SpaPlace {
    SpaPlace { place: place.parse().expect("a place"), dir: dir.to_owned(), index: "index.html".to_owned() }
}

/// A configuration for this machine.
pub(crate) fn config(gateway: GatewaySpec, masters: &[SocketAddr]) -> NginxConfig {
    NginxConfig { unreachable: free(), ..NginxConfig::new(gateway, masters.to_vec()) }
}

/// A running Nginx, under a supervisor as in `synego up`.
pub(crate) struct Edge {
    pub(crate) config: NginxConfig,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) state: watch::Receiver<ProcessState>,
    supervisor: Supervisor,
    _stopper: Stopper,
}

impl Edge {
    pub(crate) async fn start(config: NginxConfig) -> Self {
        let (binary, dir) = (binary().await, tempfile::tempdir().expect("dir"));
        let prefix = dir.path().join("nginx");
        synego_nginx::update(&binary, &config, &prefix, None).await.expect("a configuration that nginx takes");
        let address = config.gateway.listen.first().map(|listen| ServiceAddress::Tcp(listen.address));
        let spec = ProcessSpec {
            ready: ReadySpec { by: Some(ReadyBy::Port), within: LONG },
            address,
            stop_by: StopBy::Quit,
            restart: RestartPolicy::never(),
            ..ProcessSpec::new("nginx", synego_nginx::command(&binary, &prefix), prefix.clone(), prefix)
        };
        let (stopper, stop) = Stopper::new();
        let output = OutputSink::new("gateway", "nginx", LineWriter::discard());
        let (supervisor, mut state) = Supervisor::start(spec, output.clone(), stop);
        let up = tokio::time::timeout(LONG, state.wait_for(|state| state.phase == Phase::Ready)).await;
        assert!(up.is_ok_and(|up| up.is_ok()), "nginx is not ready: {:?}", output.last(20));
        Self { config, dir, state, supervisor, _stopper: stopper }
    }

    pub(crate) fn prefix(&self) -> PathBuf {
        self.dir.path().join("nginx")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.state.borrow().pid
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.config.gateway.listen[0].address
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.config.gateway.listen[1].address
    }

    pub(crate) async fn stop(self) {
        let exit = self.supervisor.stop(Duration::from_secs(5)).await;
        assert!(!exit.killed, "nginx did not hear QUIT");
    }
}

/// Waits until `is_there`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_there: impl FnMut() -> F) {
    let wait = async {
        while !is_there().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never {what}"));
}
