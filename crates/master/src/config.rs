//! What a master runs on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use synego_manifest::Manifest;
use synego_model::NodeName;
use synego_model::gateway::Listen;
use synego_runtime::admin::BindAddr;
use synego_runtime::config as machine;
use synego_runtime::logs::LineWriter;

use crate::args::Args;
use crate::identity::{IdentityConfig, KeySource};

/// What a master runs on.
#[derive(Clone)]
pub struct MasterConfig {
    /// Name of this machine.
    pub node: NodeName,
    /// What was declared.
    pub manifest: Manifest,
    /// Where Nginx reaches it.
    pub ingress: SocketAddr,
    /// Addresses at which it faces the world itself, where there is no Nginx.
    pub public: Vec<Listen>,
    /// Where sidecars of other processes reach it; `None`: nowhere.
    pub mesh: Option<SocketAddr>,
    /// Where people reach it.
    pub admin: Vec<BindAddr>,
    /// What its authority is made of; `None`: the mesh runs without certificates.
    pub identity: Option<IdentityConfig>,
    /// Whether the ingress opens only once the sidecars had time to report: for a daemon that comes back.
    pub settle: bool,
    /// File of what must outlive it; `None`: nothing does, and it has no authority.
    pub store: Option<PathBuf>,
    /// A Unix socket for people of this machine, beside `admin`, if no other process has it.
    pub socket: Option<PathBuf>,
    /// Whether the services of this machine run in the same process, and go by a changed file.
    pub is_machine: bool,
    /// Where changes are written down, beside the log of the process.
    pub audit: Option<LineWriter>,
}

/// Name of the socket of a master that is a program of its own, in the runtime folder of its mesh.
pub const SOCKET: &str = "master.sock";
/// Name of the file of the store, in the folder of state of its mesh.
pub const STORE: &str = "store.redb";

impl MasterConfig {
    /// The configuration that a command line and a manifest say.
    ///
    /// # Errors
    /// Every problem at once, each naming its flag, the value and what was expected.
    pub fn from_args(args: &Args, manifest: Manifest) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut address = |flag: &str, text: Option<&str>, said: SocketAddr| match text {
            None => said,
            Some(text) => parse(text).unwrap_or_else(|| {
                problems.push(format!("{flag}: `{text}` is no address: expected PORT or IP:PORT"));
                said
            }),
        };
        let ingress = address("--ingress", args.ingress.as_deref(), manifest.masters.ingress);
        let mesh = address("--mesh", args.mesh.as_deref(), manifest.masters.mesh);
        let admin = address("--admin", args.admin.as_deref(), manifest.masters.admin);
        let node = match NodeName::new(&args.node.clone().unwrap_or_else(machine::host_name)) {
            Ok(node) => Some(node),
            Err(error) => {
                problems.push(format!("--node: {error}"));
                None
            }
        };
        let name = manifest.declaration.mesh.as_str();
        let state = args.state.as_deref().map_or_else(|| machine::state_dir(name), machine::private_dir);
        let kept = state.and_then(|state| Ok((store(args, &state)?, identity(args, &manifest, &state))));
        let (store, identity) = kept.unwrap_or_else(|error| {
            problems.push(format!("--state, --store: {error}"));
            (PathBuf::new(), None)
        });
        let socket = machine::runtime_dir(name).ok().map(|folder| folder.join(SOCKET));
        match node {
            Some(node) if problems.is_empty() => Ok(Self {
                node,
                manifest,
                ingress,
                public: Vec::new(),
                mesh: Some(mesh),
                admin: vec![BindAddr::Tcp(admin)],
                identity,
                settle: true,
                is_machine: false,
                store: Some(store),
                socket,
                audit: None,
            }),
            _ => Err(problems),
        }
    }
}

/// The file of the store, below `state` where the command line does not say it.
fn store(args: &Args, state: &Path) -> io::Result<PathBuf> {
    let Some(text) = &args.store else { return Ok(state.join(STORE)) };
    let file = text.strip_prefix("redb:").filter(|file| !file.is_empty());
    file.map(PathBuf::from).ok_or_else(|| io::Error::other(format!("`{text}` is no store: expected redb:FILE")))
}

/// What the command line says of the authority, over the manifest.
fn identity(args: &Args, manifest: &Manifest, state: &Path) -> Option<IdentityConfig> {
    let mut identity = IdentityConfig::of(manifest, state)?;
    match (&args.key_file, &args.key_command) {
        (_, Some(command)) => identity.key = KeySource::Command(command.clone()),
        (Some(file), None) => identity.key = KeySource::File(file.clone()),
        (None, None) => {}
    }
    Some(identity)
}

fn parse(text: &str) -> Option<SocketAddr> {
    let port = text.parse::<u16>().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|| text.parse().ok())
}
