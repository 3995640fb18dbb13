//! Which instance gets a request, among two and among a thousand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use synego_balance::{Balancer, hash_key};
use synego_model::{Balance, BalanceKind, Endpoint, HashKey, InstanceState, Policy, Protocol, ServiceTable};
use synego_runtime::clock;

use super::Run;
use super::hop::SEED;

/// Requests at once to one instance.
const IN_FLIGHT: u32 = 1024;
/// Exchanges with each instance before the count begins.
const BEFORE: usize = 3;

pub(super) fn by_header() -> BalanceKind {
    BalanceKind::Hash(HashKey::Header("x-user".to_owned()))
}

fn table(kind: BalanceKind, count: usize) -> Option<ServiceTable> {
    let endpoint = |number: usize| {
        Some(Endpoint {
            id: format!("orders-{number:04}@vm1").parse().ok()?,
            address: "127.0.0.1:4000".parse().ok()?,
            state: InstanceState::Ready,
            version: "1.0.0".to_owned(),
            zone: String::new(),
            utilization: None,
            ready_unix_ms: 1,
            incarnation: "a".to_owned(),
        })
    };
    let policy = Policy { balance: Balance { kind, ..Balance::default() }, ..Policy::default() };
    Some(ServiceTable {
        name: "orders".parse().ok()?,
        protocol: Protocol::Http,
        policy: Arc::new(policy),
        access: Arc::default(),
        callers: Arc::default(),
        endpoints: (0..count).map(endpoint).collect::<Option<_>>()?,
    })
}

/// A service that has been called for a while, each instance as fast as its place says; a third of the requests is still
/// in flight. The moment is a second later, so that ages are the same in every process.
pub(super) fn warm(kind: BalanceKind, count: usize) -> Option<(Balancer, Instant)> {
    let (begun, mut rng) = (clock::now(), SmallRng::seed_from_u64(SEED));
    let in_turn = table(BalanceKind::RoundRobin, count)?;
    let mut balancer = Balancer::new(&in_turn.policy.balance, in_turn.policy.eject.as_ref(), IN_FLIGHT);
    balancer.update(&in_turn, IN_FLIGHT, begun, 1_000_000);
    for number in 0..BEFORE * count {
        let slot = balancer.pick(None, &[], begun, &mut rng).ok()?;
        balancer.begin(slot, begun);
        let latency = Duration::from_micros(1000 + (number % count) as u64 * 37 % 1000);
        balancer.answered(slot, latency, false, begun + latency, &mut rng);
        if number % 3 > 0 {
            balancer.end(slot);
        }
    }
    let now = begun + Duration::from_secs(1);
    balancer.update(&table(kind, count)?, IN_FLIGHT, now, 1_001_000);
    Some((balancer, now))
}

pub(super) fn pick(kind: BalanceKind, count: usize) -> Option<Run> {
    let (mut balancer, now) = warm(kind, count)?;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut user = 0_u64;
    Some(Box::new(move || {
        user = user.wrapping_add(1);
        balancer.pick(Some(hash_key(&user.to_le_bytes())), &[], now, &mut rng).is_ok()
    }))
}

/// All that a balancer is told of one request: picked, begun, answered, ended.
pub(super) fn exchange() -> Option<Run> {
    let (mut balancer, now) = warm(BalanceKind::Load, 2)?;
    let mut rng = SmallRng::seed_from_u64(SEED);
    Some(Box::new(move || {
        let Ok(slot) = balancer.pick(None, &[], now, &mut rng) else { return false };
        balancer.begin(slot, now);
        let ejected = balancer.answered(slot, Duration::from_millis(1), false, now, &mut rng);
        balancer.end(slot);
        ejected.is_none()
    }))
}
