//! All processes of one start, wherever they went: also those that left their group (`setsid`) or lost their parent.
//!
//! Whoever starts them is the subreaper of them, which is our keeper, where it starts them, else we: a process whose
//! parent ended becomes its child, not that of the machine's first process. It is known to be of a start by [`MARK`], a
//! variable that processes inherit; by its descent; or by having been seen as a descendant before. What is ended is
//! named by pidfd and start time, so that nobody else is hit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use synego_runtime::{clock, tasks};

use crate::stat::{self, Stat};

/// The variable that marks all processes of one start.
pub(crate) const MARK: &str = "SYNEGO_PROCESS";
/// Processes that are remembered of one start; more than that leave traces enough by their parents.
const MOST: usize = 1_000;
/// Time between looks for dead processes that became our children.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// Children of ours and of our keeper which somebody waits for already.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// The mark of a further start; no two are alike.
pub(crate) fn mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{count}", std::process::id(), clock::unix_us())
}

/// From now on we inherit the children of what we start, and collect them when they die. Only the first call does it.
pub(crate) fn inherit() {
    static BEGUN: Once = Once::new();
    BEGUN.call_once(|| {
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(cause = %error, "processes that leave their parent cannot be followed");
            return;
        }
        let work = || {
            let mut seen = BTreeSet::new();
            loop {
                std::thread::sleep(REAP_EVERY);
                seen = collect(&seen);
            }
        };
        if let Err(error) = tasks::thread("collector", tasks::Kind::Critical, work) {
            tracing::warn!(cause = %error, "dead processes that became ours are not collected");
        }
    });
}

