//! What a sidecar tells its masters: who it is, what it announces, how its instance is.

use synego_model::{
    Announcement, CallFigures, EjectionReport, HealthReport, InstanceId, InstanceLoad, InstanceName, MeshName,
    NodeName, Place, ServiceName,
};

use super::access::denial;
use super::table::optional_share;
use super::{Invalid, Problems, checked, join, words};
use crate::pb;

const MAX_TEXT: usize = 256;
const MAX_LABELS: usize = 16;
const MAX_LABEL: usize = 63;
const MAX_ROUTES: usize = 256;
const MAX_HANDLERS: usize = 1000;
const MAX_PATTERN: usize = 256;
/// Most callees, or instances left out, in one report.
const MAX_FIGURES: usize = 10_000;
/// Most pairs of caller and callee in one report of what was refused.
const MAX_DENIALS: usize = 1_000;

/// Who a sidecar is: the first message on its link.
#[derive(Debug, Clone, PartialEq)]
pub struct Joining {
    /// Lowest version of the protocol that it speaks.
    pub protocol_min: u32,
    /// Highest version of the protocol that it speaks.
    pub protocol_max: u32,
    /// Its mesh; `None`: whichever the master serves.
    pub mesh: Option<MeshName>,
    /// Version of the sidecar program.
    pub version: String,
    /// What it announces.
    pub announcement: Announcement,
}

impl From<&Joining> for pb::Join {
    fn from(joining: &Joining) -> Self {
        Self {
            protocol_min: joining.protocol_min,
            protocol_max: joining.protocol_max,
            mesh: joining.mesh.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: joining.announcement.node.to_string(),
            zone: joining.announcement.zone.clone(),
            sidecar_version: joining.version.clone(),
            incarnation: joining.announcement.incarnation.clone(),
            announced: Some((&joining.announcement).into()),
        }
    }
}

impl From<&Announcement> for pb::Announced {
    fn from(said: &Announcement) -> Self {
        Self {
            service: said.service.to_string(),
            instance: said.id.instance().to_owned(),
            address: said.address.to_string(),
            protocol: pb::Protocol::from(said.protocol).into(),
            version: said.version.clone(),
            labels: said.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            route: said.routes.clone().unwrap_or_default(),
            routes_said: said.routes.is_some(),
            uses: said.uses.iter().map(ToString::to_string).collect(),
            pid: said.pid,
            generation: said.generation,
            started_unix_ms: said.started_unix_ms,
            sdk: said.sdk.clone(),
            handler: said.handlers.clone(),
            listens: said.listens.clone(),
            caps: said.caps.clone(),
        }
    }
}

checked! {
    pb::Join => Joining: join_message;
    pb::InstanceLoad => InstanceLoad: load;
    pb::Report => HealthReport: report;
}

fn join_message(message: &pb::Join, path: &str, problems: &mut Problems) -> Option<Joining> {
    let protocol_min = problems.range(&join(path, "protocol_min"), message.protocol_min, 1, u32::MAX);
    let lowest = message.protocol_min.max(1);
    let protocol_max = problems.range(&join(path, "protocol_max"), message.protocol_max, lowest, u32::MAX);
    let mesh = match message.mesh.as_str() {
        "" => None,
        text => problems.parse(&join(path, "mesh"), text),
    };
    let node: Option<NodeName> = problems.parse(&join(path, "node"), &message.node);
    let zone = problems.text(&join(path, "zone"), &message.zone, MAX_TEXT);
    let version = problems.text(&join(path, "sidecar_version"), &message.sidecar_version, MAX_TEXT);
    problems.count(&join(path, "incarnation"), message.incarnation.len(), 1, MAX_LABEL);
    let Some(said) = &message.announced else {
        problems.add(join(path, "announced"), "is not set");
        return None;
    };
    // Without a node the rest is still checked, so that all mistakes are told at once.
    let stand_in = NodeName::new("node").ok();
    let checked = node.as_ref().or(stand_in.as_ref())?;
    let announcement = announcement(said, checked, &zone, &message.incarnation, &join(path, "announced"), problems)?;
    node?;
    Some(Joining { protocol_min, protocol_max, mesh, version, announcement })
}

