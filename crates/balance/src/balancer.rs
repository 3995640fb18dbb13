//! One service as one caller sees it: its instances, what became of the requests sent there, and who gets the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::Rng;
use synego_model::{Balance, BalanceKind, Eject, Endpoint, InstanceId, ServiceTable};

use crate::eject::{self, Ejected, Failure};
use crate::levels::Levels;
use crate::pick;
use crate::record::{Record, Slot};
use crate::ring::Ring;

/// Why no instance was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// None of the known ones takes requests.
    #[error("no ready endpoint, {known} known")]
    NoEndpoint {
        /// How many are known.
        known: usize,
    },
    /// All that take requests were tried already.
    #[error("every ready endpoint was tried")]
    AllTried,
    /// All that take requests have as many in flight as they may.
    #[error("every ready endpoint has as many requests in flight as it may")]
    AllFull,
}

/// How one request looks at the instances that take requests.
struct Look<'a> {
    panic: bool,
    /// Those that were tried already.
    not: &'a [Slot],
    now: Instant,
}

/// Whether an instance can get the request.
#[derive(PartialEq, Eq)]
enum Fit {
    Well,
    /// It has as many as it may.
    Full,
    No,
}

impl Look<'_> {
    fn fits(&self, balancer: &Balancer, index: u32) -> Fit {
        let Some(record) = balancer.records.get(index as usize) else { return Fit::No };
        let tried = self.not.iter().any(|slot| slot.index == index && slot.generation == record.generation);
        if tried || (!self.panic && record.is_ejected(self.now)) {
            Fit::No
        } else if record.in_flight.saturating_sub(record.streams) < balancer.in_flight_limit {
            Fit::Well
        } else {
            Fit::Full
        }
    }
}

/// The instances of one service and what one worker knows of them.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    eject: Option<Eject>,
    in_flight_limit: u32,
    records: Vec<Record>,
    by_id: HashMap<InstanceId, u32>,
    free: Vec<u32>,
    /// How many the table has, and those of them that take requests, by rising index.
    listed: usize,
    takers: Vec<u32>,
    /// All that may be left out now.
    out: Vec<u32>,
    candidates: Vec<u32>,
    cursor: u32,
    /// All that take requests, where picks are by key.
    ring: Ring,
    /// Those that take requests and are not left out, where the fewest requests in flight decide among many.
    levels: Levels,
}

/// With more instances than this only a few are drawn and looked at, where the way to pick allows it.
const MANY: usize = 16;
/// How often is drawn for one that fits, before all are looked at.
const DRAWS: usize = 4;
/// How far a key goes along the ring for one that fits, before all are looked at.
const STEPS: usize = 1024;

impl Balancer {
    /// No instances yet; `in_flight_limit`: requests at once to one of them, ≥ 1.
    #[must_use]
    pub fn new(balance: &Balance, eject: Option<&Eject>, in_flight_limit: u32) -> Self {
        Self {
            balance: balance.clone(),
            eject: eject.cloned(),
            in_flight_limit: in_flight_limit.max(1),
            records: Vec::new(),
            by_id: HashMap::new(),
            free: Vec::new(),
            listed: 0,
            takers: Vec::new(),
            out: Vec::new(),
            candidates: Vec::new(),
            cursor: u32::MAX,
            ring: Ring::default(),
            levels: Levels::default(),
        }
    }

    /// Takes up a table: new instances are added, missing ones leave once their requests ended, the records of the others
    /// stay. A new process (another incarnation, or ready anew) has a clean record.
    pub fn update(&mut self, table: &ServiceTable, in_flight_limit: u32, now: Instant, unix_ms: u64) {
        self.balance.clone_from(&table.policy.balance);
        self.eject.clone_from(&table.policy.eject);
        self.in_flight_limit = in_flight_limit.max(1);
        self.records.iter_mut().for_each(|record| record.listed = false);
        for endpoint in &table.endpoints {
            let slow_until = self.slow_until(endpoint, now, unix_ms);
            let index = self.index_of(endpoint);
            let Some(record) = self.records.get_mut(index as usize) else { continue };
            if record.endpoint.incarnation != endpoint.incarnation
                || record.endpoint.ready_unix_ms != endpoint.ready_unix_ms
            {
                record.renew();
                record.slow_until = slow_until;
            }
            if record.endpoint != *endpoint {
                record.endpoint.clone_from(endpoint);
            }
            record.listed = true;
        }
        self.forget_unlisted();
        self.listed = self.records.iter().filter(|record| record.listed).count();
        let takes = |record: &Record| record.listed && record.endpoint.state.takes_requests();
        let takers = self.records.iter().enumerate().filter(|(_, record)| takes(record));
        self.takers = takers.map(|(index, _)| index as u32).collect();
        self.prepare(now);
    }

