//! What any process needs and that knows no mesh: every program starts, logs, is watched, drains and ends alike.
//!
//! `main` calls [`run`]; it sets up threads, logs and signals, hands a [`Host`] to the program's assembly and waits for
//! its end. Everything asynchronous is started through [`tasks`], so that each task has a name and a failure has a
//! meaning; everything that ends listens to a [`Stop`].
//!
//! **Invariants.** The clock, the environment, the spawning of tasks and the end of the process each have one door, and
//! it is here ([`clock`], [`config`], [`tasks`], [`host`]): `clippy.toml` refuses the others. Every queue is bounded and
//! counts what it drops. Deliberately absent: services, routes, endpoints, TLS.

pub mod admin;
pub mod clock;
pub mod config;
pub mod host;
pub mod keeper;
pub mod lifecycle;
pub mod logs;
mod parent;
pub mod serve;
pub mod tasks;
pub mod telemetry;

pub use host::{Host, HostConfig, print_effective, run, usage_error};
pub use lifecycle::{Drain, DrainGuard, Readiness, ReadinessGuard, Stop, Stopper};
