//! What a running sidecar can be told to do.

use std::time::Duration;

use synego_control_plane::order::{Commanded, Order, Outcome, Step};
use synego_control_plane::uplink::LogLevel;
use synego_model::Listens;
use synego_supervise::{RestartPolicy, StopBy};
use tokio::sync::mpsc;

use crate::config::ProcessConfig;

/// Orders that wait for their turn.
const WAITING: usize = 16;
/// Steps of one order that wait for whoever gave it.
const STEPS: usize = 64;

/// A way to a running sidecar. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders(mpsc::Sender<Ordered>);

/// One order and who hears of it.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// One of those that also come over a link.
    Order { order: Order, how: ReloadHow, steps: Teller },
    /// The deadline of a drain and the signal of an end, from now on.
    Stop(Duration, StopBy),
    /// What follows an end of the process, from now on.
    Restart(RestartPolicy),
    /// The least important line that is written down, from now on.
    Level(Option<LogLevel>),
    /// How the next generation is run, and where it listens.
    Process(Box<ProcessConfig>, Listens),
}

/// How a reload goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadHow {
    /// Whether it is built first; one build serves all instances of a service.
    pub builds: bool,
    /// Whether the former process ends before the new one starts, also where both have room.
    pub in_place: bool,
}

impl Default for ReloadHow {
    fn default() -> Self {
        Self { builds: true, in_place: false }
    }
}

/// Where the steps of an order go; whoever gave it may be gone.
#[derive(Debug, Clone)]
pub(crate) struct Teller(Option<mpsc::Sender<Step>>);

impl Orders {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ordered>) {
        let (orders, listening) = mpsc::channel(WAITING);
        (Self(orders), listening)
    }

    /// Gives an order; its steps, of which the last ends the channel.
    #[must_use]
    pub fn give(&self, order: Order, how: ReloadHow) -> mpsc::Receiver<Step> {
        let (sender, steps) = mpsc::channel(STEPS);
        let ordered = Ordered::Order { order, how, steps: Teller(Some(sender.clone())) };
        if self.0.try_send(ordered).is_err() {
            let _full = sender.try_send(Step::of(Outcome::Failed, "this instance is ending, or has too many orders"));
        }
        steps
    }

    /// From now on a drain has so much time, and an end begins with this signal: at the next start.
    pub fn set_stop(&self, within: Duration, by: StopBy) {
        // One that is ending needs it no more.
        let _gone = self.0.try_send(Ordered::Stop(within, by));
    }
}

impl Orders {
    /// From now on this follows an end of the process.
    pub fn set_restart(&self, policy: RestartPolicy) {
        // One that is ending needs it no more.
        let _gone = self.0.try_send(Ordered::Restart(policy));
    }

    /// From now on this is the least important line of the service that is written down.
    pub fn set_log_level(&self, level: Option<LogLevel>) {
        // One that is ending needs it no more.
        let _gone = self.0.try_send(Ordered::Level(level));
    }

    /// How the process is run from its next generation on, and where it listens; [`Order::Reload`] begins it.
    pub fn set_process(&self, process: ProcessConfig, listens: Listens) {
        // One that is ending needs it no more.
        let _gone = self.0.try_send(Ordered::Process(Box::new(process), listens));
    }
}

impl Commanded for Orders {
    fn obey(&self, order: Order) -> mpsc::Receiver<Step> {
        self.give(order, ReloadHow::default())
    }
}

impl Teller {
    /// Nobody hears.
    pub(crate) fn nobody() -> Self {
        Self(None)
    }

    /// Tells a step. A slow listener misses steps, never the last one.
    pub(crate) async fn tell(&self, step: Step) {
        let Some(to) = &self.0 else { return };
        if step.outcome.is_last() {
            let _gone = to.send(step).await;
        } else {
            let _full_or_gone = to.try_send(step);
        }
    }
}
