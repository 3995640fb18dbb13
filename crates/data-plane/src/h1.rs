//! HTTP/1.1 on a codec of our own, for both sides of a hop: [`server`] to clients, [`client`] to upstreams.
//!
//! The task of a client's connection drives everything: it reads a request, has it answered, and writes the answer; a
//! connection to an upstream is read and written by whoever waits for its answer. There is no channel, no further task
//! and no lock between the two sides.
//!
//! - [`parse`]: heads, found where they lie; what may be read in two ways is a [`Fault`].
//! - [`body`]: where a body ends: by its length, in chunks, or with the connection.
//! - [`write`]: heads, and bodies framed anew.
//! - [`out`], [`input`]: bytes on their way out and in; a connection that rests holds no buffer.
//! - [`pipe`]: large bodies between two connections without TLS, past our memory.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod fault;
pub(crate) mod input;
pub(crate) mod out;
pub(crate) mod parse;
pub(crate) mod pipe;
pub(crate) mod server;
pub(crate) mod write;

use std::io;

pub(crate) use fault::Fault;

/// Why a message is not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes break the rules.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The connection ended within the message.
    #[error("the connection ended within the message")]
    Short,
    /// Somebody else reads this connection now.
    #[error("the message was given up")]
    Superseded,
}
