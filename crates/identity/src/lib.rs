//! The one door for connections: who connects to whom, and how either proves who it is.
//!
//! Whoever wants a connection asks a [`Connector`]; whoever takes one hands it to an [`Acceptor`] and gets the [`Stream`]
//! with the [`Peer`] at its other end. Today both speak plain TCP; certificates come in here and nowhere else.
//!
//! **Invariants.** Nothing outside this crate opens a connection between parts of the mesh. Every connect has a limit in
//! time. Deliberately absent: pools, protocols, retries.

mod accept;
mod connect;
mod listen;
mod stream;

pub use accept::{AcceptError, Acceptor, Peer};
pub use connect::{ConnectError, Connector};
pub use listen::{listen, listen_shared};
pub use stream::Stream;
