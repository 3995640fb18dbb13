//! What a keeper holds for its part: descriptors, notes and processes by their keys.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use super::message::{Command, Entry, Exit, Process};

/// Everything that is held.
#[derive(Debug, Default)]
pub(super) struct Store {
    entries: BTreeMap<String, Held>,
    /// Counts the changes.
    changes: u64,
}

#[derive(Debug, Default)]
struct Held {
    note: String,
    fds: Vec<OwnedFd>,
    process: Option<Process>,
    /// Which change was its last.
    change: u64,
}

impl Store {
    /// What came with a state: its entries, and their descriptors in the same order.
    pub(super) fn of(entries: Vec<Entry>, fds: impl Iterator<Item = OwnedFd>) -> Self {
        let mut fds = fds;
        let held = entries.into_iter().map(|entry| {
            let own = fds.by_ref().take(entry.fds).collect();
            (entry.key, Held { note: entry.note, fds: own, process: entry.process, change: 0 })
        });
        Self { entries: held.collect(), changes: 0 }
    }

    /// The entries, and their descriptors in the same order.
    pub(super) fn all(&self) -> (Vec<Entry>, Vec<BorrowedFd<'_>>) {
        self.those(|_| true)
    }

    /// What was changed after the change of that number, but for what [`Self::known`] named, likewise; and all keys.
    pub(super) fn since(&self, change: u64) -> (Vec<Entry>, Vec<String>, Vec<BorrowedFd<'_>>) {
        let (entries, fds) = self.those(|held| held.change > change);
        (entries, self.entries.keys().cloned().collect(), fds)
    }

    fn those(&self, wanted: impl Fn(&Held) -> bool) -> (Vec<Entry>, Vec<BorrowedFd<'_>>) {
        let found = || self.entries.iter().filter(|(_, held)| wanted(held));
        let entry = |(key, held): (&String, &Held)| Entry {
            key: key.clone(),
            note: held.note.clone(),
            fds: held.fds.len(),
            process: held.process,
        };
        let fds = found().flat_map(|(_, held)| held.fds.iter().map(AsFd::as_fd));
        (found().map(entry).collect(), fds.collect())
    }

    /// The number of the last change.
    pub(super) fn change(&self) -> u64 {
        self.changes
    }

    fn next(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Whoever is to be told of changes has made this one itself.
    pub(super) fn known(&mut self, key: &str) {
        if let Some(held) = self.entries.get_mut(key) {
            held.change = 0;
        }
    }

    pub(super) fn hold(&mut self, key: String, note: String, fds: Vec<OwnedFd>) {
        let change = self.next();
        self.entries.insert(key, Held { note, fds, process: None, change });
    }

    pub(super) fn note(&mut self, key: &str, note: String) {
        let change = self.next();
        if let Some(held) = self.entries.get_mut(key) {
            (held.note, held.change) = (note, change);
        }
    }

    pub(super) fn release(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// Starts a process as the leader of its own group, with the first three descriptors, and holds the others.
    pub(super) fn start(&mut self, key: String, note: String, command: Command, fds: Vec<OwnedFd>) -> io::Result<u32> {
        let mut fds = fds.into_iter();
        let (Some(stdin), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut start = std::process::Command::new(&command.program);
        start.arg0(&command.name).args(&command.args).env_clear().envs(&command.env).current_dir(&command.cwd);
        start.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr)).process_group(0);
        // It is collected with all others, by its id.
        let pid = start.spawn()?.id();
        let process = Some(Process { pid, exit: None });
        let change = self.next();
        self.entries.insert(key, Held { note, fds: fds.collect(), process, change });
        Ok(pid)
    }

    /// A process has ended: its key, when it is one of these.
    pub(super) fn ended(&mut self, pid: u32, exit: Exit) -> Option<String> {
        let (key, process) = (self.entries.iter_mut()).find_map(|(key, held)| {
            Some((key, held.process.as_mut().filter(|process| process.pid == pid && process.exit.is_none())?))
        })?;
        process.exit = Some(exit);
        Some(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_goes_to_the_next_part_with_its_descriptors_and_its_end() -> io::Result<()> {
        let mut store = Store::default();
        let open = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        store.hold("b sockets".into(), "note".into(), vec![open()?, open()?]);
        let command = Command {
            program: "/bin/sh".into(),
            name: "sh".into(),
            args: vec!["-c".into(), "exit 3".into()],
            env: BTreeMap::new(),
            cwd: "/".into(),
        };
        let pid = store.start("a process".into(), "n".into(), command, vec![open()?, open()?, open()?, open()?])?;
        let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let status =
            rustix::process::waitpid(id, rustix::process::WaitOptions::empty())?.and_then(|(_, s)| s.exit_status());
        let exit = Exit { code: status, signal: None };
        assert_eq!(store.ended(pid, exit).as_deref(), Some("a process"));
        assert_eq!(store.ended(pid + 1, exit), None, "of nobody here");
        store.note("a process", "other".into());
        let (entries, fds) = store.all();
        let fds: Vec<OwnedFd> = fds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
        let next = Store::of(entries, fds.into_iter());
        let (entries, fds) = next.all();
        let shown: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.note.as_str(), entry.fds)).collect();
        assert_eq!(shown, [("a process", "other", 1), ("b sockets", "note", 2)]);
        assert_eq!(fds.len(), 3);
        assert_eq!(entries[0].process.and_then(|process| process.exit), Some(Exit { code: Some(3), signal: None }));
        Ok(())
    }

    #[test]
    fn a_successor_is_told_what_others_changed_since_it_was_begun_and_what_is_gone() -> io::Result<()> {
        let mut store = Store::default();
        let open = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        for key in ["gone", "same", "noted"] {
            store.hold(key.into(), String::new(), vec![open()?]);
        }
        let begun = store.change();
        store.release("gone");
        store.note("noted", "reloaded".into());
        store.hold("new".into(), String::new(), vec![open()?, open()?]);
        store.hold("its own".into(), String::new(), vec![open()?]);
        store.known("its own");
        let (entries, keys, fds) = store.since(begun);
        let shown: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.note.as_str(), entry.fds)).collect();
        assert_eq!(shown, [("new", "", 2), ("noted", "reloaded", 1)]);
        assert_eq!((fds.len(), keys.join(", ").as_str()), (3, "its own, new, noted, same"));
        Ok(())
    }
}
