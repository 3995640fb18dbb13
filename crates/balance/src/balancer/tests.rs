use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use synego_model::{HashKey, InstanceState, Policy, Protocol};

use super::*;
use crate::hash_key;

fn rng() -> SmallRng {
    SmallRng::seed_from_u64(7)
}

fn endpoint(number: usize, state: InstanceState) -> Endpoint {
    Endpoint {
        id: format!("users-{number}@vm1").parse().expect("an id"),
        address: "127.0.0.1:4000".parse().expect("an address"),
        state,
        version: String::new(),
        zone: String::new(),
        utilization: None,
        ready_unix_ms: 1,
        incarnation: "a".into(),
    }
}

fn table(kind: BalanceKind, endpoints: Vec<Endpoint>) -> ServiceTable {
    let policy = Policy { balance: Balance { kind, ..Balance::default() }, ..Policy::default() };
    ServiceTable {
        name: "users".parse().expect("a name"),
        protocol: Protocol::Http,
        policy: Arc::new(policy),
        access: Arc::default(),
        callers: Arc::default(),
        endpoints,
    }
}

fn of(kind: BalanceKind, count: usize) -> (Balancer, Instant) {
    let now = Instant::now();
    let table = table(kind, (1..=count).map(|n| endpoint(n, InstanceState::Ready)).collect());
    let mut balancer = Balancer::new(&table.policy.balance, table.policy.eject.as_ref(), 1024);
    balancer.update(&table, 1024, now, 1_000_000);
    (balancer, now)
}

fn id(balancer: &Balancer, slot: Slot) -> String {
    balancer.endpoint(slot).map(|endpoint| endpoint.id.to_string()).unwrap_or_default()
}

#[test]
fn the_faster_instance_gets_more() {
    let (mut balancer, now) = of(BalanceKind::Load, 2);
    let mut rng = rng();
    let mut fast = 0;
    for _ in 0..1000 {
        let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
        balancer.begin(slot, now);
        let is_first = id(&balancer, slot) == "users-1@vm1";
        fast += usize::from(is_first);
        let latency = Duration::from_millis(if is_first { 5 } else { 50 });
        balancer.answered(slot, latency, false, now, &mut rng);
        balancer.end(slot);
    }
    assert!(fast > 900, "{fast} of 1000 went to the instance that is ten times as fast");
}

#[test]
fn an_instance_that_stopped_answering_is_avoided_though_nothing_failed() {
    let (mut balancer, now) = of(BalanceKind::Load, 2);
    let mut rng = rng();
    let stuck = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    balancer.begin(stuck, now);
    let later = now + Duration::from_secs(1);
    let mut wrong = 0;
    for step in 0..100 {
        let at = later + Duration::from_millis(step);
        let slot = balancer.pick(None, &[], at, &mut rng).expect("a pick");
        wrong += usize::from(slot == stuck);
        balancer.begin(slot, at);
        if slot != stuck {
            balancer.answered(slot, Duration::from_millis(5), false, at, &mut rng);
            balancer.end(slot);
        }
    }
    assert!(wrong <= 1, "{wrong} requests followed the stuck one");
}

#[test]
fn an_instance_is_left_out_after_failures_in_a_row_and_comes_back() {
    let (mut balancer, now) = of(BalanceKind::RoundRobin, 3);
    let mut rng = rng();
    let bad = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    for number in 1..=5 {
        balancer.begin(bad, now);
        let ejected = balancer.failed(bad, Failure::Reset, now, &mut rng);
        balancer.end(bad);
        assert_eq!(ejected.is_some(), number == 5, "failure {number}");
    }
    assert_eq!(balancer.ejections(now).len(), 1);
    assert!((0..30).all(|_| balancer.pick(None, &[], now, &mut rng) != Ok(bad)));
    let later = now + Duration::from_secs(31);
    assert!(balancer.ejections(later).is_empty());
    assert!((0..30).any(|_| balancer.pick(None, &[], later, &mut rng) == Ok(bad)));
}

