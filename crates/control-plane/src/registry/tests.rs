//! The registry by tables: who is alive, which routes hold, what is published.

use std::net::SocketAddr;
use std::time::Duration;

use synego_model::declaration::Liveness;
use synego_model::{
    AccessMode, AccessRules, CallFigures, Cause, Denial, EjectionReport, InstanceState, Limits, MeshName, Policy,
    Protocol, Reason, ServiceSpec,
};

use super::*;

const TICK: u64 = 200;

fn at(ms: u64) -> At {
    At { ms, unix_ms: 1_000_000 + ms }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a name")
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

fn spec(service: &str, instances: u32, routes: Option<&[&str]>) -> ServiceSpec {
    let route = |place: &&str| Route::new(place.parse().expect("a place"), name(service), "synego.yaml:3");
    ServiceSpec {
        name: name(service),
        protocol: Protocol::Http,
        routes: routes.map(|places| places.iter().map(route).collect()),
        uses: Vec::new(),
        rules: AccessRules::default(),
        health: None,
        policy: Arc::new(Policy { timeout: Duration::from_secs(2), ..Policy::default() }),
        instances,
        labels: BTreeMap::new(),
    }
}

fn declared(specs: impl IntoIterator<Item = ServiceSpec>) -> Declaration {
    Declaration {
        mesh: MeshName::new("shop").expect("a name"),
        services: specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect(),
        access: AccessMode::default(),
        limits: Limits::default(),
        liveness: Liveness::default(),
        access_lines: synego_model::AccessLines::default(),
        life: synego_model::declaration::LIFE,
    }
}

fn registry(specs: impl IntoIterator<Item = ServiceSpec>) -> Registry {
    Registry::new(declared(specs), TICK)
}

/// `users-1@vm1` announces the service `users`.
fn said(instance: &str, incarnation: &str) -> Announcement {
    let id = id(instance);
    let (service, _) = id.instance().rsplit_once('-').expect("name-number");
    Announcement {
        service: name(service),
        node: synego_model::NodeName::new(id.node()).expect("a node"),
        id,
        zone: String::new(),
        incarnation: incarnation.into(),
        address: SocketAddr::from(([127, 0, 0, 1], 4000)),
        protocol: Protocol::Http,
        version: String::new(),
        labels: BTreeMap::new(),
        routes: None,
        uses: Vec::new(),
        pid: 7,
        generation: 0,
        started_unix_ms: 0,
        sdk: String::new(),
        handlers: Vec::new(),
        listens: String::new(),
        caps: String::new(),
    }
}

fn asking(instance: &str, places: &[&str]) -> Announcement {
    let routes = Some(places.iter().map(ToString::to_string).collect());
    Announcement { routes, sdk: "node/0.1.0".into(), ..said(instance, "a") }
}

fn report(state: InstanceState) -> HealthReport {
    HealthReport {
        state,
        cause: None,
        load: synego_model::InstanceLoad::default(),
        restarts: 0,
        ejections: Vec::new(),
        calls: Vec::new(),
        denials: Vec::new(),
        snapshot_age_ms: 0,
        identity: None,
    }
}

/// Links, reports ready.
fn ready(registry: &mut Registry, link: u64, announcement: Announcement, ms: u64) {
    registry.apply(Event::Linked(Link(link), announcement), at(ms));
    registry.apply(Event::Reported(Link(link), report(InstanceState::Ready)), at(ms));
}

/// Ticks from `from` to `to` as they would come.
fn ticks(registry: &mut Registry, from: u64, to: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    for ms in (from..=to).step_by(usize::try_from(TICK).expect("small")) {
        effects.extend(registry.apply(Event::Tick, at(ms)));
    }
    effects
}

fn state_of(registry: &Registry, instance: &str) -> Option<(InstanceState, Option<Reason>)> {
    let id = id(instance);
    let found = registry.instances().find(|found| found.announcement.id == id)?;
    Some((found.state, found.cause.as_ref().map(|cause| cause.reason)))
}

fn endpoints(registry: &Registry, service: &str) -> Vec<(String, InstanceState)> {
    let table = registry.table(&name(service)).expect("a known service");
    table.endpoints.iter().map(|endpoint| (endpoint.id.to_string(), endpoint.state)).collect()
}

fn places(registry: &Registry) -> Vec<String> {
    registry.routes().iter().map(|route| format!("{} {} {}", route.place, route.service, route.origin)).collect()
}

fn status(registry: &Registry, service: &str) -> ServiceStatus {
    registry.services().into_iter().find(|status| status.name == name(service)).expect("a known service")
}

#[test]
fn an_instance_starts_then_takes_requests_once_it_says_so() {
    let mut registry = registry([spec("users", 1, None)]);
    registry.apply(Event::Linked(Link(1), said("users-1@vm1", "a")), at(0));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Starting, Some(Reason::Starting))));
    let effects = registry.apply(Event::Reported(Link(1), report(InstanceState::Ready)), at(100));
    assert!(effects.iter().any(|effect| matches!(
        effect,
        Effect::Turned { from: Some(InstanceState::Starting), to: InstanceState::Ready, .. }
    )));
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Ready)]);
    let ready_at = registry.table(&name("users")).expect("known").endpoints[0].ready_unix_ms;
    assert_eq!(ready_at, at(100).unix_ms);
}

