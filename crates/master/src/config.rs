//! What a master runs on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use synego_manifest::Manifest;
use synego_model::NodeName;
use synego_runtime::admin::BindAddr;
use synego_runtime::config as machine;
use synego_runtime::logs::LineWriter;

use crate::args::Args;

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
    pub public: Vec<SocketAddr>,
    /// Where sidecars of other processes reach it; `None`: nowhere.
    pub mesh: Option<SocketAddr>,
    /// Where people reach it.
    pub admin: Vec<BindAddr>,
    /// Whether the ingress opens only once the sidecars had time to report: for a daemon that comes back.
    pub settle: bool,
    /// Folder of what must outlive it; `None`: nothing does.
    pub state_dir: Option<PathBuf>,
    /// A Unix socket for people of this machine, beside `admin`, if no other process has it.
    pub socket: Option<PathBuf>,
    /// Where changes are written down, beside the log of the process.
    pub audit: Option<LineWriter>,
}

/// Name of the socket of a master that is a program of its own, in the runtime folder of its mesh.
pub const SOCKET: &str = "master.sock";

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
        let mesh_name = manifest.declaration.mesh.to_string();
        match node {
            Some(node) if problems.is_empty() => Ok(Self {
                node,
                manifest,
                ingress,
                public: Vec::new(),
                mesh: Some(mesh),
                admin: vec![BindAddr::Tcp(admin)],
                settle: true,
                state_dir: machine::state_dir(&mesh_name).ok(),
                socket: machine::runtime_dir(&mesh_name).ok().map(|folder| folder.join(SOCKET)),
                audit: None,
            }),
            _ => Err(problems),
        }
    }
}

fn parse(text: &str) -> Option<SocketAddr> {
    let port = text.parse::<u16>().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    port.or_else(|| text.parse().ok())
}
