//! When `up` counts as done: every service is ready, or has had its time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use synego_manifest::Manifest;
use synego_model::process::NO_LIMIT;
use synego_model::{LocalService, Reason, ServiceName};
use synego_wire::pb;

use super::board::is_ready;
use super::order;
use crate::view;

/// What the gateway is called beside the services.
pub(crate) const GATEWAY: &str = "gateway";
/// Time over `within` in which the supervisor's own word may still come: it knows better what happened.
const GRACE: Duration = Duration::from_secs(1);

/// A service that was started, and what it was given.
#[derive(Debug, Clone)]
struct Awaited {
    within: Duration,
    after: Vec<String>,
    /// Those it uses and that start before it, if they start at all.
    first: Vec<String>,
    /// When it could begin: what it comes after is ready, and it is built.
    begun: Option<Instant>,
}

/// Judges views of the mesh.
#[derive(Debug, Clone)]
pub(crate) struct Judge {
    awaited: BTreeMap<String, Awaited>,
    /// Whether the gateway is awaited too.
    gateway: bool,
    /// Those that were late at the last look.
    late: Vec<String>,
}

/// A service that did not become ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Late {
    /// Its name.
    pub(crate) service: String,
    /// The instance that is to blame; empty: none is known.
    pub(crate) instance: String,
    /// How long it was given.
    pub(crate) within: Duration,
    /// Why, in one line; may be empty.
    pub(crate) cause: String,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Some are on their way: these.
    Waiting(Vec<String>),
    /// All are ready.
    Ready,
    /// Whatever could become ready is; these did not.
    Late(Vec<Late>),
}

impl Judge {
    /// Of the services of this machine (`only`: of these alone, if there are any) and, if `gateway`, of what faces the
    /// world.
    pub(crate) fn new(manifest: &Manifest, only: &[String], gateway: bool) -> Self {
        let local = manifest
            .local
            .iter()
            .filter(|local| only.is_empty() || only.iter().any(|name| *name == local.spec.name.as_str()));
        let local: Vec<&LocalService> = local.filter(|local| local.instances() > 0).collect();
        let first = order::used_first(&local);
        let names = |names: &[ServiceName]| names.iter().map(ToString::to_string).collect();
        let awaited = local.iter().map(|local| {
            let (after, within) = (names(&local.after), local.ready.within);
            let first = first.get(&local.spec.name).map(|first| names(first)).unwrap_or_default();
            (local.spec.name.to_string(), Awaited { within, after, first, begun: None })
        });
        Self { awaited: awaited.collect(), gateway, late: Vec::new() }
    }

    /// Judges what the mesh says at `now`.
    pub(crate) fn look(&mut self, view: &pb::MeshView, now: Instant) -> Verdict {
        let of = |name: &str| view.service.iter().find(|service| service.name == name);
        let ready: Vec<String> = self.awaited.keys().filter(|name| of(name).is_some_and(is_ready)).cloned().collect();
        let mut waiting = Vec::new();
        let mut late: Vec<Late> = Vec::new();
        for (name, awaited) in &mut self.awaited {
            if ready.contains(name) {
                continue;
            }
            let service = of(name);
            let is_blocked = awaited.after.iter().any(|before| !ready.contains(before))
                || awaited.first.iter().any(|used| !ready.contains(used) && !self.late.contains(used));
            if !is_blocked && awaited.begun.is_none() && !service.is_some_and(builds) {
                awaited.begun = Some(now);
            }
            let limit = awaited.within.saturating_add(GRACE);
            let is_over = awaited.begun.is_some_and(|begun| now.duration_since(begun) > limit);
            match service.and_then(given_up) {
                Some((instance, cause)) => {
                    late.push(Late { service: name.clone(), instance, within: awaited.within, cause })
                }
                None if is_over => {
                    let cause = service.and_then(view::service_cause);
                    late.push(Late {
                        service: name.clone(),
                        instance: cause
                            .and_then(|(instance, _)| instance)
                            .map(|instance| instance.id.clone())
                            .unwrap_or_default(),
                        within: awaited.within,
                        cause: cause.map(|(_, cause)| view::cause_line(Some(cause))).unwrap_or_default(),
                    });
                }
                None => waiting.push(name.clone()),
            }
        }
        // What waits for a service that failed waits in vain.
        loop {
            let lost = waiting.iter().position(|name| {
                let after = self.awaited.get(name).map(|awaited| awaited.after.as_slice()).unwrap_or_default();
                after.iter().any(|before| late.iter().any(|late| late.service == *before))
            });
            let Some(index) = lost else { break };
            let service = waiting.remove(index);
            let within = self.awaited.get(&service).map_or(Duration::ZERO, |awaited| awaited.within);
            let cause = "it comes after a service that is not ready".to_owned();
            late.push(Late { service, instance: String::new(), within, cause });
        }
        self.late = late.iter().map(|late| late.service.clone()).collect();
        if self.gateway {
            match view.gateway.as_ref().map(|gateway| (gateway.state(), gateway.cause.as_ref())) {
                Some((pb::InstanceState::Ready, _)) => {}
                Some((pb::InstanceState::Unhealthy | pb::InstanceState::Gone, cause)) => late.push(Late {
                    service: GATEWAY.to_owned(),
                    instance: String::new(),
                    within: Duration::ZERO,
                    cause: view::cause_line(cause),
                }),
                _ => waiting.push(GATEWAY.to_owned()),
            }
        }
        match (waiting.is_empty(), late.is_empty()) {
            (true, true) => Verdict::Ready,
            (true, false) => Verdict::Late(late),
            (false, _) => Verdict::Waiting(waiting),
        }
    }

