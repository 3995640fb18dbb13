//! What a manifest means on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synego_model::declaration::{self, Liveness};
use synego_model::gateway::{Listen, ListenProtocol};
use synego_model::{
    AccessLines, AccessMode, Declaration, GatewaySpec, Limits, LocalService, MasterSpec, MeshName, name,
};

use crate::effective::EffectiveValue;

/// A manifest that passed every check.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its folder; absolute.
    pub root: PathBuf,
    /// Its files as the user named them: `synego.yaml + synego.prod.yaml`.
    pub title: String,
    /// What the whole mesh holds.
    pub declaration: Declaration,
    /// The services with how this machine runs them, by name.
    pub local: Vec<LocalService>,
    /// What faces the world.
    pub gateway: GatewaySpec,
    /// Where a master listens, and which others there are.
    pub masters: MasterSpec,
    /// What is written down.
    pub logs: LogsSpec,
    /// The certificates of the mesh.
    pub identity: IdentitySpec,
    pub(crate) effective: Vec<EffectiveValue>,
}

/// The certificates of the mesh; how long one lives stands in the declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentitySpec {
    /// Whether every hop is mutual TLS.
    pub mtls: bool,
    /// Certificate and key (PEM) of the authority to begin with; absolute.
    pub ca: Option<(PathBuf, PathBuf)>,
    /// The token for the first enrolment of this machine; absolute.
    pub token_file: Option<PathBuf>,
}

impl Default for IdentitySpec {
    fn default() -> Self {
        Self { mtls: true, ca: None, token_file: None }
    }
}

/// What is written down, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsSpec {
    /// Where log files go; absolute.
    pub dir: PathBuf,
    /// The least important line that is written.
    pub level: Level,
    /// How a line is written.
    pub format: LogFormat,
    /// How long files are kept.
    pub keep: Duration,
    /// How much they may take together; bytes.
    pub max_size: u64,
}

impl LogsSpec {
    /// The defaults under `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            dir: root.join("logs"),
            level: Level::Info,
            format: LogFormat::Json,
            keep: Duration::from_secs(14 * 86_400),
            max_size: 1 << 30,
        }
    }
}

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may fail.
    Warn,
    /// What happens.
    Info,
    /// Why it happens.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    pub(crate) fn of(word: &str) -> Self {
        match word {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => Self::Info,
        }
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Manifest {
    /// What holds in `folder` without any manifest: a mesh of the folder's name, a master and a gateway at their usual
    /// addresses, no service.
    #[must_use]
    pub fn defaults(folder: &Path) -> Self {
        let declaration = Declaration {
            mesh: mesh_of(folder),
            services: std::collections::BTreeMap::new(),
            access: AccessMode::default(),
            limits: Limits::default(),
            liveness: Liveness::default(),
            access_lines: AccessLines::default(),
            life: declaration::LIFE,
        };
        let effective = crate::effective::of_nothing(declaration.mesh.as_str());
        Self {
            root: folder.to_owned(),
            title: String::new(),
            declaration,
            local: Vec::new(),
            gateway: GatewaySpec {
                engine: None,
                listen: vec![Listen {
                    name: "http".into(),
                    protocol: ListenProtocol::Http,
                    address: any(8080),
                    proxy_protocol: Vec::new(),
                }],
                hosts: Vec::new(),
                static_places: Vec::new(),
                spa_places: Vec::new(),
            },
            masters: masters(),
            logs: LogsSpec::under(folder),
            identity: IdentitySpec::default(),
            effective,
        }
    }

    /// Every value that is in force, in the order of the table of keys, with where it was said.
    #[must_use]
    pub fn effective(&self) -> &[EffectiveValue] {
        &self.effective
    }
}

/// Masters at their usual addresses.
pub(crate) fn masters() -> MasterSpec {
    let at = |port| SocketAddr::new(LOOPBACK, port);
    MasterSpec { ingress: at(3000), mesh: at(3001), admin: at(3002), join: Vec::new() }
}

/// This machine alone.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Every interface.
pub(crate) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(ANY, port)
}

/// The mesh of a folder: its name as near as a name can be, else `mesh`.
pub(crate) fn mesh_of(folder: &Path) -> MeshName {
    let base = folder.file_name().and_then(|name| name.to_str()).and_then(name::nearest_name);
    base.and_then(|name| MeshName::new(&name).ok()).unwrap_or_else(fallback)
}

fn fallback() -> MeshName {
    #[expect(clippy::expect_used, reason = "the text is a name")]
    MeshName::new("mesh").expect("a name")
}
