//! Beginning and end: when a process is ready, when it must stop, and when its last work is done.
//!
//! The order of an end is always the same: not ready → stop accepting → drain within its limit → cut → flush → exit.
//! [`Stop`] says when, [`Drain`] says whether something is still going on, [`Readiness`] tells the outside.

mod drain;
mod readiness;
mod stop;

pub use drain::{Drain, DrainGuard};
pub use readiness::{Readiness, ReadinessGuard};
pub use stop::{Stop, Stopper};
