//! Snapshots and deltas: what callers know of services.
//!
//! A master cuts them out of its [`Snapshot`] for the names that a sidecar subscribed ([`snapshot`], [`delta`]); the
//! sidecar keeps a [`Picture`], to which a delta applies only when it is about the very picture in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synego_model::{Access, Endpoint, Epoch, InstanceId, InstanceState, Limits, ServiceName, ServiceTable, Snapshot};

use super::access::access;
use super::policy::policy;
use super::{Invalid, Problems, checked, join, words};
use crate::pb;

/// Most services in a subscription.
pub const MAX_SERVICES: usize = 10_000;

/// Longest version, zone or incarnation, in bytes.
const MAX_TEXT: usize = 256;

impl From<&Endpoint> for pb::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            address: endpoint.address.to_string(),
            state: pb::InstanceState::from(endpoint.state).into(),
            version: endpoint.version.clone(),
            zone: endpoint.zone.clone(),
            utilization: endpoint.utilization.unwrap_or(-1.0),
            ready_unix_ms: endpoint.ready_unix_ms,
            incarnation: endpoint.incarnation.clone(),
        }
    }
}

impl From<&ServiceTable> for pb::ServiceTable {
    fn from(table: &ServiceTable) -> Self {
        Self {
            name: table.name.to_string(),
            known: true,
            protocol: pb::Protocol::from(table.protocol).into(),
            policy: Some(table.policy.as_ref().into()),
            endpoint: table.endpoints.iter().map(Into::into).collect(),
            access: Some(table.access.as_ref().into()),
        }
    }
}

checked! {
    pb::Endpoint => Endpoint: endpoint;
    pb::Snapshot => Picture: picture;
}

fn endpoint(message: &pb::Endpoint, path: &str, problems: &mut Problems) -> Option<Endpoint> {
    let id: Option<InstanceId> = problems.parse(&join(path, "id"), &message.id);
    let address = problems.parse(&join(path, "address"), &message.address);
    let state = words::state(message.state, &join(path, "state"), problems);
    if state == Some(InstanceState::Gone) {
        problems.add(join(path, "state"), "is gone, expected one that is there");
    }
    let utilization = optional_share(message.utilization, &join(path, "utilization"), problems);
    Some(Endpoint {
        id: id?,
        address: address?,
        state: state?,
        version: problems.text(&join(path, "version"), &message.version, MAX_TEXT),
        zone: problems.text(&join(path, "zone"), &message.zone, MAX_TEXT),
        utilization,
        ready_unix_ms: message.ready_unix_ms,
        incarnation: problems.text(&join(path, "incarnation"), &message.incarnation, MAX_TEXT),
    })
}

/// A share that may be left unsaid by a negative number.
pub(crate) fn optional_share(value: f64, path: &str, problems: &mut Problems) -> Option<f64> {
    if value < 0.0 { None } else { Some(problems.share(path, value)) }
}

/// What a sidecar knows of the services it subscribed; it never changes, a delta makes a new one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Its version, as its master counts.
    pub epoch: Epoch,
    /// Each subscribed service; `None`: no one in the mesh knows the name.
    pub services: BTreeMap<ServiceName, Option<Arc<ServiceTable>>>,
}

impl Picture {
    /// The picture that results from `change`.
    ///
    /// # Errors
    /// [`Invalid`] when the delta is about another picture, or breaks a range; this one stays as it is.
    pub fn apply(&self, change: &pb::Delta) -> Result<Self, Invalid> {
        if change.base_epoch != self.epoch.0 {
            let message = format!("is {}, but {} is in force", change.base_epoch, self.epoch.0);
            return Err(Invalid::one("base_epoch", message));
        }
        let mut problems = Problems::default();
        let mut services = self.services.clone();
        for (at, service) in change.service.iter().enumerate() {
            let path = format!("service[{at}]");
            let Some(name) = problems.parse::<ServiceName>(&join(&path, "name"), &service.name) else { continue };
            let before = services.get(&name).cloned().flatten();
            if !service.known {
                services.insert(name, None);
            } else if let Some(table) = changed(&name, before.as_deref(), service, &path, &mut problems) {
                services.insert(name, Some(Arc::new(table)));
            }
        }
        problems.count("service", services.len(), 0, MAX_SERVICES);
        problems.finish(Some(Self { epoch: Epoch(change.epoch), services }))
    }

