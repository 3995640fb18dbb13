//! What a person orders of one instance, or of the machine, and the steps that come of it.

use std::sync::Weak;

use synego_model::ServiceName;
use synego_runtime::tasks::{self, Kind};
use synego_sidecar::order::{Commanded, Order, Outcome, Step};
use synego_sidecar::{Orders, ReloadHow};
use tokio::sync::mpsc;

use super::super::turns::Turns;
use super::Fleet;

/// Steps of one order that wait for whoever gave it.
pub(super) const STEPS: usize = 64;

/// An instance as its sidecar sees it: orders from a master come by here.
pub(super) struct Local {
    pub(super) fleet: Weak<Fleet>,
    pub(super) service: ServiceName,
    pub(super) id: String,
}

impl Fleet {
    /// Orders something of one instance.
    pub(crate) fn order(&self, service: &ServiceName, id: &str, order: Order) -> mpsc::Receiver<Step> {
        let (to, steps) = mpsc::channel(STEPS);
        let found = {
            let running = self.lock();
            let service = running.iter().find(|running| running.local.spec.name == *service);
            service.and_then(|service| {
                let member = service.members.iter().find(|member| member.id == id)?;
                Some((service.turns.clone(), member.orders.get().cloned()))
            })
        };
        let id = id.to_owned();
        tasks::spawn("order", Kind::Connection, async move {
            match (found, order) {
                (Some((turns, Some(orders))), Order::Reload { round }) => reload(turns, orders, round, &id, to).await,
                (Some((_, Some(orders))), order) => {
                    pass_on(orders.give(order, ReloadHow::default()), &to).await;
                }
                (Some((_, None)), _) => last(&to, Outcome::Failed, "it has not begun to run yet").await,
                (None, _) => last(&to, Outcome::Failed, "it does not run here any more").await,
            }
        });
        steps
    }
}

impl Commanded for Local {
    fn obey(&self, order: Order) -> mpsc::Receiver<Step> {
        match (self.fleet.upgrade(), order) {
            (Some(fleet), Order::Scale { service, instances }) => fleet.scale(&service, instances),
            (Some(fleet), order) => fleet.order(&self.service, &self.id, order),
            (None, _) => mpsc::channel(1).1,
        }
    }
}

impl Commanded for Fleet {
    fn obey(&self, order: Order) -> mpsc::Receiver<Step> {
        match order {
            Order::Scale { service, instances } => self.scale(&service, instances),
            _ => {
                let (to, steps) = mpsc::channel(1);
                let _room = to.try_send(Step::of(Outcome::Failed, "this order is for one instance"));
                steps
            }
        }
    }
}

/// Waits for its turn, then has the instance reloaded.
async fn reload(turns: Turns, orders: Orders, round: u64, id: &str, to: mpsc::Sender<Step>) {
    let _full_or_gone = to.try_send(Step::of(Outcome::Waiting, ""));
    let turn = match turns.take(round).await {
        Ok(turn) => turn,
        Err(failed) => return last(&to, Outcome::Skipped, &format!("{failed} failed, so this one is not tried")).await,
    };
    let how = ReloadHow { builds: turn.builds, in_place: turn.in_place };
    if pass_on(orders.give(Order::Reload { round }, how), &to).await == Outcome::Failed {
        turns.failed(round, id);
    }
}

/// Hands steps on; how it ended.
async fn pass_on(mut steps: mpsc::Receiver<Step>, to: &mpsc::Sender<Step>) -> Outcome {
    while let Some(step) = steps.recv().await {
        let outcome = step.outcome;
        if outcome.is_last() {
            let _gone = to.send(step).await;
            return outcome;
        }
        let _full_or_gone = to.try_send(step);
    }
    last(to, Outcome::Failed, "it ended before it could obey").await;
    Outcome::Failed
}

pub(super) async fn last(to: &mpsc::Sender<Step>, outcome: Outcome, message: &str) {
    let _gone = to.send(Step::of(outcome, message)).await;
}
