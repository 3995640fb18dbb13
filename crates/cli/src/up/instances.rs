//! The services of this machine: a sidecar for each instance, started in order, ended callers first.

mod fleet;
mod lines;
mod one;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use synego_manifest::Manifest;
use synego_model::{InstanceName, Listens, LocalService, NodeName, Route, ServiceName, ServiceSpec, Target};
use synego_runtime::Stop;
use synego_runtime::logs::LogHandle;
use synego_sidecar::order::Commanded;
use synego_sidecar::{CredentialHandle, LogLevel, MasterAddress, ProcessConfig, Shared, SidecarConfig};
use synego_supervise::{RestartPolicy, StopBy};
use tokio::sync::{mpsc, watch};

pub(crate) use self::fleet::Fleet;
use self::fleet::Running;
use self::turns::Turns;
use super::console::Line;
use super::order;
use crate::failure::Failure;

/// The one drain deadline of an instance.
pub(crate) const DRAIN: Duration = Duration::from_secs(25);

/// What every instance needs.
#[derive(Clone)]
pub(crate) struct Ground {
    /// Workers, metrics and access log.
    pub(crate) shared: Shared,
    /// Name of this machine.
    pub(crate) node: NodeName,
    /// The masters.
    pub(crate) masters: Vec<MasterAddress>,
    /// Whether other machines reach the instances.
    pub(crate) far: bool,
    /// Whether the masters are elsewhere, and learn the routes from the instances.
    pub(crate) announces: bool,
    /// In whose name this process speaks, where no master of its own tells of it.
    pub(crate) program: Option<(String, LogHandle)>,
    /// Folder of sockets.
    pub(crate) runtime_dir: PathBuf,
    /// Folder of snapshots.
    pub(crate) state_dir: PathBuf,
    /// Whether `build` is left out.
    pub(crate) no_build: bool,
    /// The certificate of each service; none where the mesh runs without.
    pub(crate) credentials: BTreeMap<ServiceName, CredentialHandle>,
    /// Where lines are shown.
    pub(crate) lines: mpsc::Sender<Line>,
}

/// Which instances of each service take requests, or, of a job, are done.
type Ready = BTreeMap<ServiceName, BTreeSet<String>>;

/// All services of this machine.
pub(crate) struct Instances {
    fleet: Arc<Fleet>,
    pictures: watch::Receiver<BTreeMap<String, Picture>>,
}

/// How one local instance is.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    /// Its service.
    pub(crate) service: ServiceName,
    /// Its state and cause.
    pub(crate) view: synego_sidecar::View,
    /// Where its process listens.
    pub(crate) listens: String,
    /// Its inbound.
    pub(crate) inbound: String,
    /// When its process started: milliseconds since 1970-01-01 UTC; 0: not known.
    pub(crate) started_unix_ms: u64,
    /// Ingresses of the masters that its sidecar has linked with so far, by their mesh addresses.
    pub(crate) ingresses: BTreeMap<String, SocketAddr>,
    /// Whether a link to a master stands.
    pub(crate) is_linked: bool,
    /// Why the last link could not be made or ended; may be empty.
    pub(crate) link_error: String,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Its id.
    pub(crate) instance: String,
    /// Requests and streams that are known to be cut off.
    pub(crate) cut: (u32, u32),
    /// Whether its time was over before its drain was.
    pub(crate) in_haste: bool,
    /// How its process ended, in words; empty: it was not ours.
    pub(crate) exit: String,
}

impl Instances {
    /// Starts the services of `manifest` (of these alone, if `only` names any); each waits for those it comes after.
    ///
    /// # Errors
    /// When `only` names none, or a file for output cannot be opened.
    pub(crate) fn start(manifest: &Manifest, only: &[String], ground: &Ground, stop: &Stop) -> Result<Self, Failure> {
        let chosen = chosen(manifest, only)?;
        let here: BTreeSet<ServiceName> =
            chosen.iter().filter(|local| local.instances() > 0).map(|local| local.spec.name.clone()).collect();
        let (pictures, pictured) = watch::channel(BTreeMap::new());
        let here_all: Vec<&LocalService> =
            chosen.iter().filter(|local| here.contains(&local.spec.name)).copied().collect();
        let mut used_first = order::used_first(&here_all);
        let mut services = Vec::new();
        for local in chosen {
            let (end, life) = stop.outliving();
            services.push(Running {
                local: local.clone(),
                after: local.after.iter().filter(|name| here.contains(*name)).cloned().collect(),
                before: wanted(manifest, &local.after),
                first: used_first.remove(&local.spec.name).unwrap_or_default(),
                end,
                life,
                built: Arc::new(watch::Sender::new(false)),
                turns: Turns::new(local.reload),
                members: Vec::new(),
            });
        }
        let fleet = Fleet::new(ground.clone(), manifest.clone(), pictures, services);
        fleet.begin()?;
        fleet.end_left();
        Ok(Self { fleet, pictures: pictured })
    }

    /// How each instance is, and every change of it.
    pub(crate) fn pictures(&self) -> watch::Receiver<BTreeMap<String, Picture>> {
        self.pictures.clone()
    }

    /// Those who can be told to reload, to drain, and to be more or fewer.
    pub(crate) fn fleet(&self) -> Arc<Fleet> {
        self.fleet.clone()
    }

