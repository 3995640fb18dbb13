//! The Rust SDK of Synego: a service declares what it answers, attaches to the sidecar beside it, calls others by name,
//! logs with the request's id, and drains.
//!
//! The path of a request: the sidecar connects to the port or socket of the service → the interceptor reads its context
//! → the handler of the most literal pattern runs within the request's span → its failure, if any, becomes the one form
//! of error. A call goes the other way: [`Ctx`] → the sidecar's outbound, with id, trace, deadline and priority.
//!
//! **Invariants.** Requests never travel through the link to the sidecar: when it breaks, none fails. Nothing here
//! retries, raises a priority or lengthens a deadline. Without a sidecar the same program runs, and says once that it is
//! alone. There is no balancing and no TLS: those are the sidecar's.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a failed test panics"))]

mod attach;
mod checks;
mod client;
pub mod codes;
mod context;
mod environment;
mod errors;
mod extract;
mod handler;
mod hooks;
mod interceptor;
mod lifecycle;
mod listen;
mod load;
mod logs;
mod options;
mod pattern;
mod service;
pub mod testing;

#[cfg(test)]
mod vectors;

pub use attach::{Attachment, Link, LinkState};
pub use axum;
pub use checks::Need;
pub use client::{Answer, Call, Channel, Client, NamedCall};
pub use codes::{Blame, Code, Retry};
pub use context::{Ctx, Priority};
pub use errors::Error;
pub use extract::{Json, Path, Query};
pub use hooks::{Drain, DrainCause, Outcome, Reported};
pub use http::StatusCode;
pub use lifecycle::Running;
pub use options::Options;
pub use service::{Service, serve};
pub use synego_model::process::ServiceAddress;
pub use tonic;

/// The examples of the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
