//! Nginx under supervision, and the masters that it passes requests to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use synego_manifest::Manifest;
use synego_master::{GatewayStatus, MasterHandle};
use synego_model::process::{ReadyBy, ServiceAddress};
use synego_model::{CapSpec, InstanceState, ReadySpec, RunAs};
use synego_nginx::{NginxBinary, NginxConfig};
use synego_runtime::Host;
use synego_runtime::tasks::{self, Kind};
use synego_supervise::{OutputSink, Phase, ProcessSpec, ProcessState, RestartPolicy, Supervisor};
use tokio::sync::watch;

use super::gateway::{config, refused};
use super::instances::Picture;
use crate::failure::Failure;

/// Time for Nginx to take connections.
const READY: Duration = Duration::from_secs(10);
/// How long a start waits for the links to the masters.
const LINKS: Duration = Duration::from_secs(5);

/// What Nginx is started with.
pub(crate) struct Edge<'a> {
    /// Its program.
    pub(crate) binary: &'a NginxBinary,
    /// The masters' ingresses, and every change of them.
    pub(crate) masters: watch::Receiver<Vec<SocketAddr>>,
    /// Folder of its own files.
    pub(crate) prefix: PathBuf,
    /// Takes what it says of itself.
    pub(crate) sink: OutputSink,
    /// Who is told how it is, from which state on.
    pub(crate) told: Option<(MasterHandle, GatewayStatus)>,
}

/// Nginx under supervision.
pub(crate) struct Nginx {
    supervisor: Supervisor,
}

impl Nginx {
    /// Renders, tests and starts it; its state is told to the master from then on.
    ///
    /// # Errors
    /// When the configuration is refused: by whom, and by which key.
    pub(crate) async fn start(edge: Edge<'_>, manifest: &Manifest, host: &Host) -> Result<Self, Failure> {
        let Edge { binary, mut masters, prefix, sink, told } = edge;
        let first = masters.borrow_and_update().clone();
        let wanted = config(manifest, first, host.file_limit())?;
        let before = std::fs::read_to_string(prefix.join(synego_nginx::CONFIG_FILE)).unwrap_or_default();
        let text = synego_nginx::update(binary, &wanted, &prefix, None).await.map_err(|error| refused(&error))?;
        let listen = manifest.gateway.listen.first().map(|listen| local(listen.address));
        let (end, life) = host.stop().outliving();
        drop(end);
        let spec = ProcessSpec {
            name: "nginx".to_owned(),
            command: synego_nginx::command(binary, &prefix),
            build: None,
            cwd: prefix.clone(),
            env: BTreeMap::new(),
            user_env: BTreeMap::new(),
            env_files: Vec::new(),
            ready: ReadySpec { by: Some(ReadyBy::Port), within: READY },
            address: listen.map(ServiceAddress::Tcp),
            health: None,
            grace: Duration::from_secs(2),
            stop_by: synego_supervise::StopBy::Quit,
            run_as: RunAs::default(),
            caps: CapSpec::default(),
            restart: RestartPolicy::default(),
            trial: false,
            restarts: 0,
            run_dir: prefix,
            keep: Some("nginx".to_owned()),
        };
        let folder = spec.run_dir.clone();
        let (supervisor, state) = Supervisor::start(spec, sink, life);
        let pid = state.borrow().pid;
        if pid > 0 && text != before {
            // It was left by a former part of this program, on another configuration.
            synego_nginx::reload(pid).map_err(|error| Failure::new("nginx cannot be told").cause(error.to_string()))?;
        }
        let follower = Follower { binary: binary.clone(), wanted, prefix: folder, masters, state: state.clone() };
        tasks::spawn("gateway-masters", Kind::Connection, follower.run());
        if let Some((handle, status)) = told {
            tasks::spawn("gateway-status", Kind::Connection, tell(state, handle, status));
        }
        Ok(Self { supervisor })
    }

    /// Refuses new connections, lets those that are open finish within `within`, and ends.
    pub(crate) async fn end(self, within: Duration) {
        self.supervisor.stop(within).await;
    }
}

/// One master, for as long as this process lives.
pub(crate) fn fixed(ingress: SocketAddr) -> watch::Receiver<Vec<SocketAddr>> {
    watch::channel(vec![ingress]).1
}

/// The ingresses of masters elsewhere, as the sidecars of this machine learn them over their links. Returns once
/// `wanted` are known, or those that are known after a while.
pub(crate) async fn learned(
    mut pictures: watch::Receiver<BTreeMap<String, Picture>>,
    wanted: usize,
) -> watch::Receiver<Vec<SocketAddr>> {
    let known = |pictures: &BTreeMap<String, Picture>| -> Vec<SocketAddr> {
        let all: BTreeMap<&String, &SocketAddr> = pictures.values().flat_map(|picture| &picture.ingresses).collect();
        all.into_values().copied().collect()
    };
    let enough = pictures.wait_for(|pictures| known(pictures).len() >= wanted);
    // Those that are missing join Nginx's configuration as soon as they are known.
    let _late = tokio::time::timeout(LINKS, enough).await.is_err();
    let (told, masters) = watch::channel(known(&pictures.borrow_and_update()));
    tasks::spawn("gateway-ingresses", Kind::Connection, async move {
        while pictures.changed().await.is_ok() {
            let now = known(&pictures.borrow_and_update());
            told.send_if_modified(|masters| {
                let is_new = *masters != now;
                *masters = now;
                is_new
            });
        }
    });
    masters
}

/// Renders and reloads Nginx when another master becomes known.
struct Follower {
    binary: NginxBinary,
    wanted: NginxConfig,
    prefix: PathBuf,
    masters: watch::Receiver<Vec<SocketAddr>>,
    state: watch::Receiver<ProcessState>,
}

impl Follower {
    async fn run(mut self) {
        while self.masters.changed().await.is_ok() {
            self.wanted.masters.clone_from(&self.masters.borrow_and_update());
            let pid = self.state.borrow().pid;
            let pid = (pid > 0).then_some(pid);
            match synego_nginx::update(&self.binary, &self.wanted, &self.prefix, pid).await {
                Ok(_) => tracing::info!(masters = ?self.wanted.masters, "nginx knows the masters"),
                Err(error) => tracing::error!(cause = %error, "nginx keeps the masters it knew"),
            }
        }
    }
}

/// Where an address is reached from this machine.
fn local(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

async fn tell(mut state: watch::Receiver<ProcessState>, handle: MasterHandle, mut status: GatewayStatus) {
    loop {
        let now = state.borrow_and_update().clone();
        status.state = match now.phase {
            Phase::Building | Phase::Starting => InstanceState::Starting,
            Phase::Ready => InstanceState::Ready,
            Phase::Stopping => InstanceState::Draining,
            Phase::Paused | Phase::Backoff | Phase::CrashLoop => InstanceState::Unhealthy,
            Phase::Stopped => InstanceState::Gone,
        };
        // That it starts is no news beside the state.
        status.cause = now.cause.filter(|cause| !cause.message.is_empty());
        handle.set_gateway(Some(status.clone()));
        if state.changed().await.is_err() {
            return;
        }
    }
}
