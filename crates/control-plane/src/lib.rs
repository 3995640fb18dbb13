//! Moves knowledge: from a service to its sidecar, from every sidecar to every master, and back as snapshots.
//!
//! ```text
//! service ── attach ──► sidecar ── report ──► master: registry decides ── publish ──► sidecar: subscribe ──► data plane
//! ```
//!
//! A process beside a service holds an [`attach::AttachServer`] and an [`uplink::Uplink`]; a master holds a
//! [`master::MasterControl`], which is the [`registry`] with the links and the admin API around it.
//!
//! **Invariants.** The data plane never waits for anything here: it gets an `Arc<Snapshot>` and gives a `HealthReport`.
//! Decisions are made in the registry alone, without I/O, clock or tasks. Whatever comes from outside is checked by
//! `wire` before it is believed; a broken update leaves the last good one in force. Every queue has a bound, and none
//! of them can delay a report. What must outlive a master goes through [`store`]. Deliberately absent: storage of soft
//! state, and elections among masters.

pub mod admin;
pub mod attach;
pub mod authority;
pub mod credential;
mod enrol;
pub mod health;
mod link;
mod lockout;
pub mod master;
mod metrics;
pub mod order;
mod publish;
pub mod registry;
mod report;
pub mod store;
mod subscribe;
mod tokens;
pub mod uplink;

pub use synego_wire::convert::output::{LogLevel, OutputLine};
