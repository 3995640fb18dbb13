//! One instance as a master sees it: what it announced and reported, how long it was silent, and its state from all that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use synego_model::declaration::Liveness;
use synego_model::{
    Announcement, CallFigures, Cause, EjectionReport, Endpoint, HealthReport, InstanceId, InstanceLoad, InstanceState,
    Reason, ServiceName,
};

use super::{At, CALLER_MS, Link, SHOWN_GONE_MS};

/// How many earlier incarnations are remembered, so that none of them comes back while a newer one lives.
const MAX_SUPERSEDED: usize = 8;
/// Step in which utilization is told to callers: finer changes are not worth a delta each second.
const UTILIZATION_STEP: f64 = 0.05;

/// One instance.
#[derive(Debug)]
pub struct Instance {
    /// What it announced last.
    pub announcement: Announcement,
    /// What it reported last.
    pub report: Option<HealthReport>,
    /// Its state.
    pub state: InstanceState,
    /// Why.
    pub cause: Option<Cause>,
    /// When it became ready: milliseconds since 1970-01-01 UTC; 0: not yet.
    pub ready_unix_ms: u64,
    pub(super) caller: Caller,
    pub(super) link: Option<Link>,
    pub(super) superseded: VecDeque<String>,
    /// The state that was told last; `None`: none yet.
    pub(super) shown: Option<InstanceState>,
    /// When it was heard last, in the judge's time.
    heard_ms: u64,
    /// When its link ended; it is gone since then.
    unlinked: Option<At>,
    /// Whether it was seen without being ready: then the moment it becomes so is known first-hand.
    seen_cold: bool,
}

impl Instance {
    pub(super) fn new(announcement: Announcement, link: Link, at: At) -> Self {
        Self {
            announcement,
            report: None,
            state: InstanceState::Starting,
            cause: None,
            ready_unix_ms: 0,
            caller: Caller::default(),
            link: Some(link),
            superseded: VecDeque::new(),
            shown: None,
            heard_ms: at.ms,
            unlinked: None,
            seen_cold: false,
        }
    }

    /// Takes over from an earlier record of the same id: all of it when it is the same incarnation that came back on
    /// another link, else only the memory of who was there before.
    pub(super) fn follow(&mut self, former: Self) {
        self.superseded = former.superseded;
        self.shown = former.shown;
        if former.announcement.incarnation == self.announcement.incarnation {
            self.report = former.report;
            self.ready_unix_ms = former.ready_unix_ms;
            self.seen_cold = former.seen_cold;
            (self.state, self.cause) = (former.state, former.cause);
            return;
        }
        self.superseded.retain(|incarnation| *incarnation != self.announcement.incarnation);
        self.superseded.push_back(former.announcement.incarnation);
        if self.superseded.len() > MAX_SUPERSEDED {
            self.superseded.pop_front();
        }
    }

    /// Takes a report; returns the instances about which this one, as a caller, thinks otherwise now.
    pub(super) fn reported(&mut self, report: HealthReport, at: At) -> BTreeSet<InstanceId> {
        self.heard_ms = at.ms;
        let touched = self.caller.told(report.ejections.clone(), &report.calls, at);
        self.report = Some(report);
        touched
    }

    /// Its link ended; returns the instances that it left out as a caller.
    pub(super) fn unlinked(&mut self, at: At) -> BTreeSet<InstanceId> {
        self.link = None;
        self.unlinked = Some(at);
        std::mem::take(&mut self.caller).ejections.into_keys().collect()
    }

    /// Whether its end was announced before its link ended: then there is nothing to explain.
    pub(super) fn ended_on_purpose(&self) -> bool {
        let last = self.report.as_ref().map(|report| report.state);
        self.link.is_none() && matches!(last, Some(InstanceState::Draining | InstanceState::Gone))
    }

    /// Takes the judge's own lateness off the silence.
    pub(super) fn forgive(&mut self, lag_ms: u64, at: At) {
        self.heard_ms = (self.heard_ms + lag_ms).min(at.ms.max(self.heard_ms));
    }

    /// Whether it has been gone for so long that no one asks any more.
    pub(super) fn is_over(&self, at: At) -> bool {
        self.unlinked.is_some_and(|since| at.ms.saturating_sub(since.ms) >= SHOWN_GONE_MS)
    }

