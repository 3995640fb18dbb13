//! The part's end: what it gives its keeper to hold, and what it is told. Without a keeper nothing is given or told.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::{oneshot, watch};

use super::held::{self, Kept};
use super::message::{self, Entry, Exit, Inventory, Process, ToKeeper, ToPart};
use super::turn::Phase;
use crate::tasks;

pub(super) static LINK: OnceLock<Link> = OnceLock::new();

/// A start that was asked for: its key, and who asked.
type Asked = (String, oneshot::Sender<Result<Kept, String>>);
/// Where the end of a process is told.
type Told = watch::Sender<Option<Exit>>;

/// The way to the keeper.
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    pub(super) sending: Mutex<()>,
    pub(super) keeper: u32,
    pub(super) succeeds: bool,
    pub(super) again: bool,
    /// Whether it has said that it serves.
    pub(super) is_ready: AtomicBool,
    pub(super) told: Mutex<Vec<String>>,
    pub(super) inherited: Mutex<BTreeMap<String, Inherited>>,
    pub(super) tickets: AtomicU64,
    pub(super) starts: Mutex<HashMap<u64, Asked>>,
    /// By key and process id.
    pub(super) exits: Mutex<HashMap<(String, u32), Told>>,
    pub(super) phase: watch::Sender<Phase>,
    /// How much of it only one part can have.
    pub(super) shares: watch::Sender<usize>,
    pub(super) stops: watch::Sender<Stops>,
}

/// What a former part left, until it is claimed.
pub(super) struct Inherited {
    pub(super) note: String,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) process: Option<Process>,
}

/// What was said of the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stops {
    /// The signal; empty: none yet.
    pub(crate) signal: String,
    /// Whether it came again.
    pub(crate) again: bool,
}

/// Connects with the keeper at stdin, takes over what is held, and makes stdin what it was.
pub(super) fn connect(keeper: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before the request was in force.
    if rustix::process::getppid().map(|parent| parent.as_raw_pid().unsigned_abs()) != Some(keeper) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    let (inventory, fds) = message::recv::<Inventory>(socket.as_fd(), true)?.ok_or_else(gone)?;
    let mut fds = fds.into_iter();
    rustix::stdio::dup2_stdin(fds.next().ok_or_else(gone)?)?;
    let inherited = inherit(inventory.entries, fds);
    let first = if inventory.succeeds { Phase::Waiting } else { Phase::Serving };
    let link = Link {
        inherited: Mutex::new(inherited),
        socket,
        sending: Mutex::default(),
        keeper,
        succeeds: inventory.succeeds,
        again: inventory.again,
        is_ready: AtomicBool::new(false),
        told: Mutex::new(inventory.told),
        tickets: AtomicU64::new(0),
        starts: Mutex::default(),
        exits: Mutex::default(),
        phase: watch::Sender::new(first),
        shares: watch::Sender::new(0),
        stops: watch::Sender::new(Stops::default()),
    };
    let link = LINK.get_or_init(|| link);
    tasks::thread("keeper-link", tasks::Kind::Critical, move || {
        // The end of the keeper is the end of this process, by the kernel.
        loop {
            match message::recv::<ToPart>(link.socket.as_fd(), true) {
                Ok(Some((message, fds))) => link.told(message, fds),
                // A word that this version does not know.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(None) | Err(_) => return,
            }
        }
    })?;
    Ok(())
}

