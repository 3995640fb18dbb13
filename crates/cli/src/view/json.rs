//! The fields of each kind of item: snake_case, units in the name, unknown is `null`, times RFC 3339 in UTC.

use serde_json::{Value, json};
use synego_wire::pb;

use super::{balance_word, cause_word, service_cause};
use crate::output::Answer;
use crate::output::paint::state_word;
use crate::output::time::rfc3339;

/// An empty answer of `kind` about the mesh of `view`, with its time and warnings.
pub(crate) fn answer(kind: &'static str, name_field: &'static str, view: &pb::MeshView) -> Answer {
    let warnings: Vec<Value> = view
        .warning
        .iter()
        .map(|warning| json!({"code": warning.code, "service": text(&warning.service), "message": warning.message}))
        .collect();
    Answer::new(kind, name_field)
        .of_mesh(&view.mesh, Some(view.epoch))
        .with("time", rfc3339(view.unix_ms).into())
        .with("warnings", warnings.into())
}

/// The answer of `status` about these services, with what faces the world.
pub(crate) fn status<'a>(view: &pb::MeshView, services: impl Iterator<Item = &'a pb::ServiceView>) -> Answer {
    answer("status", "service", view)
        .with("access", text(&view.access).into())
        .with("gateway", view.gateway.as_ref().map_or(Value::Null, gateway))
        .items(services.map(service).collect())
}

/// A service with its instances.
pub(crate) fn service(view: &pb::ServiceView) -> Value {
    json!({
        "service": view.name,
        "state": state_word(view.state()),
        "ready": view.ready,
        "wanted": view.wanted,
        "scaled": scaled(view),
        "version": view.version,
        "protocol": protocol(view.protocol()),
        "declared": view.declared,
        "requests_per_second": view.requests_per_second,
        "p99_seconds": measured(view.p99_seconds),
        "error_ratio": view.error_ratio,
        "restarts": view.restarts,
        "cause": service_cause(view).map(|(instance, found)| cause(Some(found), instance.map(|instance| instance.id.as_str()))),
        "uses": view.uses,
        "routes": view.route,
        "instances": view.instance.iter().map(|instance| self::instance(instance, &view.name)).collect::<Vec<_>>(),
    })
}

/// Where another number of instances is wanted than the file says; nothing: nowhere.
fn scaled(view: &pb::ServiceView) -> Value {
    let one = |one: &pb::ScaledView| json!({ "node": one.node, "instances": one.instances, "file": one.file });
    if view.scaled.is_empty() { Value::Null } else { view.scaled.iter().map(one).collect() }
}

/// An instance.
pub(crate) fn instance(view: &pb::InstanceView, service: &str) -> Value {
    let load = view.load.unwrap_or_default();
    let ejected = view.ejected_by.iter().map(|ejection| {
        json!({
            "by": ejection.instance,
            "cause": cause(ejection.cause.as_ref(), None),
            "remaining_seconds": seconds(ejection.remaining_ms),
        })
    });
    json!({
        "instance": view.id,
        "service": service,
        "node": view.node,
        "zone": text(&view.zone),
        "state": state_word(view.state()),
        "cause": cause(view.cause.as_ref(), None),
        "address": text(&view.address),
        "listens": text(&view.listens),
        "version": text(&view.version),
        "sdk": text(&view.sdk),
        "pid": number(u64::from(view.pid)),
        "started": moment(view.started_unix_ms),
        "restarts": view.restarts,
        "in_flight": load.in_flight,
        "queued": load.queued,
        "open_streams": load.open_streams,
        "requests_total": load.requests_total,
        "errors_total": load.errors_total,
        "requests_per_second": load.requests_per_second,
        "p50_seconds": measured(load.p50_seconds),
        "p99_seconds": measured(load.p99_seconds),
        "utilization_ratio": (view.load.is_some() && load.utilization >= 0.0).then_some(load.utilization),
        "memory_bytes": number(load.memory_bytes),
        "cpu_cores": (view.load.is_some() && load.cpu_cores >= 0.0).then_some(load.cpu_cores),
        "report_age_seconds": seconds(view.report_age_ms),
        "ejected_by": ejected.collect::<Vec<_>>(),
        "labels": view.labels,
        "handlers": view.handler,
        "caps": text(&view.caps),
    })
}

