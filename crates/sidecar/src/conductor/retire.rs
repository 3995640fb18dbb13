//! How a generation finishes: callers are told, what runs comes to its end, then the process.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use synego_control_plane::attach::{AttachHandle, DrainCause};
use synego_control_plane::order::{Outcome, Step};
use synego_control_plane::uplink::UplinkHandle;
use synego_model::Reason;
use synego_runtime::clock;
use synego_supervise::Supervisor;
use tokio::sync::watch;

use crate::generation::Generation;
use crate::instance::{DrainStep, Wishes, counted};
use crate::orders::Teller;
use crate::proof::cause;

/// Longest time in which callers may take up a drain before new requests are refused.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// Time for requests that were sent just before their callers knew.
const JUST_SENT: Duration = Duration::from_millis(50);
/// Time that the end of the process keeps for itself, of the whole drain.
const LAST_GRACE: Duration = Duration::from_secs(2);
/// Time for requests that were routed to the former generation just before the switch to be counted there.
const SETTLE: Duration = Duration::from_millis(150);
/// Time between two words about what is still open.
const TELL: Duration = Duration::from_secs(1);

/// What of a drain's time is the process's own end.
pub(crate) fn last_grace(within: Duration) -> Duration {
    LAST_GRACE.min(within / 4)
}

/// Announces that the instance drains, waits, bounded, until its callers know, and refuses what still comes.
pub(crate) async fn refuse(wishes: &watch::Sender<Wishes>, linked: &UplinkHandle, within: Duration) {
    wishes.send_modify(|wishes| wishes.drain = DrainStep::Announced);
    if tokio::time::timeout(ANNOUNCE.min(within / 4), linked.announce_drain()).await.is_err() {
        tracing::warn!("not every caller is known to have heard of the drain");
    }
    tokio::time::sleep(JUST_SENT.min(within / 8)).await;
    wishes.send_modify(|wishes| wishes.drain = DrainStep::Refusing);
}

/// Lets a generation finish what runs, its streams included; true when all of it did in time. Nothing new must come to it.
pub(crate) async fn finish(
    generation: &Generation,
    attached: &AttachHandle,
    drain: DrainCause,
    within: Duration,
) -> bool {
    let end = clock::now() + within;
    tokio::time::sleep(SETTLE.min(within / 4)).await;
    let left = || end.saturating_duration_since(clock::now());
    generation.tenure.leave(left());
    let (_, idle) =
        tokio::join!(attached.drain(Some(generation.number), drain, left()), generation.tenure.idle(left()));
    idle
}

/// Tells from time to time what is still open while something goes on.
pub(crate) async fn told_while<T>(
    generation: &Generation,
    steps: &Teller,
    generations: (u32, u32),
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        steps.tell(Step { generations, open: generation.open(), ..Step::of(Outcome::Draining, "") }).await;
        tokio::select! {
            outcome = &mut work => return outcome,
            () = tokio::time::sleep(TELL) => {}
        }
    }
}

/// A generation that has a successor.
pub(crate) struct Retiring {
    pub(crate) generation: Arc<Generation>,
    pub(crate) successor: u32,
    pub(crate) supervisor: Supervisor,
    pub(crate) attached: AttachHandle,
    pub(crate) wishes: watch::Sender<Wishes>,
    pub(crate) within: Duration,
}

impl Retiring {
    /// Finishes what runs, within the one deadline, and ends the process.
    pub(crate) async fn run(self, steps: Teller) {
        let deadline = clock::now() + self.within;
        let left = || deadline.saturating_duration_since(clock::now());
        let generations = (self.generation.number, self.successor);
        let finishing = finish(
            &self.generation,
            &self.attached,
            DrainCause::Reload,
            left().saturating_sub(last_grace(self.within)),
        );
        let mut finishing = std::pin::pin!(finishing);
        let idle = loop {
            self.note();
            let shown = told_while(&self.generation, &steps, generations, &mut finishing);
            tokio::select! {
                idle = shown => break idle,
                () = tokio::time::sleep(TELL) => {}
            }
        };
        let open = self.generation.open();
        let exit = self.supervisor.stop(left()).await;
        self.wishes.send_modify(|wishes| wishes.finishing = None);
        tracing::info!(generation = generations.0, outcome = %exit, cut_requests = open.0, cut_streams = open.1, "a former generation ended");
        let message = match (idle, open) {
            (true, _) | (_, (0, 0)) => String::new(),
            (_, (requests, streams)) => format!("cut off {requests} requests and {streams} streams at its deadline"),
        };
        steps.tell(Step { generations, open, ..Step::of(Outcome::Done, message) }).await;
    }

    /// What people see of it meanwhile.
    fn note(&self) {
        let (requests, streams) = self.generation.open();
        let (requests, streams) = (counted(requests, "request"), counted(streams, "stream"));
        let message = format!("generation {} finishes {requests} and {streams}", self.generation.number);
        self.wishes.send_if_modified(|wishes| {
            let is_new = wishes.finishing.as_ref().is_none_or(|cause| cause.message != message);
            if is_new {
                wishes.finishing = Some(cause(Reason::Draining, &message));
            }
            is_new
        });
    }
}
