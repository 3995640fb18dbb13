//! The ways in which one of several instances is picked.

use std::time::Instant;

use rand::Rng;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::record::Record;

/// The hash of a request's key, for consistent hashing.
#[must_use]
pub fn hash_key(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The less loaded of two drawn at random: the lower response time × (requests in flight + 1).
///
/// - `candidates`: indices into `records`, at least one.
/// - An instance without a figure counts as fast as the other; one that says it is busy as slower, by up to twice.
/// - A new one takes part in the share of picks that is its warmth: so it has its part of the requests at once, where a
///   worse score would leave it without any for as long as the others are hardly busy.
/// - Source: M. Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 12(10), 2001.
pub(crate) fn load(records: &[Record], candidates: &[u32], now: Instant, rng: &mut impl Rng) -> Option<u32> {
    let (first, second) = two(candidates, rng)?;
    if first == second {
        return Some(first);
    }
    let (a, b) = (records.get(first as usize)?, records.get(second as usize)?);
    let (takes_part_a, takes_part_b) = (takes_part(a, now, rng), takes_part(b, now, rng));
    if takes_part_a != takes_part_b {
        return Some(if takes_part_a { first } else { second });
    }
    let (time_a, time_b) = match (a.seconds(now), b.seconds(now)) {
        (Some(a), Some(b)) => (a, b),
        (Some(known), None) | (None, Some(known)) => (known, known),
        (None, None) => (1.0, 1.0),
    };
    let score = |record: &Record, time: f64| {
        let busy = 1.0 + record.endpoint.utilization.unwrap_or(0.0).clamp(0.0, 1.0);
        // A floor keeps the count of requests meaningful where answers take no measurable time.
        time.max(1e-6) * f64::from(record.in_flight + 1) * busy
    };
    Some(if score(b, time_b) < score(a, time_a) { second } else { first })
}

fn takes_part(record: &Record, now: Instant, rng: &mut impl Rng) -> bool {
    let warmth = record.warmth(now);
    // Drawn for new ones alone.
    warmth >= 1.0 || rng.random_bool(warmth)
}

/// The one with the fewest requests in flight; among equals, one at random.
pub(crate) fn least(records: &[Record], candidates: &[u32], rng: &mut impl Rng) -> Option<u32> {
    let start = rng.random_range(0..candidates.len().max(1));
    let in_turn = candidates.iter().cycle().skip(start).take(candidates.len());
    in_turn.copied().min_by_key(|index| records.get(*index as usize).map_or(u32::MAX, |record| record.in_flight))
}

/// The next in turn after `cursor`.
pub(crate) fn round_robin(candidates: &[u32], cursor: &mut u32) -> Option<u32> {
    let next = candidates.iter().copied().find(|index| *index > *cursor).or_else(|| candidates.first().copied())?;
    *cursor = next;
    Some(next)
}

/// One at random.
pub(crate) fn random(candidates: &[u32], rng: &mut impl Rng) -> Option<u32> {
    candidates.get(rng.random_range(0..candidates.len().max(1))).copied()
}

/// The one whose own hash with the key is highest: when an instance leaves, only its keys move.
///
/// Source: D. Thaler, C. Ravishankar, Using Name-Based Mappings to Increase Hit Rates, IEEE/ACM ToN 6(1), 1998.
pub(crate) fn rendezvous(records: &[Record], candidates: &[u32], key: u64) -> Option<u32> {
    candidates.iter().copied().max_by_key(|index| {
        records.get(*index as usize).map_or(0, |record| xxh3_64_with_seed(record.endpoint.id.as_str().as_bytes(), key))
    })
}

fn two(candidates: &[u32], rng: &mut impl Rng) -> Option<(u32, u32)> {
    let first = *candidates.first()?;
    if candidates.len() == 1 {
        return Some((first, first));
    }
    let a = rng.random_range(0..candidates.len());
    let b = rng.random_range(0..candidates.len() - 1);
    // Drawn from the others: the place of `a` is skipped.
    let b = if b >= a { b + 1 } else { b };
    Some((*candidates.get(a)?, *candidates.get(b)?))
}
