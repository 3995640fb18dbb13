//! Processes that outlive the part of this program that supervises them: started by the keeper, and found again by the next
//! part with all that their supervisor knew.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synego_model::Cause;
use synego_runtime::keeper::{self, Held, Holding};
use synego_runtime::tasks::{self, Kind};

use crate::leader::Leader;
use crate::notify::NotifySocket;
use crate::spec::StopBy;
use crate::state::{ExitOutcome, Phase, ProcessState};

/// What a keeper's key of a process begins with.
const KIND: &str = "process ";
/// The same of one that has ended for good.
const OVER: &str = "over ";

/// What the next part must know of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// When it was started; milliseconds since 1970-01-01 UTC.
    pub(crate) started_unix_ms: u64,
    /// Whether it was ready.
    pub(crate) ready: bool,
    /// Its notify socket, where it has one.
    pub(crate) notify: Option<PathBuf>,
    /// How often it was begun to be started, and how often after a failure.
    pub(crate) starts: u32,
    pub(crate) restarts: u32,
    /// What all its processes bear; see [`crate::kin`].
    pub(crate) mark: String,
    /// When the kernel started it; clock ticks since boot.
    pub(crate) start: Option<u64>,
    /// What was seen to leave its group, by start times.
    pub(crate) strays: BTreeMap<u32, u64>,
}

/// How a process is kept.
pub(crate) struct Keep<'a> {
    /// Its key; see [`key`].
    pub(crate) key: String,
    pub(crate) note: Note,
    /// Held with it, behind the ends of its output.
    pub(crate) notify: Option<&'a NotifySocket>,
}

/// A process that a former part left.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) leader: Leader,
    pub(crate) pipes: (OwnedFd, OwnedFd),
    pub(crate) notify: Option<NotifySocket>,
    pub(crate) note: Note,
}

/// The keeper's key of the process that its supervisor keeps under `name`.
pub(crate) fn key(name: &str) -> String {
    format!("{KIND}{name}")
}

impl Note {
    pub(crate) fn text(&self) -> String {
        // Numbers and a path: nothing that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Takes over the process that a former part kept under `name`; `None`: there is none.
pub(crate) fn adopt(name: &str) -> Option<Adopted> {
    of(keeper::claim(&key(name))?)
}

fn of(held: Held) -> Option<Adopted> {
    let note: Note = serde_json::from_str(&held.note).ok()?;
    let mut fds = held.fds.into_iter();
    let pipes = (fds.next()?, fds.next()?);
    let notify = note.notify.clone().zip(fds.next()).and_then(|(path, fd)| NotifySocket::adopt(path, fd).ok());
    Some(Adopted { leader: Leader::kept(held.process?, note.clone()), pipes, notify, note })
}

/// What the next part must know of a process that is not started again, above all of a job that is done.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Over {
    started_unix_ms: u64,
    starts: u32,
    restarts: u32,
    code: Option<i32>,
    signal: Option<i32>,
    killed: bool,
    cause: Option<Cause>,
    last_lines: Vec<String>,
}

impl Over {
    pub(crate) fn of(state: &ProcessState, exit: ExitOutcome, cause: Option<&Cause>) -> Self {
        Self {
            started_unix_ms: state.started_unix_ms,
            starts: state.starts,
            restarts: state.restarts,
            code: exit.code,
            signal: exit.signal,
            killed: exit.killed,
            cause: cause.cloned(),
            last_lines: state.last_lines.clone(),
        }
    }

    /// Has the keeper keep it, for as long as that is not dropped.
    pub(crate) fn hold(&self, name: &str) -> Option<Holding> {
        // Numbers and text: nothing that could not be written.
        keeper::hold(&format!("{OVER}{name}"), &serde_json::to_string(self).unwrap_or_default(), &[])
    }

    /// What a former part kept under `name`.
    pub(crate) fn left(name: &str) -> Option<Self> {
        serde_json::from_str(&keeper::claim(&format!("{OVER}{name}"))?.note).ok()
    }

    pub(crate) fn exit(&self) -> ExitOutcome {
        ExitOutcome { code: self.code, signal: self.signal, killed: self.killed }
    }

    /// What became of it, into the state of its process.
    pub(crate) fn show(self, state: &mut ProcessState) {
        (state.phase, state.pid, state.exit, state.cause) = (Phase::Stopped, 0, Some(self.exit()), self.cause);
        (state.started_unix_ms, state.starts, state.restarts) = (self.started_unix_ms, self.starts, self.restarts);
        state.last_lines = self.last_lines;
    }
}

/// Ends processes that a former part left and nobody takes over: TERM, then KILL once `grace` is over.
///
/// - `wanted`: by the names under which their supervisors kept them.
pub fn end_left(grace: Duration, wanted: impl Fn(&str) -> bool) {
    keeper::forget(|key| key.strip_prefix(OVER).is_some_and(&wanted));
    for (key, held) in keeper::claim_all(|key| key.strip_prefix(KIND).is_some_and(&wanted)) {
        let Some(process) = held.process else { continue };
        let note = serde_json::from_str(&held.note).unwrap_or_default();
        tracing::info!(process = key, pid = process.pid(), "a process that nobody needs any more is ended");
        tasks::spawn("left-process", Kind::Connection, async move {
            Leader::kept(process, note).end(StopBy::Term, grace, std::future::pending()).await;
        });
    }
}
