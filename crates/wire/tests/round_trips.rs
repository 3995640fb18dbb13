//! What goes out comes back the same, what is broken is refused with all mistakes, and no bytes make a panic.
#![expect(clippy::expect_used, reason = "a failed test panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message;
use synego_model::{
    Access, AccessLines, AccessMode, AccessRule, AccessRules, Announcement, Balance, BalanceKind, CallFigures, Caller,
    Cause, Denial, Eject, EjectionReport, Endpoint, Epoch, HandshakesRefused, HashKey, HealthReport, HealthSpec,
    IdentityReport, InstanceId, InstanceLoad, InstanceState, Limits, MeshName, NodeName, Park, PathPattern, PeerSeen,
    Policy, Probe, Protocol, Reason, RouteAccess, ServiceName, ServiceTable, Snapshot,
};
use synego_wire::convert::attach::{Handlers, Hello, Load, Replace, State};
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::report::{Joining, report_to_wire};
use synego_wire::convert::table::{self, Picture};
use synego_wire::pb;

fn name() -> impl Strategy<Value = ServiceName> {
    "[a-z]([-a-z0-9]{0,8}[a-z0-9])?".prop_map(|text| ServiceName::new(&text).expect("a name"))
}

/// Few names, so that snapshots before and after a change share services.
fn few_names() -> impl Strategy<Value = ServiceName> {
    "[a-d]".prop_map(|text| ServiceName::new(&text).expect("a name"))
}

fn id() -> impl Strategy<Value = InstanceId> {
    ("[a-c]", 1..4u8, "[v-z]")
        .prop_map(|(service, number, node)| format!("{service}-{number}@{node}").parse().expect("an id"))
}

fn millis(min: u64, max: u64) -> impl Strategy<Value = Duration> {
    (min..=max).prop_map(Duration::from_millis)
}

fn balance() -> impl Strategy<Value = Balance> {
    let kind = prop_oneof![
        Just(BalanceKind::Load),
        Just(BalanceKind::Least),
        Just(BalanceKind::RoundRobin),
        Just(BalanceKind::Random),
        "[a-z-]{1,20}".prop_map(|name| BalanceKind::Hash(HashKey::Header(name))),
        "[a-zA-Z]{1,20}".prop_map(|name| BalanceKind::Hash(HashKey::Cookie(name))),
        "[a-zA-Z]{1,20}".prop_map(|name| BalanceKind::Hash(HashKey::Query(name))),
    ];
    (kind, millis(0, 100_000), 0..=100u32).prop_map(|(kind, slow_start, panic_percent)| Balance {
        kind,
        slow_start,
        panic_percent,
    })
}

fn eject() -> impl Strategy<Value = Eject> {
    (1..=1000u32, millis(0, 100_000), millis(0, 1_000_000), 0..=100u32)
        .prop_map(|(failures, first, max, at_most_percent)| Eject { failures, first, max, at_most_percent })
}

fn policy() -> impl Strategy<Value = Policy> {
    let times = (1..=3_600_000u64).prop_flat_map(|timeout| (Just(timeout), 1..=timeout));
    let park = (millis(1, 3_600_000), 1..=100_000u32).prop_map(|(within, max)| Park { within, max });
    let eject = prop::option::of(eject());
    (times, millis(1, 60_000), millis(0, 600_000), balance(), eject, (0..=3u32, prop::option::of(park))).prop_map(
        |((timeout, try_timeout), connect, idle, balance, eject, (retries, park))| Policy {
            timeout: Duration::from_millis(timeout),
            try_timeout: Duration::from_millis(try_timeout),
            connect,
            idle,
            balance,
            eject,
            retries,
            park,
        },
    )
}

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![Just(Caller::Ingress), name().prop_map(Caller::Service)]
}

fn path() -> impl Strategy<Value = PathPattern> {
    "(/|(/:?[a-z]{1,5}){1,3})".prop_map(|text| text.parse().expect("a path"))
}

fn methods() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[A-Z]{1,7}", 0..3)
}

fn rules() -> impl Strategy<Value = AccessRules> {
    let rule = || {
        (caller(), methods(), prop::option::of(path())).prop_map(|(caller, methods, path)| AccessRule {
            caller,
            methods,
            path,
        })
    };
    let list = move || prop::collection::vec(rule(), 0..3);
    (prop::option::of(list()), list()).prop_map(|(allow, deny)| AccessRules { allow, deny })
}