/// What a linked sidecar announces anew; node, zone and incarnation are those of its `Join`.
///
/// # Errors
/// [`Invalid`] with every broken range.
pub fn announced(
    message: &pb::Announced,
    node: &NodeName,
    zone: &str,
    incarnation: &str,
) -> Result<Announcement, Invalid> {
    let mut problems = Problems::default();
    let value = announcement(message, node, zone, incarnation, "", &mut problems);
    problems.finish(value)
}

fn announcement(
    message: &pb::Announced,
    node: &NodeName,
    zone: &str,
    incarnation: &str,
    path: &str,
    problems: &mut Problems,
) -> Option<Announcement> {
    let service: Option<ServiceName> = problems.parse(&join(path, "service"), &message.service);
    let instance: Option<InstanceName> = problems.parse(&join(path, "instance"), &message.instance);
    let address: Option<std::net::SocketAddr> = problems.parse(&join(path, "address"), &message.address);
    if address.is_some_and(|address| address.port() == 0 || address.ip().is_unspecified()) {
        problems.add(join(path, "address"), format!("is {}, expected one that peers can reach", message.address));
    }
    let protocol = words::protocol(message.protocol, &join(path, "protocol"), problems);
    if problems.count(&join(path, "labels"), message.labels.len(), 0, MAX_LABELS) {
        for (key, value) in &message.labels {
            problems.count(&join(path, "labels"), key.len(), 1, MAX_LABEL);
            problems.text(&join(path, &format!("labels[{}]", super::cut(key))), value, MAX_LABEL);
        }
    }
    if problems.count(&join(path, "route"), message.route.len(), 0, MAX_ROUTES) {
        for (at, place) in message.route.iter().enumerate() {
            let _ = problems.parse::<Place>(&join(path, &format!("route[{at}]")), place);
        }
    }
    problems.count(&join(path, "uses"), message.uses.len(), 0, super::table::MAX_SERVICES);
    let uses = message.uses.iter().enumerate();
    let uses = uses.filter_map(|(at, name)| problems.parse(&join(path, &format!("uses[{at}]")), name)).collect();
    if problems.count(&join(path, "handler"), message.handler.len(), 0, MAX_HANDLERS) {
        for (at, pattern) in message.handler.iter().enumerate() {
            problems.text(&join(path, &format!("handler[{at}]")), pattern, MAX_PATTERN);
        }
    }
    Some(Announcement {
        service: service?,
        id: InstanceId::new(&instance?, node),
        node: node.clone(),
        zone: zone.to_owned(),
        incarnation: incarnation.to_owned(),
        address: address?,
        protocol: protocol?,
        version: problems.text(&join(path, "version"), &message.version, MAX_TEXT),
        labels: message.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        routes: (message.routes_said || !message.route.is_empty()).then(|| message.route.clone()),
        uses,
        pid: message.pid,
        generation: message.generation,
        started_unix_ms: message.started_unix_ms,
        sdk: problems.text(&join(path, "sdk"), &message.sdk, MAX_TEXT),
        handlers: message.handler.clone(),
        listens: problems.text(&join(path, "listens"), &message.listens, MAX_TEXT),
        caps: problems.text(&join(path, "caps"), &message.caps, MAX_TEXT),
    })
}