#[test]
fn silence_makes_suspect_then_gone_and_a_report_brings_back() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ticks(&mut registry, 0, 2_800);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)));
    ticks(&mut registry, 3_000, 9_800);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::ReportMissing))));
    ticks(&mut registry, 10_000, 10_000);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Gone, Some(Reason::ReportMissing))));
    assert_eq!(endpoints(&registry, "users"), []);
    registry.apply(Event::Reported(Link(1), report(InstanceState::Ready)), at(10_100));
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Ready)]);
}

#[test]
fn a_judge_that_stood_still_blames_nobody_for_it() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ticks(&mut registry, 0, 1_000);
    // Nothing for half a minute, neither ticks nor reports: the process was stopped.
    registry.apply(Event::Tick, at(31_000));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)));
    // From then on silence counts again.
    ticks(&mut registry, 31_200, 33_200);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::ReportMissing))));
}

#[test]
fn the_end_of_a_link_is_the_end_of_the_instance_at_once_with_its_cause() {
    let mut registry = registry([spec("users", 2, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ready(&mut registry, 2, said("users-2@vm1", "b"), 0);
    let effects = registry.apply(Event::Unlinked(Link(2)), at(50));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Published { .. })));
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Ready)]);
    assert_eq!(state_of(&registry, "users-2@vm1"), Some((InstanceState::Gone, Some(Reason::SidecarGone))));
    let whole = status(&registry, "users");
    assert_eq!((whole.state, whole.ready, whole.wanted), (InstanceState::Degraded, 1, 2));
    assert!(whole.cause.expect("a cause").message.starts_with("users-2@vm1 is gone"));
    ticks(&mut registry, 200, 61_000);
    assert_eq!(state_of(&registry, "users-2@vm1"), None);
}

#[test]
fn an_instance_that_drained_leaves_nothing_to_explain() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    registry.apply(Event::Reported(Link(1), report(InstanceState::Draining)), at(10));
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Draining)]);
    registry.apply(Event::Unlinked(Link(1)), at(20));
    assert_eq!(state_of(&registry, "users-1@vm1"), None);
}

#[test]
fn a_new_incarnation_replaces_the_old_one_at_once_and_the_old_one_stays_away() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    let effects = registry.apply(Event::Linked(Link(2), said("users-1@vm1", "b")), at(10));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Superseded(Link(1)))));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Starting, Some(Reason::Starting))));
    registry.apply(Event::Unlinked(Link(1)), at(11));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Starting, Some(Reason::Starting))));
    let effects = registry.apply(Event::Linked(Link(3), said("users-1@vm1", "a")), at(20));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Refused(Link(3), _))));
    // Once the newer one is gone, the older one may speak again.
    registry.apply(Event::Unlinked(Link(2)), at(30));
    let effects = registry.apply(Event::Linked(Link(4), said("users-1@vm1", "a")), at(40));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Refused(..))));
}