fn access() -> impl Strategy<Value = Access> {
    let route = (path(), any::<bool>(), methods(), rules()).prop_map(|(path, exact, methods, rules)| RouteAccess {
        path,
        exact,
        methods,
        rules,
    });
    (0..3_usize, any::<bool>(), rules(), prop::collection::vec(route, 0..3))
        .prop_map(|(mode, declared, rules, routes)| Access { mode: AccessMode::ALL[mode], declared, rules, routes })
}

fn reason() -> impl Strategy<Value = Reason> {
    (0..Reason::ALL.len()).prop_map(|index| Reason::ALL[index])
}

fn cause() -> impl Strategy<Value = Cause> {
    (reason(), ".{0,100}", any::<u64>()).prop_map(|(reason, message, since_unix_ms)| Cause {
        reason,
        message,
        since_unix_ms,
    })
}

fn state() -> impl Strategy<Value = InstanceState> {
    use InstanceState::{Degraded, Draining, Ready, Starting, Unhealthy};
    prop_oneof![Just(Starting), Just(Ready), Just(Degraded), Just(Unhealthy), Just(Draining)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Http), Just(Protocol::Grpc), Just(Protocol::Tcp)]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        id(),
        any::<[u8; 4]>(),
        1..u16::MAX,
        state(),
        "[0-9.]{0,8}",
        prop::option::of(0.0..=1.0f64),
        any::<u64>(),
        "[0-9a-f]{32}",
    )
        .prop_map(|(id, ip, port, state, version, utilization, ready_unix_ms, incarnation)| Endpoint {
            id,
            address: (ip, port).into(),
            state,
            version,
            zone: "z1".into(),
            utilization,
            ready_unix_ms,
            incarnation,
        })
}

fn service_table() -> impl Strategy<Value = ServiceTable> {
    (few_names(), protocol(), policy(), access(), prop::collection::vec(endpoint(), 0..6)).prop_map(
        |(name, protocol, policy, access, endpoints)| {
            let endpoints: BTreeMap<_, _> = endpoints.into_iter().map(|found| (found.id.clone(), found)).collect();
            ServiceTable {
                name,
                protocol,
                policy: Arc::new(policy),
                access: Arc::new(access),
                callers: Arc::default(),
                endpoints: endpoints.into_values().collect(),
            }
        },
    )
}

fn snapshot(epoch: u64) -> impl Strategy<Value = Snapshot> {
    prop::collection::vec(service_table(), 0..4).prop_map(move |tables| {
        Snapshot::new(Epoch(epoch), tables.into_iter().map(Arc::new), Vec::new(), Limits::default())
    })
}

fn announcement() -> impl Strategy<Value = Announcement> {
    (
        (name(), id(), any::<[u8; 4]>(), 1..u16::MAX, protocol(), "[0-9.]{0,8}"),
        (
            prop::collection::btree_map("[a-z]{1,8}", "[a-z]{0,8}", 0..4),
            prop::option::of(prop::collection::vec("/[a-z]{1,8}", 0..4)),
        ),
        (prop::collection::vec(name(), 0..4), any::<u32>(), any::<u32>(), any::<u64>()),
    )
        .prop_map(
            |((service, id, ip, port, protocol, version), (labels, routes), (uses, pid, generation, started))| {
                let ip = if ip == [0; 4] { [127, 0, 0, 1] } else { ip };
                Announcement {
                    service,
                    node: NodeName::new(id.node()).expect("a node"),
                    id,
                    zone: "z".into(),
                    incarnation: "f".repeat(32),
                    address: (ip, port).into(),
                    protocol,
                    version,
                    labels,
                    routes,
                    uses,
                    pid,
                    generation,
                    started_unix_ms: started,
                    sdk: "node/0.1.0".into(),
                    handlers: vec!["GET /a".into()],
                    listens: "127.0.0.1:9".into(),
                    caps: "memory 512MiB watched".into(),
                }
            },
        )
}