impl From<&InstanceLoad> for pb::InstanceLoad {
    fn from(load: &InstanceLoad) -> Self {
        let amount = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let share =
            |value: Option<f64>| value.filter(|value| !value.is_nan()).map_or(-1.0, |value| value.clamp(0.0, 1.0));
        Self {
            in_flight: load.in_flight,
            queued: load.queued,
            requests_total: load.requests_total,
            errors_total: load.errors_total,
            requests_per_second: amount(load.requests_per_second),
            p50_seconds: amount(load.p50_seconds),
            p99_seconds: amount(load.p99_seconds),
            utilization: share(load.utilization),
            memory_bytes: load.memory_bytes,
            cpu_cores: load.cpu_cores.filter(|cores| cores.is_finite() && *cores >= 0.0).unwrap_or(-1.0),
            open_streams: load.open_streams,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every check has the same form")]
fn load(message: &pb::InstanceLoad, path: &str, problems: &mut Problems) -> Option<InstanceLoad> {
    Some(InstanceLoad {
        in_flight: message.in_flight,
        queued: message.queued,
        requests_total: message.requests_total,
        errors_total: message.errors_total,
        requests_per_second: problems.amount(&join(path, "requests_per_second"), message.requests_per_second),
        p50_seconds: problems.amount(&join(path, "p50_seconds"), message.p50_seconds),
        p99_seconds: problems.amount(&join(path, "p99_seconds"), message.p99_seconds),
        utilization: optional_share(message.utilization, &join(path, "utilization"), problems),
        memory_bytes: message.memory_bytes,
        cpu_cores: (message.cpu_cores >= 0.0 || message.cpu_cores.is_nan())
            .then(|| problems.amount(&join(path, "cpu_cores"), message.cpu_cores)),
        open_streams: message.open_streams,
    })
}

/// A report as it travels, with its place in the line of reports (from 1).
#[must_use]
pub fn report_to_wire(report: &HealthReport, sequence: u64) -> pb::Report {
    let ejection = |ejection: &EjectionReport| pb::Ejection {
        instance: ejection.instance.to_string(),
        cause: Some((&ejection.cause).into()),
        remaining_ms: ejection.remaining_ms,
    };
    let calls = |calls: &CallFigures| pb::CallFigures {
        service: calls.service.to_string(),
        requests: calls.requests,
        failures: calls.failures,
    };
    pb::Report {
        sequence,
        state: pb::InstanceState::from(report.state).into(),
        cause: report.cause.as_ref().map(Into::into),
        load: Some((&report.load).into()),
        restarts: report.restarts,
        ejection: report.ejections.iter().take(MAX_FIGURES).map(ejection).collect(),
        calls: report.calls.iter().take(MAX_FIGURES).map(calls).collect(),
        snapshot_age_ms: report.snapshot_age_ms,
        denial: report.denials.iter().take(MAX_DENIALS).map(Into::into).collect(),
        identity: report.identity.as_ref().map(Into::into),
    }
}

fn report(message: &pb::Report, path: &str, problems: &mut Problems) -> Option<HealthReport> {
    let state = words::state(message.state, &join(path, "state"), problems);
    let cause = message.cause.as_ref().map(|found| words::cause(found, &join(path, "cause"), problems));
    let load = match &message.load {
        Some(found) => load(found, &join(path, "load"), problems),
        None => Some(InstanceLoad::default()),
    };
    problems.count(&join(path, "ejection"), message.ejection.len(), 0, MAX_FIGURES);
    problems.count(&join(path, "calls"), message.calls.len(), 0, MAX_FIGURES);
    let mut ejections = Vec::with_capacity(message.ejection.len());
    for (at, found) in message.ejection.iter().enumerate() {
        let path = join(path, &format!("ejection[{at}]"));
        let instance = problems.parse(&join(&path, "instance"), &found.instance);
        let cause =
            words::cause(found.cause.as_ref().unwrap_or(&pb::StateCause::default()), &join(&path, "cause"), problems);
        if let (Some(instance), Some(cause)) = (instance, cause) {
            ejections.push(EjectionReport { instance, cause, remaining_ms: found.remaining_ms });
        }
    }
    let mut calls = Vec::with_capacity(message.calls.len());
    for (at, found) in message.calls.iter().enumerate() {
        if let Some(service) = problems.parse(&join(path, &format!("calls[{at}].service")), &found.service) {
            calls.push(CallFigures { service, requests: found.requests, failures: found.failures });
        }
    }
    problems.count(&join(path, "denial"), message.denial.len(), 0, MAX_DENIALS);
    let denials = message.denial.iter().enumerate();
    let denials = denials.filter_map(|(at, found)| denial(found, &join(path, &format!("denial[{at}]")), problems));
    let denials = denials.collect();
    let identity =
        message.identity.as_ref().map(|found| super::identity::identity(found, &join(path, "identity"), problems));
    let cause = match cause {
        Some(cause) => Some(cause?),
        None => None,
    };
    let identity = match identity {
        Some(identity) => Some(identity?),
        None => None,
    };
    Some(HealthReport {
        state: state?,
        cause,
        load: load?,
        restarts: message.restarts,
        ejections,
        calls,
        denials,
        snapshot_age_ms: message.snapshot_age_ms,
        identity,
    })
}