    /// Makes ready what picks look at, from those that take requests.
    fn prepare(&mut self, now: Instant) {
        let Self { takers, records, ring, levels, .. } = self;
        match self.balance.kind {
            BalanceKind::Hash(_) => {
                let record = |index: &u32| records.get(*index as usize).map(|record| (*index, &record.endpoint.id));
                ring.update(takers.iter().filter_map(record));
            }
            _ => ring.clear(),
        }
        levels.clear();
        if self.balance.kind == BalanceKind::Least && takers.len() > MANY {
            for index in takers {
                if let Some(record) = records.get(*index as usize).filter(|record| !record.is_ejected(now)) {
                    levels.put(*index, record.in_flight);
                }
            }
        }
    }

    /// One instance for a request.
    ///
    /// - `key`: hash of the request's key; used by `hash` alone, which without one picks at random.
    /// - `not`: those that were tried already.
    ///
    /// When so many are left out that fewer than the panic threshold of those that take requests remain, nobody is.
    ///
    /// # Errors
    /// [`PickError`]: none takes requests, all were tried, or all are full.
    pub fn pick(
        &mut self,
        key: Option<u64>,
        not: &[Slot],
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Slot, PickError> {
        if self.takers.is_empty() {
            return Err(PickError::NoEndpoint { known: self.listed });
        }
        let look = Look { panic: self.is_panic(now), not, now };
        let picked = self.pick_quickly(key, &look, rng).map_or_else(|| self.pick_of_all(key, &look, rng), Ok)?;
        let generation = self.records.get(picked as usize).map_or(0, |record| record.generation);
        Ok(Slot { index: picked, generation })
    }

    /// Whether so many are left out that nobody is.
    fn is_panic(&mut self, now: Instant) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let Self { records, out, levels, takers, .. } = self;
        let counts = self.balance.kind == BalanceKind::Least && takers.len() > MANY;
        out.retain(|index| {
            let record = records.get(*index as usize);
            let is_out = record.is_some_and(|record| record.is_ejected(now));
            if let Some(record) = record.filter(|_| counts && !is_out && takers.binary_search(index).is_ok()) {
                levels.put(*index, record.in_flight);
            }
            is_out
        });
        let out = out.iter().filter(|index| self.takers.binary_search(index).is_ok()).count();
        (self.takers.len() - out) * 100 < self.takers.len() * self.balance.panic_percent as usize
    }

    /// Picks without a look at all; `None`: that takes one.
    fn pick_quickly(&mut self, key: Option<u64>, look: &Look<'_>, rng: &mut impl Rng) -> Option<u32> {
        if let (BalanceKind::Hash(_), Some(key)) = (&self.balance.kind, key) {
            return self.ring.from(key).take(STEPS).find(|index| look.fits(self, *index) == Fit::Well);
        }
        if self.takers.len() <= MANY {
            return None;
        }
        match (&self.balance.kind, key) {
            (BalanceKind::Load, _) => {
                let first = self.draw(look, None, rng)?;
                let second = self.draw(look, Some(first), rng)?;
                pick::load(&self.records, &[first, second], look.now, rng)
            }
            (BalanceKind::Random, _) | (BalanceKind::Hash(_), None) => self.draw(look, None, rng),
            (BalanceKind::RoundRobin, _) => {
                let next = self.takers.partition_point(|index| *index <= self.cursor);
                let (before, after) = self.takers.split_at(next);
                let picked = after.iter().chain(before).copied().find(|index| look.fits(self, *index) == Fit::Well)?;
                self.cursor = picked;
                Some(picked)
            }
            // Those that are left out are on no level, and count when nobody is.
            (BalanceKind::Least, _) if !look.panic => {
                let mut levels = std::mem::take(&mut self.levels);
                let picked = levels.fewest(rng, |index| look.fits(self, index) == Fit::Well);
                self.levels = levels;
                picked
            }
            (BalanceKind::Least, _) | (BalanceKind::Hash(_), Some(_)) => None,
        }
    }