fn report() -> impl Strategy<Value = HealthReport> {
    let load =
        (any::<u32>(), any::<u64>(), 0.0..1e9f64, prop::option::of(0.0..=1.0f64), prop::option::of(0.0..64.0f64))
            .prop_map(|(in_flight, requests_total, rps, utilization, cpu_cores)| InstanceLoad {
                in_flight,
                queued: 3,
                requests_total,
                errors_total: 1,
                requests_per_second: rps,
                p50_seconds: 0.01,
                p99_seconds: 0.2,
                utilization,
                memory_bytes: 1 << 20,
                cpu_cores,
                open_streams: 2,
            });
    let ejection = (id(), cause(), any::<u64>()).prop_map(|(instance, cause, remaining_ms)| EjectionReport {
        instance,
        cause,
        remaining_ms,
    });
    let calls = (name(), any::<u64>(), any::<u64>()).prop_map(|(service, requests, failures)| CallFigures {
        service,
        requests,
        failures,
    });
    let denial = (caller(), name(), any::<bool>(), any::<u64>(), ".{0,100}")
        .prop_map(|(caller, service, observed, count, message)| Denial { caller, service, observed, count, message });
    (
        prop_oneof![state(), Just(InstanceState::Gone)],
        prop::option::of(cause()),
        load,
        any::<u32>(),
        prop::collection::vec(ejection, 0..4),
        prop::collection::vec(calls, 0..4),
        (prop::collection::vec(denial, 0..4), prop::option::of(identity())),
    )
        .prop_map(|(state, cause, load, restarts, ejections, calls, (denials, identity))| HealthReport {
            state,
            cause,
            load,
            restarts,
            ejections,
            calls,
            denials,
            snapshot_age_ms: 5,
            identity,
        })
}

fn identity() -> impl Strategy<Value = IdentityReport> {
    let peer = (name(), any::<u64>(), any::<u64>()).prop_map(|(service, handshakes, last_unix_ms)| PeerSeen {
        id: format!("spiffe://shop/svc/{service}"),
        handshakes,
        last_unix_ms,
    });
    let refused = ("[a-z_]{1,20}", any::<u64>(), "[a-z]{1,10}")
        .prop_map(|(cause, handshakes, side)| HandshakesRefused { cause, handshakes, side });
    (
        name(),
        "[0-9a-f]{1,40}",
        prop::collection::vec("[0-9a-f]{64}", 1..4),
        any::<u64>(),
        ".{0,40}",
        prop::collection::vec(peer, 0..4),
        prop::collection::vec(refused, 0..4),
    )
        .prop_map(|(service, serial, trusted, not_after_unix_ms, renewal_error, peers, refused)| IdentityReport {
            id: format!("spiffe://shop/svc/{service}"),
            serial,
            issuer: trusted.first().cloned().unwrap_or_default(),
            not_after_unix_ms,
            renew_unix_ms: 7,
            renewal_error,
            trusted,
            peers,
            refused,
        })
}

fn settings() -> impl Strategy<Value = SidecarSettings> {
    let probe =
        prop_oneof!["/[a-z]{0,10}".prop_map(Probe::Http), "[a-z.]{0,10}".prop_map(Probe::Grpc), Just(Probe::Tcp)];
    let health = (probe, millis(100, 300_000), millis(1, 60_000), 1..=10u32, 1..=10u32)
        .prop_map(|(probe, every, timeout, down, up)| HealthSpec { probe, every, timeout, down, up });
    let share = (1..=99_u8).prop_map(AccessLines::Share);
    let lines = prop_oneof![Just(AccessLines::All), Just(AccessLines::Errors), Just(AccessLines::Off), share];
    let names = || prop::collection::vec(name(), 0..4);
    let said = (prop::option::of(access()), names(), prop::option::of(lines), any::<bool>());
    (any::<bool>(), policy(), prop::option::of(health), names(), said).prop_map(
        |(declared, policy, health, uses, (access, callers, access_lines, others_ready))| SidecarSettings {
            declared,
            policy,
            health,
            uses,
            access,
            callers,
            access_lines,
            others_ready,
        },
    )
}

/// A message written to bytes and read back, as on a real link.
fn travel<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("what was encoded decodes")
}

/// Reads `bytes` as every kind of message that comes from outside and converts what can be read.
fn read_as_everything(bytes: &[u8]) {
    let _ = pb::Hello::decode(bytes).map(|message| Hello::try_from(&message));
    let _ = pb::Handlers::decode(bytes).map(|message| Handlers::try_from(&message));
    let _ = pb::State::decode(bytes).map(|message| State::try_from(&message));
    let _ = pb::Load::decode(bytes).map(|message| Load::try_from(&message));
    let _ = pb::Replace::decode(bytes).map(|message| Replace::try_from(&message));
    let _ = pb::Join::decode(bytes).map(|message| Joining::try_from(&message));
    let _ = pb::Report::decode(bytes).map(|message| HealthReport::try_from(&message));
    let _ = pb::SidecarSettings::decode(bytes).map(|message| SidecarSettings::try_from(&message));
    let _ = pb::Snapshot::decode(bytes).map(|message| Picture::try_from(&message));
    let _ = pb::Delta::decode(bytes).map(|message| Picture::default().apply(&message));
}

