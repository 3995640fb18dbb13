//! Processes that outlive the part of this program that supervises them: started by the keeper, and found again by the next
//! part with all that their supervisor knew.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synego_runtime::keeper::{self, Held};
use synego_runtime::tasks::{self, Kind};

use crate::leader::Leader;
use crate::notify::NotifySocket;
use crate::spec::StopBy;

/// What a keeper's key of a process begins with.
const KIND: &str = "process ";

/// What the next part must know of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// How a process is kept.
pub(crate) struct Keep<'a> {
    /// Its key; see [`key`].
    pub(crate) key: String,
    pub(crate) note: Note,
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

impl Keep<'_> {
    /// What is held with it, behind the ends of its output.
    pub(crate) fn more(&self) -> Option<BorrowedFd<'_>> {
        self.notify.map(AsFd::as_fd)
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
    Some(Adopted { leader: Leader::kept(held.process?), pipes, notify, note })
}

/// Ends processes that a former part left and nobody takes over: TERM, then KILL once `grace` is over.
///
/// - `wanted`: by the names under which their supervisors kept them.
pub fn end_left(grace: Duration, wanted: impl Fn(&str) -> bool) {
    for (key, held) in keeper::claim_all(|key| key.strip_prefix(KIND).is_some_and(&wanted)) {
        let Some(process) = held.process else { continue };
        tracing::info!(process = key, pid = process.pid(), "a process that nobody needs any more is ended");
        tasks::spawn("left-process", Kind::Connection, async move {
            Leader::kept(process).end(StopBy::Term, grace, std::future::pending()).await;
        });
    }
}