#[test]
fn a_reconnect_of_the_same_incarnation_changes_nothing_for_callers() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    let epoch = registry.snapshot().epoch();
    registry.apply(Event::Linked(Link(2), said("users-1@vm1", "a")), at(10));
    registry.apply(Event::Unlinked(Link(1)), at(11));
    assert_eq!(registry.snapshot().epoch(), epoch);
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Ready)]);
}

#[test]
fn a_report_that_changes_nothing_publishes_nothing() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    let epoch = registry.snapshot().epoch();
    for ms in 1..20 {
        let mut report = report(InstanceState::Ready);
        report.load.requests_total = ms;
        assert!(registry.apply(Event::Reported(Link(1), report), at(ms)).is_empty());
    }
    assert_eq!(registry.snapshot().epoch(), epoch);
}

#[test]
fn an_instance_that_most_callers_leave_out_is_degraded_and_says_why() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    for (link, caller) in [(2, "orders-1@vm1"), (3, "orders-2@vm1"), (4, "orders-3@vm1")] {
        ready(&mut registry, link, said(caller, "c"), 0);
    }
    let calls = vec![CallFigures { service: name("users"), requests: 5, failures: 5 }];
    let leaves_out = |out: bool| {
        let cause = Cause { reason: Reason::ConnectFailed, message: "refused".into(), since_unix_ms: 5 };
        let ejection = EjectionReport { instance: id("users-1@vm1"), cause, remaining_ms: 5_000 };
        let ejections = if out { vec![ejection] } else { Vec::new() };
        HealthReport { ejections, calls: calls.clone(), ..report(InstanceState::Ready) }
    };
    registry.apply(Event::Reported(Link(2), leaves_out(true)), at(10));
    registry.apply(Event::Reported(Link(3), leaves_out(false)), at(10));
    registry.apply(Event::Reported(Link(4), leaves_out(false)), at(10));
    registry.apply(Event::Tick, at(20));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)), "one of three");
    assert_eq!(registry.ejected_by(&id("users-1@vm1"), at(20)).len(), 1);
    registry.apply(Event::Reported(Link(3), leaves_out(true)), at(30));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::Ejected))));
    assert_eq!(endpoints(&registry, "users"), [("users-1@vm1".to_owned(), InstanceState::Degraded)]);
    registry.apply(Event::Reported(Link(2), leaves_out(false)), at(40));
    registry.apply(Event::Reported(Link(3), leaves_out(false)), at(40));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)));
}

#[test]
fn what_the_manifest_lists_wins_over_what_a_service_asks_for() {
    let mut registry = registry([spec("users", 1, Some(&["/people"])), spec("orders", 1, None)]);
    ready(&mut registry, 1, asking("users-1@vm1", &["/users"]), 0);
    ready(&mut registry, 2, asking("orders-1@vm1", &["/orders"]), 0);
    assert_eq!(places(&registry), ["/orders orders sdk", "/people users synego.yaml:3"]);
}

#[test]
fn of_two_services_that_ask_for_a_place_the_first_keeps_it_also_over_a_restart() {
    let mut registry = registry([]);
    ready(&mut registry, 1, asking("users-1@vm1", &["/same"]), 0);
    ready(&mut registry, 2, asking("orders-1@vm1", &["/same"]), 10);
    assert_eq!(places(&registry), ["/same users sdk"]);
    let notice = &registry.notices()[0];
    assert_eq!((notice.code.as_str(), &notice.service), ("route_taken", &Some(name("orders"))));
    registry.apply(Event::Unlinked(Link(1)), at(20));
    ready(&mut registry, 3, asking("users-1@vm1", &["/same"]), 30);
    assert_eq!(places(&registry), ["/same users sdk"]);
    registry.apply(Event::Unlinked(Link(3)), at(40));
    ticks(&mut registry, 200, 70_000);
    assert_eq!(places(&registry), ["/same orders sdk"], "once no one remembers the first");
    assert!(registry.notices().is_empty());
}

