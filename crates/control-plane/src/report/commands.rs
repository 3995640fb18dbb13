//! What a master commands over its link: lines of output, levels, orders.

use std::collections::HashMap;
use std::sync::Arc;

use synego_runtime::tasks;
use synego_wire::pb;
use synego_wire::pb::command::Is as Order;
use synego_wire::pb::from_sidecar::Is as Up;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{LinkTask, send, wrapped};
use crate::order::{self, Outcome, Step};
use crate::uplink::Shared;
use crate::{LinesWanted, OutputLine};

/// Lines and bytes of output in one message.
const LINES: usize = 500;
const LINES_BYTES: usize = 1024 * 1024;
/// Questions for output that one master may have open.
const MAX_FOLLOWED: usize = 64;

impl LinkTask {
    /// Does what a master commands; what is open afterwards is in `followed`.
    pub(super) fn command(&self, command: pb::Command, to: &mpsc::Sender<pb::FromSidecar>, followed: &mut Followed) {
        let (query, source) = (command.query, self.facts.config.output.clone());
        let wanted = match command.is.clone() {
            Some(Order::Lines(wanted)) => LinesWanted::from(wanted),
            // As masters of the first version ask.
            Some(Order::RecentOutput(lines)) => LinesWanted::recent(usize::try_from(lines).unwrap_or(usize::MAX)),
            Some(Order::FollowOutput(true)) => LinesWanted { follow: true, ..LinesWanted::default() },
            Some(Order::FollowOutput(false)) => return followed.end(query),
            Some(Order::Level(wanted)) => {
                source.iter().for_each(|source| source.set_level(wanted.into()));
                return;
            }
            Some(Order::Order(order)) => return self.obey(&order, query, to),
            None => return,
        };
        // Following begins first, so that no line falls between the two; the asker takes off what came twice.
        if let (Some(source), true) = (&source, wanted.follow && followed.0.len() < MAX_FOLLOWED) {
            let lines = source.follow(wanted.clone());
            let following = follow(lines, query, to.clone(), Arc::clone(&self.facts.shared));
            let task = tasks::spawn("uplink-follow", tasks::Kind::Connection, following);
            if let Some(former) = followed.0.insert(query, task.abort_handle()) {
                former.abort();
            }
        }
        if !matches!(command.is, Some(Order::FollowOutput(true))) {
            let to = to.clone();
            tasks::spawn("uplink-recent", tasks::Kind::Connection, async move {
                let lines = match source {
                    Some(source) => source.recent(wanted).await,
                    None => Vec::new(),
                };
                send_recent(lines, query, to).await;
            });
        }
    }

    /// Has an order obeyed, and its steps told.
    fn obey(&self, order: &pb::Order, query: u64, to: &mpsc::Sender<pb::FromSidecar>) {
        let refused = |why: &str| {
            let step = Step::of(Outcome::Failed, why).to_wire(query);
            let _full_or_gone = to.try_send(wrapped(Up::Order(step)));
        };
        let Some(commanded) = &self.facts.config.commanded else { return refused("this sidecar takes no orders") };
        let Some(order) = order::Order::of_wire(order) else { return refused("this order is not understood here") };
        tracing::info!(master = %self.facts.master, ?order, "ordered");
        let (mut steps, to) = (commanded.obey(order), to.clone());
        tasks::spawn("uplink-order", tasks::Kind::Connection, async move {
            while let Some(step) = steps.recv().await {
                if send(&to, Up::Order(step.to_wire(query))).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// The questions for output that are open on a link; they end with it.
#[derive(Default)]
pub(super) struct Followed(HashMap<u64, AbortHandle>);

impl Followed {
    fn end(&mut self, query: u64) {
        if let Some(task) = self.0.remove(&query) {
            task.abort();
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

async fn send_recent(lines: Vec<OutputLine>, query: u64, to: mpsc::Sender<pb::FromSidecar>) {
    let mut lines = lines.into_iter().map(pb::OutputLine::from).peekable();
    loop {
        let (mut line, mut bytes) = (Vec::new(), 0);
        while line.len() < LINES && bytes < LINES_BYTES {
            let Some(next) = lines.next() else { break };
            bytes += next.message.len() + next.fields_json.len();
            line.push(next);
        }
        let complete = lines.peek().is_none();
        let sent = send(&to, Up::Output(pb::OutputLines { query, line, complete })).await;
        if complete || sent.is_err() {
            return;
        }
    }
}

/// Sends new lines as they come; those that find no room are dropped and counted.
async fn follow(
    mut lines: mpsc::Receiver<OutputLine>,
    query: u64,
    to: mpsc::Sender<pb::FromSidecar>,
    shared: Arc<Shared>,
) {
    let mut batch = Vec::new();
    // A hundred lines of the greatest length are far below the largest message.
    while lines.recv_many(&mut batch, 100).await > 0 {
        let count = batch.len();
        let line = batch.drain(..).map(pb::OutputLine::from).collect();
        let message = wrapped(Up::Output(pb::OutputLines { query, line, complete: false }));
        match to.try_send(message) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => (0..count).for_each(|_| shared.metrics.line_dropped()),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}
