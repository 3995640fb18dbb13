//! The registry against a model that is too simple to be wrong: random events, and what must hold after each.
#![expect(clippy::expect_used, reason = "a failed test panics")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use synego_control_plane::registry::{At, Effect, Event, Link, Registry};
use synego_model::declaration::Liveness;
use synego_model::{
    AccessMode, Announcement, Declaration, HealthReport, InstanceId, InstanceLoad, InstanceState, Limits, MeshName,
    NodeName, Protocol, ServiceName,
};
use synego_wire::convert::table::{self, Picture};

#[derive(Debug, Clone)]
enum Step {
    Link { instance: u8, incarnation: u8 },
    Report { link: prop::sample::Index, state: InstanceState },
    Unlink { link: prop::sample::Index },
    Wait { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    use InstanceState::{Degraded, Draining, Gone, Ready, Starting, Unhealthy};
    let state = prop::sample::select(vec![Starting, Ready, Ready, Ready, Degraded, Unhealthy, Draining, Gone]);
    prop_oneof![
        3 => (0..4u8, 0..3u8).prop_map(|(instance, incarnation)| Step::Link { instance, incarnation }),
        4 => (any::<prop::sample::Index>(), state).prop_map(|(link, state)| Step::Report { link, state }),
        2 => any::<prop::sample::Index>().prop_map(|link| Step::Unlink { link }),
        3 => prop::sample::select(vec![50, 200, 1_000, 4_000, 12_000]).prop_map(|ms| Step::Wait { ms }),
    ]
}

fn announcement(instance: u8, incarnation: u8) -> Announcement {
    let (service, number) = (["users", "orders"][usize::from(instance % 2)], instance / 2 + 1);
    let id: InstanceId = format!("{service}-{number}@vm1").parse().expect("an id");
    Announcement {
        service: ServiceName::new(service).expect("a name"),
        node: NodeName::new("vm1").expect("a name"),
        id,
        zone: String::new(),
        incarnation: incarnation.to_string(),
        address: ([127, 0, 0, 1], 4000 + u16::from(incarnation)).into(),
        protocol: Protocol::Http,
        version: String::new(),
        labels: BTreeMap::new(),
        routes: None,
        uses: Vec::new(),
        pid: 0,
        generation: 0,
        started_unix_ms: 0,
        sdk: String::new(),
        handlers: Vec::new(),
        listens: String::new(),
        caps: String::new(),
    }
}

fn report(state: InstanceState) -> HealthReport {
    HealthReport {
        state,
        cause: None,
        load: InstanceLoad::default(),
        restarts: 0,
        ejections: Vec::new(),
        calls: Vec::new(),
        denials: Vec::new(),
        snapshot_age_ms: 0,
        identity: None,
    }
}

/// What the shadow knows of one instance: who holds it, when it was heard, what it said.
#[derive(Debug, Clone)]
struct Shadow {
    link: Link,
    incarnation: String,
    heard: u64,
    said: Option<InstanceState>,
}

/// What the shadow remembers of an instance whose link ended: until when, who it was, what it said.
type Remembered = (u64, String, Option<InstanceState>);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_the_registry_agrees_with_its_shadow(steps in prop::collection::vec(step(), 1..60)) {
        let declaration = Declaration {
            mesh: MeshName::new("shop").expect("a name"),
            services: BTreeMap::new(),
            access: AccessMode::default(),
            limits: Limits::default(),
            liveness: Liveness::default(),
            access_lines: synego_model::AccessLines::default(),
        life: synego_model::declaration::LIFE,
        };
        let mut registry = Registry::new(declaration, 200);
        let mut shadow: BTreeMap<InstanceId, Shadow> = BTreeMap::new();
        let mut remembered: BTreeMap<InstanceId, Remembered> = BTreeMap::new();
        let mut links: Vec<(Link, InstanceId)> = Vec::new();
        let names: BTreeSet<ServiceName> =
            ["users", "orders"].map(|name| ServiceName::new(name).expect("a name")).into_iter().collect();
        let mut sent = std::sync::Arc::clone(registry.snapshot());
        let mut folded = Picture::try_from(&table::snapshot(&sent, &names)).expect("sound");
        let (mut now, mut next_link) = (0_u64, 0_u64);

        for step in steps {
            let moment = |ms| At { ms, unix_ms: 1_000 + ms };
            let before = registry.snapshot().epoch();
            let mut effects = Vec::new();
            match step {
                Step::Link { instance, incarnation } => {
                    next_link += 1;
                    let link = Link(next_link);
                    let said = announcement(instance, incarnation);
                    let id = said.id.clone();
                    effects = registry.apply(Event::Linked(link, said.clone()), moment(now));
                    if !effects.iter().any(|effect| matches!(effect, Effect::Refused(..))) {
                        // The same sidecar on another link is believed what it said; a new one begins anew.
                        let living = shadow.get(&id).map(|found| (found.incarnation.clone(), found.said));
                        let dead = remembered.remove(&id).map(|(_, incarnation, said)| (incarnation, said));
                        let former = living.or(dead).filter(|(incarnation, _)| *incarnation == said.incarnation);
                        let kept = former.and_then(|(_, said)| said);
                        shadow.insert(id.clone(), Shadow { link, incarnation: said.incarnation, heard: now, said: kept });
                        links.push((link, id));
                    }
                }
                Step::Report { link, state } if !links.is_empty() => {
                    let (link, id) = links[link.index(links.len())].clone();
                    effects = registry.apply(Event::Reported(link, report(state)), moment(now));
                    if let Some(found) = shadow.get_mut(&id).filter(|found| found.link == link) {
                        (found.heard, found.said) = (now, Some(state));
                    }
                }
                Step::Unlink { link } if !links.is_empty() => {
                    let (link, id) = links.swap_remove(link.index(links.len()));
                    effects = registry.apply(Event::Unlinked(link), moment(now));
                    if shadow.get(&id).is_some_and(|found| found.link == link) {
                        let found = shadow.remove(&id).expect("just seen");
                        if !matches!(found.said, Some(InstanceState::Draining | InstanceState::Gone)) {
                            remembered.insert(id, (now + 60_000, found.incarnation, found.said));
                        }
                    }
                }
                Step::Wait { ms } => {
                    for _ in 0..ms.div_ceil(200) {
                        now += 200;
                        effects.extend(registry.apply(Event::Tick, moment(now)));
                        remembered.retain(|_, (until, ..)| *until > now);
                    }
                }
                Step::Report { .. } | Step::Unlink { .. } => {}
            }

            // The epoch grows with each publication, and only then.
            let published = effects.iter().filter(|effect| matches!(effect, Effect::Published { .. })).count() as u64;
            prop_assert_eq!(registry.snapshot().epoch().0, before.0 + published);

            // Callers see exactly those that the shadow thinks are there, once each.
            let mut seen = BTreeMap::new();
            for table in registry.snapshot().services() {
                for endpoint in &table.endpoints {
                    prop_assert_ne!(endpoint.state, InstanceState::Gone, "{} is gone and in a table", endpoint.id);
                    prop_assert!(seen.insert(endpoint.id.clone(), endpoint.state).is_none(), "{} twice", endpoint.id);
                }
            }
            for (id, found) in &shadow {
                // Silence is judged at ticks, so that between two of them an instance may live up to one longer.
                let silent = now - found.heard;
                let expected = match found.said {
                    _ if silent >= 10_000 => None,
                    None | Some(InstanceState::Gone) => None,
                    Some(said) if said.takes_requests() && silent >= 3_000 => Some(InstanceState::Degraded),
                    Some(said) => Some(said),
                };
                prop_assert_eq!(seen.get(id).copied(), expected, "{} after {} ms of silence", id, silent);
            }
            prop_assert!(seen.keys().all(|id| shadow.contains_key(id)), "{:?} beyond {:?}", seen, shadow);

            // A subscriber that folds the deltas knows what one knows that takes the snapshot.
            if let Some(delta) = table::delta(&sent, registry.snapshot(), &names) {
                folded = folded.apply(&delta).expect("a sound delta");
                sent = std::sync::Arc::clone(registry.snapshot());
            }
            let whole = Picture::try_from(&table::snapshot(registry.snapshot(), &names)).expect("sound");
            prop_assert_eq!(&folded.services, &whole.services);
        }
    }
}
