//! Lines of the services' output: asked of the sidecars over their links, merged by time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use synego_model::{InstanceId, Reason};
use synego_runtime::tasks;
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::master::{Asked, Filter, Shared};

/// Most recent lines of each instance.
const MAX_RECENT: u32 = 10_000;
/// Time in which sidecars answer with their recent lines; those of a silent one are left out.
const RECENT_WITHIN: Duration = Duration::from_secs(2);
/// Lines in one batch.
const BATCH: usize = 500;
/// Time in which new lines of several instances are put in order.
const MERGE: Duration = Duration::from_millis(50);

pub(super) fn logs(shared: &Arc<Shared>, request: pb::LogsRequest) -> Result<Answers<pb::LogsBatch>, Status> {
    if request.recent > MAX_RECENT {
        let message = format!("recent: is {}, expected 0 to {MAX_RECENT}", request.recent);
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let filter = Filter { services: request.service, instances: request.instance };
    let asked = shared.links.ask(filter, request.recent, request.follow);
    let (to, batches) = mpsc::channel(16);
    tasks::spawn("admin-logs", tasks::Kind::Connection, send(asked, request.follow, to));
    Ok(Box::pin(ReceiverStream::new(batches)))
}

type To = mpsc::Sender<Result<pb::LogsBatch, Status>>;

async fn send(mut asked: Asked, follow: bool, to: To) {
    let (mut lines, early) = recent(&mut asked).await;
    // Following began before the recent lines were read, so some came twice.
    lines.sort_by(|a, b| unix_us(a).cmp(&unix_us(b)).then_with(|| a.instance.cmp(&b.instance)));
    lines.dedup();
    let mut newest: HashMap<String, u64> = HashMap::new();
    for line in &lines {
        let last = newest.entry(line.instance.clone()).or_default();
        *last = (*last).max(unix_us(line));
    }
    let early = early.into_iter().filter(|line| newest.get(&line.instance).is_none_or(|last| unix_us(line) > *last));
    if send_batches(&to, lines, true).await.is_err() || !follow {
        return;
    }
    let mut waiting: Vec<pb::LogsLine> = early.collect();
    loop {
        if waiting.is_empty() {
            tokio::select! {
                Some((id, service, found)) = asked.lines.recv() => waiting.extend(named(&id, &service, found)),
                () = to.closed() => return,
                else => return,
            }
        }
        // A little patience puts lines of one moment in order and in one message.
        let until = tokio::time::sleep(MERGE);
        tokio::pin!(until);
        while waiting.len() < BATCH {
            tokio::select! {
                Some((id, service, found)) = asked.lines.recv() => waiting.extend(named(&id, &service, found)),
                () = &mut until => break,
                () = to.closed() => return,
                else => break,
            }
        }
        waiting.sort_by_key(unix_us);
        if send_batches(&to, std::mem::take(&mut waiting), false).await.is_err() {
            return;
        }
    }
}

/// The recent lines of all that were asked, and new ones that came meanwhile.
async fn recent(asked: &mut Asked) -> (Vec<pb::LogsLine>, Vec<pb::LogsLine>) {
    let mut missing: BTreeSet<InstanceId> = asked.expected.drain(..).collect();
    let (mut lines, mut early) = (Vec::new(), Vec::new());
    let late = tokio::time::sleep(RECENT_WITHIN);
    tokio::pin!(late);
    while !missing.is_empty() {
        let (id, service, found) = tokio::select! {
            Some(found) = asked.lines.recv() => found,
            () = &mut late => break,
            else => break,
        };
        let complete = found.complete;
        let of_recent = missing.contains(&id);
        let named = named(&id, &service, found);
        if of_recent {
            lines.extend(named)
        } else {
            early.extend(named)
        }
        if complete {
            missing.remove(&id);
        }
    }
    (lines, early)
}

fn named(id: &InstanceId, service: &synego_model::ServiceName, lines: pb::OutputLines) -> Vec<pb::LogsLine> {
    let line = |line| pb::LogsLine { instance: id.to_string(), service: service.to_string(), line: Some(line) };
    lines.line.into_iter().map(line).collect()
}

fn unix_us(line: &pb::LogsLine) -> u64 {
    line.line.as_ref().map_or(0, |line| line.unix_us)
}

/// Sends lines in batches; the last one says whether the recent ones are complete with it.
async fn send_batches(to: &To, lines: Vec<pb::LogsLine>, recent_complete: bool) -> Result<(), ()> {
    let mut lines = lines.into_iter().peekable();
    loop {
        let line: Vec<_> = lines.by_ref().take(BATCH).collect();
        let last = lines.peek().is_none();
        let batch = pb::LogsBatch { line, recent_complete: recent_complete && last };
        to.send(Ok(batch)).await.map_err(|_| ())?;
        if last {
            return Ok(());
        }
    }
}
