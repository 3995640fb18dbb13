//! Sidecars and masters over real loopback connections: reports up, snapshots down, and what happens when either dies.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Master, Options, Sidecar, WITHIN, announcement, declaration, id, name, ready, spec, until};
use synego_control_plane::master::NoPlanner;
use synego_control_plane::uplink::{MasterAddress, SidecarSettings};
use synego_model::declaration::Liveness;
use synego_model::{
    AccessLines, AccessMode, Announcement, Declaration, InstanceState, MeshName, Policy, Reason, ServiceSpec,
};
use synego_runtime::{clock, tasks};

fn uses(services: &[&str]) -> Options {
    Options { uses: services.iter().map(|service| name(service)).collect(), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sidecar_reports_its_callers_know() {
    let master = Master::start(declaration([]));
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    caller.until_ready("users", 1).await;
    users.turn(InstanceState::Unhealthy);
    let snapshot = caller.until_ready("users", 0).await;
    let table = snapshot.service("users").expect("still known");
    assert_eq!(table.endpoints[0].state, InstanceState::Unhealthy);
    users.turn(InstanceState::Ready);
    caller.until_ready("users", 1).await;
    let second = Sidecar::start("users-2@vm1", vec![master.tcp()]);
    caller.until_ready("users", 2).await;
    second.kill();
    caller.until_ready("users", 1).await;
    caller.stop().await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_known_everywhere_long_before_the_next_report_is_due() {
    let liveness =
        Liveness { report: Duration::from_secs(10), suspect: Duration::from_secs(30), gone: Duration::from_secs(60) };
    let master = Master::start(Declaration { liveness, ..declaration([]) });
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    caller.until_ready("users", 1).await;
    for state in [InstanceState::Unhealthy, InstanceState::Ready].into_iter().cycle().take(6) {
        let began = clock::now();
        users.turn(state);
        caller.until_ready("users", usize::from(state.takes_requests())).await;
        let took = clock::now() - began;
        assert!(took < liveness.report / 2, "{took:?}");
    }
    caller.stop().await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_subscribed_on_demand_and_an_unknown_one_is_said_to_be_so() {
    let master = Master::start(declaration([]));
    let caller = Sidecar::start("orders-1@vm1", vec![master.tcp()]);
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    assert_eq!(caller.handle.known(&name("users")), None);
    assert!(caller.snapshots.borrow().service("users").is_none(), "nobody asked for it");
    caller.handle.want(&name("users"));
    caller.handle.want(&name("nobody"));
    caller.until_ready("users", 1).await;
    let handle = caller.handle.clone();
    until("an answer on nobody", caller.handle.changed(), |_| handle.known(&name("nobody")) == Some(false)).await;
    assert_eq!(caller.handle.known(&name("users")), Some(true));
    let late = Sidecar::start("nobody-1@vm1", vec![master.tcp()]);
    caller.until_ready("nobody", 1).await;
    for sidecar in [caller, users, late] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_reports_to_all_masters_and_takes_snapshots_from_the_next_one_within_a_second() {
    let (first, second) = (Master::start(declaration([])), Master::start(declaration([])));
    let masters = || vec![first.tcp(), second.tcp()];
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), masters(), uses(&["users"]));
    let users = Sidecar::start("users-1@vm1", masters());
    first.until_ready("users", 1).await;
    second.until_ready("users", 1).await;
    caller.until_ready("users", 1).await;
    let status = until("both linked", caller.handle.status(), |status| {
        status.masters.iter().all(|master| master.linked.is_some())
    })
    .await;
    let active = status.subscribed.expect("one is subscribed");
    let (killed, left) = if active == 0 { (first, second) } else { (second, first) };
    let began = clock::now();
    killed.kill();
    until("the other one", caller.handle.status(), |status| status.subscribed == Some(1 - active)).await;
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // And what it says counts.
    let third = Sidecar::start("users-2@vm1", vec![left.tcp()]);
    caller.until_ready("users", 2).await;
    for sidecar in [caller, users, third] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_returns_knows_all_within_five_seconds_and_no_caller_forgets_anyone_meanwhile() {
    let specs = || [spec("users", &[])];
    let master = Master::start(declaration(specs()));
    let address = master.address;
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let users: Vec<Sidecar> =
        (1..=4).map(|number| Sidecar::start(&format!("users-{number}@vm1"), vec![master.tcp()])).collect();
    caller.until_ready("users", 4).await;
    master.kill();
    until("the loss", caller.handle.status(), |status| status.subscribed.is_none()).await;
    assert_eq!(ready(&caller.snapshots.borrow(), "users").len(), 4, "routing goes on");

    let mut snapshots = caller.snapshots.clone();
    let began = clock::now();
    let master = Master::start_at(address, declaration(specs()), Arc::new(NoPlanner));
    master.until_ready("users", 4).await;
    assert!(clock::now() - began < Duration::from_secs(5));
    // Every picture that the new master gives, also the first ones, has all four.
    let watched = tokio::time::timeout(Duration::from_secs(4), async {
        loop {
            let all = ready(&snapshots.borrow_and_update(), "users").len();
            assert_eq!(all, 4, "a caller forgot some");
            snapshots.changed().await.expect("published");
        }
    });
    assert!(watched.await.is_err(), "it only ends by time");
    let status = caller.handle.status().borrow().clone();
    assert_eq!(status.subscribed, Some(0));
    assert_eq!(caller.handle.snapshot_age(), Duration::ZERO);
    for sidecar in users.into_iter().chain([caller]) {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_died_with_the_master_is_forgotten_once_the_new_one_has_settled() {
    let master = Master::start(declaration([]));
    let address = master.address;
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let stays = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let dies = Sidecar::start("users-2@vm1", vec![master.tcp()]);
    caller.until_ready("users", 2).await;
    master.kill();
    dies.kill();
    let _master = Master::start_at(address, declaration([]), Arc::new(NoPlanner));
    let snapshot = caller.until_ready("users", 1).await;
    assert_eq!(ready(&snapshot, "users"), ["users-1@vm1"]);
    for sidecar in [caller, stays] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_starts_from_the_disk_when_no_master_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("snapshot-orders-1");
    let kept = || Options { snapshot_file: Some(file.clone()), ..uses(&["users"]) };
    let master = Master::start(declaration([]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], kept());
    caller.until_ready("users", 1).await;
    caller.stop().await;
    let address = master.tcp();
    master.kill();
    // Without `uses`: the disk also says what was called before.
    let options = Options { uses: Vec::new(), ..kept() };
    let again = Sidecar::start_with(announcement("orders-1@vm1"), vec![address], options);
    let snapshot = again.until_ready("users", 1).await;
    assert_eq!(ready(&snapshot, "users"), ["users-1@vm1"]);
    until("the disk's word", again.handle.status(), |status| status.taken_up && status.subscribed.is_none()).await;
    until("an age", again.handle.status(), |_| !again.handle.snapshot_age().is_zero()).await;
    again.stop().await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_file_that_is_broken_is_not_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("snapshot");
    std::fs::write(&file, b"SYNSNAP1 and then something else entirely").expect("written");
    let master = Master::start(declaration([]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let options = Options { snapshot_file: Some(file), ..uses(&["users"]) };
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], options);
    caller.until_ready("users", 1).await;
    caller.stop().await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_in_the_same_process_is_linked_without_a_port() {
    let master = Master::start(declaration([]));
    let inside = MasterAddress::InProcess(master.handle.in_process());
    let users = Sidecar::start("users-1@vm1", vec![inside.clone()]);
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![inside], uses(&["users"]));
    caller.until_ready("users", 1).await;
    master.until_ready("users", 1).await;
    caller.stop().await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_says_of_access_lines_reaches_every_sidecar_live_also_of_services_that_it_does_not_name() {
    let master = Master::start(declaration([spec("users", &[])]));
    let sidecars =
        [Sidecar::start("users-1@vm1", vec![master.tcp()]), Sidecar::start("other-1@vm1", vec![master.tcp()])];
    for lines in [AccessLines::All, AccessLines::Off, AccessLines::Share(10), AccessLines::Errors] {
        master.handle.declare(Declaration { access_lines: lines, ..declaration([spec("users", &[])]) });
        for sidecar in &sidecars {
            until("the lines", sidecar.handle.settings(), |settings| settings.access_lines == Some(lines)).await;
        }
    }
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handle = master.handle.clone();
    let following = async move {
        handle
            .follow_access_lines(|lines| {
                let _ = told.send(lines);
            })
            .await
    };
    let following = tasks::spawn("test-lines", tasks::Kind::Connection, following);
    assert_eq!(heard.recv().await, Some(AccessLines::Errors), "the master's own ingress as well");
    master.handle.declare(declaration([]));
    assert_eq!(heard.recv().await, Some(AccessLines::All));
    following.abort();
    for sidecar in sidecars {
        sidecar.stop().await;
    }
    master.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_manifest_says_of_a_service_reaches_its_sidecar_and_its_callers_live() {
    let master = Master::start(declaration([spec("users", &["prices"])]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let prices = Sidecar::start("prices-1@vm1", vec![master.tcp()]);
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let settings = until("settings", users.handle.settings(), |settings| settings.declared).await;
    assert_eq!(settings.uses, [name("prices")]);
    users.until_ready("prices", 1).await;
    caller.until_ready("users", 1).await;

    let policy =
        Policy { timeout: Duration::from_millis(777), try_timeout: Duration::from_millis(500), ..Policy::default() };
    let changed = ServiceSpec { policy: Arc::new(policy.clone()), ..spec("users", &["prices"]) };
    master.handle.declare(declaration([changed]));
    until("new settings", users.handle.settings(), |settings| settings.policy == policy).await;
    until("a new table", caller.snapshots.clone(), |snapshot| {
        snapshot.service("users").is_some_and(|table| *table.policy == policy)
    })
    .await;
    for sidecar in [users, prices, caller] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_ends_politely_leaves_no_trace_and_one_that_is_killed_leaves_its_cause() {
    let master = Master::start(declaration([spec("users", &[])]));
    let polite = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let killed = Sidecar::start("users-2@vm1", vec![master.tcp()]);
    master.until_ready("users", 2).await;
    polite.turn(InstanceState::Draining);
    polite.stop().await;
    master.until_ready("users", 1).await;
    killed.kill();
    let services = until("gone", master.handle.services(), |services| {
        services.iter().any(|service| service.state == InstanceState::Gone)
    })
    .await;
    let cause = services[0].cause.clone().expect("a cause");
    assert_eq!(cause.reason, Reason::SidecarGone);
    assert!(cause.message.starts_with("users-2@vm1 is gone"), "{}", cause.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sidecar_takes_the_place_of_the_one_before_at_once() {
    let master = Master::start(declaration([]));
    let old = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    let incarnation = |snapshot: &synego_model::Snapshot| {
        snapshot.service("users").map(|table| table.endpoints.iter().map(|e| e.incarnation.clone()).collect::<Vec<_>>())
    };
    let before = incarnation(&master.handle.snapshots().borrow());
    let new = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let after = until("the new one", master.handle.snapshots(), |snapshot| {
        ready(snapshot, "users").len() == 1 && incarnation(snapshot) != before
    })
    .await;
    assert_eq!(incarnation(&after).map(|all| all.len()), Some(1));
    let status =
        until("the old one is told", old.handle.status(), |status| status.masters[0].last_error.is_some()).await;
    let error = status.masters[0].last_error.clone().expect("told");
    assert!(error.contains("another sidecar"), "{error}");
    old.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_another_mesh_is_refused_and_says_why() {
    let master = Master::start(declaration([]));
    let options = Options { mesh: MeshName::new("market").ok(), ..Options::default() };
    let stranger = Sidecar::start_with(announcement("users-1@vm1"), vec![master.tcp()], options);
    let status = until("a refusal", stranger.handle.status(), |status| status.masters[0].last_error.is_some()).await;
    let error = status.masters[0].last_error.clone().expect("told");
    assert_eq!(error, "the sidecar belongs to market, this master to shop");
    assert!(master.handle.snapshots().borrow().service("users").is_none());
    stranger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sidecar_is_suspected_then_gone_while_its_link_still_stands() {
    let mut quick = declaration([]);
    quick.liveness.suspect = Duration::from_millis(600);
    quick.liveness.gone = Duration::from_millis(1_200);
    let master = Master::start(quick);
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    // Whoever holds this lock stops the reports, as a sidecar that hangs does.
    let state = Arc::clone(&users.state);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let holder = tasks::spawn_blocking("test-hold", move || {
        let _held = state.lock().expect("no panic");
        let _until_released = released.recv();
    });
    let endpoint = |snapshot: &synego_model::Snapshot| {
        snapshot.service("users").and_then(|table| table.endpoints.first().map(|endpoint| endpoint.state))
    };
    let mut snapshots = master.handle.snapshots();
    let mut seen = vec![endpoint(&snapshots.borrow_and_update())];
    while seen.last() != Some(&None) {
        tokio::time::timeout(WITHIN, snapshots.changed()).await.expect("in time").expect("published");
        seen.push(endpoint(&snapshots.borrow_and_update()));
    }
    assert_eq!(seen, [Some(InstanceState::Ready), Some(InstanceState::Degraded), None]);
    release.send(()).expect("still held");
    holder.await.expect("no panic");
    master.until_ready("users", 1).await;
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_announcement_is_known_at_once() {
    let master = Master::start(declaration([]));
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    users.announcement.send_modify(|said| {
        said.version = "2.0".into();
        said.routes = Some(vec!["/people".into()]);
        said.sdk = "node/0.1.0".into();
    });
    let snapshot = until("the route", master.handle.snapshots(), |snapshot| {
        snapshot.routes().iter().any(|route| route.place.to_string() == "/people")
    })
    .await;
    assert_eq!(snapshot.routes()[0].origin, "sdk");
    assert_eq!(snapshot.service("users").expect("known").endpoints[0].version, "2.0");
    assert_eq!(snapshot.service("users").expect("known").endpoints[0].id, id("users-1@vm1"));
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_is_settled_once_what_is_declared_is_ready() {
    let master = Master::start(declaration([spec("users", &[])]));
    let began = clock::now();
    master.handle.settled(Duration::from_millis(200)).await;
    assert!(clock::now() - began >= Duration::from_millis(200), "nobody is there");
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let began = clock::now();
    master.handle.settled(WITHIN).await;
    assert!(clock::now() - began < Duration::from_secs(5));
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_ends_politely_blames_nobody_and_its_sidecars_go_to_the_next_one() {
    let (first, second) = (Master::start(declaration([])), Master::start(declaration([])));
    let masters = || vec![first.tcp(), second.tcp()];
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), masters(), uses(&["users"]));
    let users = Sidecar::start("users-1@vm1", masters());
    caller.until_ready("users", 1).await;
    first.until_ready("users", 1).await;
    let status = until("both linked", caller.handle.status(), |status| {
        status.masters.iter().all(|master| master.linked.is_some())
    })
    .await;
    let active = status.subscribed.expect("one is subscribed");
    let (ends, stays) = if active == 0 { (&first, &second) } else { (&second, &first) };
    ends.stop();
    until("the other one", caller.handle.status(), |status| status.subscribed == Some(1 - active)).await;
    stays.until_ready("users", 1).await;
    assert_eq!(ready(&ends.handle.snapshots().borrow(), "users"), ["users-1@vm1"], "its ingress may still drain");
    assert_eq!(ready(&caller.snapshots.borrow(), "users"), ["users-1@vm1"]);
    for sidecar in [caller, users] {
        sidecar.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_sidecars_come_and_go_and_their_caller_always_knows_who_is_there() {
    let master = Master::start(declaration([]));
    let caller = Sidecar::start_with(announcement("orders-1@vm1"), vec![master.tcp()], uses(&["users"]));
    let all: Vec<Sidecar> =
        (1..=100).map(|number| Sidecar::start(&format!("users-{number}@vm1"), vec![master.tcp()])).collect();
    caller.until_ready("users", 100).await;
    let mut left = Vec::new();
    for (number, sidecar) in all.into_iter().enumerate() {
        if number % 2 == 0 {
            sidecar.turn(InstanceState::Draining);
            sidecar.stop().await;
        } else {
            left.push(sidecar);
        }
    }
    let snapshot = caller.until_ready("users", 50).await;
    let mut expected: Vec<String> = (1..=50).map(|number| format!("users-{}@vm1", number * 2)).collect();
    expected.sort();
    assert_eq!(ready(&snapshot, "users"), expected);
    for sidecar in left {
        sidecar.kill();
    }
    caller.until_ready("users", 0).await;
    caller.stop().await;
}

fn may_call(settings: &SidecarSettings) -> Vec<String> {
    settings.callers.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_call_a_service_reaches_its_sidecar_live_and_outlasts_masters() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("snapshot-users-1");
    let kept = || Options { snapshot_file: Some(file.clone()), ..Options::default() };
    let master = Master::start(declaration([spec("users", &[]), spec("orders", &["users"])]));
    let users = Sidecar::start_with(announcement("users-1@vm1"), vec![master.tcp()], kept());
    let said = until("settings", users.handle.settings(), |settings| settings.access.is_some()).await;
    assert_eq!(may_call(&said), ["orders"]);
    assert!(said.access.is_some_and(|access| access.declared && access.mode == AccessMode::Enforce));

    let reports = Announcement { uses: vec![name("users")], ..announcement("reports-1@vm1") };
    let reports = Sidecar::start_with(reports, vec![master.tcp()], Options::default());
    until("the stranger", users.handle.settings(), |settings| may_call(settings) == ["orders", "reports"]).await;
    let changed = Declaration {
        access: AccessMode::Observe,
        ..declaration([spec("users", &[]), spec("orders", &[]), spec("mails", &["users"])])
    };
    master.handle.declare(changed.clone());
    let observed = |settings: &SidecarSettings| {
        settings.access.as_ref().is_some_and(|access| access.mode == AccessMode::Observe)
            && may_call(settings) == ["mails", "reports"]
    };
    until("the change", users.handle.settings(), observed).await;
    // A master that starts knows the stranger only once that one has linked: until then he keeps his permission.
    let settings = users.handle.settings();
    let address = master.kill();
    reports.kill();
    let again = Master::start_at(address, changed, Arc::new(NoPlanner));
    until("a new link", users.handle.status(), |status| status.masters[0].linked.is_some()).await;
    assert_eq!(may_call(&settings.borrow()), ["mails", "reports"]);
    until("the stranger is gone", users.handle.settings(), |settings| may_call(settings) == ["mails"]).await;
    users.stop().await;
    drop(again);

    let cold = Sidecar::start_with(announcement("users-1@vm1"), vec![MasterAddress::Tcp("127.0.0.1:1".into())], kept());
    until("the disk's word", cold.handle.settings(), |settings| may_call(settings) == ["mails"]).await;
    cold.stop().await;
}
