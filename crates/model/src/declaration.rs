//! What a manifest declares, as a master takes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::AccessMode;
use crate::limits::Limits;
use crate::name::{MeshName, ServiceName};
use crate::service::ServiceSpec;

/// The mesh-wide part of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Name of the mesh.
    pub mesh: MeshName,
    /// Its services.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// What happens to calls that nobody permits.
    pub access: AccessMode,
    /// Bounds inside the mesh.
    pub limits: Limits,
    /// How masters judge silent sidecars.
    pub liveness: Liveness,
    /// Which exchanges get a line in the access logs of masters and sidecars.
    pub access_lines: AccessLines,
    /// How long a certificate lives.
    pub life: Duration,
}

/// Which exchanges get a line in the access log. Those that failed do, unless none does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessLines {
    /// Every one.
    #[default]
    All,
    /// Those that failed.
    Errors,
    /// None.
    Off,
    /// Those that failed, and this share of the rest in percent, 0 to 100.
    Share(u8),
}

impl AccessLines {
    /// How many in a hundred of those that did not fail get one; `None`: not even a failure does.
    #[must_use]
    pub fn percent(self) -> Option<u8> {
        match self {
            Self::All => Some(100),
            Self::Errors => Some(0),
            Self::Off => None,
            Self::Share(percent) => Some(percent.min(100)),
        }
    }
}

/// How long a certificate lives when nothing is said (as Linkerd's do).
pub const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// How masters judge sidecars that say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// How often a sidecar reports.
    pub report: Duration,
    /// Silence after which its instance is degraded.
    pub suspect: Duration,
    /// Silence after which its instance is gone.
    pub gone: Duration,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { report: Duration::from_secs(1), suspect: Duration::from_secs(3), gone: Duration::from_secs(10) }
    }
}

/// Where a master listens and which others there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterSpec {
    /// Behind Nginx.
    pub ingress: SocketAddr,
    /// For sidecars.
    pub mesh: SocketAddr,
    /// For people.
    pub admin: SocketAddr,
    /// Mesh addresses (`host:port`) of masters elsewhere; with any, this machine runs none of its own.
    pub join: Vec<String>,
}
