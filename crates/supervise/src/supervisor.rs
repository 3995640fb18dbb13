//! The parent of one process: starts it, proves it ready, watches it, starts it again, and ends it with all its group.

mod course;
mod looks;
mod watch_process;

use std::time::Duration;

use synego_runtime::Stop;
use synego_runtime::keeper::Holding;
use synego_runtime::tasks::{self, Kind};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use crate::output::OutputSink;
use crate::restart::RestartPolicy;
use crate::spec::ProcessSpec;
use crate::state::{ExitOutcome, ProcessEvent, ProcessState};
use course::Course;

/// Events that a listener may be behind before it misses some; the state is never missed.
const EVENTS: usize = 64;

/// Supervises one process. Dropping it ends the process within its grace.
#[derive(Debug)]
pub struct Supervisor {
    orders: watch::Sender<Orders>,
    events: broadcast::Sender<ProcessEvent>,
    task: JoinHandle<(ExitOutcome, Option<Holding>)>,
    /// With what tells the next part of this program of it.
    ended: Option<(ExitOutcome, Option<Holding>)>,
}

/// What the supervisor is told to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// End the process, with so much grace.
    pub(crate) stop: Option<Duration>,
    /// Counts the orders to start it anew.
    pub(crate) restarts: u32,
    /// The grace of the last of them.
    pub(crate) grace: Duration,
    /// It has proved itself.
    pub(crate) adopted: bool,
    /// What follows its ends from now on; `None`: what its specification says.
    pub(crate) policy: Option<RestartPolicy>,
    /// What is started from the last of the orders to start anew on; `None`: what was started before.
    pub(crate) spec: Option<Box<ProcessSpec>>,
}

impl Supervisor {
    /// Starts to supervise.
    ///
    /// - `output`: takes what the process prints, over all its restarts.
    /// - `stop`: when it stops the process is told to end (TERM, KILL after its grace); when it is cut, KILL now. Give one
    ///   that outlives the drain of what needs the process.
    /// - Also returns how the process is; the last value has [`Phase::Stopped`](crate::Phase::Stopped).
    #[must_use]
    pub fn start(spec: ProcessSpec, output: OutputSink, stop: Stop) -> (Self, watch::Receiver<ProcessState>) {
        let (orders, listening) = watch::channel(Orders::default());
        let events = broadcast::Sender::new(EVENTS);
        let (course, state) = Course::new(spec, output, stop, listening, events.clone());
        let task = tasks::spawn("supervise", Kind::Connection, course.run());
        (Self { orders, events, task, ended: None }, state)
    }

    /// What happens to the process from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ProcessEvent> {
        self.events.subscribe()
    }

    /// Ends the process gently, with so much grace, and starts at once what `spec` says in its place; what it is built of is
    /// built before, by [`build`](crate::build()). While it waits for its next start the wait is over.
    pub fn restart(&self, grace: Duration, spec: ProcessSpec) {
        self.orders.send_modify(|orders| {
            (orders.restarts, orders.grace, orders.spec) = (orders.restarts + 1, grace, Some(Box::new(spec)));
        });
    }

    /// A process on trial has proved itself: from now on it is started again as its policy says.
    pub fn adopt(&self) {
        self.orders.send_modify(|orders| orders.adopted = true);
    }

    /// What follows its next end; a wait that has begun goes on.
    pub fn set_policy(&self, policy: RestartPolicy) {
        self.orders.send_modify(|orders| orders.policy = Some(policy));
    }

    /// Ends the process and its group: TERM now, KILL once `within` is over. Returns when nothing of it is left.
    pub async fn stop(mut self, within: Duration) -> ExitOutcome {
        self.orders.send_modify(|orders| orders.stop = Some(within));
        self.ended().await
    }

    /// Returns when the process has ended and is not started again: it was told to end, or its policy says so.
    pub async fn ended(&mut self) -> ExitOutcome {
        if self.ended.is_none() {
            // After a panic of the task the group was killed with it.
            self.ended = Some((&mut self.task).await.unwrap_or((ExitOutcome::NONE, None)));
        }
        self.ended.as_ref().map_or(ExitOutcome::NONE, |(exit, _)| *exit)
    }
}
