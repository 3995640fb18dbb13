//! The words of the mesh as plain values: one language for every other crate.
//!
//! A manifest becomes a [`Declaration`]; a sidecar says a [`HealthReport`]; a master makes a [`Snapshot`] of both, and the
//! data plane routes on it. When the mesh itself answers a request, it says a [`Reason`].
//!
//! **Invariants.** No I/O, no clock, no randomness, no async. A value that exists is valid: constructors check, fields of
//! checked types are private. A [`Snapshot`] never changes once built.

pub mod access;
pub mod declaration;
pub mod diagnostic;
pub mod endpoint;
pub mod gateway;
pub mod health;
pub mod identity;
pub mod limits;
pub mod name;
pub mod network;
pub mod place;
pub mod policy;
pub mod process;
pub mod protocol;
pub mod reason;
pub mod report;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod text;

pub use access::{Access, AccessMode, AccessRule, AccessRules, Caller, Denial, RouteAccess};
pub use declaration::{AccessLines, Declaration, MasterSpec};
pub use diagnostic::{Diagnostic, Severity};
pub use endpoint::Endpoint;
pub use gateway::{Engine, GatewaySpec};
pub use health::{Cause, HealthSpec, InstanceState, Probe};
pub use identity::{BadIdentity, Identity, Role};
pub use limits::Limits;
pub use name::{BadName, InstanceId, InstanceName, MeshName, NodeName, ServiceName};
pub use network::{BadNetwork, Network};
pub use place::{BadPlace, HostPattern, PathPattern, Place, Segment};
pub use policy::{Balance, BalanceKind, Eject, HashKey, Park, Policy};
pub use process::{
    CapSpec, CommandLine, Listens, LocalService, ReadySpec, ReloadSpec, RestartSpec, RestartWhen, RunAs, StopSpec,
    Target, WatchSpec,
};
pub use protocol::Protocol;
pub use reason::{Blame, Code, Reason, Retry};
pub use report::{
    Announcement, CallFigures, EjectionReport, HandshakesRefused, HealthReport, IdentityReport, InstanceLoad, PeerSeen,
};
pub use route::Route;
pub use service::ServiceSpec;
pub use snapshot::{Epoch, ServiceTable, Snapshot};
