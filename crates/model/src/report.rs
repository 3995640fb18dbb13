//! What a sidecar tells every master about its instance: soft state, never stored.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::access::Denial;
use crate::health::{Cause, InstanceState};
use crate::name::{InstanceId, NodeName, ServiceName};
use crate::protocol::Protocol;

/// What a sidecar announces of its instance: changes seldom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its service.
    pub service: ServiceName,
    /// Its instance.
    pub id: InstanceId,
    /// Its machine.
    pub node: NodeName,
    /// Zone of its machine; may be empty.
    pub zone: String,
    /// Drawn anew at each start of the sidecar.
    pub incarnation: String,
    /// Where peers reach the sidecar's inbound.
    pub address: SocketAddr,
    /// What the service speaks.
    pub protocol: Protocol,
    /// Version of the service; may be empty.
    pub version: String,
    /// For metrics and selectors.
    pub labels: BTreeMap<String, String>,
    /// Places that the service or the command line asks for; `None`: nothing said; empty: inside only.
    pub routes: Option<Vec<String>>,
    /// Services it calls.
    pub uses: Vec<ServiceName>,
    /// Process id of the service, 0: not known.
    pub pid: u32,
    /// Up by one with each reload of the process.
    pub generation: u32,
    /// When the process started: milliseconds since 1970-01-01 UTC; 0: not known.
    pub started_unix_ms: u64,
    /// Name and version of the SDK in use; may be empty.
    pub sdk: String,
    /// Handlers that the service declared.
    pub handlers: Vec<String>,
    /// Where the process itself listens, for people; may be empty.
    pub listens: String,
    /// How what the process may take of the machine is held, for people; may be empty.
    pub caps: String,
}

/// How an instance is: said every second, and at once on a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// Its state.
    pub state: InstanceState,
    /// Why.
    pub cause: Option<Cause>,
    /// How much is going on.
    pub load: InstanceLoad,
    /// Restarts of the process since the sidecar started.
    pub restarts: u32,
    /// Instances that this sidecar leaves out as a caller.
    pub ejections: Vec<EjectionReport>,
    /// What its outbound did since the last report, by callee.
    pub calls: Vec<CallFigures>,
    /// Calls that access refused, or would have, since the last report.
    pub denials: Vec<Denial>,
    /// Age of the snapshot in force; milliseconds.
    pub snapshot_age_ms: u64,
    /// Who the sidecar is by its certificate, and whom it trusts; `None`: the mesh runs without certificates.
    pub identity: Option<IdentityReport>,
}

/// Who a part of the mesh is by its certificate, and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdentityReport {
    /// Its id, such as `spiffe://shop/svc/users`.
    pub id: String,
    /// Number of its certificate, in hexadecimal digits.
    pub serial: String,
    /// Fingerprint of the root that issued it, in hexadecimal digits.
    pub issuer: String,
    /// Until when it is valid: milliseconds since 1970-01-01 UTC.
    pub not_after_unix_ms: u64,
    /// When it will be renewed: milliseconds since 1970-01-01 UTC; 0: not known.
    pub renew_unix_ms: u64,
    /// Why the last renewal failed; empty: it did not.
    pub renewal_error: String,
    /// Fingerprints of the roots that it trusts.
    pub trusted: Vec<String>,
    /// Who it has met.
    pub peers: Vec<PeerSeen>,
    /// Handshakes that it refused, by cause.
    pub refused: Vec<HandshakesRefused>,
}

/// One identity that was met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSeen {
    /// Its id.
    pub id: String,
    /// Handshakes since the start.
    pub handshakes: u64,
    /// When the last one was: milliseconds since 1970-01-01 UTC.
    pub last_unix_ms: u64,
}

/// Handshakes that were refused for one cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandshakesRefused {
    /// The cause, a closed word.
    pub cause: String,
    /// How many since the start.
    pub handshakes: u64,
    /// At which end the sidecar stood: `accepting` or `connecting`.
    pub side: String,
}

/// How much is going on in an instance, measured at its inbound unless said otherwise.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct InstanceLoad {
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that wait.
    pub queued: u32,
    /// Requests answered since the sidecar started.
    pub requests_total: u64,
    /// Answers of status 5xx since the sidecar started.
    pub errors_total: u64,
    /// Requests a second over the last 10 s.
    pub requests_per_second: f64,
    /// Median time to the end of the answer over the last 10 s; seconds; 0: no request.
    pub p50_seconds: f64,
    /// 99th percentile of the same.
    pub p99_seconds: f64,
    /// Share of what the service can do as it says itself, 0 to 1.
    pub utilization: Option<f64>,
    /// Resident memory of the process; bytes; 0: not known.
    pub memory_bytes: u64,
    /// CPU of the process over the last period; cores.
    pub cpu_cores: Option<f64>,
    /// Streams that are open.
    pub open_streams: u32,
}

/// One instance that a caller leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectionReport {
    /// Which.
    pub instance: InstanceId,
    /// Why.
    pub cause: Cause,
    /// For how long still; milliseconds.
    pub remaining_ms: u64,
}

/// What one caller saw of one callee in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFigures {
    /// The callee.
    pub service: ServiceName,
    /// Requests sent.
    pub requests: u64,
    /// Requests that failed: 5xx or no answer.
    pub failures: u64,
}
