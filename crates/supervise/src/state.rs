//! How a process is, as its supervisor sees it.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use synego_model::{Cause, Reason};

/// Where a process is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Its build runs.
    Building,
    /// It was started and is not ready yet.
    Starting,
    /// It is ready.
    Ready,
    /// It was ready, and is stopped by a signal (STOP) now.
    Paused,
    /// It was told to end.
    Stopping,
    /// It ended and is started again after a wait.
    Backoff,
    /// It ended so often that the waits are long; it is still started again.
    CrashLoop,
    /// It ended and is not started again.
    Stopped,
}

impl Phase {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash_loop",
            Self::Stopped => "stopped",
        }
    }
}

/// How a process is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessState {
    /// Where it is on its way.
    pub phase: Phase,
    /// Its process id while it lives, else 0.
    pub pid: u32,
    /// When it was last started: milliseconds since 1970-01-01 UTC; 0: not yet.
    pub started_unix_ms: u64,
    /// Times that it began to be started, whatever came of it.
    pub starts: u32,
    /// Starts after a failure or an end that nobody asked for.
    pub restarts: u32,
    /// Why it is not ready; `None` when it is.
    pub cause: Option<Cause>,
    /// How it last ended.
    pub exit: Option<ExitOutcome>,
    /// What it printed last before it ended without being told to; at most 10 lines.
    pub last_lines: Vec<String>,
    /// What it says of itself (`STATUS=` on its notify socket); may be empty.
    pub status: String,
    /// Resident memory of it and its children; bytes; 0: not known.
    pub memory_bytes: u64,
    /// How what it may take is held, such as `memory 512MiB watched`; empty: it may take what there is.
    pub caps: String,
    /// CPU of it and its children over the last second; cores; `None`: not known yet.
    pub cpu_cores: Option<f64>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitOutcome {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it had to be killed because its grace was over.
    pub killed: bool,
}

impl ProcessState {
    /// Whether it has ended as it should, and is not started again.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Stopped && self.cause.as_ref().is_some_and(|cause| cause.reason == Reason::JobDone)
    }
}

impl ExitOutcome {
    pub(crate) fn of(status: ExitStatus, killed: bool) -> Self {
        Self { code: status.code(), signal: status.signal(), killed }
    }

    /// Nothing was running.
    pub(crate) const NONE: Self = Self { code: None, signal: None, killed: false };

    /// Whether it ended by itself, with code 0.
    #[must_use]
    pub fn is_done(self) -> bool {
        self.code == Some(0)
    }

    /// The code for a program that ends as its process did: 128 + signal for one that a signal ended.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        let code = self.code.or_else(|| self.signal.map(|signal| 128 + signal)).unwrap_or(0);
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for ExitOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => write!(f, "ended by signal {}", signal_name(signal)),
            (None, None) => f.write_str("was not running"),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let names = [
        (1, "HUP"),
        (2, "INT"),
        (3, "QUIT"),
        (4, "ILL"),
        (5, "TRAP"),
        (6, "ABRT"),
        (7, "BUS"),
        (8, "FPE"),
        (9, "KILL"),
        (10, "USR1"),
        (11, "SEGV"),
        (12, "USR2"),
        (13, "PIPE"),
        (14, "ALRM"),
        (15, "TERM"),
        (24, "XCPU"),
        (31, "SYS"),
    ];
    names
        .iter()
        .find(|(number, _)| *number == signal)
        .map_or_else(|| signal.to_string(), |(_, name)| (*name).to_owned())
}

/// What happened to a process.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessEvent {
    /// Its build began.
    Building,
    /// Its build failed; it was not started.
    BuildFailed {
        /// How the build ended.
        message: String,
        /// Time until the next attempt.
        again_in: Duration,
    },
    /// It could not be started.
    StartFailed {
        /// Why.
        message: String,
        /// Time until the next attempt.
        again_in: Duration,
    },
    /// It was started.
    Started {
        /// Its process id.
        pid: u32,
        /// When: milliseconds since 1970-01-01 UTC.
        unix_ms: u64,
    },
    /// It is ready.
    Ready {
        /// Time since it was started.
        after: Duration,
    },
    /// It was not ready within its limit, and is ended.
    NotReadyInTime,
    /// It ended without being told to.
    Exited {
        /// How.
        exit: ExitOutcome,
        /// The last lines of its output; at most 10.
        last_lines: Vec<String>,
        /// Time until it is started again; `None`: it is not.
        restart_in: Option<Duration>,
    },
    /// It ended so often that it counts as a crash loop now; it is still started again.
    CrashLoop,
    /// It ended and is not started again.
    Stopped {
        /// How.
        exit: ExitOutcome,
    },
}
