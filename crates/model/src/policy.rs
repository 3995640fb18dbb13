//! What happens to a request: time limits, picking, ejection.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What happens to a request on a route or to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The whole of a request that is no stream.
    pub timeout: Duration,
    /// One try; at most `timeout`.
    pub try_timeout: Duration,
    /// Connecting.
    pub connect: Duration,
    /// Silence of a stream, in both directions.
    pub idle: Duration,
    /// How an instance is picked.
    pub balance: Balance,
    /// When an instance is left out; `None`: never.
    pub eject: Option<Eject>,
    /// Further tries after the first; 0 to 3.
    pub retries: u32,
    /// Whether requests wait while every instance restarts; `None`: they are refused.
    pub park: Option<Park>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            try_timeout: Duration::from_secs(10),
            connect: Duration::from_secs(1),
            idle: Duration::from_secs(300),
            balance: Balance::default(),
            eject: Some(Eject::default()),
            retries: 1,
            park: Some(Park::default()),
        }
    }
}

/// How requests wait while every instance restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Park {
    /// How long one waits.
    pub within: Duration,
    /// How many wait in one instance.
    pub max: u32,
}

impl Default for Park {
    fn default() -> Self {
        Self { within: Duration::from_secs(10), max: 1_000 }
    }
}

/// How an instance is picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// The way.
    pub kind: BalanceKind,
    /// How long a new instance gets less than its share; zero: not at all.
    pub slow_start: Duration,
    /// Below this share of ready instances (percent, 0 to 100) all are used.
    pub panic_percent: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self { kind: BalanceKind::Load, slow_start: Duration::from_secs(10), panic_percent: 50 }
    }
}

/// The way in which an instance is picked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BalanceKind {
    /// The lower response time × (requests in flight + 1) of two drawn at random.
    Load,
    /// The fewer requests in flight.
    Least,
    /// In turn.
    RoundRobin,
    /// At random.
    Random,
    /// By a consistent hash of a key of the request.
    Hash(HashKey),
}

/// What of a request a consistent hash is taken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The value of this header (lower-case name).
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// The value of this query parameter.
    Query(String),
}

/// When a caller leaves an instance out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eject {
    /// Failures in a row; 1 to 1,000.
    pub failures: u32,
    /// How long the first time; each further time is a multiple of it.
    pub first: Duration,
    /// The longest time.
    pub max: Duration,
    /// The largest share of instances (percent, 0 to 100); the last ready one never is.
    pub at_most_percent: u32,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, first: Duration::from_secs(30), max: Duration::from_secs(300), at_most_percent: 50 }
    }
}