proptest! {
    #[test]
    fn access_comes_back_the_same(access in access()) {
        prop_assert_eq!(Access::try_from(&travel(&pb::Access::from(&access))), Ok(access));
    }

    #[test]
    fn a_policy_comes_back_the_same(policy in policy()) {
        prop_assert_eq!(Policy::try_from(&travel(&pb::Policy::from(&policy))), Ok(policy));
    }

    #[test]
    fn settings_come_back_the_same(settings in settings()) {
        prop_assert_eq!(SidecarSettings::try_from(&travel(&pb::SidecarSettings::from(&settings))), Ok(settings));
    }

    #[test]
    fn a_cause_comes_back_the_same(cause in cause()) {
        prop_assert_eq!(Cause::try_from(&travel(&pb::StateCause::from(&cause))), Ok(cause));
    }

    #[test]
    fn a_join_comes_back_the_same(announcement in announcement()) {
        let joining = Joining {
            protocol_min: 1,
            protocol_max: 2,
            mesh: MeshName::new("shop").ok(),
            version: "0.1.0".into(),
            announcement,
        };
        prop_assert_eq!(Joining::try_from(&travel(&pb::Join::from(&joining))), Ok(joining));
    }

    #[test]
    fn a_report_comes_back_the_same(report in report(), sequence in any::<u64>()) {
        prop_assert_eq!(HealthReport::try_from(&travel(&report_to_wire(&report, sequence))), Ok(report));
    }

    #[test]
    fn a_delta_on_the_old_picture_gives_the_new_one(old in snapshot(3), new in snapshot(7)) {
        let names: BTreeSet<ServiceName> = ["a", "b", "c"].iter().map(|name| ServiceName::new(name).expect("a name")).collect();
        let before = Picture::try_from(&travel(&table::snapshot(&old, &names))).expect("a sound snapshot");
        let after = Picture::try_from(&travel(&table::snapshot(&new, &names))).expect("a sound snapshot");
        match table::delta(&old, &new, &names) {
            Some(delta) => prop_assert_eq!(before.apply(&travel(&delta)).expect("a sound delta"), after),
            None => prop_assert_eq!(before.services, after.services),
        }
    }

    #[test]
    fn a_delta_about_another_picture_is_refused(base in 0..100u64, in_force in 0..100u64) {
        let picture = Picture { epoch: Epoch(in_force), ..Picture::default() };
        let delta = pb::Delta { base_epoch: base, epoch: 200, service: Vec::new() };
        prop_assert_eq!(picture.apply(&delta).is_ok(), base == in_force);
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&bytes);
    }

    #[test]
    fn no_damaged_message_makes_a_panic(
        report in report(), announcement in announcement(), snapshot in snapshot(1),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let names = snapshot.services().map(|table| table.name.clone()).collect();
        let joining = Joining { protocol_min: 1, protocol_max: 1, mesh: None, version: String::new(), announcement };
        for mut bytes in [
            report_to_wire(&report, 1).encode_to_vec(),
            pb::Join::from(&joining).encode_to_vec(),
            table::snapshot(&snapshot, &names).encode_to_vec(),
            hello().encode_to_vec(),
        ] {
            for (index, byte) in &damage {
                if !bytes.is_empty() {
                    let index = index.index(bytes.len());
                    bytes[index] = *byte;
                }
            }
            read_as_everything(&bytes);
        }
    }
}

fn hello() -> pb::Hello {
    pb::Hello {
        protocol_min: 1,
        protocol_max: 1,
        service: "users".into(),
        listeners: vec![pb::Listener { protocol: 1, address: "127.0.0.1:9000".into(), keep_alive_ms: 5000 }],
        state: Some(pb::State { phase: pb::Phase::Ready.into(), check: Vec::new() }),
        ..pb::Hello::default()
    }
}

#[test]
fn a_sound_hello_is_taken() {
    let facts = Hello::try_from(&hello()).expect("sound");
    assert_eq!(facts.listeners.len(), 1);
    assert_eq!(facts.listeners[0].keep_alive, Some(Duration::from_secs(5)));
    assert_eq!(facts.instance, None);
}