/// Somebody waits for this child.
pub(crate) fn waited_for(pid: u32) {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// It was collected.
pub(crate) fn collected(pid: u32) {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Collects children that are dead since the look before, which saw `seen`, and that nobody waits for: whoever waits for
/// one of its own does so at once. The dead ones now.
fn collect(seen: &BTreeSet<u32>) -> BTreeSet<u32> {
    let own = std::process::id();
    let dead: Vec<u32> = stat::children(own).into_iter().filter(|pid| is_dead_child(*pid, own)).collect();
    let leaders = LEADERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (old, new): (Vec<u32>, Vec<u32>) =
        dead.into_iter().filter(|pid| !leaders.contains(pid)).partition(|pid| seen.contains(pid));
    drop(leaders);
    old.into_iter().for_each(reap);
    new.into_iter().collect()
}

fn is_dead_child(pid: u32, own: u32) -> bool {
    stat::of(pid).is_some_and(|found| found.parent == own && found.is_dead())
}

fn reap(pid: u32) {
    if let Some(pid) = pid_of(pid) {
        // Somebody else was faster.
        let _gone = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

/// The processes of one start.
#[derive(Debug)]
pub(crate) struct Kin {
    leader: u32,
    /// When the leader started; with its number it names it for good.
    start: Option<u64>,
    mark: String,
    /// Who inherits those that lose their parent.
    home: u32,
    /// Those seen as descendants, with their start times.
    seen: BTreeMap<u32, u64>,
}

impl Kin {
    pub(crate) fn new(leader: u32, mark: String) -> Self {
        Self::at(std::process::id(), leader, None, mark, BTreeMap::new())
    }

    /// Those of a leader that another is the parent of.
    ///
    /// - `start`: when it started, where that is known from before; `seen`: what was seen of them then, by start times.
    pub(crate) fn at(home: u32, leader: u32, start: Option<u64>, mark: String, seen: BTreeMap<u32, u64>) -> Self {
        let start = start.or_else(|| stat::of(leader).map(|found| found.start));
        Self { leader, start, mark, home, seen }
    }

    /// When the leader started; clock ticks since boot.
    pub(crate) fn start(&self) -> Option<u64> {
        self.start
    }

    /// Whether the number of the leader is another process's by now.
    pub(crate) fn is_replaced(&self) -> bool {
        stat::of(self.leader).is_some_and(|found| Some(found.start) != self.start)
    }

    /// All that live now, the leader among them; whoever is new is remembered, and whoever died as our child is collected.
    pub(crate) fn all(&mut self) -> Vec<Stat> {
        let own = std::process::id();
        // Once it was collected its number may be another's.
        let is_there = stat::of(self.leader).is_some_and(|found| Some(found.start) == self.start);
        let mut open: Vec<u32> = Some(self.leader).filter(|_| is_there).into_iter().collect();
        for pid in stat::children(self.home) {
            let is_known = || stat::of(pid).is_some_and(|found| self.seen.get(&pid) == Some(&found.start));
            if pid != self.leader && !is_waited_for(pid) && (is_known() || mark_of(pid).as_deref() == Some(&self.mark))
            {
                open.push(pid);
            }
        }
        let mut found: BTreeMap<u32, Stat> = BTreeMap::new();
        while let Some(pid) = open.pop() {
            if found.len() >= MOST || found.contains_key(&pid) {
                continue;
            }
            if let Some(stat) = stat::of(pid).filter(|stat| !stat.is_dead()) {
                found.insert(pid, stat);
                open.extend(stat::children(pid));
            }
        }
        let seen = found.iter().map(|(pid, stat)| (*pid, stat.start)).collect();
        let before = std::mem::replace(&mut self.seen, seen);
        for pid in before.into_keys().filter(|pid| !found.contains_key(pid)) {
            if !is_waited_for(pid) && is_dead_child(pid, own) {
                reap(pid);
            }
        }
        found.into_values().collect()
    }

    /// Those that are not of the leader's group.
    pub(crate) fn strays(&mut self) -> Vec<Stat> {
        let leader = self.leader;
        self.all().into_iter().filter(|found| found.group != leader).collect()
    }

    /// Sends a signal to all strays; how many there were.
    pub(crate) fn signal_strays(&mut self, signal: Signal) -> usize {
        let strays = self.strays();
        strays.iter().for_each(|stray| send(stray.pid, stray.start, signal));
        strays.len()
    }
}

fn is_waited_for(pid: u32) -> bool {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}

/// Kills every process on the machine that bears one of `marks` or is one of `known`, and what descends from them, until
/// none is left: they cannot start others faster than that for long.
pub(crate) fn kill_marked(marks: &BTreeSet<String>, known: &BTreeMap<u32, u64>) {
    let own = std::process::id();
    for _ in 0..100 {
        let all: Vec<Stat> = stat::all().filter(|found| found.pid != own && !found.is_dead()).collect();
        let mut ours: BTreeMap<u32, u64> = BTreeMap::new();
        for found in &all {
            if known.get(&found.pid) == Some(&found.start)
                || mark_of(found.pid).is_some_and(|mark| marks.contains(&mark))
            {
                ours.insert(found.pid, found.start);
            }
        }
        loop {
            let more: Vec<&Stat> =
                all.iter().filter(|found| ours.contains_key(&found.parent) && !ours.contains_key(&found.pid)).collect();
            if more.is_empty() {
                break;
            }
            ours.extend(more.into_iter().map(|found| (found.pid, found.start)));
        }
        if ours.is_empty() {
            return;
        }
        ours.into_iter().for_each(|(pid, start)| send(pid, start, Signal::KILL));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The mark among the variables with which a process was started.
fn mark_of(pid: u32) -> Option<String> {
    let block = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let pairs = block.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == MARK).map(|(_, mark)| mark.to_owned())
}

/// Signals the process that bears this number since `start`, and no other.
fn send(pid: u32, start: u64, signal: Signal) {
    let Some(raw) = pid_of(pid) else { return };
    let Ok(process) = pidfd_open(raw, PidfdFlags::empty()) else { return };
    if stat::of(pid).is_some_and(|found| found.start == start) {
        // It may be gone by now, which is as good.
        let _gone = pidfd_send_signal(process, signal);
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_marked_process_is_found_and_killed_with_its_children_and_others_are_not() {
        let mark = mark();
        let start = |mark: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & echo $!; wait"]).env(MARK, mark).stdout(Stdio::piped()).spawn().unwrap()
        };
        let (mut ours, mut other) = (start(&mark), start("of-another"));
        kill_marked(&BTreeSet::from([mark]), &BTreeMap::new());
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        let children = stat::children(other.id());
        other.kill().unwrap();
        other.wait().unwrap();
        children.into_iter().filter_map(pid_of).for_each(|pid| {
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
        });
    }

    #[test]
    fn marks_differ() {
        assert_ne!(mark(), mark());
    }
}
