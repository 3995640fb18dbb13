//! What a manifest declares, as a master takes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Bounds inside the mesh.
    pub limits: Limits,
    /// How masters judge silent sidecars.
    pub liveness: Liveness,
    /// How long a certificate lives.
    pub life: Duration,
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