    /// One that fits, other than `but`, if a few draws find one.
    fn draw(&self, look: &Look<'_>, but: Option<u32>, rng: &mut impl Rng) -> Option<u32> {
        let mut draws = (0..DRAWS).filter_map(|_| self.takers.get(rng.random_range(0..self.takers.len())).copied());
        draws.find(|index| Some(*index) != but && look.fits(self, *index) == Fit::Well)
    }

    fn pick_of_all(&mut self, key: Option<u64>, look: &Look<'_>, rng: &mut impl Rng) -> Result<u32, PickError> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let mut full = false;
        for index in &self.takers {
            match look.fits(self, *index) {
                Fit::Well => candidates.push(*index),
                Fit::Full => full = true,
                Fit::No => {}
            }
        }
        self.candidates = candidates;
        if self.candidates.is_empty() {
            return Err(if full { PickError::AllFull } else { PickError::AllTried });
        }
        let picked = match (&self.balance.kind, key) {
            (BalanceKind::Load, _) => pick::load(&self.records, &self.candidates, look.now, rng),
            (BalanceKind::Least, _) => pick::least(&self.records, &self.candidates, rng),
            (BalanceKind::RoundRobin, _) => pick::round_robin(&self.candidates, &mut self.cursor),
            (BalanceKind::Hash(_), Some(key)) => pick::rendezvous(&self.records, &self.candidates, key),
            (BalanceKind::Random, _) | (BalanceKind::Hash(_), None) => pick::random(&self.candidates, rng),
        };
        picked.ok_or(PickError::NoEndpoint { known: self.listed })
    }

    /// The instance behind a slot; `None` when it left.
    #[must_use]
    pub fn endpoint(&self, slot: Slot) -> Option<&Endpoint> {
        self.record(slot).map(|record| &record.endpoint)
    }

