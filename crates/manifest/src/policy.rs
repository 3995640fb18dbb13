//! Policy descends: built-in, `defaults`, service, route. Each level replaces what it says itself.

use synego_model::Policy;
use synego_model::policy::{BalanceKind, HashKey};

use crate::types;

/// Lays what one level says over `policy`.
///
/// Who shortens `timeout` alone shortens an inherited `try_timeout` with it; saying both at odds is a contradiction that
/// the checks refuse.
pub(crate) fn apply(policy: &mut Policy, said: &types::Policy) {
    let time = |to: &mut std::time::Duration, said: Option<types::Time>| {
        if let Some(said) = said {
            *to = said.0;
        }
    };
    time(&mut policy.timeout, said.timeout);
    time(&mut policy.try_timeout, said.try_timeout);
    time(&mut policy.connect, said.connect);
    time(&mut policy.idle, said.idle);
    policy.try_timeout = policy.try_timeout.min(policy.timeout);
    if let Some(balance) = &said.balance {
        if let Some(way) = &balance.by {
            policy.balance.kind = match way.as_str() {
                "least" => BalanceKind::Least,
                "round_robin" => BalanceKind::RoundRobin,
                "random" => BalanceKind::Random,
                _ => BalanceKind::Load,
            };
        }
        if let Some(key) = balance.hash.as_ref().and_then(hash_key) {
            policy.balance.kind = BalanceKind::Hash(key);
        }
        time(&mut policy.balance.slow_start, balance.slow_start);
        policy.balance.panic_percent = balance.panic.map_or(policy.balance.panic_percent, |share| share.0);
    }
    park(policy, said.park.as_ref());
    match &said.eject {
        None => {}
        Some(types::OrOff::Off(_)) => policy.eject = None,
        Some(types::OrOff::On(said)) => {
            let mut eject = policy.eject.clone().unwrap_or_default();
            eject.failures = said.failures.unwrap_or(eject.failures);
            time(&mut eject.first, said.first);
            time(&mut eject.max, said.max);
            eject.at_most_percent = said.at_most.map_or(eject.at_most_percent, |share| share.0);
            policy.eject = Some(eject);
        }
    }
}

/// The same for how requests wait.
fn park(policy: &mut Policy, said: Option<&types::OrOff<types::Park>>) {
    match said {
        None => {}
        Some(types::OrOff::Off(_)) => policy.park = None,
        Some(types::OrOff::On(said)) => {
            let mut park = policy.park.clone().unwrap_or_default();
            park.within = said.within.map_or(park.within, |time| time.0);
            park.max = said.max.unwrap_or(park.max);
            policy.park = Some(park);
        }
    }
}

fn hash_key(said: &types::Hash) -> Option<HashKey> {
    if let Some(header) = &said.header {
        return Some(HashKey::Header(header.to_ascii_lowercase()));
    }
    if let Some(cookie) = &said.cookie {
        return Some(HashKey::Cookie(cookie.clone()));
    }
    said.query.clone().map(HashKey::Query)
}