    /// The snapshot on which a sidecar routes: no routes, since those are the ingress's.
    #[must_use]
    pub fn to_snapshot(&self, epoch: Epoch, limits: &Limits) -> Snapshot {
        Snapshot::new(epoch, self.services.values().flatten().cloned(), Vec::new(), limits.clone())
    }
}

impl From<&Picture> for pb::Snapshot {
    fn from(picture: &Picture) -> Self {
        let service = picture.services.iter().map(|(name, table)| table_or_unknown(name, table.as_deref())).collect();
        Self { epoch: picture.epoch.0, service }
    }
}

fn picture(message: &pb::Snapshot, _path: &str, problems: &mut Problems) -> Option<Picture> {
    problems.count("service", message.service.len(), 0, MAX_SERVICES);
    let mut services = BTreeMap::new();
    for (at, service) in message.service.iter().enumerate() {
        let path = format!("service[{at}]");
        let Some(name) = problems.parse::<ServiceName>(&join(&path, "name"), &service.name) else { continue };
        let table = if service.known {
            let Some(table) = table(&name, service, &path, problems) else { continue };
            Some(Arc::new(table))
        } else {
            None
        };
        if services.insert(name, table).is_some() {
            problems.add(join(&path, "name"), format!("is `{}` for a second time", service.name));
        }
    }
    Some(Picture { epoch: Epoch(message.epoch), services })
}

fn table(name: &ServiceName, message: &pb::ServiceTable, path: &str, problems: &mut Problems) -> Option<ServiceTable> {
    let protocol = words::protocol(message.protocol, &join(path, "protocol"), problems);
    let policy = policy(message.policy.as_ref().unwrap_or(&pb::Policy::default()), &join(path, "policy"), problems);
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(message.endpoint.len());
    for (at, found) in message.endpoint.iter().enumerate() {
        endpoints.extend(endpoint(found, &join(path, &format!("endpoint[{at}]")), problems));
    }
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    if let Some(twice) = endpoints.windows(2).find(|pair| matches!(pair, [a, b] if a.id == b.id)) {
        problems.add(join(path, "endpoint"), format!("names `{}` twice", twice.first().map_or("", |e| e.id.as_str())));
    }
    let access = match &message.access {
        Some(found) => access(found, &join(path, "access"), problems),
        // A master that knows of no access closes nothing.
        None => Some(Access::default()),
    };
    Some(ServiceTable {
        name: name.clone(),
        protocol: protocol?,
        policy: Arc::new(policy?),
        access: Arc::new(access?),
        callers: Arc::default(),
        endpoints,
    })
}

fn changed(
    name: &ServiceName,
    before: Option<&ServiceTable>,
    message: &pb::ServiceDelta,
    path: &str,
    problems: &mut Problems,
) -> Option<ServiceTable> {
    let protocol = words::protocol(message.protocol, &join(path, "protocol"), problems);
    let policy = match (&message.policy, before) {
        (Some(found), _) => policy(found, &join(path, "policy"), problems).map(Arc::new),
        (None, Some(before)) => Some(Arc::clone(&before.policy)),
        (None, None) => {
            problems.add(join(path, "policy"), "is not set, expected one for a service that was not known");
            None
        }
    };
    let access = match (&message.access, before) {
        (Some(found), _) => access(found, &join(path, "access"), problems).map(Arc::new),
        (None, Some(before)) => Some(Arc::clone(&before.access)),
        (None, None) => Some(Arc::default()),
    };
    let mut endpoints: BTreeMap<InstanceId, Endpoint> =
        before.into_iter().flat_map(|table| &table.endpoints).map(|found| (found.id.clone(), found.clone())).collect();
    for (at, id) in message.remove.iter().enumerate() {
        if let Some(id) = problems.parse::<InstanceId>(&join(path, &format!("remove[{at}]")), id) {
            endpoints.remove(&id);
        }
    }
    for (at, found) in message.upsert.iter().enumerate() {
        if let Some(found) = endpoint(found, &join(path, &format!("upsert[{at}]")), problems) {
            endpoints.insert(found.id.clone(), found);
        }
    }
    let endpoints = endpoints.into_values().collect();
    Some(ServiceTable {
        name: name.clone(),
        protocol: protocol?,
        policy: policy?,
        access: access?,
        callers: Arc::default(),
        endpoints,
    })
}

