//! Lines of services, of hops and of the mesh itself: asked of the sidecars over their links, merged by time; and how much
//! each of them writes down.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use synego_model::access::INGRESS;
use synego_model::{InstanceId, Reason};
use synego_runtime::{clock, tasks};
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::lines::OutputSource;
use crate::master::{Asked, Filter, Shared};
use crate::{LevelWanted, LineKind, LinesWanted, OutputLine};

/// Most recent lines of each instance.
const MAX_RECENT: u32 = 10_000;
/// Time in which sidecars answer with their recent lines; those of a silent one are left out.
const RECENT_WITHIN: Duration = Duration::from_secs(2);
/// The same where they have to read files.
const FILES_WITHIN: Duration = Duration::from_secs(20);
/// The longest that another level can be wanted for; milliseconds: a day.
const MAX_FOR_MS: u32 = 86_400_000;
/// Who is meant by it are the programs of the mesh.
const MESH: &str = "mesh";
/// Lines in one batch.
const BATCH: usize = 500;
/// Time in which new lines of several instances are put in order.
const MERGE: Duration = Duration::from_millis(50);

pub(super) fn logs(shared: &Arc<Shared>, request: pb::LogsRequest) -> Result<Answers<pb::LogsBatch>, Status> {
    if request.recent > MAX_RECENT {
        let message = format!("recent: is {}, expected 0 to {MAX_RECENT}", request.recent);
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let wanted = LinesWanted::from(pb::LinesWanted {
        recent: request.recent,
        follow: request.follow,
        since_us: request.since_us,
        until_us: request.until_us,
        level: request.level,
        request_id: request.request_id,
        grep: request.grep,
        access: request.access,
        mesh: request.mesh,
    });
    let filter = Filter { services: request.service, instances: request.instance };
    let own = own(shared, &filter, &wanted);
    let asked = shared.links.ask(filter, wanted.clone());
    let (to, batches) = mpsc::channel(16);
    tasks::spawn("admin-logs", tasks::Kind::Connection, send(asked, own, wanted, to));
    Ok(Box::pin(ReceiverStream::new(batches)))
}

pub(super) fn set_level(shared: &Shared, request: &pb::SetLogLevelRequest) -> Result<pb::SetLogLevelAnswer, Status> {
    let invalid = |message: String| Err(status::refusal(Reason::InvalidMessage, message));
    if pb::LogLevel::try_from(request.level).is_ok_and(|level| level == pb::LogLevel::Unspecified) {
        return invalid("level: is not said, expected trace, debug, info, warn or error".to_owned());
    }
    if request.for_ms > MAX_FOR_MS {
        return invalid(format!("for_ms: is {}, expected 0 to {MAX_FOR_MS}", request.for_ms));
    }
    let mesh = request.target == MESH;
    let wanted = LevelWanted::from(pb::LevelWanted { level: request.level, for_ms: request.for_ms, mesh });
    let services = if mesh { Vec::new() } else { vec![request.target.clone()] };
    let filter = Filter { services, instances: Vec::new() };
    let mut told: Vec<String> = shared.links.set_level(&filter, wanted).iter().map(ToString::to_string).collect();
    if let (Some(own), true) = (&shared.lines, mesh) {
        own.set_level(wanted);
        told.push(shared.name.clone());
    }
    if told.is_empty() {
        return Err(Status::not_found(format!("no instance of `{}` is linked", request.target)));
    }
    told.sort();
    let until_unix_ms = if request.for_ms == 0 { 0 } else { clock::unix_ms() + u64::from(request.for_ms) };
    Ok(pb::SetLogLevelAnswer { told, until_unix_ms })
}

/// What this master's own program and ingress say of it.
struct Own {
    source: Arc<dyn OutputSource>,
    name: String,
    filter: Filter,
}

fn own(shared: &Shared, filter: &Filter, wanted: &LinesWanted) -> Option<Own> {
    let source = shared.lines.clone().filter(|_| wanted.access || wanted.mesh)?;
    Some(Own { source, name: shared.name.clone(), filter: filter.clone() })
}

impl Own {
    fn named(&self, lines: Vec<OutputLine>) -> Vec<pb::LogsLine> {
        let concerns = lines.into_iter().filter(|line| self.concerns(line));
        let named = concerns.map(|line| match line.kind {
            LineKind::Mesh => (MESH.to_owned(), String::new(), line),
            LineKind::Access | LineKind::Output => (self.name.clone(), INGRESS.to_owned(), line),
        });
        named.map(|(instance, service, line)| pb::LogsLine { instance, service, line: Some(line.into()) }).collect()
    }

    /// Whether it is about what was asked for.
    fn concerns(&self, line: &OutputLine) -> bool {
        let mut names = self.filter.services.iter().chain(&self.filter.instances).peekable();
        names.peek().is_none()
            || names.any(|name| line.message.contains(name.as_str()) || line.fields_json.contains(name.as_str()))
    }
}

type To = mpsc::Sender<Result<pb::LogsBatch, Status>>;

async fn send(mut asked: Asked, own: Option<Own>, wanted: LinesWanted, to: To) {
    let follow = wanted.follow;
    let within = if wanted.since_us.is_some() { FILES_WITHIN } else { RECENT_WITHIN };
    // Before the recent ones are read, so that none falls between.
    let mut told = own.as_ref().filter(|_| follow).map(|own| own.source.follow(wanted.clone()));
    let of_own = async {
        match &own {
            Some(own) => own.named(own.source.recent(wanted).await),
            None => Vec::new(),
        }
    };
    let ((mut lines, early), of_own) = tokio::join!(recent(&mut asked, within), of_own);
    lines.extend(of_own);
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
                Some(line) = next(&mut told) => waiting.extend(own.iter().flat_map(|own| own.named(vec![line.clone()]))),
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
                Some(line) = next(&mut told) => waiting.extend(own.iter().flat_map(|own| own.named(vec![line.clone()]))),
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

/// The next line of our own; waits for ever where there are none.
async fn next(told: &mut Option<mpsc::Receiver<OutputLine>>) -> Option<OutputLine> {
    match told {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

/// The recent lines of all that were asked, and new ones that came meanwhile.
async fn recent(asked: &mut Asked, within: Duration) -> (Vec<pb::LogsLine>, Vec<pb::LogsLine>) {
    let mut missing: BTreeSet<InstanceId> = asked.expected.drain(..).collect();
    let (mut lines, mut early) = (Vec::new(), Vec::new());
    let late = tokio::time::sleep(within);
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
    let line = |line: pb::OutputLine| match line.kind() {
        // The program of a sidecar that is one of its own; which one stands in the fields.
        pb::LineKind::Mesh => pb::LogsLine { instance: MESH.to_owned(), service: String::new(), line: Some(line) },
        _ => pb::LogsLine { instance: id.to_string(), service: service.to_string(), line: Some(line) },
    };
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
