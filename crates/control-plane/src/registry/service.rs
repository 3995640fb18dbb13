//! One service over all its instances: its table for callers, its state for people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synego_model::{Cause, Declaration, InstanceState, Policy, Protocol, Reason, ServiceName, ServiceTable};

use super::roster::Roster;
use super::{Instance, Notice, Registry, access};

/// How a service is as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// `Ready` when all wanted instances are; `Degraded` when some are.
    pub state: InstanceState,
    /// Why it is not ready.
    pub cause: Option<Cause>,
    /// Instances that take requests.
    pub ready: u32,
    /// Instances that are wanted; at least those that reported, without jobs that are done.
    pub wanted: u32,
    /// Whether the manifest names it.
    pub declared: bool,
}

/// A service as callers see it: the manifest's word before the sidecars'.
pub(super) fn table(name: &ServiceName, declaration: &Declaration, roster: &Roster) -> ServiceTable {
    let spec = declaration.services.get(name);
    let mine: Vec<&Instance> = roster.of(name).collect();
    let announced = || mine.first().map_or(Protocol::default(), |found| found.announcement.protocol);
    ServiceTable {
        name: name.clone(),
        protocol: spec.map_or_else(announced, |spec| spec.protocol),
        policy: spec.map_or_else(|| Arc::new(Policy::default()), |spec| Arc::clone(&spec.policy)),
        access: Arc::new(access::of(name, declaration)),
        callers: access::callers(name, declaration, roster),
        endpoints: mine.iter().filter_map(|found| found.endpoint()).collect(),
    }
}

/// A service as people see it.
pub(super) fn status(
    name: &ServiceName,
    declaration: &Declaration,
    roster: &Roster,
    scaled: Option<&BTreeMap<String, u32>>,
) -> ServiceStatus {
    let mine: Vec<&Instance> = roster.of(name).collect();
    let count = |wanted: fn(InstanceState) -> bool| mine.iter().filter(|found| wanted(found.state)).count();
    let ready = count(InstanceState::takes_requests);
    let spec = declaration.services.get(name);
    let wanted = match spec {
        Some(spec) => {
            let other = |node: &str| scaled.and_then(|scaled| scaled.get(node)).copied();
            let mut nodes: BTreeSet<&str> = mine.iter().map(|found| found.announcement.node.as_str()).collect();
            nodes.extend(scaled.into_iter().flatten().map(|(node, _)| node.as_str()));
            let wanted: u32 = match nodes.len() {
                0 => spec.instances,
                _ => nodes.iter().map(|node| other(node).unwrap_or(spec.instances)).sum(),
            };
            let there = count(|state| !matches!(state, InstanceState::Gone | InstanceState::Draining));
            usize::try_from(wanted).unwrap_or(usize::MAX).max(there)
        }
        None => mine.len(),
    };
    // A job that is done is wanted no more.
    let done = mine.iter().filter(|found| found.is_done()).count();
    let wanted = wanted.saturating_sub(done);
    let (state, cause) = whole(&mine, ready, wanted, spec.is_some());
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    ServiceStatus {
        name: name.clone(),
        state,
        cause,
        ready: number(ready),
        wanted: number(wanted),
        declared: spec.is_some(),
    }
}

fn whole(mine: &[&Instance], ready: usize, wanted: usize, declared: bool) -> (InstanceState, Option<Cause>) {
    let worst = mine
        .iter()
        .filter(|found| !found.is_done() && !matches!(found.state, InstanceState::Ready | InstanceState::Draining))
        .max_by_key(|found| severity(found.state));
    let state = if ready > 0 {
        let all_well = ready >= wanted && worst.is_none();
        if all_well { InstanceState::Ready } else { InstanceState::Degraded }
    } else {
        let is = |state| mine.iter().any(|found| found.state == state);
        [InstanceState::Starting, InstanceState::Unhealthy, InstanceState::Draining]
            .into_iter()
            .find(|state| is(*state))
            .unwrap_or(if mine.is_empty() && declared { InstanceState::Starting } else { InstanceState::Gone })
    };
    let cause = match (state, worst) {
        (InstanceState::Ready, _) => notice(mine),
        (InstanceState::Gone, None) if mine.iter().any(|found| found.is_done()) => {
            mine.iter().find(|found| found.is_done()).and_then(|found| found.cause.clone())
        }
        (_, Some(found)) => Some(Cause {
            reason: found.cause.as_ref().map_or(Reason::Starting, |cause| cause.reason),
            message: match &found.cause {
                Some(cause) if !cause.message.is_empty() => {
                    format!("{} is {}: {}", found.announcement.id, found.state, cause.message)
                }
                _ => format!("{} is {}", found.announcement.id, found.state),
            },
            since_unix_ms: found.cause.as_ref().map_or(0, |cause| cause.since_unix_ms),
        }),
        (InstanceState::Draining, None) => {
            Some(Cause { reason: Reason::Draining, message: "its instances are ending".into(), since_unix_ms: 0 })
        }
        (_, None) => Some(Cause {
            reason: Reason::Starting,
            message: format!("{ready} of {wanted} instances have reported"),
            since_unix_ms: 0,
        }),
    };
    (state, cause)
}

/// Where a service has another number of instances than the manifest says.
pub(super) fn scaled(service: &ServiceName, registry: &Registry) -> Vec<Notice> {
    let file = registry.declaration().services.get(service).map_or(0, |spec| spec.instances);
    let of = |(node, count): (&String, u32)| Notice {
        code: "scaled".into(),
        message: format!("{service}@{node} scaled to {count} (file: {file})"),
        service: Some(service.clone()),
    };
    registry.scaled(service).map(of).collect()
}

/// What is to be known of instances that are ready all the same: a reload that failed before all else.
fn notice(mine: &[&Instance]) -> Option<Cause> {
    let told = mine.iter().filter(|found| found.state == InstanceState::Ready);
    let told = told.filter_map(|found| Some((found, found.cause.as_ref()?)));
    let (found, cause) = told.max_by_key(|(_, cause)| (cause.reason == Reason::ReloadFailed, cause.since_unix_ms))?;
    Some(Cause { message: format!("{}: {}", found.announcement.id, cause.message), ..cause.clone() })
}

/// Which instance's cause explains a service best: the one that is furthest from ready.
fn severity(state: InstanceState) -> u8 {
    match state {
        InstanceState::Ready => 0,
        InstanceState::Draining => 1,
        InstanceState::Degraded => 2,
        InstanceState::Starting => 3,
        InstanceState::Gone => 4,
        InstanceState::Unhealthy => 5,
    }
}