#[test]
fn a_place_of_the_manifest_is_not_given_to_one_that_asks() {
    let mut registry = registry([spec("users", 1, Some(&["/users"]))]);
    ready(&mut registry, 1, asking("orders-1@vm1", &["/users"]), 0);
    assert_eq!(places(&registry), ["/users users synego.yaml:3"]);
    assert_eq!(registry.notices()[0].code, "route_taken");
}

#[test]
fn a_service_that_is_alone_gets_everything_unless_someone_said_otherwise() {
    let mut alone = registry([spec("hello", 1, None)]);
    assert_eq!(places(&alone), ["/ hello default"]);
    ready(&mut alone, 1, said("hello-1@vm1", "a"), 0);
    assert_eq!(places(&alone), ["/ hello default"]);
    ready(&mut alone, 2, said("other-1@vm1", "a"), 0);
    assert_eq!(places(&alone), Vec::<String>::new());
    assert_eq!(places(&registry([spec("hello", 1, Some(&[]))])), Vec::<String>::new());
    let mut asks = registry([]);
    ready(&mut asks, 1, asking("hello-1@vm1", &[]), 0);
    assert_eq!(places(&asks), Vec::<String>::new(), "an empty list that was said keeps it inside");
    let mut tcp = registry([]);
    ready(&mut tcp, 1, Announcement { protocol: Protocol::Tcp, ..said("db-1@vm1", "a") }, 0);
    assert_eq!(places(&tcp), Vec::<String>::new());
}

#[test]
fn a_declared_service_is_known_and_starting_before_anyone_reports() {
    let registry = registry([spec("users", 2, None)]);
    let whole = status(&registry, "users");
    assert_eq!((whole.state, whole.ready, whole.wanted), (InstanceState::Starting, 0, 2));
    assert_eq!(endpoints(&registry, "users"), []);
    assert_eq!(registry.table(&name("users")).expect("known").policy.timeout, Duration::from_secs(2));
}

#[test]
fn a_service_is_as_well_as_its_instances() {
    use InstanceState::{Degraded, Draining, Gone, Ready, Starting, Unhealthy};
    let table: &[(&[InstanceState], InstanceState)] = &[
        (&[Ready, Ready], Ready),
        (&[Ready, Degraded], Degraded),
        (&[Ready, Unhealthy], Degraded),
        (&[Ready, Starting], Degraded),
        (&[Starting, Unhealthy], Starting),
        (&[Unhealthy, Unhealthy], Unhealthy),
        (&[Draining, Draining], Draining),
        (&[Gone, Gone], Gone),
    ];
    for (states, whole) in table {
        let mut registry = registry([spec("users", 2, None)]);
        for (number, state) in (1_u64..).zip(*states) {
            ready(&mut registry, number, said(&format!("users-{number}@vm1"), "a"), 0);
            registry.apply(Event::Reported(Link(number), report(*state)), at(1));
        }
        assert_eq!(status(&registry, "users").state, *whole, "{states:?}");
        assert_eq!(status(&registry, "users").cause.is_none(), *whole == Ready, "{states:?}");
    }
}

