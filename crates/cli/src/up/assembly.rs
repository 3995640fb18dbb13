//! Assembles master, sidecars, services and Nginx of this machine in one process; [`super::ending`] takes them apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use synego_manifest::{Manifest, Outcome};
use synego_master::{IdentityConfig, Master, MasterConfig, MasterHandle, STORE};
use synego_model::NodeName;
use synego_runtime::admin::BindAddr;
use synego_runtime::logs::{Journal, LineWriter, To};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Host, keeper};
use synego_sidecar::{JournalLines, MasterAddress, Shared, Workers, WorkersConfig};
use tokio::sync::{mpsc, watch};

use super::console::{self, Console, Line};
use super::edge::{self, Edge, Nginx};
use super::ending::{Parts, listen_for_down};
use super::gateway::{self, Gateway};
use super::handover;
use super::identity;
use super::instances::{self, Fleet, Ground, Instances};
use super::lock::Lock;
use super::ready::Judge;
use crate::client::Mesh;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::mesh::{Address, Note, SOCKET, Target};

/// What `up` was asked for, read and checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The manifest.
    pub(crate) manifest: Manifest,
    /// Its files, main file first; none: there is no manifest.
    pub(crate) files: Vec<PathBuf>,
    /// These services alone, if any are named.
    pub(crate) only: Vec<String>,
    /// Whether `build` is left out.
    pub(crate) no_build: bool,
    /// Masters elsewhere that this machine joins.
    pub(crate) join: Vec<String>,
    /// File of the join token.
    pub(crate) token_file: Option<PathBuf>,
    /// Whether nobody looks on: see [`super::detach`].
    pub(crate) background: bool,
    /// Name of this machine.
    pub(crate) node: NodeName,
    /// Where all lines go.
    pub(crate) journal: Journal,
}

/// Runs it all until it is told to end; returns the exit code.
pub(crate) async fn run(context: &Context, wanted: Wanted, host: Host) -> ExitCode {
    match assemble(context, wanted, &host).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            context.screen.complain(&failure.render(context.screen.err));
            ExitCode::from(failure.code)
        }
    }
}

