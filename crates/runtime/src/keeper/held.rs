//! What the keeper holds for a part: given by one, claimed by the next. Without a keeper nothing is held, and nothing found.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::link::{Inherited, LINK, lock};
use super::message::{Command, Exit, ToKeeper};

/// Time in which a part that serves has claimed all that it listens on.
const CLAIMED_WITHIN: Duration = Duration::from_secs(30);

/// What a former part left under a key.
#[derive(Debug)]
pub struct Held {
    /// What it noted.
    pub note: String,
    /// Its descriptors, in their order.
    pub fds: Vec<OwnedFd>,
    /// The process, where it is one.
    pub process: Option<Kept>,
}

/// Something that the keeper holds. Dropping it lets go of it there, unless a successor has it now.
#[derive(Debug)]
pub struct Holding(String);

/// A process whose parent is the keeper. Dropping it makes the keeper forget it, and ends nothing.
#[derive(Debug)]
pub struct Kept {
    held: Holding,
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Holding {
    /// Notes something else of it.
    pub fn note(&self, note: String) {
        if let Some(link) = LINK.get() {
            link.send(&ToKeeper::Note { key: self.0.clone(), note }, &[]);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if let Some(link) = LINK.get() {
            link.send(&ToKeeper::Release { key: std::mem::take(&mut self.0) }, &[]);
        }
    }
}

impl Kept {
    pub(super) fn new(key: String, pid: u32, exit: watch::Receiver<Option<Exit>>) -> Self {
        Self { held: Holding(key), pid, exit }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns once it has ended.
    pub async fn exited(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The link keeps its end for as long as this process lives.
            _ => std::future::pending().await,
        }
    }

    /// Notes something else of it.
    pub fn note(&self, note: String) {
        self.held.note(note);
    }
}

/// Has the keeper hold these descriptors and this note, in place of what it holds under that key; `None`: there is no
/// keeper.
pub fn hold(key: &str, note: &str, fds: &[BorrowedFd<'_>]) -> Option<Holding> {
    let link = LINK.get()?;
    link.send(&ToKeeper::Hold { key: key.to_owned(), note: note.to_owned() }, fds);
    Some(Holding(key.to_owned()))
}

/// Takes over what a former part left under a key, once; it stays held until the process in it, or what [`hold`] gives for
/// the same key, is dropped.
#[must_use]
pub fn claim(key: &str) -> Option<Held> {
    let link = LINK.get()?;
    let mut inherited = lock(&link.inherited);
    let Inherited { note, fds, process } = inherited.remove(key)?;
    // An end that is told now waits until it is followed.
    let process = process.map(|process| link.follow(key.to_owned(), process));
    Some(Held { note, fds, process })
}

/// Whether a former part left something under a key that nobody has claimed.
#[must_use]
pub fn is_left(key: &str) -> bool {
    LINK.get().is_some_and(|link| lock(&link.inherited).contains_key(key))
}

/// Sockets that the keeper holds, where there is one.
#[derive(Debug)]
pub struct Sockets<S> {
    /// They.
    pub all: Vec<S>,
    /// For as long as they are to be held; `None`: there is no keeper.
    pub held: Option<Holding>,
    /// Whether a former part left them, so that clients may wait in their queues.
    pub left: bool,
}

/// The sockets that a former part left under this key, or else those that `make` makes; held from now on.
///
/// # Errors
/// As of `make`.
pub fn claim_sockets<S, E>(key: &str, make: impl FnOnce() -> Result<Vec<S>, E>) -> Result<Sockets<S>, E>
where
    S: AsFd + From<OwnedFd>,
{
    if let Some(held) = claim(key) {
        let all = held.fds.into_iter().map(S::from).collect();
        return Ok(Sockets { all, held: Some(Holding(key.to_owned())), left: true });
    }
    let all = make()?;
    let fds: Vec<BorrowedFd<'_>> = all.iter().map(AsFd::as_fd).collect();
    let held = hold(key, "", &fds);
    Ok(Sockets { all, held, left: false })
}

/// Takes over all that a former part left under keys that are wanted, with these keys.
#[must_use]
pub fn claim_all(wanted: impl Fn(&str) -> bool) -> Vec<(String, Held)> {
    let Some(link) = LINK.get() else { return Vec::new() };
    let all: Vec<String> = lock(&link.inherited).keys().filter(|key| wanted(key)).cloned().collect();
    all.into_iter().filter_map(|key| claim(&key).map(|held| (key, held))).collect()
}

/// Lets go of what a former part left under keys that are wanted.
pub fn forget(wanted: impl Fn(&str) -> bool) {
    for (key, held) in claim_all(wanted) {
        let _gone = (Holding(key), held);
    }
}

/// Lets go of listening sockets that nobody has claimed a while after this part serves, such as those of an address that
/// is configured no more: what is not served shall refuse, and not let clients wait.
pub(super) async fn forget_unserved() {
    let Some(link) = LINK.get() else { return };
    tokio::time::sleep(CLAIMED_WITHIN).await;
    let listens = |fd: &OwnedFd| rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false);
    let unserved: Vec<String> = {
        let inherited = lock(&link.inherited);
        inherited.iter().filter(|(_, left)| left.fds.iter().any(listens)).map(|(key, _)| key.clone()).collect()
    };
    for key in &unserved {
        tracing::info!(socket = key, "nothing listens there any more");
    }
    forget(|key| unserved.iter().any(|one| one == key));
}

/// Has the keeper start a process as the leader of a group of its own.
///
/// - `own`: its stdin, stdout and stderr; `held`: what is kept with its note for a successor.
///
/// # Errors
/// Why it was not started.
pub async fn start(
    key: &str,
    note: &str,
    command: Command,
    own: [OwnedFd; 3],
    held: &[BorrowedFd<'_>],
) -> Result<Kept, String> {
    let gone = || "the keeper is gone".to_owned();
    let link = LINK.get().ok_or_else(gone)?;
    let answer = {
        let (asked, answer) = oneshot::channel();
        let ticket = link.tickets.fetch_add(1, Ordering::Relaxed);
        lock(&link.starts).insert(ticket, (key.to_owned(), asked));
        let fds: Vec<BorrowedFd<'_>> = own.iter().map(AsFd::as_fd).chain(held.iter().copied()).collect();
        link.send(&ToKeeper::Start { ticket, key: key.to_owned(), note: note.to_owned(), command }, &fds);
        answer
    };
    // Its own ends are the process's alone from now on.
    drop(own);
    answer.await.map_err(|_| gone())?
}