#[test]
fn wanted_instances_count_on_each_machine() {
    let mut registry = registry([spec("users", 2, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ready(&mut registry, 2, said("users-1@vm2", "a"), 0);
    assert_eq!(status(&registry, "users").wanted, 4);
}

#[test]
fn a_new_declaration_changes_policies_and_tells_which_services() {
    let mut registry = registry([spec("users", 1, None), spec("orders", 1, None)]);
    let mut next = spec("users", 1, None);
    next.policy = Arc::new(Policy { timeout: Duration::from_secs(9), ..Policy::default() });
    let effects = registry.apply(Event::Declared(declared([next, spec("orders", 1, None)])), at(5));
    let [Effect::Published { changed, snapshot }] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!(changed.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["users"]);
    assert_eq!(snapshot.service("users").expect("known").policy.timeout, Duration::from_secs(9));
}

#[test]
fn a_restarted_process_is_another_incarnation_to_its_callers() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, Announcement { started_unix_ms: 5, ..said("users-1@vm1", "a") }, 0);
    let first = registry.table(&name("users")).expect("known").endpoints[0].incarnation.clone();
    let next = Announcement { started_unix_ms: 9, ..said("users-1@vm1", "a") };
    registry.apply(Event::Announced(Link(1), next), at(10));
    assert_ne!(registry.table(&name("users")).expect("known").endpoints[0].incarnation, first);
}

#[test]
fn an_instance_counts_as_new_from_when_it_was_seen_to_become_ready_not_from_when_a_master_came() {
    let ready_unix_ms = |registry: &Registry| registry.table(&name("users")).expect("known").endpoints[0].ready_unix_ms;
    let running = || Announcement { started_unix_ms: 77, ..said("users-1@vm1", "a") };
    let mut late = registry([spec("users", 1, None)]);
    ready(&mut late, 1, running(), 50_000);
    assert_eq!(ready_unix_ms(&late), 77, "it was warm before this master came");
    let mut early = registry([spec("users", 1, None)]);
    early.apply(Event::Linked(Link(1), running()), at(0));
    for (ms, state, expected) in [
        (10, InstanceState::Starting, 0),
        (20, InstanceState::Ready, at(20).unix_ms),
        (30, InstanceState::Degraded, at(20).unix_ms),
        (40, InstanceState::Unhealthy, 0),
        (50, InstanceState::Ready, at(50).unix_ms),
    ] {
        early.apply(Event::Reported(Link(1), report(state)), at(ms));
        assert_eq!(ready_unix_ms(&early), expected, "{state} at {ms}");
    }
}

#[test]
fn events_that_come_together_make_one_snapshot() {
    let mut registry = registry([spec("users", 1, None)]);
    let epoch = registry.snapshot().epoch();
    for link in 1..=5 {
        registry.take(Event::Linked(Link(link), said(&format!("users-{link}@vm1"), "a")), at(0));
        registry.take(Event::Reported(Link(link), report(InstanceState::Ready)), at(0));
    }
    assert_eq!(registry.pending(), Some(Pending::Change));
    assert!(matches!(registry.publish(), Some(Effect::Published { .. })));
    assert_eq!((registry.pending(), registry.snapshot().epoch().0), (None, epoch.0 + 1));
    assert_eq!(endpoints(&registry, "users").len(), 5);
    assert!(registry.publish().is_none());
}

#[test]
fn how_busy_an_instance_is_may_wait_and_what_it_becomes_may_not() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    let mut busy = report(InstanceState::Ready);
    busy.load.utilization = Some(0.5);
    registry.take(Event::Reported(Link(1), busy.clone()), at(10));
    assert_eq!(registry.pending(), Some(Pending::Load));
    registry.take(Event::Reported(Link(1), report(InstanceState::Draining)), at(20));
    assert_eq!(registry.pending(), Some(Pending::Change));
    registry.take(Event::Reported(Link(1), busy), at(30));
    registry.publish();
    assert_eq!(registry.table(&name("users")).expect("known").endpoints[0].utilization, Some(0.5));
}