/// Where an instance is reached.
pub(crate) fn endpoint(view: &pb::InstanceView, service: &str) -> Value {
    json!({
        "endpoint": view.id,
        "service": service,
        "address": text(&view.address),
        "state": state_word(view.state()),
        "version": text(&view.version),
        "zone": text(&view.zone),
    })
}

/// A route.
pub(crate) fn route(view: &pb::RouteView) -> Value {
    json!({
        "route": view.place,
        "service": view.service,
        "exact": view.exact,
        "methods": view.method,
        "headers": view.header,
        "origin": view.origin,
        "policy": view.policy.as_ref().map(policy_fields),
    })
}

/// What happens to requests of a service, or of a route that has a policy of its own.
pub(crate) fn policy(of: &str, kind: &str, view: &pb::Policy) -> Value {
    let mut value = json!({"policy": of, "of": kind});
    if let (Value::Object(into), Value::Object(fields)) = (&mut value, policy_fields(view)) {
        into.extend(fields);
    }
    value
}

fn policy_fields(view: &pb::Policy) -> Value {
    let balance = view.balance.clone().unwrap_or_default();
    let eject = view.eject.as_ref().map(|eject| {
        json!({
            "failures": eject.failures,
            "first_seconds": seconds(eject.first_ms.into()),
            "max_seconds": seconds(eject.max_ms.into()),
            "at_most_ratio": f64::from(eject.at_most_percent) / 100.0,
        })
    });
    json!({
        "timeout_seconds": seconds(view.timeout_ms.into()),
        "try_timeout_seconds": seconds(view.try_timeout_ms.into()),
        "connect_seconds": seconds(view.connect_ms.into()),
        "idle_seconds": seconds(view.idle_ms.into()),
        "retries": view.retries,
        "balance": balance_word(Some(&balance)),
        "slow_start_seconds": seconds(balance.slow_start_ms.into()),
        "panic_ratio": f64::from(balance.panic_percent) / 100.0,
        "eject": eject,
    })
}

/// A machine.
pub(crate) fn node(view: &pb::NodeView) -> Value {
    json!({"node": view.name, "zone": text(&view.zone), "instances": view.instances})
}

/// A master.
pub(crate) fn master(view: &pb::MasterView) -> Value {
    json!({
        "master": view.name,
        "ingress": text(&view.ingress),
        "mesh": text(&view.mesh),
        "admin": text(&view.admin),
        "started": moment(view.started_unix_ms),
    })
}

/// What faces the world from the process that was asked.
pub(crate) fn gateway(view: &pb::GatewayView) -> Value {
    json!({
        "engine": view.engine,
        "nginx_version": text(&view.nginx_version),
        "listen": view.listen,
        "state": state_word(view.state()),
        "cause": cause(view.cause.as_ref(), None),
        "static": view.static_place,
        "spa": view.spa_place,
        "url": text(&view.url),
    })
}

fn cause(cause: Option<&pb::StateCause>, instance: Option<&str>) -> Option<Value> {
    let found = cause?;
    Some(json!({
        "code": cause_word(cause),
        "instance": instance,
        "message": text(&found.message),
        "since": moment(found.since_unix_ms),
    }))
}

fn protocol(protocol: pb::Protocol) -> &'static str {
    match protocol {
        pb::Protocol::Grpc => "grpc",
        pb::Protocol::Tcp => "tcp",
        pb::Protocol::Unspecified | pb::Protocol::Http1 | pb::Protocol::Http2 => "http",
    }
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn number(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn measured(seconds: f64) -> Option<f64> {
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
}

fn moment(unix_ms: u64) -> Option<String> {
    (unix_ms != 0).then(|| rfc3339(unix_ms))
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
