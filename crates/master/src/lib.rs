//! The master: gathers reports, publishes snapshots, routes what comes from outside. Assembly only.
//!
//! [`Master::bind`] takes every port; [`Master::serve`] runs until the stop. [`master`] is the one place where the planes
//! meet: the control plane's snapshots become those of the ingress, and what the ingress leaves out is reported back.

pub mod args;
pub mod config;
mod handover;
pub mod identity;
mod ingress;
mod master;
mod planner;
pub mod start;

pub use config::{MasterConfig, SOCKET, STORE};
pub use identity::{IdentityConfig, KeySource};
pub use master::Master;
pub use planner::ManifestPlanner;
pub use synego_control_plane::master::{
    DownAsked, DownOutcome, DownStep, GatewayStatus, InProcessMaster, MasterHandle, Notice, ServiceStatus,
};
pub use synego_data_plane::{Workers, WorkersConfig, WorkersHandle};
