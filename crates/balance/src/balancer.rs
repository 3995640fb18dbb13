//! One service as one caller sees it: its instances, what became of the requests sent there, and who gets the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::Rng;
use synego_model::{Balance, BalanceKind, Eject, Endpoint, InstanceId, ServiceTable};

use crate::eject::{self, Ejected, Failure};
use crate::pick;
use crate::record::{Record, Slot};

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

/// The instances of one service and what one worker knows of them.
#[derive(Debug)]
pub struct Balancer {
    balance: Balance,
    eject: Option<Eject>,
    in_flight_limit: u32,
    records: Vec<Record>,
    by_id: HashMap<InstanceId, u32>,
    free: Vec<u32>,
    candidates: Vec<u32>,
    cursor: u32,
}

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
            candidates: Vec::new(),
            cursor: u32::MAX,
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
            record.endpoint.clone_from(endpoint);
            record.listed = true;
        }
        self.forget_unlisted();
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
        let (mut listed, mut takes, mut usable) = (0, 0, 0);
        for record in self.records.iter().filter(|record| record.listed) {
            listed += 1;
            takes += usize::from(record.endpoint.state.takes_requests());
            usable += usize::from(record.endpoint.state.takes_requests() && !record.is_ejected(now));
        }
        if takes == 0 {
            return Err(PickError::NoEndpoint { known: listed });
        }
        let panic = usable * 100 < takes * self.balance.panic_percent as usize;
        self.candidates.clear();
        let mut full = false;
        for (index, record) in self.records.iter().enumerate() {
            let index = index as u32;
            let tried = not.iter().any(|slot| slot.index == index && slot.generation == record.generation);
            let fits = record.listed && record.endpoint.state.takes_requests() && (panic || !record.is_ejected(now));
            if fits && !tried {
                if record.in_flight.saturating_sub(record.streams) < self.in_flight_limit {
                    self.candidates.push(index);
                } else {
                    full = true;
                }
            }
        }
        if self.candidates.is_empty() {
            return Err(if full { PickError::AllFull } else { PickError::AllTried });
        }
        let picked = match (&self.balance.kind, key) {
            (BalanceKind::Load, _) => pick::load(&self.records, &self.candidates, now, rng),
            (BalanceKind::Least, _) => pick::least(&self.records, &self.candidates, rng),
            (BalanceKind::RoundRobin, _) => pick::round_robin(&self.candidates, &mut self.cursor),
            (BalanceKind::Hash(_), Some(key)) => pick::rendezvous(&self.records, &self.candidates, key),
            (BalanceKind::Random, _) | (BalanceKind::Hash(_), None) => pick::random(&self.candidates, rng),
        };
        picked
            .and_then(|index| Some(Slot { index, generation: self.records.get(index as usize)?.generation }))
            .ok_or(PickError::NoEndpoint { known: listed })
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
        if !record.listed && record.in_flight == 0 {
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
        let due = eject::count(self.record_mut(slot)?, failure, &policy);
        let others = self.records.iter().filter(|record| record.listed && record.endpoint.state.takes_requests());
        let (mut listed, mut out, mut usable) = (0, 0, 0);
        let this = self.record(slot)?;
        for record in others {
            listed += 1;
            let is_out = record.is_ejected(now);
            out += usize::from(is_out);
            usable += usize::from(!is_out && record.endpoint.id != this.endpoint.id);
        }
        if !due || this.is_ejected(now) || !eject::may_eject(&policy, listed, out, usable) {
            return None;
        }
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