    /// Drains and ends all: a service once those that call it have ended, so that what is in flight can still reach it.
    /// What is left after `within` is cut off. Each end is told.
    pub(crate) async fn end(self, within: Duration, told: mpsc::Sender<Gone>) {
        let deadline = synego_runtime::clock::now() + within;
        let mut running = self.fleet.take_all();
        while !running.is_empty() {
            let wave = next_wave(&mut running);
            let left = deadline.saturating_duration_since(synego_runtime::clock::now());
            let ends: Vec<_> = wave.into_iter().map(|service| service.end(left, told.clone())).collect();
            futures_util::future::join_all(ends).await;
        }
    }
}

/// The services that nobody calls who still runs; in a circle, all that are left.
fn next_wave(running: &mut Vec<Running>) -> Vec<Running> {
    let called: BTreeSet<ServiceName> = running
        .iter()
        .flat_map(|service| service.local.spec.uses.iter().filter(|used| **used != service.local.spec.name))
        .cloned()
        .collect();
    let (wave, rest): (Vec<Running>, Vec<Running>) =
        std::mem::take(running).into_iter().partition(|service| !called.contains(&service.local.spec.name));
    if wave.is_empty() {
        return rest;
    }
    *running = rest;
    wave
}

/// Names of the services that are started and have instances here.
///
/// # Errors
/// When `only` names none.
pub(crate) fn services(manifest: &Manifest, only: &[String]) -> Result<Vec<ServiceName>, Failure> {
    let chosen = chosen(manifest, only)?.into_iter().filter(|local| local.instances() > 0);
    Ok(chosen.map(|local| local.spec.name.clone()).collect())
}

/// The services that are started.
fn chosen<'a>(manifest: &'a Manifest, only: &[String]) -> Result<Vec<&'a LocalService>, Failure> {
    let names: Vec<&str> = manifest.local.iter().map(|local| local.spec.name.as_str()).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        let near = synego_model::text::nearest(unknown, names.iter().copied());
        return Err(Failure::misuse(format!("no service `{unknown}` in {}", manifest.title))
            .cause(near.map(|near| format!("nearest: `{near}`")).unwrap_or_default()));
    }
    let wanted = |local: &&LocalService| only.is_empty() || only.iter().any(|name| name == local.spec.name.as_str());
    Ok(manifest.local.iter().filter(wanted).collect())
}

fn wanted(manifest: &Manifest, after: &[ServiceName]) -> BTreeMap<ServiceName, usize> {
    let of = |name: &ServiceName| manifest.local.iter().find(|local| local.spec.name == *name);
    after.iter().map(|name| (name.clone(), of(name).map_or(1, LocalService::instances))).collect()
}

fn config(
    manifest: &Manifest,
    local: &LocalService,
    index: usize,
    instance: InstanceName,
    ground: &Ground,
    commanded: Arc<dyn Commanded>,
) -> SidecarConfig {
    let spec = &local.spec;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listens = match &local.target {
        Target::Run { listens, .. } => listens.clone(),
        Target::Found(addresses) => {
            let address = addresses.get(index).and_then(|address| address.parse().ok());
            address.map_or_else(Listens::default, Listens::At)
        }
    };
    let everywhere = IpAddr::V4(if ground.far { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST });
    SidecarConfig {
        mesh: Some(manifest.declaration.mesh.clone()),
        node: ground.node.clone(),
        zone: String::new(),
        service: spec.name.clone(),
        instance,
        protocol: spec.protocol,
        version: local.version.clone(),
        labels: spec.labels.clone(),
        // Our own master has the manifest's routes by itself; those elsewhere may have another manifest, or none.
        routes: if ground.announces { places(spec) } else { None },
        uses: spec.uses.clone(),
        listens,
        process: process(local, ground),
        health: spec.health.clone(),
        masters: ground.masters.clone(),
        mtls: manifest.identity.mtls,
        token_file: None,
        credential: ground.credentials.get(&spec.name).cloned(),
        inbound: SocketAddr::new(everywhere, 0),
        advertise: None,
        host: ground.far.then(|| manifest.masters.mesh.ip()).filter(|_| !ground.announces),
        outbound: SocketAddr::new(loopback, 0),
        admin: None,
        state_dir: Some(ground.state_dir.clone()),
        runtime_dir: ground.runtime_dir.clone(),
        stop: local.stop.within,
        log_level: log_level(local),
        is_built: false,
        // What is done, or failed for good, is still shown.
        stays: true,
        commanded: Some(commanded),
    }
}

/// The least important line of a service that is written down, where the manifest says it.
fn log_level(local: &LocalService) -> Option<LogLevel> {
    local.log_level.as_deref().and_then(LogLevel::from_word)
}

/// How the process of a service is run; `None`: it is found running.
fn process(local: &LocalService, ground: &Ground) -> Option<ProcessConfig> {
    let Target::Run { command, build, .. } = &local.target else { return None };
    Some(ProcessConfig {
        command: command.clone(),
        build: build.clone().filter(|_| !ground.no_build),
        cwd: local.cwd.clone(),
        env: local.env.clone(),
        env_files: local.env_files.clone(),
        ready: local.ready.clone(),
        stop_by: StopBy::of(&local.stop.signal).unwrap_or_default(),
        restart: RestartPolicy::of(local.restart),
        run_as: local.run_as.clone(),
        caps: local.caps,
    })
}

/// The places of routes without further conditions: what a sidecar can announce.
fn places(spec: &ServiceSpec) -> Option<Vec<String>> {
    let plain =
        |route: &&Route| !route.exact && route.methods.is_empty() && route.headers.is_empty() && route.query.is_empty();
    let routes = spec.routes.as_ref()?;
    Some(routes.iter().filter(plain).map(|route| route.place.to_string()).collect())
}