#[test]
fn a_success_in_between_forgives() {
    let (mut balancer, now) = of(BalanceKind::Load, 2);
    let mut rng = rng();
    let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    for number in 0..20 {
        balancer.begin(slot, now);
        let ejected = if number % 5 == 4 {
            balancer.answered(slot, Duration::from_millis(1), false, now, &mut rng)
        } else {
            balancer.failed(slot, Failure::TimedOut, now, &mut rng)
        };
        balancer.end(slot);
        assert_eq!(ejected, None);
    }
}

#[test]
fn a_failed_connection_leaves_out_at_once_but_never_the_last() {
    let (mut balancer, now) = of(BalanceKind::Load, 2);
    let mut rng = rng();
    let first = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    balancer.begin(first, now);
    assert!(balancer.failed(first, Failure::Connect, now, &mut rng).is_some());
    balancer.end(first);
    let second = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    assert_ne!(first, second);
    balancer.begin(second, now);
    assert_eq!(balancer.failed(second, Failure::Connect, now, &mut rng), None);
}

#[test]
fn shedding_and_clients_that_leave_blame_nobody() {
    let (mut balancer, now) = of(BalanceKind::Load, 2);
    let mut rng = rng();
    let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    for failure in [Failure::Shed, Failure::Abandoned].repeat(20) {
        balancer.begin(slot, now);
        assert_eq!(balancer.failed(slot, failure, now, &mut rng), None);
        balancer.end(slot);
    }
}

#[test]
fn a_new_process_has_a_clean_record() {
    let (mut balancer, now) = of(BalanceKind::RoundRobin, 2);
    let mut rng = rng();
    let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    balancer.begin(slot, now);
    assert!(balancer.failed(slot, Failure::Connect, now, &mut rng).is_some());
    balancer.end(slot);
    let mut endpoints: Vec<Endpoint> = (1..=2).map(|n| endpoint(n, InstanceState::Ready)).collect();
    endpoints.iter_mut().for_each(|endpoint| endpoint.ready_unix_ms = 2);
    balancer.update(&table(BalanceKind::RoundRobin, endpoints), 1024, now, 1_000_000);
    assert!(balancer.ejections(now).is_empty());
}

#[test]
fn only_those_that_take_requests_are_picked_and_the_error_says_why_none_is() {
    let now = Instant::now();
    let mut rng = rng();
    let states = [InstanceState::Starting, InstanceState::Draining, InstanceState::Unhealthy, InstanceState::Degraded];
    let endpoints = states.iter().enumerate().map(|(n, state)| endpoint(n, *state)).collect();
    let four = table(BalanceKind::Random, endpoints);
    let mut balancer = Balancer::new(&four.policy.balance, None, 1);
    balancer.update(&four, 1, now, 0);
    let slot = balancer.pick(None, &[], now, &mut rng).expect("the degraded one");
    assert_eq!(id(&balancer, slot), "users-3@vm1");
    assert_eq!(balancer.pick(None, &[slot], now, &mut rng), Err(PickError::AllTried));
    balancer.begin(slot, now);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Err(PickError::AllFull));
    balancer.update(&table(BalanceKind::Random, vec![endpoint(0, InstanceState::Starting)]), 1, now, 0);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Err(PickError::NoEndpoint { known: 1 }));
    assert!(balancer.endpoint(slot).is_some(), "its request is still in flight");
    balancer.end(slot);
    assert!(balancer.endpoint(slot).is_none(), "it left with its last request");
}

#[test]
fn among_many_each_is_found_until_all_were_tried() {
    let kinds = [BalanceKind::Load, BalanceKind::Random, BalanceKind::RoundRobin, BalanceKind::Least];
    for kind in kinds {
        let (mut balancer, now) = of(kind.clone(), 50);
        let mut rng = rng();
        let mut tried = Vec::new();
        for _ in 0..50 {
            let slot = balancer.pick(Some(7), &tried, now, &mut rng).expect("one is left");
            assert!(!tried.contains(&slot), "{kind:?}");
            tried.push(slot);
        }
        assert_eq!(balancer.pick(Some(7), &tried, now, &mut rng), Err(PickError::AllTried), "{kind:?}");
    }
}