    /// The longest time that any of `names` has to become ready; `None`: one of them, a job, takes as long as it takes.
    pub(crate) fn longest(&self, names: &[String]) -> Option<Duration> {
        let within = names.iter().filter_map(|name| self.awaited.get(name)).map(|awaited| awaited.within);
        within.max().filter(|within| *within != NO_LIMIT)
    }

    /// How many services are awaited.
    pub(crate) fn count(&self) -> usize {
        self.awaited.len()
    }
}

fn builds(service: &pb::ServiceView) -> bool {
    service
        .instance
        .iter()
        .any(|instance| instance.cause.as_ref().is_some_and(|cause| cause.message.starts_with("build")))
}

/// The instance whose supervisor does not expect it to become ready any more, and why.
fn given_up(service: &pb::ServiceView) -> Option<(String, String)> {
    const FINAL: [Reason; 4] = [Reason::BuildFailed, Reason::StartFailed, Reason::CrashLoop, Reason::NotReadyInTime];
    const ENDS: [Reason; 2] = [Reason::ProcessExited, Reason::OutOfMemory];
    let troubled = service.instance.iter().find(|instance| {
        let reason = instance.cause.as_ref().and_then(|cause| Reason::from_number(cause.reason));
        // A job that failed is not started again.
        let ended = instance.state() == pb::InstanceState::Unhealthy;
        reason.is_some_and(|reason| FINAL.contains(&reason) || (ended && ENDS.contains(&reason)))
    })?;
    Some((troubled.id.clone(), view::cause_line(troubled.cause.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(services: &[(&str, &[&str])]) -> Judge {
        let awaited = services.iter().map(|(name, after)| {
            let after = after.iter().map(|name| (*name).to_owned()).collect();
            ((*name).to_owned(), Awaited { within: Duration::from_secs(30), after, first: Vec::new(), begun: None })
        });
        Judge { awaited: awaited.collect(), gateway: false, late: Vec::new() }
    }

    type Said<'a> = (&'a str, pb::InstanceState, Option<(Reason, &'a str)>);

    fn view(services: &[Said<'_>]) -> pb::MeshView {
        let service = services.iter().map(|(name, state, cause)| pb::ServiceView {
            name: (*name).to_owned(),
            state: (*state).into(),
            ready: u32::from(*state == pb::InstanceState::Ready),
            wanted: 1,
            instance: vec![pb::InstanceView {
                id: format!("{name}-1@local"),
                state: (*state).into(),
                cause: cause.map(|(reason, message)| pb::StateCause {
                    reason: reason as i32,
                    message: message.into(),
                    since_unix_ms: 1,
                }),
                ..Default::default()
            }],
            ..Default::default()
        });
        pb::MeshView { service: service.collect(), ..Default::default() }
    }

    const READY: pb::InstanceState = pb::InstanceState::Ready;
    const STARTING: pb::InstanceState = pb::InstanceState::Starting;

    #[test]
    fn all_are_ready_or_some_are_waited_for() {
        let mut judge = judge(&[("a", &[]), ("b", &[])]);
        let begun = synego_runtime::clock::now();
        assert_eq!(judge.look(&view(&[("a", READY, None)]), begun), Verdict::Waiting(vec!["b".into()]));
        assert_eq!(judge.look(&view(&[("a", READY, None), ("b", READY, None)]), begun), Verdict::Ready);
    }

    #[test]
    fn the_gateway_is_waited_for_like_a_service() {
        let mut judge = Judge { gateway: true, ..judge(&[("a", &[])]) };
        let now = synego_runtime::clock::now();
        let mut view = view(&[("a", READY, None)]);
        assert_eq!(judge.look(&view, now), Verdict::Waiting(vec!["gateway".into()]));
        view.gateway = Some(pb::GatewayView { state: READY.into(), ..Default::default() });
        assert_eq!(judge.look(&view, now), Verdict::Ready);
        view.gateway = Some(pb::GatewayView { state: pb::InstanceState::Unhealthy.into(), ..Default::default() });
        assert!(matches!(judge.look(&view, now), Verdict::Late(late) if late[0].service == "gateway"));
    }

    #[test]
    fn a_service_has_its_time_and_a_build_does_not_count() {
        let mut judge = judge(&[("a", &[])]);
        let begun = synego_runtime::clock::now();
        let building = view(&[("a", STARTING, Some((Reason::Starting, "building")))]);
        let starting = view(&[("a", STARTING, None)]);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(judge.look(&building, at(0)), Verdict::Waiting(vec!["a".into()]));
        assert_eq!(judge.look(&building, at(300)), Verdict::Waiting(vec!["a".into()]));
        assert_eq!(judge.look(&starting, at(300)), Verdict::Waiting(vec!["a".into()]));
        assert_eq!(judge.look(&starting, at(330)), Verdict::Waiting(vec!["a".into()]));
        assert!(matches!(judge.look(&starting, at(332)), Verdict::Late(late) if late[0].service == "a"));
    }

    #[test]
    fn a_job_that_is_done_counts_as_ready_and_one_that_failed_is_told() {
        let mut judge = judge(&[("migrate", &[]), ("api", &["migrate"])]);
        let now = synego_runtime::clock::now();
        let mut done =
            view(&[("migrate", pb::InstanceState::Gone, Some((Reason::JobDone, "exit 0"))), ("api", READY, None)]);
        done.service[0].cause = done.service[0].instance[0].cause.clone();
        assert_eq!(judge.look(&done, now), Verdict::Ready);
        let ended = Some((Reason::ProcessExited, "exited with code 3"));
        let failed = view(&[("migrate", pb::InstanceState::Unhealthy, ended), ("api", STARTING, None)]);
        let Verdict::Late(late) = judge.look(&failed, now) else { panic!("nothing is late") };
        assert_eq!(late.iter().map(|late| late.service.as_str()).collect::<Vec<_>>(), ["migrate", "api"]);
        assert_eq!(late[0].cause, "process_exited: exited with code 3");
    }

    #[test]
    fn a_service_given_up_takes_those_that_come_after_it_along() {
        let mut judge = judge(&[("migrate", &[]), ("api", &["migrate"]), ("web", &["api"])]);
        let now = synego_runtime::clock::now();
        let failed = view(&[("migrate", STARTING, Some((Reason::BuildFailed, "code 2")))]);
        let Verdict::Late(late) = judge.look(&failed, now) else { panic!("nothing is late") };
        let names: Vec<&str> = late.iter().map(|late| late.service.as_str()).collect();
        assert_eq!(names, ["migrate", "api", "web"]);
        assert_eq!((late[0].instance.as_str(), late[0].cause.as_str()), ("migrate-1@local", "build_failed: code 2"));
    }
}
