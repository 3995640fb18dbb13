//! The parts of a keeper: how one is started, what is on its way to it, and when one that died is started again.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::VARIABLE;
use super::message::{self, Inventory, ToPart};
use super::store::Store;
use crate::clock;

/// First wait before a part that died before it served is started again; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Longest wait.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// So many deaths in a row before it served, and the keeper gives up.
const MOST_FAILURES: u32 = 8;
/// One that serves and dies is started again at once, so often within [`WINDOW`].
const MOST_AT_ONCE: usize = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) pid: u32,
    /// `None`: it has closed its end.
    pub(super) socket: Option<OwnedFd>,
    /// Whether it serves.
    pub(super) is_ready: bool,
    /// Whether it has let go of what only one can have.
    pub(super) has_yielded: bool,
    /// What did not fit into its socket yet.
    waiting: VecDeque<Vec<u8>>,
}

impl Part {
    /// One that came with a state.
    pub(super) fn known(pid: u32, socket: Option<OwnedFd>, is_ready: bool) -> Self {
        Self { pid, socket, is_ready, has_yielded: false, waiting: VecDeque::new() }
    }

    /// Starts `program` with the arguments of this process, and tells it what is held.
    pub(super) fn start(program: &Path, store: &Store, inventory: Inventory) -> io::Result<Self> {
        let (own, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut args = std::env::args_os();
        let mut start = std::process::Command::new(program);
        start.arg0(args.next().unwrap_or_else(|| OsString::from(program)));
        start.args(args).env(VARIABLE, std::process::id().to_string()).stdin(Stdio::from(theirs));
        let child = start.spawn()?;
        // Our copy of its end lives in here.
        drop(start);
        let mut part = Self::known(child.id(), Some(own), false);
        let (entries, fds) = store.all();
        let stdin = io::stdin();
        let all: Vec<BorrowedFd<'_>> = std::iter::once(stdin.as_fd()).chain(fds).collect();
        if let Some(socket) = &part.socket
            && message::send(socket.as_fd(), &Inventory { entries, ..inventory }, &all).is_err()
        {
            // It died at once, as its end will tell.
            part.socket = None;
        }
        Ok(part)
    }

    /// Tells it something as soon as it can be told; one that is gone is told nothing.
    pub(super) fn tell(&mut self, message: &ToPart) {
        if let Ok(bytes) = message::small(message) {
            self.waiting.push_back(bytes);
            self.flush();
        }
    }

    /// Whether something waits for room in its socket.
    pub(super) fn has_waiting(&self) -> bool {
        self.socket.is_some() && !self.waiting.is_empty()
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let (Some(socket), Some(bytes)) = (&self.socket, self.waiting.front()) {
            match message::send_small(socket.as_fd(), bytes) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_gone) => self.waiting.clear(),
            }
        }
    }
}

/// When a part that died is started again.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    failures: u32,
    recent: VecDeque<Instant>,
}

impl Deaths {
    /// One has died; how long to wait, or `None`: it has no end.
    pub(super) fn next(&mut self, was_ready: bool) -> Option<Duration> {
        let now = clock::now();
        if !was_ready {
            self.failures += 1;
            let doubled = FIRST_WAIT * 2_u32.pow((self.failures - 1).min(16));
            return (self.failures < MOST_FAILURES).then(|| doubled.min(LONGEST_WAIT));
        }
        self.failures = 0;
        self.recent.push_back(now);
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        Some(if self.recent.len() > MOST_AT_ONCE { LONGEST_WAIT } else { Duration::ZERO })
    }

    /// How often in a row one died before it served.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_serves_and_dies_is_started_at_once_and_one_that_never_serves_is_given_up() {
        let mut deaths = Deaths::default();
        assert!((0..MOST_AT_ONCE).all(|_| deaths.next(true) == Some(Duration::ZERO)));
        assert_eq!(deaths.next(true), Some(LONGEST_WAIT), "thirty in a minute are enough");
        assert_eq!(deaths.next(false), Some(FIRST_WAIT));
        assert_eq!(deaths.next(false), Some(2 * FIRST_WAIT));
        assert_eq!(deaths.next(true), Some(LONGEST_WAIT));
        let waits: Vec<Option<Duration>> = (0..MOST_FAILURES).map(|_| deaths.next(false)).collect();
        assert_eq!((waits[0], waits[6]), (Some(FIRST_WAIT), Some(LONGEST_WAIT)));
        assert_eq!(waits[7], None);
    }
}
