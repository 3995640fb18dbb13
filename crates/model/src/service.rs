//! A service as the mesh knows it (sections of the manifest that are the same on every machine).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::AccessRules;
use crate::health::HealthSpec;
use crate::name::ServiceName;
use crate::policy::Policy;
use crate::protocol::Protocol;
use crate::route::Route;

/// What the manifest says of a service to the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its routes; `None`: nothing said, so its own (SDK, command line) hold; empty: inside only.
    pub routes: Option<Vec<Route>>,
    /// Services it calls.
    pub uses: Vec<ServiceName>,
    /// Who may call it, of those that use it.
    pub rules: AccessRules,
    /// How its health is probed; `None`: by its process and port alone.
    pub health: Option<HealthSpec>,
    /// How requests to it are treated.
    pub policy: Arc<Policy>,
    /// Instances that are wanted on each machine; 1 for one that is found by its address.
    pub instances: u32,
    /// For metrics and selectors.
    pub labels: BTreeMap<String, String>,
}

/// Labels that a service or instance may have.
pub const MAX_LABELS: usize = 16;
