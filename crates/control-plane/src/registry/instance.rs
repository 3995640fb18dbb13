//! One instance as a master sees it: what it announced and reported, how long it was silent, and its state from all that.

use std::collections::VecDeque;
use std::time::Duration;

use synego_model::declaration::Liveness;
use synego_model::{Announcement, Cause, Endpoint, HealthReport, InstanceId, InstanceLoad, InstanceState, Reason};

use super::{At, Link, SHOWN_GONE_MS};

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
    /// When silence alone makes another state of it, in the judge's time.
    due_ms: u64,
}

impl Instance {
    pub(super) fn new(announcement: Announcement, link: Link, at: At) -> Self {
        Self {
            announcement,
            report: None,
            state: InstanceState::Starting,
            cause: None,
            ready_unix_ms: 0,
            link: Some(link),
            superseded: VecDeque::new(),
            shown: None,
            heard_ms: at.ms,
            unlinked: None,
            seen_cold: false,
            due_ms: 0,
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

    /// Takes a report.
    pub(super) fn reported(&mut self, report: HealthReport, at: At) {
        self.heard_ms = at.ms;
        self.report = Some(report);
    }

    /// Its link ended.
    pub(super) fn unlinked(&mut self, at: At) {
        self.link = None;
        self.unlinked = Some(at);
    }

    pub(super) fn id(&self) -> InstanceId {
        self.announcement.id.clone()
    }

    /// Whether its end was announced before its link ended: then there is nothing to explain. That a job is done is shown
    /// for a while.
    pub(super) fn ended_on_purpose(&self) -> bool {
        let ends = |report: &HealthReport| {
            matches!(report.state, InstanceState::Draining | InstanceState::Gone) && done(report).is_none()
        };
        self.link.is_none() && self.report.as_ref().is_some_and(ends)
    }

    /// Whether it is a job that has ended as it should.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == InstanceState::Gone && self.report.as_ref().is_some_and(|report| done(report).is_some())
    }

    /// Takes the judge's own lateness off the silence.
    pub(super) fn forgive(&mut self, lag_ms: u64, at: At) {
        self.heard_ms = (self.heard_ms + lag_ms).min(at.ms.max(self.heard_ms));
    }

    /// Whether it has been gone for so long that no one asks any more.
    pub(super) fn is_over(&self, at: At) -> bool {
        self.unlinked.is_some_and(|since| at.ms.saturating_sub(since.ms) >= SHOWN_GONE_MS)
    }

    /// Whether silence alone may make another state of it by now.
    pub(super) fn is_due(&self, at: At) -> bool {
        at.ms >= self.due_ms
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
            if let Some(done) = self.report.as_ref().and_then(done) {
                return (InstanceState::Gone, Some(done));
            }
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

    /// Notes when silence alone will make another state of it than that of now, for which it was heard `heard_until`.
    pub(super) fn note_due(&mut self, liveness: Liveness, heard_until: u64) {
        let after =
            |limit: Duration| self.heard_ms.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let limits = [after(liveness.suspect), after(liveness.gone)];
        let next = limits.into_iter().filter(|due| *due > heard_until && self.unlinked.is_none()).min();
        self.due_ms = next.unwrap_or(u64::MAX);
    }

    /// Whether callers see it as it is now, and if not, whether it is more than a figure of load that they miss.
    pub(super) fn is_shown_by(&self, endpoint: Option<&Endpoint>) -> Shown {
        let (now, shown) = match (self.reported_to_callers(), endpoint) {
            (None, None) => return Shown::Right,
            (Some(report), Some(shown)) => (report, shown),
            _ => return Shown::Wrong,
        };
        let said = &self.announcement;
        let same = shown.address == said.address
            && shown.state == self.state
            && shown.version == said.version
            && shown.zone == said.zone
            && shown.ready_unix_ms == self.ready_unix_ms
            && self.is_incarnation(&shown.incarnation);
        match (same, shown.utilization == told(now.load.utilization)) {
            (true, true) => Shown::Right,
            (true, false) => Shown::OtherLoad,
            (false, _) => Shown::Wrong,
        }
    }

    /// What it reported, if callers see it at all.
    fn reported_to_callers(&self) -> Option<&HealthReport> {
        self.report.as_ref().filter(|_| self.state != InstanceState::Gone)
    }

    /// How callers see it; `None` when it is gone, or said nothing of its state yet: callers that know it from another
    /// master go on with what they know.
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        let report = self.reported_to_callers()?;
        Some(Endpoint {
            id: self.announcement.id.clone(),
            address: self.announcement.address,
            state: self.state,
            version: self.announcement.version.clone(),
            zone: self.announcement.zone.clone(),
            utilization: told(report.load.utilization),
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

    /// Whether that is `text`; without making it anew.
    fn is_incarnation(&self, text: &str) -> bool {
        let Some(rest) = text.strip_prefix(self.announcement.incarnation.as_str()) else { return false };
        match self.announcement.started_unix_ms {
            0 => rest.is_empty(),
            started => rest.strip_prefix('.').and_then(|rest| rest.parse().ok()) == Some(started),
        }
    }
}

/// Why an instance is gone that has ended as it should: a job that is done.
fn done(report: &HealthReport) -> Option<Cause> {
    let is_done = |cause: &&Cause| report.state == InstanceState::Gone && cause.reason == Reason::JobDone;
    report.cause.as_ref().filter(is_done).cloned()
}

/// Whether callers see an instance as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// They do.
    Right,
    /// All but how busy it is.
    OtherLoad,
    /// No.
    Wrong,
}

/// Utilization as callers are told.
fn told(utilization: Option<f64>) -> Option<f64> {
    utilization.map(|share| (share / UTILIZATION_STEP).round() * UTILIZATION_STEP)
}