    /// Silence, in milliseconds.
    #[must_use]
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms)
    }

    /// How much is going on in it.
    #[must_use]
    pub fn load(&self) -> InstanceLoad {
        self.report.as_ref().map(|report| report.load.clone()).unwrap_or_default()
    }

    /// The state that follows from link, silence, report and callers, in this order.
    pub(super) fn judged(
        &self,
        liveness: Liveness,
        heard_until: u64,
        ejected: Option<Cause>,
        at: At,
    ) -> (InstanceState, Option<Cause>) {
        let because = |reason, message: String| Some(Cause { reason, message, since_unix_ms: at.unix_ms });
        if let Some(since) = self.unlinked {
            let message = "its sidecar's stream to this master ended".to_owned();
            let cause = Cause { reason: Reason::SidecarGone, message, since_unix_ms: since.unix_ms };
            return (InstanceState::Gone, Some(cause));
        }
        let silent = self.silent_ms(heard_until);
        if u128::from(silent) >= liveness.gone.as_millis() {
            return (InstanceState::Gone, because(Reason::ReportMissing, "no report for too long".into()));
        }
        let Some(report) = &self.report else {
            return (InstanceState::Starting, because(Reason::Starting, "linked, no report yet".into()));
        };
        if report.state.takes_requests() && u128::from(silent) >= liveness.suspect.as_millis() {
            return (InstanceState::Degraded, because(Reason::ReportMissing, "its sidecar is silent".into()));
        }
        match ejected {
            Some(cause) if report.state.takes_requests() => (InstanceState::Degraded, Some(cause)),
            _ => (report.state, report.cause.clone()),
        }
    }

    /// Takes a state on; a cause of the same kind keeps the time at which it began.
    pub(super) fn turn(&mut self, state: InstanceState, mut cause: Option<Cause>, at: At) {
        if let (Some(before), Some(now)) = (&self.cause, &mut cause)
            && before.reason == now.reason
            && self.state == state
        {
            now.since_unix_ms = before.since_unix_ms;
        }
        let stopped = matches!(state, InstanceState::Starting | InstanceState::Unhealthy);
        if state.takes_requests() && self.ready_unix_ms == 0 {
            // One that is ready from its first report on was ready before this master heard of it.
            let warm = !self.seen_cold && self.announcement.started_unix_ms > 0;
            self.ready_unix_ms = if warm { self.announcement.started_unix_ms } else { at.unix_ms };
        } else if stopped && self.report.is_some() {
            // What is silent or out of reach may still be as warm as before: only a stop makes it new again.
            self.ready_unix_ms = 0;
            self.seen_cold = true;
        }
        (self.state, self.cause, self.shown) = (state, cause, Some(state));
    }

    /// How callers see it; `None` when it is gone, or said nothing of its state yet: callers that know it from another
    /// master go on with what they know.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let utilization = self.report.as_ref()?.load.utilization;
        (self.state != InstanceState::Gone).then(|| Endpoint {
            id: self.announcement.id.clone(),
            address: self.announcement.address,
            state: self.state,
            version: self.announcement.version.clone(),
            zone: self.announcement.zone.clone(),
            utilization: utilization.map(|share| (share / UTILIZATION_STEP).round() * UTILIZATION_STEP),
            ready_unix_ms: self.ready_unix_ms,
            incarnation: self.incarnation(),
        })
    }

    /// What callers keep a record for: this start of the sidecar and of the process behind it, so that a process that
    /// was started anew is not blamed for the one before.
    fn incarnation(&self) -> String {
        match self.announcement.started_unix_ms {
            0 => self.announcement.incarnation.clone(),
            started => format!("{}.{started}", self.announcement.incarnation),
        }
    }
}

/// An instance that a caller leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// Until when, in the judge's time.
    pub until_ms: u64,
}

/// What one caller sees of others.
#[derive(Debug, Default)]
pub(super) struct Caller {
    ejections: BTreeMap<InstanceId, Ejection>,
    /// Services that it called, with when it did so last.
    called: BTreeMap<ServiceName, u64>,
}

impl Caller {
    /// Takes what it told; returns the instances about which it thinks otherwise than before.
    pub(super) fn told(
        &mut self,
        ejections: Vec<EjectionReport>,
        calls: &[CallFigures],
        at: At,
    ) -> BTreeSet<InstanceId> {
        self.called.retain(|_, last| at.ms.saturating_sub(*last) < CALLER_MS);
        self.called.extend(calls.iter().filter(|calls| calls.requests > 0).map(|calls| (calls.service.clone(), at.ms)));
        let until = |report: EjectionReport| {
            let ejection = Ejection { cause: report.cause, until_ms: at.ms.saturating_add(report.remaining_ms) };
            (report.instance, ejection)
        };
        let before = std::mem::replace(&mut self.ejections, ejections.into_iter().map(until).collect());
        let now = self.ejections.keys();
        before.keys().filter(|id| !self.ejections.contains_key(*id)).chain(now).cloned().collect()
    }

    pub(super) fn ejection_of(&self, id: &InstanceId, at: At) -> Option<&Ejection> {
        self.ejections.get(id).filter(|ejection| ejection.until_ms > at.ms)
    }

    /// Whether it called `service` lately.
    pub(super) fn calls(&self, service: &ServiceName, at: At) -> bool {
        self.called.get(service).is_some_and(|last| at.ms.saturating_sub(*last) < CALLER_MS)
    }
}
