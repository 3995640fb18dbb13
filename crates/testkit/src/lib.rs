//! A whole mesh inside one test: the real programs in real processes, clients, an open-loop load, and faults.
//!
//! [`Mesh`] is `synego up` on a folder of its own; [`Program`] is any one of our programs; [`http`], [`load`] and
//! [`socket`] are clients; [`fault`] breaks things. Waiting is always for a condition ([`wait::until`]), never for time.
//!
//! **Invariants.** Every process that a test starts ends with it, also when it panics or is killed; every folder is
//! temporary; every port was free a moment before. What cannot be done panics with the reason: a test that cannot go on has failed.
#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail with the reason")]

pub mod daemons;
pub mod fault;
pub mod forge;
pub mod http;
pub mod load;
pub mod mesh;
pub mod ports;
pub mod program;
pub mod size;
pub mod socket;
pub mod wait;

pub use daemons::Daemons;
pub use mesh::Mesh;
pub use program::Program;
pub use synego_supervise::stat;