fn table_or_unknown(name: &ServiceName, table: Option<&ServiceTable>) -> pb::ServiceTable {
    table.map_or_else(
        || pb::ServiceTable { name: name.to_string(), known: false, ..pb::ServiceTable::default() },
        Into::into,
    )
}

/// All that `names` say in `snapshot`, as it travels.
#[must_use]
pub fn snapshot(snapshot: &Snapshot, names: &BTreeSet<ServiceName>) -> pb::Snapshot {
    let table = |name: &ServiceName| table_or_unknown(name, snapshot.service(name.as_str()).map(AsRef::as_ref));
    pb::Snapshot { epoch: snapshot.epoch().0, service: names.iter().map(table).collect() }
}

/// What changed for `names` from `base` to `now`; `None`: nothing, so that `base` stays the base.
#[must_use]
pub fn delta(base: &Snapshot, now: &Snapshot, names: &BTreeSet<ServiceName>) -> Option<pb::Delta> {
    let service: Vec<pb::ServiceDelta> = names
        .iter()
        .filter_map(|name| service_delta(name, base.service(name.as_str()), now.service(name.as_str())))
        .collect();
    (!service.is_empty()).then(|| pb::Delta { base_epoch: base.epoch().0, epoch: now.epoch().0, service })
}

fn service_delta(
    name: &ServiceName,
    base: Option<&Arc<ServiceTable>>,
    now: Option<&Arc<ServiceTable>>,
) -> Option<pb::ServiceDelta> {
    let Some(now) = now else {
        let gone = pb::ServiceDelta { name: name.to_string(), known: false, ..pb::ServiceDelta::default() };
        return base.map(|_| gone);
    };
    if base.is_some_and(|base| Arc::ptr_eq(base, now) || is_same_to_callers(base, now)) {
        return None;
    }
    let before: BTreeMap<&InstanceId, &Endpoint> =
        base.into_iter().flat_map(|table| &table.endpoints).map(|found| (&found.id, found)).collect();
    let after: BTreeSet<&InstanceId> = now.endpoints.iter().map(|found| &found.id).collect();
    let policy_stays = base.is_some_and(|base| base.policy == now.policy);
    let access_stays = base.is_some_and(|base| base.access == now.access);
    Some(pb::ServiceDelta {
        name: name.to_string(),
        known: true,
        protocol: pb::Protocol::from(now.protocol).into(),
        policy: (!policy_stays).then(|| now.policy.as_ref().into()),
        upsert: now.endpoints.iter().filter(|e| before.get(&e.id) != Some(e)).map(Into::into).collect(),
        remove: before.keys().filter(|id| !after.contains(*id)).map(ToString::to_string).collect(),
        access: (!access_stays).then(|| now.access.as_ref().into()),
    })
}

/// Whether nothing changed of what callers are told: who else may call is none of it.
fn is_same_to_callers(base: &ServiceTable, now: &ServiceTable) -> bool {
    base.protocol == now.protocol
        && base.policy == now.policy
        && base.access == now.access
        && base.endpoints == now.endpoints
}