/// Entries with their descriptors, which come in the same order.
fn inherit(entries: Vec<Entry>, mut fds: impl Iterator<Item = OwnedFd>) -> BTreeMap<String, Inherited> {
    let own = |entry: Entry| {
        let fds = fds.by_ref().take(entry.fds).collect();
        (entry.key, Inherited { note: entry.note, fds, process: entry.process })
    };
    entries.into_iter().map(own).collect()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(super) fn send(&self, message: &ToKeeper, fds: &[BorrowedFd<'_>]) {
        // What one that has yielded still lets go of belongs to its successor.
        if *self.phase.borrow() >= Phase::Yielding && !matches!(message, ToKeeper::Yielded) {
            return;
        }
        let _one_at_a_time = lock(&self.sending);
        if let Err(error) = message::send(self.socket.as_fd(), message, fds) {
            tracing::warn!(cause = %error, "the keeper cannot be told");
        }
    }

    fn told(&self, message: ToPart, fds: Vec<OwnedFd>) {
        match message {
            ToPart::Started { ticket, outcome } => {
                let Some((key, asked)) = lock(&self.starts).remove(&ticket) else { return };
                // Whoever asked may be gone: then the process is forgotten, and ends for want of its word.
                let _asked = asked.send(outcome.map(|pid| self.follow(key, Process { pid, exit: None })));
            }
            ToPart::Exited { key, pid, exit } => {
                // In this order: one that is claimed meanwhile is followed by then.
                if let Some(Inherited { process: Some(process), .. }) = lock(&self.inherited).get_mut(&key)
                    && process.pid == pid
                {
                    process.exit = Some(exit);
                }
                if let Some(of) = lock(&self.exits).get(&(key, pid)) {
                    of.send_replace(Some(exit));
                }
            }
            ToPart::Stop { signal, again } => {
                self.stops.send_replace(Stops { signal, again });
            }
            ToPart::Left { entries, keys } => {
                let mut inherited = lock(&self.inherited);
                inherited.retain(|key, _| keys.contains(key));
                inherited.extend(inherit(entries, fds.into_iter()));
            }
            ToPart::Turn => self.enter(Phase::Serving),
            ToPart::Yield => self.enter(Phase::Yielding),
            ToPart::Leave => self.enter(Phase::Leaving),
            ToPart::Told { text } => tracing::warn!("{text}"),
        }
    }

    /// There is no way back.
    fn enter(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let is_new = next > *phase;
            *phase = next.max(*phase);
            is_new
        });
    }

    pub(super) fn follow(&self, key: String, process: Process) -> Kept {
        let told = watch::Sender::new(process.exit);
        let exit = told.subscribe();
        let mut exits = lock(&self.exits);
        // Those whose processes nobody follows any more.
        exits.retain(|_, told| told.receiver_count() > 0);
        exits.insert((key.clone(), process.pid), told);
        Kept::new(key, process.pid, exit)
    }
}

/// Whether this process is the part of a keeper.
#[must_use]
pub fn is_linked() -> bool {
    LINK.get().is_some()
}

/// Whether this part takes over from another one that serves.
#[must_use]
pub fn is_successor() -> bool {
    LINK.get().is_some_and(|link| link.succeeds)
}

/// Whether a part has served before this one, and what it left can be claimed.
#[must_use]
pub fn is_again() -> bool {
    LINK.get().is_some_and(|link| link.again)
}

/// The process id by which people and runners know this program: the keeper's, without one our own.
#[must_use]
pub fn top() -> u32 {
    LINK.get().map_or_else(std::process::id, |link| link.keeper)
}

/// The parent of the processes that [`start`] makes.
#[must_use]
pub fn parent_of_processes() -> Option<u32> {
    LINK.get().map(|link| link.keeper)
}

/// Tells the keeper that this part serves. To be called once, in a task.
pub fn ready() {
    if let Some(link) = LINK.get() {
        link.is_ready.store(true, Ordering::Relaxed);
        link.send(&ToKeeper::Ready, &[]);
        tasks::spawn("keeper_unserved", tasks::Kind::Connection, held::forget_unserved());
    }
}

/// Says a word to whoever started the keeper; `false`: there is no keeper.
pub(crate) fn say(word: &str) -> bool {
    let Some(link) = LINK.get() else { return false };
    link.send(&ToKeeper::Say { word: word.to_owned() }, &[]);
    true
}

/// What the keeper says of the end; without one, nothing ever.
pub(crate) fn stops() -> Option<watch::Receiver<Stops>> {
    LINK.get().map(|link| link.stops.subscribe())
}

/// What people shall know of the time before this part.
pub(crate) fn take_told() -> Vec<String> {
    let Some(link) = LINK.get() else { return Vec::new() };
    let mut told = std::mem::take(&mut *lock(&link.told));
    if link.succeeds {
        told.push("this part takes over from a former one".to_owned());
    } else if link.again {
        told.push("this part goes on with the work of one that died".to_owned());
    }
    told
}
