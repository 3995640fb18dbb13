//! Where an instance is reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::health::InstanceState;
use crate::name::InstanceId;

/// One reachable instance: its sidecar's address and how it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its instance.
    pub id: InstanceId,
    /// Its sidecar's inbound.
    pub address: SocketAddr,
    /// Its state as reported.
    pub state: InstanceState,
    /// Version of the service; may be empty.
    pub version: String,
    /// Zone of its machine; may be empty.
    pub zone: String,
    /// Share of what it can do, 0 to 1, as the service says itself.
    pub utilization: Option<f64>,
    /// When it became ready: milliseconds since 1970-01-01 UTC; 0: not yet.
    pub ready_unix_ms: u64,
    /// Drawn anew at each start of its sidecar: with a new one callers forget its record.
    pub incarnation: String,
}
