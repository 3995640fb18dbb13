//! A running process as the leader of its group: awaited, ended, and never left behind.

use std::future::Future;
use std::time::Duration;

use rustix::process::Signal;
use synego_runtime::clock;
use synego_runtime::keeper::{self, Kept};
use tokio::process::Child;

use crate::keep::Note;
use crate::spec::StopBy;
use crate::state::ExitOutcome;
use crate::{group, guard};

/// Time for a killed group to disappear; only the kernel can be in its way.
const GONE_WITHIN: Duration = Duration::from_secs(1);
/// Time between looks at a group that ends.
const LOOK: Duration = Duration::from_millis(10);

/// A process that leads its group. When it is dropped the whole group is killed, unless a successor of this part has it.
#[derive(Debug)]
pub(crate) struct Leader {
    process: Process,
    pid: u32,
    is_over: bool,
}

#[derive(Debug)]
enum Process {
    /// Ours.
    Child(Child),
    /// Our keeper's.
    Kept(Kept),
}

impl Leader {
    pub(crate) fn new(child: Child, pid: u32) -> Self {
        guard::watch(pid, false);
        Self { process: Process::Child(child), pid, is_over: false }
    }

    /// One whose parent is our keeper.
    pub(crate) fn kept(kept: Kept) -> Self {
        let pid = kept.pid();
        guard::watch(pid, true);
        Self { process: Process::Kept(kept), pid, is_over: false }
    }

    /// Has the keeper note something else of it.
    pub(crate) fn note(&self, note: &Note) {
        if let Process::Kept(kept) = &self.process {
            kept.note(note.text());
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self.process, Process::Kept(_))
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
            Process::Kept(kept) => {
                let exit = kept.exited().await;
                ExitOutcome { code: exit.code, signal: exit.signal, killed: false }
            }
        }
    }

    /// Ends the whole group: TERM, then KILL once `grace` is over or `cut` is done.
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

    /// After the leader's end: ends what is left of its group, TERM first, KILL after `grace`. True when no KILL was
    /// needed.
    pub(crate) async fn sweep(&mut self, grace: Duration) -> bool {
        self.is_over = true;
        let mut was_clean = true;
        if group::is_alive(self.pid) {
            group::terminate(self.pid, StopBy::Term);
            was_clean = gone_within(self.pid, grace).await;
            if !was_clean {
                group::signal(self.pid, Signal::KILL);
                if !gone_within(self.pid, GONE_WITHIN).await {
                    tracing::warn!(group = self.pid, "a killed process group is still there");
                }
            }
        }
        guard::forget(self.pid, self.is_kept());
        was_clean
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.is_over && !(self.is_kept() && keeper::has_left()) {
            group::signal(self.pid, Signal::KILL);
            guard::forget(self.pid, self.is_kept());
        }
    }
}

async fn gone_within(group: u32, limit: Duration) -> bool {
    let began = clock::now();
    while group::is_alive(group) {
        if clock::now().duration_since(began) >= limit {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
