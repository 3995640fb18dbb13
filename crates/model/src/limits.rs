//! Bounds inside the mesh (`limits` of the manifest): every one has a number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;

/// Bounds for connections and messages inside the mesh. They hold for new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// All headers of a message together; bytes.
    pub headers: u64,
    /// One header, name and value; bytes.
    pub header: u64,
    /// How many headers.
    pub header_count: u32,
    /// The request target; bytes.
    pub target: u64,
    /// HTTP/2 streams at once on a connection.
    pub streams: u32,
    /// HTTP/2 window of a stream; bytes.
    pub window: u64,
    /// HTTP/2 window of a connection; bytes.
    pub connection_window: u64,
    /// Unfinished HTTP/2 resets in 10 s that close a connection.
    pub resets: u32,
    /// Reading a message's head.
    pub header_read: Duration,
    /// A body's silence.
    pub body_idle: Duration,
    /// Lowest rate of a body after 10 s; bytes a second.
    pub body_rate: u64,
    /// A write that does not move.
    pub write_stall: Duration,
    /// An idle connection of a client.
    pub client_idle: Duration,
    /// An idle connection to an instance.
    pub pool_idle: Duration,
    /// The age at which a connection is ended gently.
    pub connection_age: Duration,
    /// Connections at once; `None`: min(10,000, half the file limit − 100).
    pub connections: Option<u32>,
    /// Requests in flight to one endpoint.
    pub in_flight: u32,
    /// Time between HTTP/2 pings.
    pub ping: Duration,
    /// Body kept for a further try; bytes.
    pub replay: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers: 64 * KIB,
            header: 16 * KIB,
            header_count: 100,
            target: 8 * KIB,
            streams: 250,
            window: 256 * KIB,
            connection_window: 2048 * KIB,
            resets: 200,
            header_read: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            body_rate: KIB,
            write_stall: Duration::from_secs(30),
            client_idle: Duration::from_secs(75),
            pool_idle: Duration::from_secs(30),
            connection_age: Duration::from_secs(3600),
            connections: None,
            in_flight: 1024,
            ping: Duration::from_secs(10),
            replay: 64 * KIB,
        }
    }
}
