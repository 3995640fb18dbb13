//! The mesh at one moment, as people see it.

use std::collections::{BTreeMap, BTreeSet};

use synego_model::{InstanceState, Route, ServiceName, ServiceSpec};
use synego_wire::pb;

use crate::master::{GatewayStatus, Shared};
use crate::registry::{At, Instance, Notice, Registry, ServiceStatus};

/// The whole, or these services and what belongs to them.
pub(crate) fn view(registry: &Registry, shared: &Shared, wanted: &[String], at: At) -> pb::MeshView {
    let takes = |service: &ServiceName| wanted.is_empty() || wanted.iter().any(|name| name == service.as_str());
    let statuses = registry.services();
    let notices = shared.notices.borrow();
    let without = shared.door.is_none().then(without_certificates);
    let mut routes: BTreeMap<&ServiceName, Vec<&Route>> = BTreeMap::new();
    registry.routes().iter().for_each(|found| routes.entry(&found.service).or_default().push(found));
    let routes_of = |name: &ServiceName| routes.get(name).map_or(&[][..], Vec::as_slice);
    pb::MeshView {
        mesh: registry.declaration().mesh.to_string(),
        epoch: registry.snapshot().epoch().0,
        revision: shared.declared.borrow().revision,
        unix_ms: at.unix_ms,
        master: vec![master(shared)],
        service: statuses
            .iter()
            .filter(|status| takes(&status.name))
            .map(|status| service(registry, status, routes_of(&status.name), at))
            .collect(),
        route: registry.routes().iter().filter(|r| takes(&r.service)).map(|found| route(registry, found)).collect(),
        node: nodes(registry),
        gateway: shared.gateway.borrow().as_ref().map(gateway),
        warning: notices.iter().chain(&registry.notices()).chain(&without).map(warning).collect(),
        version: shared.facts.version.clone(),
        access: registry.declaration().access.word().to_owned(),
    }
}

fn master(shared: &Shared) -> pb::MasterView {
    let text = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    pb::MasterView {
        name: shared.name.clone(),
        ingress: text(shared.facts.ingress),
        mesh: text(shared.facts.mesh),
        admin: text(shared.facts.admin),
        started_unix_ms: shared.facts.started_unix_ms,
    }
}

fn service(registry: &Registry, status: &ServiceStatus, routes: &[&Route], at: At) -> pb::ServiceView {
    let mine: Vec<&Instance> = registry.instances_of(&status.name).collect();
    let living = || mine.iter().filter(|found| found.state != InstanceState::Gone || found.is_done());
    let loads: Vec<_> = living().map(|found| found.load()).collect();
    let requests: u64 = loads.iter().map(|load| load.requests_total).sum();
    let errors: u64 = loads.iter().map(|load| load.errors_total).sum();
    let versions: BTreeSet<&str> = living().map(|found| found.announcement.version.as_str()).collect();
    let table = registry.table(&status.name);
    let spec = registry.declaration().services.get(&status.name);
    let announced_uses = living().flat_map(|found| &found.announcement.uses);
    let uses: BTreeSet<&ServiceName> = spec.into_iter().flat_map(|spec| &spec.uses).chain(announced_uses).collect();
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let error_ratio = if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
    pb::ServiceView {
        name: status.name.to_string(),
        state: pb::InstanceState::from(status.state).into(),
        cause: status.cause.as_ref().map(Into::into),
        ready: status.ready,
        wanted: status.wanted,
        version: versions.into_iter().filter(|version| !version.is_empty()).map(ToOwned::to_owned).collect(),
        protocol: pb::Protocol::from(table.map(|table| table.protocol).unwrap_or_default()).into(),
        requests_per_second: loads.iter().map(|load| load.requests_per_second).sum(),
        p99_seconds: loads.iter().map(|load| load.p99_seconds).fold(0.0, f64::max),
        error_ratio,
        restarts: mine.iter().filter_map(|found| found.report.as_ref()).map(|report| report.restarts).sum(),
        instance: mine.iter().map(|found| instance(registry, found, at)).collect(),
        uses: uses.into_iter().map(ToString::to_string).collect(),
        policy: table.map(|table| table.policy.as_ref().into()),
        route: routes.iter().map(|route| route.place.to_string()).collect(),
        declared: status.declared,
        scaled: registry.scaled(&status.name).map(|(node, instances)| scaled(node, instances, spec)).collect(),
    }
}

