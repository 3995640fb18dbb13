//! The keeper itself: one thread that waits for signals and for words of its parts.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, kill_process};

use super::message::{self, Exit, Inventory, ToKeeper, ToPart};
use super::parts::{Deaths, Part};
use super::signals::Signals;
use super::store::Store;
use super::takeover::Successor;
use super::{SELF, state};
use crate::clock;
use crate::parent::Notify;

/// Exit code when no part comes up any more.
const GAVE_UP: u8 = 70;
/// So many signals to end, and the keeper ends without waiting for its part.
const PATIENCE: u32 = 3;

/// Everything that the keeper knows.
pub(super) struct Keeper {
    /// Where its program was started from: where a newer one is found.
    pub(super) program: PathBuf,
    pub(super) store: Store,
    pub(super) signals: Signals,
    pub(super) notify: Option<Notify>,
    /// The part that does the work; `None`: it died and is started again.
    pub(super) serving: Option<Part>,
    /// A part that is to take its place.
    pub(super) successor: Option<Successor>,
    /// Parts that finish what they have.
    pub(super) formers: Vec<Part>,
    /// Whether a part has ever served.
    pub(super) has_served: bool,
    pub(super) deaths: Deaths,
    pub(super) again_at: Instant,
    pub(super) stops: u32,
    /// What the next part tells people.
    pub(super) told: Vec<String>,
    /// The program that this process becomes once nothing is on its way.
    pub(super) becomes: Option<PathBuf>,
    pub(super) over: Option<u8>,
}

/// Whom a word or an end is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Serving,
    Successor,
    Former(usize),
}