#[test]
fn many_get_their_turn_one_after_the_other() {
    let (mut balancer, now) = of(BalanceKind::RoundRobin, 50);
    let mut rng = rng();
    let mut round = || -> Vec<String> {
        (0..50).map(|_| balancer.pick(None, &[], now, &mut rng).map(|slot| id(&balancer, slot)).expect("one")).collect()
    };
    let (mut first, second) = (round(), round());
    assert_eq!(first, second);
    first.sort();
    first.dedup();
    assert_eq!(first.len(), 50);
}

#[test]
fn a_stream_takes_no_place_among_the_requests_of_an_instance() {
    let now = Instant::now();
    let mut rng = rng();
    let one = table(BalanceKind::Random, vec![endpoint(0, InstanceState::Ready)]);
    let mut balancer = Balancer::new(&one.policy.balance, None, 1);
    balancer.update(&one, 1, now, 0);
    let slot = balancer.pick(None, &[], now, &mut rng).expect("the only one");
    balancer.begin(slot, now);
    balancer.becomes_stream(slot);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Ok(slot));
    balancer.begin(slot, now);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Err(PickError::AllFull), "a request takes one");
    balancer.end_stream(slot);
    assert_eq!(balancer.in_flight(slot), 1);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Err(PickError::AllFull), "the stream's end frees none");
    balancer.end(slot);
    assert_eq!(balancer.pick(None, &[], now, &mut rng), Ok(slot));
}

#[test]
fn a_key_stays_with_its_instance_when_another_leaves() {
    let (mut balancer, now) = of(BalanceKind::Hash(HashKey::Header("x-user".into())), 5);
    let mut rng = rng();
    let keys: Vec<u64> = (0..200_u32).map(|n| hash_key(&n.to_be_bytes())).collect();
    let owners = |balancer: &mut Balancer, rng: &mut SmallRng| -> Vec<String> {
        let pick = |key: &u64| balancer.pick(Some(*key), &[], now, rng).map(|slot| id(balancer, slot));
        keys.iter().map(pick).collect::<Result<_, _>>().expect("picks")
    };
    let before = owners(&mut balancer, &mut rng);
    let rest = (1..=4).map(|n| endpoint(n, InstanceState::Ready)).collect();
    balancer.update(&table(BalanceKind::Hash(HashKey::Header("x-user".into())), rest), 1024, now, 1_000_000);
    let after = owners(&mut balancer, &mut rng);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || before == "users-5@vm1", "{before} moved to {after}");
    }
}

#[test]
fn the_keys_of_one_that_leaves_go_to_many_others_and_all_come_back_with_it() {
    let by_user = || BalanceKind::Hash(HashKey::Header("x-user".into()));
    let all = |but: usize| (1..=100).filter(move |n| *n != but).map(|n| endpoint(n, InstanceState::Ready)).collect();
    let (mut balancer, now) = of(by_user(), 100);
    let mut rng = rng();
    let keys: Vec<u64> = (0..10_000_u32).map(|n| hash_key(&n.to_be_bytes())).collect();
    let owners = |balancer: &mut Balancer, rng: &mut SmallRng| -> Vec<String> {
        let owner = |key: &u64| balancer.pick(Some(*key), &[], now, rng).map(|slot| id(balancer, slot));
        keys.iter().map(owner).collect::<Result<_, _>>().expect("picks")
    };
    let before = owners(&mut balancer, &mut rng);
    let mut shares: HashMap<&str, usize> = HashMap::new();
    before.iter().for_each(|owner| *shares.entry(owner).or_default() += 1);
    assert!(shares.values().all(|share| (50..200).contains(share)), "of 10,000 keys 100 instances got {shares:?}");
    balancer.update(&table(by_user(), all(7)), 1024, now, 1_000_000);
    let without = owners(&mut balancer, &mut rng);
    let moved: Vec<_> = before.iter().zip(&without).filter(|(before, after)| before != after).collect();
    assert!(moved.iter().all(|(before, _)| *before == "users-7@vm1"), "{moved:?}");
    let heirs: std::collections::HashSet<_> = moved.iter().map(|(_, after)| after).collect();
    assert!(heirs.len() > 10, "{heirs:?}");
    balancer.update(&table(by_user(), all(0)), 1024, now, 1_000_000);
    assert_eq!(owners(&mut balancer, &mut rng), before);
    // Another caller, who never knew of the change, agrees.
    assert_eq!(owners(&mut of(by_user(), 100).0, &mut rng), before);
}

