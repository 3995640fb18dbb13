//! The sidecar: one small process beside one service. Assembly only.
//!
//! [`Sidecar::bind`] takes every port and serves nothing yet; [`Sidecar::serve`] starts the process (where it is the
//! parent), opens the inbound once it is ready, and drains on stop. [`sidecar`] is the one place where the planes meet:
//! snapshots flow from the control plane to the data plane, reports the other way.

mod announce;
pub mod args;
mod conductor;
pub mod config;
mod drain;
mod environment;
mod follow;
mod generation;
mod handover;
mod instance;
mod left;
mod orders;
mod outbound;
mod output;
mod proof;
mod report;
mod sidecar;
mod sockets;
pub mod start;
pub mod state;
mod target;

pub use config::{ProcessConfig, SidecarConfig};
pub use environment::url_variable;
pub use instance::View;
pub use left::is_left;
pub use orders::{Orders, ReloadHow};
pub use output::{Output, told};
pub use sidecar::{Ended, Shared, Sidecar};
pub use synego_control_plane::credential::{
    CredentialError, CredentialHandle, Keeper, KeeperConfig, Source, open as enrol,
};
pub use synego_control_plane::lines::{JournalLines, OutputSource};
pub use synego_control_plane::order;
pub use synego_control_plane::uplink::{LogLevel, MasterAddress, UplinkStatus};
pub use synego_data_plane::{Workers, WorkersConfig, WorkersHandle};
