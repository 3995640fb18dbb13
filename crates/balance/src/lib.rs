//! Which instance gets a request, and whether another try is allowed: decisions only.
//!
//! A caller keeps one [`Balancer`] for each service it calls and tells it what happens: [`Balancer::pick`] names an
//! instance, [`Balancer::begin`], [`Balancer::answered`] or [`Balancer::failed`], and [`Balancer::end`] follow a request
//! sent there. [`RetryBudget`] bounds further tries.
//!
//! **Invariants.** No I/O, no clock, no source of randomness: both are arguments, so that every test is exact. Nothing is
//! shared: a worker owns its balancers. A [`Slot`] of an instance that left is ignored, never mistaken for another.

mod balancer;
mod budget;
mod eject;
mod ewma;
mod levels;
mod pick;
mod record;
mod ring;

pub use balancer::{Balancer, PickError};
pub use budget::{RetryBudget, backoff_ceiling};
pub use eject::{Ejected, Failure};
pub use pick::hash_key;
pub use record::Slot;