#[test]
fn a_change_of_one_service_leaves_the_tables_of_others_and_the_routes_as_they_are() {
    let mut registry = registry([spec("users", 1, Some(&["/users"])), spec("orders", 1, Some(&["/orders"]))]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ready(&mut registry, 2, said("orders-1@vm1", "a"), 0);
    let before = Arc::clone(registry.snapshot());
    let effects = registry.apply(Event::Reported(Link(1), report(InstanceState::Unhealthy)), at(10));
    let published = effects.iter().find_map(|effect| match effect {
        Effect::Published { snapshot, changed } => Some((snapshot, changed)),
        _ => None,
    });
    let (after, changed) = published.expect("a snapshot");
    assert_eq!(changed.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["users"]);
    let table = |snapshot: &Snapshot| Arc::clone(snapshot.service("orders").expect("known"));
    assert!(Arc::ptr_eq(&table(&before), &table(after)), "the same table, not one like it");
    assert!(std::ptr::eq(before.routes(), after.routes()), "the same routes, not some like them");
}

#[test]
fn an_instance_that_callers_left_out_is_ready_again_once_that_is_over() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 0);
    ready(&mut registry, 2, said("orders-1@vm1", "c"), 0);
    let cause = Cause { reason: Reason::ConnectFailed, message: "refused".into(), since_unix_ms: 5 };
    let leaves_out = HealthReport {
        ejections: vec![EjectionReport { instance: id("users-1@vm1"), cause, remaining_ms: 700 }],
        calls: vec![CallFigures { service: name("users"), requests: 5, failures: 5 }],
        ..report(InstanceState::Ready)
    };
    registry.apply(Event::Reported(Link(2), leaves_out.clone()), at(10));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::Ejected))));
    ticks(&mut registry, 200, 600);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::Ejected))));
    ticks(&mut registry, 800, 800);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)), "nobody had to say so");
    registry.apply(Event::Reported(Link(2), leaves_out), at(900));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::Ejected))));
    registry.apply(Event::Unlinked(Link(2)), at(910));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)), "its caller is gone");
}

#[test]
fn silence_that_ran_out_between_two_ticks_is_seen_at_the_next_though_something_else_happened_first() {
    let mut registry = registry([spec("users", 1, None)]);
    ready(&mut registry, 1, said("users-1@vm1", "a"), 40);
    ticks(&mut registry, 200, 3_000);
    // The same announcement again, after the moment at which the silence is too long and before a tick saw it.
    registry.apply(Event::Announced(Link(1), said("users-1@vm1", "a")), at(3_100));
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Ready, None)));
    ticks(&mut registry, 3_200, 3_200);
    assert_eq!(state_of(&registry, "users-1@vm1"), Some((InstanceState::Degraded, Some(Reason::ReportMissing))));
}

#[test]
fn a_place_that_instances_share_is_routed_until_the_last_of_them_is_forgotten() {
    let mut registry = registry([]);
    ready(&mut registry, 1, asking("users-1@vm1", &["/users"]), 0);
    ready(&mut registry, 2, asking("users-2@vm1", &["/users", "/people"]), 0);
    assert_eq!(places(&registry), ["/people users sdk", "/users users sdk"]);
    let routes = registry.routes().as_ptr();
    registry.apply(Event::Reported(Link(1), report(InstanceState::Draining)), at(10));
    registry.apply(Event::Unlinked(Link(1)), at(20));
    assert!(std::ptr::eq(routes, registry.routes().as_ptr()), "nothing of them changed");
    registry.apply(Event::Announced(Link(2), asking("users-2@vm1", &["/users"])), at(30));
    assert_eq!(places(&registry), ["/users users sdk"]);
    registry.apply(Event::Reported(Link(2), report(InstanceState::Draining)), at(40));
    registry.apply(Event::Unlinked(Link(2)), at(50));
    assert_eq!(places(&registry), Vec::<String>::new());
}

fn uses(spec: ServiceSpec, names: &[&str]) -> ServiceSpec {
    ServiceSpec { uses: names.iter().map(|used| name(used)).collect(), ..spec }
}

fn callers(registry: &Registry, service: &str) -> Vec<String> {
    let table = registry.table(&name(service)).expect("a service");
    table.callers.iter().map(ToString::to_string).collect()
}

#[test]
fn who_may_call_is_the_manifests_word_and_that_of_services_which_it_does_not_name() {
    let mut registry =
        registry([spec("users", 1, None), uses(spec("orders", 1, Some(&[])), &["users"]), spec("mails", 1, Some(&[]))]);
    assert_eq!(callers(&registry, "users"), ["orders"]);
    // A service that the manifest names cannot help itself to more by what its sidecar says.
    let mails = Announcement { uses: vec![name("users")], ..said("mails-1@vm1", "a") };
    registry.apply(Event::Linked(Link(1), mails), at(0));
    assert_eq!(callers(&registry, "users"), ["orders"]);
    let reports = Announcement { uses: vec![name("users"), name("nobody")], ..said("reports-1@vm1", "a") };
    registry.apply(Event::Linked(Link(2), reports), at(0));
    assert_eq!(callers(&registry, "users"), ["orders", "reports"]);
    let notice = &registry.notices()[0];
    assert_eq!((notice.code.as_str(), &notice.service), ("undeclared_caller", &Some(name("reports"))));
    assert!(notice.message.contains("may call users because"), "{}", notice.message);
    let access = |service: &str| registry.table(&name(service)).expect("a service").access.clone();
    assert!(access("users").declared && !access("reports").declared);
    registry.apply(Event::Unlinked(Link(2)), at(0));
    registry.apply(Event::Tick, at(SHOWN_GONE_MS + 1));
    assert_eq!(callers(&registry, "users"), ["orders"]);
}

