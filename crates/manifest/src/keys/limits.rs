//! Keys of `limits`, inside the mesh and at the gateway: from a quarter to sixteen times the default.

use super::shape::Shape;
use super::{Effect, Key, Section, key};

const KIB: u64 = 1024;
const SECOND: u64 = 1_000;

const fn size(default: u64) -> Shape {
    Shape::Size { min: default / 4, max: default * 16 }
}

const fn count(default: u64) -> Shape {
    Shape::Count { min: default / 4, max: default * 16, words: &[] }
}

const fn duration(default: u64) -> Shape {
    Shape::Duration { min: default / 4, max: default * 16 }
}

static HEADERS: Shape = size(64 * KIB);
static HEADER: Shape = size(16 * KIB);
static HEADER_COUNT: Shape = count(100);
static TARGET: Shape = size(8 * KIB);
static STREAMS: Shape = count(250);
static STREAMS_EDGE: Shape = count(100);
static WINDOW: Shape = size(256 * KIB);
static WINDOW_EDGE: Shape = size(64 * KIB);
static CONNECTION_WINDOW: Shape = size(2048 * KIB);
static CONNECTION_WINDOW_EDGE: Shape = size(1024 * KIB);
static RESETS: Shape = count(200);
static HANDSHAKE: Shape = duration(5 * SECOND);
static HEADER_READ: Shape = duration(10 * SECOND);
static THIRTY: Shape = duration(30 * SECOND);
static BODY_RATE: Shape = Shape::Flow { min: KIB / 4, max: KIB * 16 };
static CLIENT_IDLE: Shape = duration(75 * SECOND);
static CONNECTION_AGE: Shape = duration(3_600 * SECOND);
static CONNECTIONS: Shape = Shape::Count { min: 16, max: 160_000, words: &["auto"] };
static IN_FLIGHT: Shape = count(1_024);
static PING: Shape = duration(10 * SECOND);
static REPLAY: Shape = size(64 * KIB);
static BODY: Shape = Shape::Size { min: KIB, max: 1 << 40 };
static PER_CLIENT: Shape = count(100);
static RATE: Shape = Shape::Rate;

/// The keys both have, with the effect of a change and the shapes and defaults that differ.
macro_rules! keys {
    ($effect:expr, $streams:expr, $window:expr, $connection_window:expr $(, $more:expr)* $(,)?) => {
        &[
            key("headers", &HEADERS, "64KiB", $effect, "headers: 32KiB", "all headers of a message together"),
            key("header", &HEADER, "16KiB", $effect, "header: 8KiB", "one header, name and value"),
            key("header_count", &HEADER_COUNT, "100", $effect, "header_count: 64", "how many headers"),
            key("target", &TARGET, "8KiB", $effect, "target: 4KiB", "the request target"),
            key("streams", $streams.0, $streams.1, $effect, "streams: 128", "HTTP/2 streams at once on a connection"),
            key("window", $window.0, $window.1, $effect, "window: 128KiB", "HTTP/2 window of a stream"),
            key("connection_window", $connection_window.0, $connection_window.1, $effect, "connection_window: 1MiB", "HTTP/2 window of a connection"),
            key("resets", &RESETS, "200", $effect, "resets: 100", "unfinished HTTP/2 resets in 10 s that close a connection"),
            key("handshake", &HANDSHAKE, "5s", $effect, "handshake: 5s", "a TLS handshake").later(),
            key("header_read", &HEADER_READ, "10s", $effect, "header_read: 5s", "reading the head of a message"),
            key("body_idle", &THIRTY, "30s", $effect, "body_idle: 30s", "silence of a body"),
            key("body_rate", &BODY_RATE, "1KiB/s", $effect, "body_rate: 1KiB/s", "lowest rate of a body after 10 s"),
            key("write_stall", &THIRTY, "30s", $effect, "write_stall: 30s", "a write that does not move"),
            key("client_idle", &CLIENT_IDLE, "75s", $effect, "client_idle: 60s", "an idle connection of a client"),
            key("pool_idle", &THIRTY, "30s", $effect, "pool_idle: 20s", "an idle connection to an instance"),
            key("connection_age", &CONNECTION_AGE, "1h", $effect, "connection_age: 30m", "the age at which a connection is ended gently"),
            key("connections", &CONNECTIONS, "auto", $effect, "connections: 5000", "connections at once; `auto`: half of what the open files allow, at most 10,000"),
            key("in_flight", &IN_FLIGHT, "1024", $effect, "in_flight: 512", "requests in flight to one endpoint"),
            key("ping", &PING, "10s", $effect, "ping: 10s", "time between HTTP/2 pings"),
            key("replay", &REPLAY, "64KiB", $effect, "replay: 64KiB", "body kept for a further try"),
            $($more,)*
        ]
    };
}

static MESH_KEYS: &[Key] = keys!(Effect::Live, (&STREAMS, "250"), (&WINDOW, "256KiB"), (&CONNECTION_WINDOW, "2MiB"));

static EDGE_KEYS: &[Key] = keys!(
    Effect::Edge,
    (&STREAMS_EDGE, "100"),
    (&WINDOW_EDGE, "64KiB"),
    (&CONNECTION_WINDOW_EDGE, "1MiB"),
    key("body", &BODY, "10MiB", Effect::Edge, "body: 20MiB", "largest body of a route without `uploads`"),
    key("per_client", &PER_CLIENT, "100", Effect::Edge, "per_client: 50", "connections of one client address"),
    key("rate", &RATE, "", Effect::Edge, "rate: 50/s", "requests of one client address"),
);

/// `limits` of the mesh.
pub(crate) static LIMITS: Section = Section::of("limits", "limits", MESH_KEYS);
/// `gateway.limits`.
pub(crate) static EDGE_LIMITS: Section = Section::of("limits", "gateway.limits", EDGE_KEYS);