fn scaled(node: &str, instances: u32, spec: Option<&ServiceSpec>) -> pb::ScaledView {
    pb::ScaledView { node: node.to_owned(), instances, file: spec.map_or(0, |spec| spec.instances) }
}

fn instance(registry: &Registry, found: &Instance, at: At) -> pb::InstanceView {
    let said = &found.announcement;
    let ejected_by = registry.ejected_by(&said.id, at).into_iter().map(|(caller, ejection)| pb::Ejection {
        instance: caller,
        cause: Some((&ejection.cause).into()),
        remaining_ms: ejection.until_ms.saturating_sub(at.ms),
    });
    pb::InstanceView {
        id: said.id.to_string(),
        node: said.node.to_string(),
        state: pb::InstanceState::from(found.state).into(),
        cause: found.cause.as_ref().map(Into::into),
        address: said.address.to_string(),
        listens: said.listens.clone(),
        version: said.version.clone(),
        load: Some((&found.load()).into()),
        restarts: found.report.as_ref().map_or(0, |report| report.restarts),
        pid: said.pid,
        started_unix_ms: said.started_unix_ms,
        report_age_ms: found.silent_ms(at.ms),
        sdk: said.sdk.clone(),
        zone: said.zone.clone(),
        ejected_by: ejected_by.collect(),
        labels: said.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        handler: said.handlers.clone(),
        caps: said.caps.clone(),
    }
}

fn route(registry: &Registry, found: &Route) -> pb::RouteView {
    let of_service = || registry.table(&found.service).map(|table| &table.policy);
    pb::RouteView {
        place: found.place.to_string(),
        service: found.service.to_string(),
        exact: found.exact,
        method: found.methods.clone(),
        header: found.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        origin: found.origin.clone(),
        policy: found.policy.as_ref().or_else(of_service).map(|policy| policy.as_ref().into()),
    }
}

fn nodes(registry: &Registry) -> Vec<pb::NodeView> {
    let mut nodes: BTreeMap<&str, (&str, u32)> = BTreeMap::new();
    for found in registry.instances().filter(|found| found.state != InstanceState::Gone) {
        let said = &found.announcement;
        nodes.entry(said.node.as_str()).or_insert((&said.zone, 0)).1 += 1;
    }
    let view = |(name, (zone, instances)): (&str, (&str, u32))| pb::NodeView {
        name: name.to_owned(),
        zone: zone.to_owned(),
        instances,
    };
    nodes.into_iter().map(view).collect()
}

fn gateway(gateway: &GatewayStatus) -> pb::GatewayView {
    pb::GatewayView {
        engine: match gateway.engine {
            synego_model::Engine::Nginx => "nginx".into(),
            synego_model::Engine::Master => "master".into(),
        },
        nginx_version: gateway.nginx_version.clone(),
        listen: gateway.listen.clone(),
        state: pb::InstanceState::from(gateway.state).into(),
        cause: gateway.cause.as_ref().map(Into::into),
        static_place: gateway.static_places.clone(),
        spa_place: gateway.spa_places.clone(),
        url: gateway.url.clone(),
    }
}

/// Everyone who reaches a port of such a mesh can read it, and can speak as anyone.
fn without_certificates() -> Notice {
    let message = "connections of the mesh are not encrypted and nobody proves who he is (`identity: { mtls: off }`): only \
                   for a mesh whose machine nobody else uses; remove the line, or say `mtls: required`";
    Notice { code: "mtls_off".into(), message: message.into(), service: None }
}

fn warning(notice: &Notice) -> pb::Warning {
    pb::Warning {
        code: notice.code.clone(),
        message: notice.message.clone(),
        service: notice.service.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
