//! HTTP/2 on a layer of our own, for both sides of a hop: [`server`] to clients, [`client`] to upstreams (RFC 9113).
//!
//! A connection has one task, which reads and writes it; each of its streams is driven by whoever answers the request, or
//! waits for the answer. Between them stands the [`mux`]: a plain value that both borrow for a moment. Whatever is ready in
//! one round of the worker leaves in one write.
//!
//! - [`hpack`]: fields as few bytes.
//! - [`frame`]: the heads of frames, and the frames that we send.
//! - [`head`]: from fields to a request, an answer or trailers; what may be read in two ways is refused.
//! - [`calm`]: how much of what asks for nothing is borne.
//! - [`stream`]: one request and its answer, in both directions, with its windows.
//! - [`mux`]: the frames of a connection and its streams.

pub(crate) mod body;
pub(crate) mod calm;
pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod head;
pub(crate) mod hpack;
pub(crate) mod mux;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod wire;

/// Why a stream or a connection is ended (RFC 9113 §7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INTERNAL_ERROR: Self = Self(2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// Why a stream is read no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// The other side ended the stream.
    #[error("the other side ended the stream with code {}", .0.0)]
    Reset(Code),
    /// What it sent on the stream breaks the rules.
    #[error("the stream breaks the rules (code {})", .0.0)]
    Broken(Code),
    /// The connection ended, or failed.
    #[error("the connection ended within the stream")]
    Short,
    /// The other side will not look at it: the stream was begun while the connection ended.
    #[error("the connection takes no further stream")]
    Away,
    /// Somebody else reads this stream now.
    #[error("the message was given up")]
    Superseded,
}
