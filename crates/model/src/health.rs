//! How an instance is, why, and how that is found out.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::CommandLine;
use crate::reason::Reason;

/// The state of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Started, not ready yet.
    Starting,
    /// Takes requests.
    Ready,
    /// Takes requests, but something is not well.
    Degraded,
    /// Takes none until it is well again.
    Unhealthy,
    /// Takes no new ones and ends.
    Draining,
    /// No process, or no sidecar.
    Gone,
}

impl InstanceState {
    /// Whether a request may be sent there.
    #[must_use]
    pub fn takes_requests(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }

    /// The word, as in every output.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why something is in its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The kind, as a closed word.
    pub reason: Reason,
    /// For people; may be empty.
    pub message: String,
    /// Since when: milliseconds since 1970-01-01 UTC.
    pub since_unix_ms: u64,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.word())?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// One way to find out whether a process is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `GET` of this path answers 2xx or 3xx.
    Http(String),
    /// `grpc.health.v1.Health/Check` of this name answers `SERVING`; empty: the server as a whole.
    Grpc(String),
    /// A connection is taken.
    Tcp,
    /// A command ends with code 0. Only from this machine's own file.
    Exec(CommandLine),
}

/// How the health of an instance is probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSpec {
    /// The probe.
    pub probe: Probe,
    /// Time between probes; 100 ms to 5 min.
    pub every: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; 1 to 10.
    pub down: u32,
    /// Successes in a row that make it ready again; 1 to 10.
    pub up: u32,
}

impl HealthSpec {
    /// The defaults around `probe`: every second, one second for each, 3 down, 2 up.
    #[must_use]
    pub fn of(probe: Probe) -> Self {
        Self { probe, every: Duration::from_secs(1), timeout: Duration::from_secs(1), down: 3, up: 2 }
    }
}