#[test]
fn a_changed_use_is_published_and_touches_no_endpoint() {
    let mut registry = registry([spec("users", 1, None), spec("orders", 1, Some(&[]))]);
    let before = registry.snapshot().epoch();
    let changed = declared([spec("users", 1, None), uses(spec("orders", 1, Some(&[])), &["users"])]);
    let effects = registry.apply(Event::Declared(changed), at(0));
    assert!(matches!(&effects[..], [Effect::Published { changed, .. }] if changed.contains("users")), "{effects:?}");
    assert!(registry.snapshot().epoch() > before);
    let open = Declaration { access: AccessMode::Open, ..declared([spec("users", 1, None)]) };
    registry.apply(Event::Declared(open), at(0));
    assert_eq!(registry.table(&name("users")).expect("users").access.mode, AccessMode::Open);
    assert_eq!(registry.notices()[0].code, "access_open");
}

#[test]
fn rules_of_routes_go_by_path_the_more_exact_first() {
    let mut users = spec("users", 1, Some(&["/", "/users", "a.example.com/users/keys"]));
    let nobody = AccessRules { allow: Some(Vec::new()), deny: Vec::new() };
    if let Some(route) = users.routes.as_mut().and_then(|routes| routes.last_mut()) {
        route.rules = nobody.clone();
    }
    let registry = registry([users, spec("orders", 1, Some(&["/orders"]))]);
    let access = |service: &str| registry.table(&name(service)).expect("a service").access.clone();
    let paths: Vec<String> = access("users").routes.iter().map(|route| route.path.to_string()).collect();
    assert_eq!(paths, ["/users/keys", "/users", "/"]);
    assert!(access("users").routes[0].rules == nobody && access("users").routes[1].rules.is_empty());
    assert!(access("orders").routes.is_empty(), "without rules nothing travels");
}

#[test]
fn refused_calls_are_shown_once_for_caller_and_callee_and_forgotten_after_a_while() {
    let mut registry = registry([spec("users", 1, None), spec("orders", 1, Some(&[]))]);
    registry.apply(Event::Linked(Link(1), said("orders-1@vm1", "a")), at(0));
    registry.apply(Event::Linked(Link(2), said("users-1@vm1", "a")), at(0));
    let denial = |count, observed| Denial {
        caller: "orders".parse().expect("a caller"),
        service: name("users"),
        observed,
        count,
        message: "why".into(),
    };
    let told = |count, observed| {
        let denials = vec![denial(count, observed)];
        HealthReport { denials, ..report(InstanceState::Ready) }
    };
    registry.apply(Event::Reported(Link(1), told(3, true)), at(10));
    registry.apply(Event::Reported(Link(2), told(2, true)), at(10));
    let shown = |registry: &Registry| -> Vec<(String, String)> {
        registry.notices().into_iter().map(|notice| (notice.code, notice.message)).collect()
    };
    let observed = "3 calls passed that `access: enforce` would refuse: why";
    assert_eq!(shown(&registry), [("would_be_denied".to_owned(), observed.to_owned())]);
    registry.apply(Event::Reported(Link(2), told(1, false)), at(20));
    assert_eq!(shown(&registry), [("denied".to_owned(), "1 call refused: why".to_owned())]);
    registry.apply(Event::Tick, at(400_000));
    assert!(shown(&registry).is_empty());
}