    /// Requests in flight to the instance behind a slot.
    #[must_use]
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.record(slot).map_or(0, |record| record.in_flight)
    }

    /// A request is about to be sent.
    pub fn begin(&mut self, slot: Slot, now: Instant) {
        if let Some(record) = self.record_mut(slot) {
            record.in_flight += 1;
            record.waiting += 1;
            record.silent_since.get_or_insert(now);
            let in_flight = record.in_flight;
            self.levels.moved(slot.index, in_flight);
        }
    }

    /// The head of its answer came after `latency`; `failed`: with a status that says that the service failed. A failure
    /// counts as slow. Returns what is left out because of it.
    pub fn answered(
        &mut self,
        slot: Slot,
        latency: Duration,
        failed: bool,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<Ejected> {
        let record = self.record_mut(slot)?;
        record.heard(now);
        record.response_time.observe(latency, now);
        if failed {
            return self.blame(slot, Failure::Status, now, rng);
        }
        record.failures = 0;
        record.times = 0;
        record.ejected = None;
        None
    }

    /// It failed before the head of an answer came. Returns what is left out because of it.
    pub fn failed(&mut self, slot: Slot, failure: Failure, now: Instant, rng: &mut impl Rng) -> Option<Ejected> {
        self.record_mut(slot)?.heard(now);
        self.blame(slot, failure, now, rng)
    }

    /// It turned out to be a stream (a WebSocket, events, a tunnel), which may last for days: from now on it takes no
    /// place among the requests that an instance may have.
    pub fn becomes_stream(&mut self, slot: Slot) {
        if let Some(record) = self.record_mut(slot) {
            record.streams += 1;
        }
    }

    /// A stream is over; in place of [`Self::end`].
    pub fn end_stream(&mut self, slot: Slot) {
        if let Some(record) = self.record_mut(slot) {
            record.streams = record.streams.saturating_sub(1);
        }
        self.end(slot);
    }

    /// It is over; exactly once for each [`Self::begin`].
    pub fn end(&mut self, slot: Slot) {
        let Some(record) = self.record_mut(slot) else { return };
        record.in_flight = record.in_flight.saturating_sub(1);
        let (in_flight, is_over) = (record.in_flight, !record.listed && record.in_flight == 0);
        self.levels.moved(slot.index, in_flight);
        if is_over {
            self.forget_unlisted();
        }
    }

    /// The instances that are left out now.
    #[must_use]
    pub fn ejections(&self, now: Instant) -> Vec<Ejected> {
        let ejected = |record: &Record| {
            let ejection = record.ejected.filter(|ejection| record.listed && now < ejection.until)?;
            Some(Ejected {
                id: record.endpoint.id.clone(),
                failure: ejection.failure,
                failures: ejection.failures,
                remaining: ejection.until.saturating_duration_since(now),
            })
        };
        self.records.iter().filter_map(ejected).collect()
    }

    fn blame(&mut self, slot: Slot, failure: Failure, now: Instant, rng: &mut impl Rng) -> Option<Ejected> {
        let policy = self.eject.clone()?;
        if !eject::count(self.record_mut(slot)?, failure, &policy) {
            return None;
        }
        let others = self.records.iter().filter(|record| record.listed && record.endpoint.state.takes_requests());
        let (mut listed, mut out, mut usable) = (0, 0, 0);
        let this = self.record(slot)?;
        for record in others {
            listed += 1;
            let is_out = record.is_ejected(now);
            out += usize::from(is_out);
            usable += usize::from(!is_out && record.endpoint.id != this.endpoint.id);
        }
        if this.is_ejected(now) || !eject::may_eject(&policy, listed, out, usable) {
            return None;
        }
        if !self.out.contains(&slot.index) {
            self.out.push(slot.index);
        }
        self.levels.remove(slot.index);
        Some(eject::eject(self.record_mut(slot)?, failure, &policy, now, rng))
    }

    fn record(&self, slot: Slot) -> Option<&Record> {
        self.records.get(slot.index as usize).filter(|record| record.generation == slot.generation)
    }

    fn record_mut(&mut self, slot: Slot) -> Option<&mut Record> {
        self.records.get_mut(slot.index as usize).filter(|record| record.generation == slot.generation)
    }

    /// A process that has been ready for a while before this caller heard of it is warm already.
    fn slow_until(&self, endpoint: &Endpoint, now: Instant, unix_ms: u64) -> Option<(Instant, Duration)> {
        let window = self.balance.slow_start;
        let age = Duration::from_millis(unix_ms.saturating_sub(endpoint.ready_unix_ms));
        (endpoint.ready_unix_ms > 0 && age < window).then(|| (now + (window - age), window))
    }

    fn index_of(&mut self, endpoint: &Endpoint) -> u32 {
        if let Some(index) = self.by_id.get(&endpoint.id) {
            return *index;
        }
        let mut fresh = endpoint.clone();
        // Not the endpoint's own, so that `update` sees a process it does not know yet.
        fresh.ready_unix_ms = u64::MAX;
        let index = match self.free.pop() {
            Some(index) => {
                let slot = &mut self.records[index as usize];
                *slot = Record::new(fresh, slot.generation.wrapping_add(1));
                index
            }
            None => {
                self.records.push(Record::new(fresh, 0));
                (self.records.len() - 1) as u32
            }
        };
        self.by_id.insert(endpoint.id.clone(), index);
        index
    }

    fn forget_unlisted(&mut self) {
        for (index, record) in self.records.iter_mut().enumerate() {
            let index = index as u32;
            if !record.listed && record.in_flight == 0 && self.by_id.get(&record.endpoint.id) == Some(&index) {
                self.by_id.remove(&record.endpoint.id);
                record.generation = record.generation.wrapping_add(1);
                self.free.push(index);
            }
        }
    }
}

#[cfg(test)]
mod tests;