async fn assemble(context: &Context, mut wanted: Wanted, host: &Host) -> Result<u8, Failure> {
    let mesh = wanted.manifest.declaration.mesh.to_string();
    let cannot = |what: &str, error: &dyn std::fmt::Display| Failure::new(what).cause(format!("{error:#}"));
    let runtime_dir =
        synego_runtime::config::runtime_dir(&mesh).map_err(|error| cannot("cannot make the runtime folder", &error))?;
    let state_dir =
        synego_runtime::config::state_dir(&mesh).map_err(|error| cannot("cannot make the state folder", &error))?;
    let note = Note {
        pid: keeper::top(),
        mesh: mesh.clone(),
        manifest: wanted.files.first().cloned(),
        started_unix_ms: context.now(),
    };
    // Before any port: a second `up` of this mesh shall hear that it runs, not that its ports are taken.
    let _lock = Lock::take(&runtime_dir, &note, context)?;
    let front = match wanted.join.is_empty() {
        true => Gateway::decide(&wanted.manifest).await?,
        false => Gateway::decide_joined(&wanted.manifest).await?,
    };
    if matches!(front, Gateway::Nginx(_)) {
        gateway::settle_ports(&mut wanted.manifest)?;
    }
    let manifest = &wanted.manifest;
    let node = wanted.node.clone();
    let count = synego_runtime::config::cores();
    let workers = Workers::start(WorkersConfig { count, file_limit: host.file_limit(), metrics: host.metrics() })
        .map_err(|error| cannot("cannot start the workers", &error))?;
    workers.handle().log_lines(manifest.declaration.access_lines);
    let journal = wanted.journal.clone();
    let program = (format!("up@{node}"), host.logs());
    let shared = Shared { workers: workers.handle(), metrics: host.metrics(), journal: journal.clone(), program: None };
    let (lines, mut shown) = mpsc::channel::<Line>(console::QUEUE);

    let master = match wanted.join.is_empty() {
        true => Some(own_master(&wanted, &front, &node, (&runtime_dir, &state_dir), &shared, host).await?),
        false => None,
    };
    let masters = match &master {
        Some(master) => vec![MasterAddress::InProcess(master.in_process())],
        None => wanted.join.iter().cloned().map(MasterAddress::Tcp).collect(),
    };
    let handle = master.as_ref().map(Master::handle);
    let manifests = master.as_ref().map(Master::manifests);
    let far = wanted.join.iter().any(|address| !is_loopback(address))
        || (wanted.join.is_empty() && !manifest.masters.mesh.ip().is_loopback());
    let mut ground = Ground {
        shared,
        node: node.clone(),
        masters,
        far,
        announces: !wanted.join.is_empty(),
        // Where a master runs here, it tells what this process says.
        program: (!wanted.join.is_empty()).then(|| program.clone()),
        runtime_dir: runtime_dir.clone(),
        state_dir: state_dir.clone(),
        no_build: wanted.no_build,
        credentials: BTreeMap::new(),
        lines,
    };
    let ingress = master.as_ref().map(Master::ingress);
    let public = master.as_ref().map(Master::public).unwrap_or_default();
    let (end_master, master_life) = host.stop().outliving();
    let stopper = host.stopper();
    let served = master.map(|master| {
        tasks::spawn("master", Kind::Critical, async move {
            if let Err(error) = master.serve(master_life).await {
                tracing::error!(cause = format!("{error:#}"), "the master failed");
                stopper.stop();
            }
        })
    });
    // Links need their certificates to the end of the drain.
    let (end_identity, identity_life) = host.stop().outliving();
    let identities = identity::Wanted {
        manifest,
        services: instances::services(manifest, &wanted.only)?,
        node: &node,
        masters: ground.masters.clone(),
        folder: (!wanted.join.is_empty()).then(|| state_dir.clone()),
        token_file: wanted.token_file.clone(),
    };
    ground.credentials = identity::open(identities, host, &identity_life).await?;
    let instances = Instances::start(manifest, &wanted.only, &ground, &host.stop())?;
    if let Some(handle) = &handle {
        handle.set_machine(node.as_str(), instances.fleet());
    }
    if let Some(manifests) = manifests {
        let own = Context::new(context.globals.clone());
        tasks::spawn("take-up", Kind::Connection, take_up(own, instances.fleet(), manifests));
    }
    tasks::spawn("watch", Kind::Connection, super::watch::run(instances.fleet(), host.stop()));
    let local_admin = match &handle {
        Some(_) => None,
        None => Some(
            super::joined::serve(
                manifest,
                &instances,
                &ground,
                JournalLines { journal: journal.clone(), access_of: None, program: Some(program) },
                host,
            )
            .await?,
        ),
    };
    let nginx = match &front {
        Gateway::Nginx(binary) => {
            let edge = Edge {
                binary,
                masters: match ingress {
                    Some(ingress) => edge::fixed(ingress),
                    None => known_masters(&instances, &wanted.join).await?,
                },
                prefix: gateway::prefix(&state_dir),
                sink: gateway::sink(&node, journal.writer()),
                told: handle.clone().zip(front.status(manifest, &[])),
            };
            Some(Nginx::start(edge, manifest, host).await?)
        }
        Gateway::None | Gateway::Master { .. } => None,
    };
    if let Some(handle) = &handle {
        handle.warn(front.notices(manifest));
        if nginx.is_none() {
            handle.set_gateway(front.status(manifest, &public));
        }
    }
    let downs =
        handle.as_ref().and_then(MasterHandle::downs).or_else(|| local_admin.as_ref().and_then(|admin| admin.downs()));
    let down = listen_for_down(downs, host.stopper());

    let target = Target { mesh: Some(mesh), address: Address::Unix(runtime_dir.join(SOCKET)), others: Vec::new() };
    let mut client = Mesh::connect(context, target).await?;
    // All parts stand; which services are ready is theirs to say.
    host.tell_parent(async {});
    tasks::spawn(
        "keeper-ready",
        Kind::Connection,
        handover::tell_keeper(instances.pictures(), instances.fleet().ids().len()),
    );
    let judge = Judge::new(manifest, &wanted.only, wanted.join.is_empty() && gateway::is_wanted(manifest));
    let width = instances
        .fleet()
        .sinks()
        .keys()
        .map(|id| id.split('@').next().unwrap_or(id).len())
        .max()
        .unwrap_or(8)
        .clamp(6, 24);
    let mut console = Console::new(context, judge, wanted.files.clone(), width, wanted.background);
    let share = keeper::share();
    let watched = tokio::select! {
        watched = console.run(&mut client, &mut shown, host) => watched,
        () = keeper::yielding() => {
            // The terminal is the successor's from now on.
            drop((console, client, shown, share));
            return handover::leave(&instances, served, workers).await;
        }
    };
    // Whatever ended the console ends the rest as well.
    host.stopper().stop();

    let parts = Parts { nginx, instances, end_master, served, local_admin };
    parts.end(&mut console, &mut shown, down).await;
    end_identity.stop();
    if !wanted.background {
        context.screen.note("ended");
    }
    workers.shutdown().await;
    journal.writer().flush(Duration::from_millis(500));
    watched.map(|()| DONE)
}