/// Runs the keeper to the end of its last part; returns the exit code.
pub(super) fn run() -> ExitCode {
    // What services leave behind becomes ours, is found by the part that supervises them, and is collected when it dies.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        say(&format!("warning: processes that leave their parent cannot be followed: {error}"));
    }
    // Before anything else: until then a signal ends this process.
    let started = Signals::listen().and_then(|signals| Ok((signals, state::take_up()?)));
    match started {
        Ok((signals, state)) => Keeper::new(signals, state).watch(),
        Err(error) => {
            say(&format!("error: the keeper cannot begin: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl Keeper {
    fn new(signals: Signals, state: state::Taken) -> Self {
        Self {
            program: state.program,
            store: state.store,
            signals,
            notify: Notify::of_environment(),
            serving: state.serving,
            successor: None,
            formers: state.formers,
            has_served: state.has_served,
            deaths: Deaths::default(),
            again_at: clock::now(),
            stops: 0,
            told: Vec::new(),
            becomes: None,
            over: None,
        }
    }

    fn watch(mut self) -> ExitCode {
        // Those that ended while this process became another program.
        self.collect();
        loop {
            if let Some(code) = self.over {
                return ExitCode::from(code);
            }
            let now = clock::now();
            if self.serving.is_none() && self.successor.is_none() && now >= self.again_at {
                self.begin();
            }
            if self.is_headless() && now >= self.again_at {
                self.begin_successor(SELF.into());
            }
            if self.successor.as_ref().is_some_and(|successor| now >= successor.until) {
                self.give_up_successor();
            }
            self.become_newer();
            self.wait();
            for signal in self.signals.take() {
                self.signalled(signal);
            }
            self.hear();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let signals = self.signals.fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let sockets = self.parts().filter_map(|(_, part)| {
            let wanted = if part.has_waiting() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            part.socket.as_ref().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), wanted))
        });
        let mut fds: Vec<PollFd<'_>> = signals.chain(sockets).collect();
        let due = match (&self.serving, &self.successor) {
            (_, Some(successor)) => Some(successor.until),
            (None, None) => Some(self.again_at),
            _ if self.is_headless() => Some(self.again_at),
            _ => None,
        };
        let limit = due.map(|due| due.saturating_duration_since(clock::now()) + Duration::from_millis(1));
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        // An interrupted wait is as good as one that is over.
        let _ready = poll(&mut fds, limit.as_ref());
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (Who, &Part)> {
        let serving = self.serving.iter().map(|part| (Who::Serving, part));
        let successor = self.successor.iter().map(|successor| (Who::Successor, &successor.part));
        let formers = self.formers.iter().enumerate().map(|(index, part)| (Who::Former(index), part));
        serving.chain(successor).chain(formers)
    }

    pub(super) fn part(&mut self, who: Who) -> Option<&mut Part> {
        match who {
            Who::Serving => self.serving.as_mut(),
            Who::Successor => self.successor.as_mut().map(|successor| &mut successor.part),
            Who::Former(index) => self.formers.get_mut(index),
        }
    }

    /// Starts a part of the program that this process is.
    fn begin(&mut self) {
        let told = std::mem::take(&mut self.told);
        let inventory = Inventory { entries: Vec::new(), succeeds: false, again: self.has_served, told };
        match Part::start(SELF.as_ref(), &self.store, inventory) {
            Ok(mut part) => {
                self.tell_stop(&mut part);
                self.serving = Some(part);
            }
            Err(error) => self.died(false, &format!("it cannot be started: {error}")),
        }
    }

    /// One that begins while the program ends is told at once: it drains what the former one left.
    pub(super) fn tell_stop(&self, part: &mut Part) {
        if self.stops > 0 {
            part.tell(&ToPart::Stop { signal: "TERM".into(), again: self.stops > 1 });
        }
    }

    fn signalled(&mut self, signal: Signal) {
        match signal {
            Signal::CHILD => self.collect(),
            Signal::TERM | Signal::INT => self.stop(signal),
            Signal::USR2 => self.upgrade(),
            other => {
                if let Some(pid) = self.serving.as_ref().and_then(|part| pid_of(part.pid)) {
                    let _gone = kill_process(pid, other);
                }
            }
        }
    }

    fn stop(&mut self, signal: Signal) {
        self.stops += 1;
        let (name, code) = if signal == Signal::INT { ("INT", 130) } else { ("TERM", 143) };
        if self.stops >= PATIENCE {
            self.over = Some(code);
        }
        let message = ToPart::Stop { signal: name.to_owned(), again: self.stops > 1 };
        self.serving.iter_mut().chain(&mut self.formers).for_each(|part| part.tell(&message));
        match &mut self.successor {
            // It has the processes already.
            Some(successor) if self.serving.as_ref().is_none_or(|part| part.has_yielded) => {
                successor.part.tell(&message);
            }
            Some(successor) => {
                kill(successor.part.pid);
                self.successor = None;
            }
            None => {}
        }
        // One that waits to be started again drains what the former one left.
        self.again_at = clock::now();
    }

    /// Takes note of every process that has ended.
    fn collect(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let exit = Exit { code: status.exit_status(), signal: status.terminating_signal() };
            let pid = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0);
            let who = self.parts().find(|(_, part)| part.pid == pid).map(|(who, _)| who);
            if let Some(who) = who {
                self.part_ended(who, exit);
            } else if let Some(key) = self.store.ended(pid, exit) {
                // Both may have to know while one takes over from the other.
                let message = ToPart::Exited { key, pid, exit };
                let successor = self.successor.iter_mut().map(|successor| &mut successor.part);
                self.serving.iter_mut().chain(successor).for_each(|part| part.tell(&message));
            }
        }
    }

    fn part_ended(&mut self, who: Who, exit: Exit) {
        match who {
            // Its connections are over, or cut.
            Who::Former(index) => drop(self.formers.remove(index)),
            Who::Successor if self.stops > 0 => {
                self.over = Some(exit.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(GAVE_UP));
            }
            Who::Successor => {
                self.successor = None;
                self.upgrade_failed(&format!("it {exit} before it served"));
            }
            Who::Serving => {
                let Some(part) = self.serving.take() else { return };
                if self.successor.is_some() {
                    return self.give_turn();
                }
                // One that could not start at the very first, or that ended in order, takes all with it.
                let is_end = part.is_ready || !self.has_served || self.stops > 0;
                match exit.code.and_then(|code| u8::try_from(code).ok()) {
                    Some(code) if is_end => self.over = Some(code),
                    _ => self.died(part.is_ready, &format!("it {exit}")),
                }
            }
        }
    }

    /// The part is started again, now or later, unless it has no end.
    fn died(&mut self, was_ready: bool, how: &str) {
        match self.deaths.next(was_ready) {
            Some(wait) => {
                self.again_at = clock::now() + wait;
                self.told.push(format!("the proxying part is started again: {how}"));
            }
            None => {
                let times = self.deaths.failures();
                say(&format!(
                    "error: the proxying part does not come up, and its services end with it\n\
                     cause: {how}, {times} times in a row\n\
                     help:  its last words stand above"
                ));
                self.over = Some(GAVE_UP);
            }
        }
    }

    /// Hears what the parts say, all that has come.
    fn hear(&mut self) {
        let all: Vec<Who> = self.parts().map(|(who, _)| who).collect();
        for who in all {
            while let Some((message, fds)) = self.next_of(who) {
                if self.obey(who, message, fds) {
                    // It is another one now: the rest is heard by its new place.
                    return;
                }
            }
            if let Some(part) = self.part(who) {
                part.flush();
            }
        }
    }

    fn next_of(&mut self, who: Who) -> Option<(ToKeeper, Vec<OwnedFd>)> {
        let part = self.part(who)?;
        let socket = part.socket.as_ref()?;
        match message::recv(socket.as_fd(), false) {
            Ok(Some(found)) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // A word that this version does not know.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.next_of(who),
            // What follows from its end is decided once it is collected.
            Ok(None) | Err(_) => {
                part.socket = None;
                None
            }
        }
    }

    /// Whether the part has another place from now on.
    fn obey(&mut self, who: Who, message: ToKeeper, fds: Vec<OwnedFd>) -> bool {
        let is_ready = self.part(who).is_some_and(|part| part.is_ready && !part.has_yielded);
        match message {
            // One that fails on its way lets go of what others still have.
            ToKeeper::Release { .. } if who != Who::Serving || !is_ready => {}
            ToKeeper::Hold { key, note } => {
                self.store.hold(key.clone(), note, fds);
                if who == Who::Successor {
                    self.store.known(&key);
                }
            }
            ToKeeper::Note { key, note } => self.store.note(&key, note),
            ToKeeper::Release { key } => self.store.release(&key),
            ToKeeper::Start { ticket, key, note, command } => {
                let outcome = self.store.start(key, note, command, fds).map_err(|error| error.to_string());
                if let Some(part) = self.part(who) {
                    part.tell(&ToPart::Started { ticket, outcome });
                }
            }
            ToKeeper::Say { word } => {
                if let Some(notify) = &self.notify {
                    notify.say(&word);
                }
            }
            ToKeeper::Yielded => {
                if let Some(part) = self.part(who) {
                    part.has_yielded = true;
                }
                if self.successor.as_ref().is_some_and(|successor| successor.wants_turn) {
                    self.give_turn();
                }
            }
            ToKeeper::WantsTurn => self.turn_wanted(who),
            ToKeeper::Ready => {
                if let Some(part) = self.part(who) {
                    part.is_ready = true;
                }
                self.has_served = true;
                if who == Who::Successor {
                    self.succeeded();
                    return true;
                }
            }
        }
        false
    }
}

/// The sockets of parts that have one, in the order of the parts.
pub(super) fn sockets<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<BorrowedFd<'a>> {
    parts.filter_map(|part| part.socket.as_ref()).map(AsFd::as_fd).collect()
}

fn pid_of(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(rustix::process::Pid::from_raw)
}

/// Ends a process at once.
pub(super) fn kill(pid: u32) {
    if let Some(pid) = pid_of(pid) {
        let _gone = kill_process(pid, Signal::KILL);
    }
}

/// With stderr gone nobody can be told.
fn say(text: &str) {
    let _told = writeln!(io::stderr(), "{text}");
}
