//! The data plane: moves requests between clients, sidecars and services, and knows nothing of how the mesh is run.
//!
//! # The life of a request
//!
//! A request passes up to three hops, each of them the same steps with another table:
//!
//! | hop | from | to | its table |
//! | --- | --- | --- | --- |
//! | `ingress` | Nginx, or the world | the sidecar of an instance | routes by host and path |
//! | `outbound` | a service | the sidecar of an instance | the name that is called |
//! | `inbound` | a peer's sidecar, a master | the service itself | where the service listens |
//!
//! 1. **accept** – `hop::accept` takes the connection, `hop::connection` learns its protocol. HTTP/1.1 is read and written
//!    by `h1::server`, whose task drives everything that follows, HTTP/2 by `h2::server`; both make a `message` of it. What can be
//!    read in two ways is refused: bytes by `h1::parse`, fields by `hop::head`. `hop::trace` says which request this is.
//! 2. **route** – `ingress`, `outbound` or `inbound` finds the service and the policy.
//! 3. **admit** – a place among the requests in flight (`load`), and the request's deadline (`hop::deadline`).
//! 4. **pick** – `upstreams` asks `synego-balance` for an instance.
//! 5. **send** – `hop::send` has it written (`hop::outgoing`) to a connection of the `pool`, which is `h1::client`'s or
//!    HTTP/2; `hop::retry` decides whether another try is right; the body flows through `hop::intake`.
//! 6. **answer** – `hop::body` streams the upstream's answer back; where there is none, `hop::answer` makes ours. A
//!    WebSocket goes on as `hop::upgrade`.
//!
//! All of it happens on one thread: a worker (`workers`) takes a connection and keeps everything that it causes.
//!
//! **Invariants.** On a request's path no lock is taken and nothing is shared between workers but the snapshot, which is
//! read by one atomic load. Every connection is made by `identity`. A body is never held whole: 64 KiB at most are kept
//! for a further try. Every answer that the mesh makes names its reason. Deliberately absent: health checks, discovery,
//! configuration files.

mod account;
mod calls;
mod denials;
mod fields;
mod h1;
mod h2;
mod hop;
mod inbound;
mod ingress;
mod load;
mod message;
mod metrics;
mod outbound;
mod parking;
mod pool;
#[cfg(any(test, feature = "probe"))]
#[doc(hidden)]
pub mod probe;
mod router;
mod server;
mod snapshot;
mod spare;
mod tcp;
mod tenure;
mod upstreams;
mod workers;

pub use calls::CallBook;
pub use denials::DenialBook;
pub use hop::access::{Gate, Permits};
pub use inbound::{InboundConfig, InboundTarget};
pub use ingress::IngressConfig;
pub use load::LoadMeter;
pub use metrics::HopKind;
pub use outbound::{OutboundConfig, Wanted};
pub use parking::Parking;
pub use server::{DrainOutcome, Server};
pub use snapshot::{SnapshotReader, SnapshotWriter, snapshot_channel};
pub use synego_model::Network;
pub use tenure::Tenure;
pub use workers::{Hop, Workers, WorkersConfig, WorkersHandle};
