//! A running process as the leader of its group: awaited, ended, and never left behind.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use rustix::process::Signal;
use synego_runtime::clock;
use synego_runtime::keeper::{self, Kept};
use tokio::process::Child;

use crate::keep::Note;
use crate::kin::Kin;
use crate::spec::StopBy;
use crate::stat::Stat;
use crate::state::ExitOutcome;
use crate::{group, guard, kin};

/// Time for a killed group to disappear; only the kernel can be in its way.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Time between looks at a group that ends.
const LOOK: Duration = Duration::from_millis(10);

/// A process that leads its group. When it is dropped the whole group is killed, and what left it, unless a successor of
/// this part has it.
#[derive(Debug)]
pub(crate) struct Leader {
    process: Process,
    pid: u32,
    kin: Kin,
    is_over: bool,
}

#[derive(Debug)]
enum Process {
    /// Ours.
    Child(Child),
    /// Our keeper's.
    Kept(Kept, Box<Note>),
}

impl Leader {
    pub(crate) fn new(child: Child, pid: u32, mark: String) -> Self {
        kin::waited_for(pid);
        guard::watch(pid, &mark, false);
        Self { process: Process::Child(child), pid, kin: Kin::new(pid, mark), is_over: false }
    }

    /// One whose parent is our keeper.
    pub(crate) fn kept(kept: Kept, mut note: Note) -> Self {
        let pid = kept.pid();
        kin::waited_for(pid);
        guard::watch(pid, &note.mark, true);
        guard::strays(pid, true, &note.strays);
        let home = keeper::parent_of_processes().unwrap_or_default();
        let kin = Kin::at(home, pid, note.start, note.mark.clone(), note.strays.clone());
        if note.start.is_none() {
            note.start = kin.start();
            kept.note(note.text());
        }
        Self { process: Process::Kept(kept, Box::new(note)), pid, kin, is_over: false }
    }

    /// It has become ready; the next part will know.
    pub(crate) fn became_ready(&mut self) {
        if let Process::Kept(kept, note) = &mut self.process {
            note.ready = true;
            kept.note(note.text());
        }
    }

    /// Whether it was ready already when it was taken over.
    pub(crate) fn was_ready(&self) -> bool {
        matches!(&self.process, Process::Kept(_, note) if note.ready)
    }

    fn is_kept(&self) -> bool {
        matches!(self.process, Process::Kept(..))
    }

    /// All processes that belong to it, itself among them; guard and keeper are told of those that left the group.
    pub(crate) fn all(&mut self) -> Vec<Stat> {
        let all = self.kin.all();
        let left = all.iter().filter(|found| found.group != self.pid);
        let strays: BTreeMap<u32, u64> = left.map(|stray| (stray.pid, stray.start)).collect();
        guard::strays(self.pid, self.is_kept(), &strays);
        if let Process::Kept(kept, note) = &mut self.process
            && note.strays != strays
        {
            note.strays = strays;
            kept.note(note.text());
        }
        all
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns when the leader ends by itself; its group may still have others (see [`Self::sweep`]).
    pub(crate) async fn exited(&mut self) -> ExitOutcome {
        match &mut self.process {
            Process::Child(child) => match child.wait().await {
                Ok(status) => ExitOutcome::of(status, false),
                // Someone else collected it: all that is known is that it is gone.
                Err(_) => ExitOutcome::NONE,
            },
            Process::Kept(kept, _) => {
                let exit = kept.exited().await;
                ExitOutcome { code: exit.code, signal: exit.signal, killed: false }
            }
        }
    }

    /// Ends the whole group, and then what left it: TERM, then KILL once `grace` is over or `cut` is done.
    pub(crate) async fn end(mut self, by: StopBy, grace: Duration, cut: impl Future<Output = ()>) -> ExitOutcome {
        let began = clock::now();
        group::terminate(self.pid, by);
        let in_time = tokio::select! {
            exit = self.exited() => Some(exit),
            () = tokio::time::sleep(grace) => None,
            () = cut => None,
        };
        let exit = match in_time {
            Some(exit) => exit,
            None => {
                group::signal(self.pid, Signal::KILL);
                ExitOutcome { killed: true, ..self.exited().await }
            }
        };
        let left = if exit.killed { Duration::ZERO } else { grace.saturating_sub(clock::now().duration_since(began)) };
        let was_clean = self.sweep(left).await;
        ExitOutcome { killed: exit.killed || !was_clean, ..exit }
    }

    /// After the leader's end: ends what is left of its group and what left it, TERM first, KILL after `grace`. True when
    /// no KILL was needed.
    pub(crate) async fn sweep(&mut self, grace: Duration) -> bool {
        self.is_over = true;
        kin::collected(self.pid);
        let mut was_clean = true;
        if self.is_left() {
            group::terminate(self.pid, StopBy::Term);
            self.kin.signal_strays(Signal::TERM);
            was_clean = self.gone_within(grace, None).await;
            if !was_clean && !self.gone_within(GONE_WITHIN, Some(Signal::KILL)).await {
                tracing::warn!(group = self.pid, "a killed process group is still there");
            }
        }
        guard::forget(self.pid, self.is_kept());
        was_clean
    }

    fn is_left(&mut self) -> bool {
        (!self.kin.is_replaced() && group::is_alive(self.pid)) || !self.kin.strays().is_empty()
    }

    /// Whether all are gone in time; `again` is sent at each look, since they may start others meanwhile.
    async fn gone_within(&mut self, limit: Duration, again: Option<Signal>) -> bool {
        let began = clock::now();
        loop {
            if let Some(signal) = again {
                group::signal(self.pid, signal);
                self.kin.signal_strays(signal);
            }
            if !self.is_left() {
                return true;
            }
            if clock::now().duration_since(began) >= limit {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !(self.is_over || self.is_kept() && keeper::is_anothers()) {
            group::signal(self.pid, Signal::KILL);
            self.kin.signal_strays(Signal::KILL);
            kin::collected(self.pid);
            guard::forget(self.pid, self.is_kept());
        }
    }
}