#[test]
fn among_many_the_one_with_the_fewest_requests_is_found_past_those_that_are_left_out() {
    let (mut balancer, now) = of(BalanceKind::Least, 40);
    let mut rng = rng();
    let mut slots: Vec<Slot> = Vec::new();
    for _ in 0..40 {
        let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
        assert!(!slots.contains(&slot), "one had a request already, and others had none");
        balancer.begin(slot, now);
        slots.push(slot);
    }
    // Ten fail and are left out with nothing in flight, five more have nothing in flight and take requests.
    for slot in &slots[..10] {
        assert!(balancer.failed(*slot, Failure::Connect, now, &mut rng).is_some());
    }
    slots[..15].iter().for_each(|slot| balancer.end(*slot));
    for _ in 0..5 {
        let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
        assert!(slots[10..15].contains(&slot), "the fewest requests, and not left out");
        balancer.begin(slot, now);
    }
    let next = balancer.pick(None, &[], now, &mut rng).expect("a pick");
    assert!(slots[10..].contains(&next), "all others have one");
    let later = now + Duration::from_secs(31);
    let back = balancer.pick(None, &[], later, &mut rng).expect("a pick");
    assert!(slots[..10].contains(&back), "no longer left out, they have the fewest");
}

/// Two instances, of which the second one, `users-2@vm1`, is ready only now.
fn with_a_new_one() -> (Balancer, Instant) {
    let now = Instant::now();
    let mut endpoints: Vec<Endpoint> = (1..=2).map(|n| endpoint(n, InstanceState::Ready)).collect();
    endpoints[1].ready_unix_ms = 1_000_000;
    let table = table(BalanceKind::Load, endpoints);
    let mut balancer = Balancer::new(&table.policy.balance, None, 1024);
    balancer.update(&table, 1024, now, 1_000_000);
    (balancer, now)
}

#[test]
fn a_new_instance_starts_slowly() {
    let (mut balancer, now) = with_a_new_one();
    let mut rng = rng();
    let share = |balancer: &mut Balancer, at: Instant, rng: &mut SmallRng| {
        let mut new = 0;
        for _ in 0..1000 {
            // Nine requests are always in flight somewhere, so that the score decides by count as well.
            let slots: Vec<Slot> = (0..9)
                .filter_map(|_| {
                    let slot = balancer.pick(None, &[], at, rng).ok()?;
                    balancer.begin(slot, at);
                    Some(slot)
                })
                .collect();
            new += slots.iter().filter(|slot| id(balancer, **slot) == "users-2@vm1").count();
            for slot in slots {
                balancer.answered(slot, Duration::from_millis(5), false, at, rng);
                balancer.end(slot);
            }
        }
        new
    };
    let early = share(&mut balancer, now + Duration::from_secs(1), &mut rng);
    let late = share(&mut balancer, now + Duration::from_secs(20), &mut rng);
    assert!(early * 2 < late, "{early} of 9000 at first, {late} later");
}

