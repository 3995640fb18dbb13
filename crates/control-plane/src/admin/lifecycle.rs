//! Reload, drain and scale: a person's wish becomes orders to sidecars, and their steps one stream of answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use synego_model::{InstanceId, Reason, ServiceName, text};
use synego_runtime::tasks;
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::master::{Ask, Shared};
use crate::order::{MAX_DRAIN, MAX_INSTANCES, Order, Outcome, Step};
use crate::registry::{Event, Link};

/// Steps on their way to the asker.
const STEPS: usize = 256;

type Told = mpsc::Sender<Result<pb::LifecycleStep, Status>>;

/// One instance that is reached over its link.
#[derive(Debug, Clone)]
pub(crate) struct Reached {
    pub(crate) link: Link,
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
}

/// Which instances are meant; what is empty says nothing.
#[derive(Debug, Default)]
struct Wanted {
    services: Vec<String>,
    instances: Vec<String>,
    nodes: Vec<String>,
}

impl Wanted {
    fn takes(&self, found: &Reached) -> bool {
        let of = |all: &[String], what: &[&str]| all.iter().any(|one| what.contains(&one.as_str()));
        let named = of(&self.services, &[found.service.as_str()])
            || of(&self.instances, &[found.id.as_str(), found.id.instance()]);
        let any = self.services.is_empty() && self.instances.is_empty();
        (any || named) && (self.nodes.is_empty() || of(&self.nodes, &[node(&found.id)]))
    }

    /// Those that are meant.
    ///
    /// # Errors
    /// NOT_FOUND for a name that nothing bears, with the nearest one; FAILED_PRECONDITION where nobody is there.
    fn of(&self, shared: &Shared) -> Result<Vec<Reached>, Status> {
        let all = shared.links.reached();
        let declared = Arc::clone(&shared.declared.borrow().declaration);
        let services: BTreeSet<&str> = declared
            .services
            .keys()
            .map(ServiceName::as_str)
            .chain(all.iter().map(|one| one.service.as_str()))
            .collect();
        known("service", &self.services, &services)?;
        let instances = all.iter().flat_map(|one| [one.id.as_str(), one.id.instance()]).collect();
        known("instance", &self.instances, &instances)?;
        known("machine", &self.nodes, &all.iter().map(|one| node(&one.id)).collect())?;
        let found: Vec<Reached> = all.iter().filter(|one| self.takes(one)).cloned().collect();
        if found.is_empty() {
            return Err(Status::failed_precondition("no instance of it is linked to this master: nobody could obey"));
        }
        Ok(found)
    }
}

/// Refuses a name that nothing bears.
fn known(what: &str, wanted: &[String], there: &BTreeSet<&str>) -> Result<(), Status> {
    let Some(unknown) = wanted.iter().find(|name| !there.contains(name.as_str())) else { return Ok(()) };
    let near = text::nearest(unknown, there.iter().copied());
    let near = near.map(|near| format!("; nearest: `{near}`")).unwrap_or_default();
    Err(Status::not_found(format!("the mesh has no {what} `{unknown}`{near}")))
}

/// The machine of an instance.
fn node(id: &InstanceId) -> &str {
    id.node()
}

/// Reloads: of each service one machine after the other, so that a version that does not start stops at the first.
pub(super) fn reload(shared: &Arc<Shared>, request: pb::ReloadRequest) -> Result<Answers<pb::LifecycleStep>, Status> {
    let wanted = Wanted { services: request.service, instances: request.instance, nodes: request.node };
    let mut by_service: BTreeMap<ServiceName, BTreeMap<String, Vec<Reached>>> = BTreeMap::new();
    for one in wanted.of(shared)? {
        let machines = by_service.entry(one.service.clone()).or_default();
        machines.entry(node(&one.id).to_owned()).or_default().push(one);
    }
    let round: u64 = rand::rng().random();
    let (told, steps) = mpsc::channel(STEPS);
    for machines in by_service.into_values() {
        let (shared, told) = (Arc::clone(shared), told.clone());
        tasks::spawn("admin-reload", tasks::Kind::Connection, async move {
            let mut failed: Option<String> = None;
            for instances in machines.into_values() {
                if let Some(failed) = &failed {
                    for one in instances {
                        let step = Step::of(Outcome::Skipped, format!("{failed} stayed with its former process"));
                        let _gone = told.send(Ok(step.told(one.id.as_str()))).await;
                    }
                    continue;
                }
                let all = instances.into_iter().map(|one| {
                    let (shared, told) = (Arc::clone(&shared), told.clone());
                    async move { (one.id.to_string(), give(&shared, &one, &Order::Reload { round }, &told).await) }
                });
                let ends = futures_util::future::join_all(all).await;
                failed = ends.into_iter().find(|(_, end)| *end == Outcome::Failed).map(|(id, _)| id);
            }
        });
    }
    Ok(Box::pin(ReceiverStream::new(steps)))
}

