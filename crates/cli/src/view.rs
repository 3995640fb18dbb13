//! A mesh as programs and people see it: the admin API's messages as JSON fields and as rows.

pub(crate) mod json;
pub(crate) mod rows;

use synego_model::Reason;
use synego_wire::pb;

/// The word of a cause; `None` when there is no cause.
pub(crate) fn cause_word(cause: Option<&pb::StateCause>) -> Option<&'static str> {
    Reason::from_number(cause?.reason).map(Reason::word)
}

/// A cause in one line: its word and what was said of it; empty when there is none.
pub(crate) fn cause_line(cause: Option<&pb::StateCause>) -> String {
    match (cause_word(cause), cause.map_or("", |cause| cause.message.as_str())) {
        (None, message) => message.to_owned(),
        (Some(word), "") => word.to_owned(),
        // Nothing is wrong with it.
        (Some("job_done"), message) => format!("job done, {message}"),
        (Some(word), message) => format!("{word}: {message}"),
    }
}

/// Whether a service is a job that has ended as it should, in all its instances.
pub(crate) fn is_done(service: &pb::ServiceView) -> bool {
    service.state() == pb::InstanceState::Gone && cause_word(service.cause.as_ref()) == Some("job_done")
}

/// Why a service is as it is: the cause of the first instance that is not ready (one that is merely on its way comes
/// last), else its own.
pub(crate) fn service_cause(service: &pb::ServiceView) -> Option<(Option<&pb::InstanceView>, &pb::StateCause)> {
    if service.state() == pb::InstanceState::Ready || is_done(service) {
        return service.cause.as_ref().map(|cause| (None, cause));
    }
    let troubled = service.instance.iter().filter(|instance| instance.state() != pb::InstanceState::Ready);
    let causes = troubled.filter_map(|instance| Some((Some(instance), instance.cause.as_ref()?)));
    let is_course = |cause: &pb::StateCause| cause.reason == pb::Reason::Starting as i32;
    causes.min_by_key(|(_, cause)| is_course(cause)).or_else(|| service.cause.as_ref().map(|cause| (None, cause)))
}

/// The last words of a route: its conditions beside the place.
pub(crate) fn conditions(route: &pb::RouteView) -> String {
    let mut words = Vec::new();
    if route.exact {
        words.push("exact".to_owned());
    }
    if !route.method.is_empty() {
        words.push(route.method.join(","));
    }
    words.extend(route.header.iter().cloned());
    words.join("  ")
}

/// How an instance is picked, as the manifest says it.
pub(crate) fn balance_word(balance: Option<&pb::Balance>) -> String {
    use pb::balance::{HashKey, Kind};
    match balance.map(|balance| (balance.kind(), &balance.hash_key)) {
        Some((Kind::Least, _)) => "least".into(),
        Some((Kind::RoundRobin, _)) => "round_robin".into(),
        Some((Kind::Random, _)) => "random".into(),
        Some((Kind::Hash, Some(HashKey::Header(name)))) => format!("hash header {name}"),
        Some((Kind::Hash, Some(HashKey::Cookie(name)))) => format!("hash cookie {name}"),
        Some((Kind::Hash, Some(HashKey::Query(name)))) => format!("hash query {name}"),
        Some((Kind::Hash, None)) => "hash".into(),
        Some((Kind::Load | Kind::Unspecified, _)) | None => "load".into(),
    }
}