#[test]
fn a_new_instance_has_a_part_at_once_also_when_the_others_are_hardly_busy() {
    let (mut balancer, now) = with_a_new_one();
    let mut rng = rng();
    let mut new = 0;
    for _ in 0..1000 {
        let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
        balancer.begin(slot, now);
        new += usize::from(id(&balancer, slot) == "users-2@vm1");
        balancer.answered(slot, Duration::from_millis(5), false, now, &mut rng);
        balancer.end(slot);
    }
    assert!((20..150).contains(&new), "{new} of 1000, a tenth or half of that");
}

proptest! {
    /// Whatever happens, the one with the fewest requests in flight among those that are not left out is picked.
    #[test]
    fn the_fewest_in_flight_is_always_picked(
        steps in proptest::collection::vec((0_u8..8, 0_usize..40), 1..200),
    ) {
        let (mut balancer, start) = of(BalanceKind::Least, 30);
        let mut rng = rng();
        let mut open: Vec<Slot> = Vec::new();
        for (number, (step, which)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(number as u64 * 1000);
            match step {
                0..=3 => {
                    let fits = |record: &&Record| record.listed && (!record.is_ejected(now));
                    let fewest = balancer.records.iter().filter(fits).map(|record| record.in_flight).min();
                    let slot = balancer.pick(None, &[], now, &mut rng).expect("a pick");
                    // In panic, when nobody is left out, an ejected one may have fewer.
                    if balancer.ejections(now).len() * 2 < balancer.takers.len() {
                        prop_assert_eq!(Some(balancer.in_flight(slot)), fewest);
                    }
                    balancer.begin(slot, now);
                    open.push(slot);
                }
                4 | 5 if !open.is_empty() => {
                    let slot = open.swap_remove(which % open.len());
                    balancer.answered(slot, Duration::from_millis(1), false, now, &mut rng);
                    balancer.end(slot);
                }
                6 if !open.is_empty() => {
                    let slot = open.swap_remove(which % open.len());
                    balancer.failed(slot, Failure::Connect, now, &mut rng);
                    balancer.end(slot);
                }
                _ => {
                    let endpoints = (0..20 + which).map(|n| endpoint(n, InstanceState::Ready)).collect();
                    balancer.update(&table(BalanceKind::Least, endpoints), 1024, now, 0);
                }
            }
        }
    }

    /// Whatever happens, counts stay sound: a pick takes requests, and nothing is in flight once all has ended.
    #[test]
    fn counts_stay_sound(steps in proptest::collection::vec((0_u8..6, 0_usize..6), 1..200)) {
        let (mut balancer, start) = of(BalanceKind::Load, 4);
        let mut rng = rng();
        let mut open: Vec<Slot> = Vec::new();
        for (number, (step, which)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(number as u64 * 100);
            match step {
                0 | 1 => if let Ok(slot) = balancer.pick(None, &[], now, &mut rng) {
                    prop_assert!(balancer.endpoint(slot).is_some_and(|endpoint| endpoint.state.takes_requests()));
                    balancer.begin(slot, now);
                    open.push(slot);
                },
                2 if !open.is_empty() => {
                    let slot = open.swap_remove(which % open.len());
                    balancer.answered(slot, Duration::from_millis(which as u64), which % 2 == 0, now, &mut rng);
                    balancer.end(slot);
                }
                3 if !open.is_empty() => {
                    let slot = open.swap_remove(which % open.len());
                    balancer.failed(slot, Failure::Connect, now, &mut rng);
                    balancer.end(slot);
                }
                _ => {
                    let endpoints = (0..which).map(|n| endpoint(n, InstanceState::Ready)).collect();
                    balancer.update(&table(BalanceKind::Load, endpoints), 1024, now, 0);
                }
            }
        }
        let now = start + Duration::from_secs(1000);
        for slot in open.drain(..) {
            balancer.failed(slot, Failure::Abandoned, now, &mut rng);
            balancer.end(slot);
        }
        prop_assert!(balancer.records.iter().all(|record| record.in_flight == 0 && record.waiting == 0));
    }
}