/// Drains, or takes it back: all that are meant at once.
pub(super) fn drain(shared: &Arc<Shared>, request: pb::DrainRequest) -> Result<Answers<pb::LifecycleStep>, Status> {
    let within = Duration::from_millis(request.within_ms.into());
    if within > MAX_DRAIN {
        let message = format!("within_ms: is {}, expected 0 to {}", request.within_ms, MAX_DRAIN.as_millis());
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let wanted = Wanted { services: request.service, instances: request.instance, nodes: request.node };
    if wanted.services.is_empty() && wanted.instances.is_empty() && wanted.nodes.is_empty() {
        return Err(status::refusal(Reason::InvalidMessage, "service, instance, node: one of them is needed"));
    }
    let order = match request.undo {
        true => Order::Undrain,
        false => Order::Drain { within: (!within.is_zero()).then_some(within) },
    };
    let (told, steps) = mpsc::channel(STEPS);
    for one in wanted.of(shared)? {
        let (shared, told, order) = (Arc::clone(shared), told.clone(), order.clone());
        tasks::spawn("admin-drain", tasks::Kind::Connection, async move {
            give(&shared, &one, &order, &told).await;
        });
    }
    Ok(Box::pin(ReceiverStream::new(steps)))
}

/// Scales on each machine that runs the service, or on those that are named.
pub(super) fn scale(shared: &Arc<Shared>, request: pb::ScaleRequest) -> Result<Answers<pb::LifecycleStep>, Status> {
    if request.instances > MAX_INSTANCES {
        let message = format!("instances: is {}, expected 0 to {MAX_INSTANCES}", request.instances);
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let service: ServiceName = request
        .service
        .parse()
        .map_err(|error| status::refusal(Reason::InvalidMessage, format!("service: {error}")))?;
    let all = shared.links.reached();
    let declared = Arc::clone(&shared.declared.borrow().declaration);
    let services = declared.services.keys().map(ServiceName::as_str).chain(all.iter().map(|one| one.service.as_str()));
    known("service", std::slice::from_ref(&request.service), &services.collect())?;
    let own = shared.machine();
    let mut nodes: BTreeSet<String> = all.iter().map(|one| node(&one.id).to_owned()).collect();
    nodes.extend(own.iter().map(|(node, _)| node.clone()));
    known("machine", &request.node, &nodes.iter().map(String::as_str).collect())?;
    let runs = |at: &String| all.iter().any(|one| one.service == service && node(&one.id) == at);
    let runs_anywhere = nodes.iter().any(runs);
    nodes.retain(|at| if request.node.is_empty() { !runs_anywhere || runs(at) } else { request.node.contains(at) });
    let instances = (!request.as_in_file).then_some(request.instances);
    let order = Order::Scale { service: service.clone(), instances };
    let (told, steps) = mpsc::channel(STEPS);
    for at in nodes {
        let (shared, told, order, service) = (Arc::clone(shared), told.clone(), order.clone(), service.clone());
        let name = format!("{service}@{at}");
        let machine = own.as_ref().filter(|(own, _)| *own == at).map(|(_, machine)| Arc::clone(machine));
        let mut ways: Vec<Reached> = all.iter().filter(|one| node(&one.id) == at).cloned().collect();
        ways.sort_by_key(|one| one.service != service);
        tasks::spawn("admin-scale", tasks::Kind::Connection, async move {
            let mut steps = match (machine, ways.first()) {
                (Some(machine), _) => Some(machine.obey(order)),
                (None, Some(way)) => shared.links.order(way.link, &order),
                (None, None) => None,
            };
            // An order that is obeyed begins with another step than its last one; from then on the number is wanted.
            if let Some(steps) = &mut steps
                && let Some(first) = steps.recv().await
            {
                let _gone = told.send(Ok(first.told(&name))).await;
                if first.outcome.is_last() {
                    return;
                }
                let event = Event::Scaled(service, at, instances);
                let _ending = shared.asks.send(Ask::Event(Box::new(event))).await;
            }
            follow(steps, &name, &told).await;
        });
    }
    Ok(Box::pin(ReceiverStream::new(steps)))
}

/// Orders one instance, and tells its steps; how it ended.
async fn give(shared: &Shared, one: &Reached, order: &Order, told: &Told) -> Outcome {
    follow(shared.links.order(one.link, order), one.id.as_str(), told).await
}

async fn follow(steps: Option<mpsc::Receiver<Step>>, name: &str, told: &Told) -> Outcome {
    let mut last = Outcome::Waiting;
    if let Some(mut steps) = steps {
        while let Some(step) = steps.recv().await {
            last = step.outcome;
            // Whoever asked may have gone: the order is obeyed all the same.
            let _gone = told.send(Ok(step.told(name))).await;
            if last.is_last() {
                return last;
            }
        }
    }
    let step = Step::of(Outcome::Failed, "its sidecar's link to this master ended, or takes no order now");
    let _gone = told.send(Ok(step.told(name))).await;
    if last.is_last() { last } else { Outcome::Failed }
}