/// Has the services of this machine go by its own file whenever `apply` put another manifest in force. What was sent to
/// the master says nothing of what runs here: that is read from the disk of this machine alone.
async fn take_up(context: Context, fleet: Arc<Fleet>, mut manifests: watch::Receiver<Manifest>) {
    let context = Arc::new(context);
    while manifests.changed().await.is_ok() {
        manifests.mark_unchanged();
        let own = context.clone();
        let read = tasks::spawn_blocking("take-up", move || crate::manifest::read(&own)).await;
        match read {
            Ok(Ok(outcome @ Outcome { manifest: Some(_), .. })) => {
                handover::keep_in_force(&outcome);
                outcome.manifest.iter().for_each(|manifest| fleet.take_up(manifest));
            }
            _ => tracing::warn!("the file of this machine cannot be read: its services run on as they do"),
        }
    }
}

/// The ingresses of the masters that this machine joins.
///
/// # Errors
/// When none of them answers.
async fn known_masters(instances: &Instances, join: &[String]) -> Result<watch::Receiver<Vec<SocketAddr>>, Failure> {
    let masters = edge::learned(instances.pictures(), join.len()).await;
    if masters.borrow().is_empty() {
        return Err(Failure::new("no master answers, so the gateway has nobody to pass requests to")
            .cause(format!("tried {}", join.join(", ")))
            .help("start a master there, or correct `masters`"));
    }
    Ok(masters)
}

async fn own_master(
    wanted: &Wanted,
    front: &Gateway,
    node: &NodeName,
    (runtime_dir, state_dir): (&Path, &Path),
    shared: &Shared,
    host: &Host,
) -> Result<Master, Failure> {
    let masters = &wanted.manifest.masters;
    let config = MasterConfig {
        node: node.clone(),
        manifest: wanted.manifest.clone(),
        ingress: masters.ingress,
        public: front.public(&wanted.manifest),
        mesh: Some(masters.mesh),
        admin: vec![BindAddr::Tcp(masters.admin), BindAddr::Unix(runtime_dir.join(SOCKET))],
        identity: IdentityConfig::of(&wanted.manifest, state_dir),
        settle: false,
        is_machine: true,
        store: Some(state_dir.join(STORE)),
        socket: None,
        audit: Some(audit(&wanted.manifest)?),
        program: Some(format!("up@{node}")),
    };
    Master::bind(config, &shared.workers, shared.journal.clone(), host).await.map_err(|error| {
        Failure::new("the master cannot start")
            .cause(format!("{error:#}"))
            .help("another mesh may run here: give this one ports of its own, `masters: { ingress: 0, mesh: 0, admin: 0 }` takes free ones")
    })
}

/// Name of this machine.
///
/// # Errors
/// When the one that was said is none.
pub(crate) fn node(context: &Context) -> Result<NodeName, Failure> {
    let name = context.globals.node.clone().unwrap_or_else(synego_runtime::config::host_name);
    NodeName::new(&name).map_err(|error| Failure::misuse(format!("--node: {error}")))
}

/// Changes that somebody asked for: beside the journal, and for as long.
fn audit(manifest: &Manifest) -> Result<LineWriter, Failure> {
    let dir = manifest.logs.dir.clone();
    LineWriter::open(To::Dir { dir, name: "audit".to_owned() }).map(LineWriter::for_the_process).map_err(|error| {
        Failure::new(format!("cannot write logs to {}", manifest.logs.dir.display())).cause(error.to_string())
    })
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