#[test]
fn a_broken_hello_is_refused_with_every_mistake_at_once() {
    let check = pb::Check { name: "n".repeat(65), ok: true, required: false, cause: "c".repeat(257) };
    let broken = pb::Hello {
        protocol_min: 0,
        protocol_max: 0,
        service: "Users".into(),
        instance: "users_1".into(),
        version: "v".repeat(65),
        sdk: "s".repeat(65),
        attachment_id: "a".repeat(65),
        listeners: vec![
            pb::Listener { protocol: 9, address: "10.0.0.1:80".into(), keep_alive_ms: 0 },
            pb::Listener { protocol: 1, address: "unix:".into(), keep_alive_ms: 0 },
        ],
        handlers: Some(pb::Handlers {
            handler: vec![pb::Handler { pattern: String::new(), limit: 70_000, model: 3, ..pb::Handler::default() }],
            metrics_path: "metrics".into(),
            route: vec!["no-slash".into()],
        }),
        state: Some(pb::State { phase: 42, check: vec![check] }),
        ..pb::Hello::default()
    };
    let refused = Hello::try_from(&broken).expect_err("broken");
    let paths: Vec<&str> = refused.mistakes.iter().map(|mistake| mistake.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "protocol_min",
            "protocol_max",
            "service",
            "instance",
            "version",
            "sdk",
            "attachment_id",
            "listeners[0].protocol",
            "listeners[0].address",
            "listeners[1].address",
            "handlers.handler[0].pattern",
            "handlers.handler[0].limit",
            "handlers.metrics_path",
            "handlers.route[0]",
            "state.phase",
            "state.check[0].name",
            "state.check[0].cause",
        ]
    );
    assert!(refused.to_string().contains("service: `Users` is not a name"), "{refused}");
}

#[test]
fn a_hello_needs_one_to_eight_listeners() {
    for (count, taken) in [(0, false), (1, true), (8, true), (9, false)] {
        let listener = pb::Listener { protocol: 1, address: "[::1]:9000".into(), keep_alive_ms: 0 };
        let message = pb::Hello { listeners: vec![listener; count], ..hello() };
        assert_eq!(Hello::try_from(&message).is_ok(), taken, "{count}");
    }
}

#[test]
fn a_load_that_is_not_a_number_is_refused() {
    for (utilization, taken) in [(0.0, true), (1.0, true), (1.01, false), (-0.1, false), (f64::NAN, false)] {
        let message = pb::Load { utilization, ..pb::Load::default() };
        assert_eq!(Load::try_from(&message).is_ok(), taken, "{utilization}");
    }
}

#[test]
fn a_refusal_stays_short_whatever_was_sent() {
    let listener = pb::Listener { protocol: 99, address: "x".repeat(100_000), keep_alive_ms: 0 };
    let handlers = pb::Handlers {
        handler: vec![pb::Handler { limit: 70_000, ..pb::Handler::default() }; 1000],
        ..pb::Handlers::default()
    };
    let message = pb::Hello { listeners: vec![listener; 8], handlers: Some(handlers), ..hello() };
    let refused = Hello::try_from(&message).expect_err("broken");
    assert!(refused.mistakes.len() <= 100);
    assert!(refused.to_string().len() < 20_000, "{}", refused.to_string().len());
}

#[test]
fn what_an_unreachable_sidecar_announces_is_refused() {
    for address in ["0.0.0.0:4000", "127.0.0.1:0", "sidecar:4000", ""] {
        let said = pb::Announced {
            service: "users".into(),
            instance: "users-1".into(),
            address: address.into(),
            ..pb::Announced::default()
        };
        let node = NodeName::new("vm1").expect("a node");
        let refused = synego_wire::convert::report::announced(&said, &node, "", "1").expect_err("refused");
        assert_eq!(refused.mistakes[0].path, "address", "{address}");
    }
}

#[test]
fn commands_of_a_probe_never_travel() {
    let exec = Probe::Exec(synego_model::CommandLine { program: "true".into(), args: Vec::new() });
    let settings = SidecarSettings { health: Some(HealthSpec::of(exec)), ..SidecarSettings::default() };
    assert_eq!(pb::SidecarSettings::from(&settings).health, None);
}

#[test]
fn an_absent_load_is_no_load() {
    let message = pb::Report { state: pb::InstanceState::Ready.into(), ..pb::Report::default() };
    let report = HealthReport::try_from(&message).expect("sound");
    assert_eq!(report.load, InstanceLoad::default());
}
