//! Who leaves whom out: what each caller told, and for each instance those that leave it out.
//!
//! Nearly all reports leave nobody out and cost a look or two. Only when one that somebody leaves out is judged are the
//! callers counted, once for all that are judged together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use synego_model::{CallFigures, Cause, EjectionReport, InstanceId, InstanceState, Reason, ServiceName};

use super::At;
use super::roster::Roster;

/// How long a caller counts as one after its last request, in milliseconds.
const CALLER_MS: u64 = 10_000;

/// An instance that a caller leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// Until when, in the judge's time.
    pub until_ms: u64,
}

/// One who calls: the instance beside whose service it stands; `None`: this master's own ingress.
pub(super) type Who = Option<InstanceId>;

/// What one caller sees of others.
#[derive(Debug, Default)]
struct Caller {
    ejections: BTreeMap<InstanceId, Ejection>,
    /// Services that it called, with when it did so last.
    called: BTreeMap<ServiceName, u64>,
}

/// What all callers see.
#[derive(Debug, Default)]
pub(super) struct Callers {
    callers: BTreeMap<Who, Caller>,
    /// Who told last that it leaves an instance out; some of that may be over by now.
    left_out: BTreeMap<InstanceId, BTreeSet<Who>>,
}

impl Caller {
    fn ejection_of(&self, id: &InstanceId, at: At) -> Option<&Ejection> {
        self.ejections.get(id).filter(|ejection| ejection.until_ms > at.ms)
    }

    /// Whether it called `service` lately.
    fn calls(&self, service: &ServiceName, at: At) -> bool {
        self.called.get(service).is_some_and(|last| is_lately(*last, at))
    }
}

fn is_lately(last: u64, at: At) -> bool {
    at.ms.saturating_sub(last) < CALLER_MS
}

impl Callers {
    /// Takes what a caller told; returns the instances that it leaves out now and did not before, or the other way round.
    pub(super) fn told(
        &mut self,
        who: Who,
        ejections: Vec<EjectionReport>,
        calls: &[CallFigures],
        at: At,
    ) -> BTreeSet<InstanceId> {
        let mut called = calls.iter().filter(|calls| calls.requests > 0).map(|calls| &calls.service).peekable();
        if ejections.is_empty() && called.peek().is_none() && !self.callers.contains_key(&who) {
            return BTreeSet::new();
        }
        let caller = self.callers.entry(who.clone()).or_default();
        caller.called.retain(|_, last| is_lately(*last, at));
        caller.called.extend(called.map(|service| (service.clone(), at.ms)));
        let until = |report: EjectionReport| {
            let ejection = Ejection { cause: report.cause, until_ms: at.ms.saturating_add(report.remaining_ms) };
            (report.instance, ejection)
        };
        let before = std::mem::replace(&mut caller.ejections, ejections.into_iter().map(until).collect());
        let now = &caller.ejections;
        for id in now.keys().filter(|id| !before.contains_key(*id)) {
            self.left_out.entry(id.clone()).or_default().insert(who.clone());
        }
        for id in before.keys().filter(|id| !now.contains_key(*id)) {
            forget(&mut self.left_out, id, &who);
        }
        let holds = |told: &BTreeMap<InstanceId, Ejection>, id| told.get(id).is_some_and(|told| told.until_ms > at.ms);
        let all = before.keys().chain(now.keys());
        all.filter(|id| holds(&before, *id) != holds(now, *id)).cloned().collect()
    }

    /// A caller is there no more; returns the instances that it left out.
    pub(super) fn left(&mut self, who: &Who) -> BTreeSet<InstanceId> {
        let Some(caller) = self.callers.remove(who) else { return BTreeSet::new() };
        for id in caller.ejections.keys() {
            forget(&mut self.left_out, id, who);
        }
        caller.ejections.into_keys().collect()
    }

    /// All that somebody leaves out: what becomes of them is a matter of time as well.
    pub(super) fn all_left_out(&self) -> impl Iterator<Item = &InstanceId> {
        self.left_out.keys()
    }

    /// Callers that leave `id` out, with why; those that are gone left out.
    pub(super) fn of<'a>(
        &'a self,
        id: &'a InstanceId,
        roster: &'a Roster,
        at: At,
    ) -> impl Iterator<Item = (&'a Who, &'a Ejection)> {
        let told = self.left_out.get(id).into_iter().flatten().filter(|who| is_there(who, roster));
        told.filter_map(move |who| Some((who, self.callers.get(who)?.ejection_of(id, at)?)))
    }

    /// Those of `touched` that most of their callers leave out, with why.
    pub(super) fn left_out_by_most(
        &self,
        touched: &BTreeSet<InstanceId>,
        roster: &Roster,
        at: At,
    ) -> BTreeMap<InstanceId, Cause> {
        let asked: Vec<&InstanceId> = touched.iter().filter(|id| self.left_out.contains_key(*id)).collect();
        if asked.is_empty() {
            return BTreeMap::new();
        }
        let mut callers_of: HashMap<&ServiceName, usize> = HashMap::new();
        for (_, caller) in self.callers.iter().filter(|(who, _)| is_there(who, roster)) {
            for (service, _) in caller.called.iter().filter(|(_, last)| is_lately(**last, at)) {
                *callers_of.entry(service).or_default() += 1;
            }
        }
        let by_most = |id: &InstanceId| {
            let service = &roster.get(id)?.announcement.service;
            let calls = |who: &Who| self.callers.get(who).is_some_and(|caller| caller.calls(service, at));
            let mut leaving =
                self.of(id, roster, at).filter(|(who, _)| calls(who)).map(|(_, ejection)| &ejection.cause);
            let why = leaving.next()?;
            let (leaving, all) = (1 + leaving.count(), callers_of.get(service).copied().unwrap_or_default());
            (leaving * 2 > all).then(|| Cause {
                reason: Reason::Ejected,
                message: format!("{leaving} of {all} callers leave it out: {why}"),
                since_unix_ms: why.since_unix_ms,
            })
        };
        asked.into_iter().filter_map(|id| Some((id.clone(), by_most(id)?))).collect()
    }
}

fn is_there(who: &Who, roster: &Roster) -> bool {
    who.as_ref().is_none_or(|id| roster.get(id).is_some_and(|found| found.state != InstanceState::Gone))
}

fn forget(left_out: &mut BTreeMap<InstanceId, BTreeSet<Who>>, id: &InstanceId, who: &Who) {
    if let Some(callers) = left_out.get_mut(id) {
        callers.remove(who);
        if callers.is_empty() {
            left_out.remove(id);
        }
    }
}
