//! One link while it stands: what the sidecar says is taken in, what is new leaves when there is room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use synego_model::{
    Announcement, Declaration, HealthReport, InstanceId, InstanceState, Reason, ServiceName, ServiceTable, Snapshot,
};
use synego_runtime::lifecycle::Stop;
use synego_runtime::{clock, tasks};
use synego_wire::convert::Invalid;
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::report::announced;
use synego_wire::convert::table::{self, MAX_SERVICES};
use synego_wire::pb::from_master::Is as Down;
use synego_wire::pb::from_sidecar::Is as Up;
use synego_wire::{pb, status};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Status, Streaming};

use super::refused;
use crate::authority::InForce;
use crate::master::{Ask, Declared, Shared};
use crate::registry::{Event, Link};

/// Shortest time between two updates to the same sidecar.
const COALESCE: Duration = Duration::from_millis(50);
/// Time between looks whether callers know of a drain, and how long it is looked.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
const DRAIN_WATCHED: Duration = Duration::from_secs(5);

/// Says that a link ended, however it does.
pub(super) struct Guard {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    pub(super) id: InstanceId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.links.remove(self.link);
        let event = Ask::Event(Box::new(Event::Unlinked(self.link)));
        // A full inbox must not lose the news of a death.
        if let Err(mpsc::error::TrySendError::Full(event)) = self.shared.asks.try_send(event) {
            let asks = self.shared.asks.clone();
            tasks::spawn("mesh-unlink", tasks::Kind::Connection, async move {
                let _ending = asks.send(event).await;
            });
        }
        tracing::debug!(instance = %self.id, "link ended");
    }
}

/// One link while it stands.
pub(super) struct LinkTask {
    guard: Guard,
    announcement: Announcement,
    to: mpsc::Sender<Result<pb::FromMaster, Status>>,
    commanded: mpsc::Receiver<pb::Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    declared: watch::Receiver<Declared>,
    /// Whom to trust; `None`: the mesh runs without certificates.
    trust: Option<watch::Receiver<Arc<InForce>>>,
    /// Settings that the sidecar has.
    settings: SidecarSettings,
    /// What these follow from; `None`: not known.
    settled: Option<Settled>,
    /// What the sidecar wants to know; `None`: nothing, another master tells it.
    subscribed: Option<Arc<BTreeSet<ServiceName>>>,
    /// Its instance drains: since when, and the epoch by which callers know.
    draining: Option<(std::time::Instant, Option<u64>)>,
    /// Whether it drained at its last report.
    has_drained: bool,
    /// What it knows; `None`: nothing yet.
    sent: Option<Arc<Snapshot>>,
    /// When the next update may leave.
    due: Option<std::time::Instant>,
    last_sent: Option<std::time::Instant>,
}

/// What the settings of a sidecar follow from.
struct Settled {
    declaration: Arc<Declaration>,
    /// What callers know of its service.
    table: Option<Arc<ServiceTable>>,
}

impl Settled {
    /// Whether another instance than `own` is ready.
    fn has_ready_beside(&self, own: &InstanceId) -> bool {
        let endpoints = self.table.iter().flat_map(|table| &table.endpoints);
        endpoints.filter(|endpoint| endpoint.state == InstanceState::Ready).any(|endpoint| endpoint.id != *own)
    }

    /// Whether `other` is the very same, not one like it.
    fn is(&self, other: &Self) -> bool {
        let same_table = match (&self.table, &other.table) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        };
        same_table && Arc::ptr_eq(&self.declaration, &other.declaration)
    }
}

impl LinkTask {
    /// For a sidecar that has `settings` and nothing else yet.
    pub(super) fn new(
        guard: Guard,
        announcement: Announcement,
        settings: SidecarSettings,
        to: mpsc::Sender<Result<pb::FromMaster, Status>>,
        commanded: mpsc::Receiver<pb::Command>,
    ) -> Self {
        let shared = &guard.shared;
        Self {
            snapshot: shared.snapshot.subscribe(),
            declared: shared.declared.subscribe(),
            trust: shared.door.as_ref().map(|door| door.authority.watch()),
            guard,
            announcement,
            to,
            commanded,
            settings,
            settled: None,
            subscribed: None,
            draining: None,
            has_drained: false,
            sent: None,
            due: None,
            last_sent: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut from: Streaming<pb::FromSidecar>,
        mut ended: oneshot::Receiver<&'static str>,
        stop: Stop,
    ) {
        if let Some(trust) = &mut self.trust {
            trust.mark_changed();
        }
        let last = loop {
            let due = self.due;
            tokio::select! {
                message = from.message() => match message {
                    Ok(Some(message)) => {
                        if let Err(refusal) = self.take(message).await {
                            break Some(refusal);
                        }
                    }
                    Ok(None) | Err(_) => break None,
                },
                Ok(why) = &mut ended => break Some(status::refusal(Reason::InstanceTaken, why)),
                // Who may call this service is part of the snapshot, so every link looks. Once an update is due it takes along
                // all that comes until then.
                Ok(()) = self.snapshot.changed(), if due.is_none() => self.schedule(),
                Ok(()) = self.declared.changed() => self.schedule(),
                () = turned(&mut self.trust), if self.to.capacity() > 0 => {
                    let told = self.trust.as_mut().map(|trust| trust.borrow_and_update().trust());
                    if let Some(told) = told {
                        self.send(Down::Trust(told));
                    }
                }
                () = sleep_until(due), if due.is_some() => self.send_due(),
                () = tokio::time::sleep(DRAIN_LOOK), if self.draining.is_some() => self.look_at_drain(),
                Some(command) = self.commanded.recv(), if self.to.capacity() > 0 => {
                    self.send(Down::Command(command));
                }
                () = stop.stopped() => break Some(Status::unavailable("this master is ending")),
            }
        };
        if let Some(last) = last {
            tracing::debug!(instance = %self.guard.id, cause = %last.message(), "link is being ended");
            let _full_or_gone = self.to.try_send(Err(last));
        }
    }

    /// Takes one message of the sidecar in; the error ends the link.
    async fn take(&mut self, message: pb::FromSidecar) -> Result<(), Status> {
        let link = self.guard.link;
        let event = match message.is {
            Some(Up::Report(report)) => {
                let report = HealthReport::try_from(&report).map_err(|invalid| self.refuse(&invalid))?;
                let drains = matches!(report.state, InstanceState::Draining | InstanceState::Gone);
                if drains != std::mem::replace(&mut self.has_drained, drains) {
                    self.draining = drains.then(|| (clock::now(), None));
                }
                Event::Reported(link, report)
            }
            Some(Up::Announced(said)) => {
                let before = &self.announcement;
                let next = announced(&said, &before.node, &before.zone, &before.incarnation)
                    .map_err(|invalid| self.refuse(&invalid))?;
                if next.id != before.id || next.service != before.service {
                    let message = "instance, service: changed while the link stands";
                    return Err(status::refusal(Reason::InvalidMessage, message));
                }
                self.announcement = next.clone();
                Event::Announced(link, next)
            }
            Some(Up::Subscribe(subscribe)) => {
                self.subscribe(&subscribe)?;
                return Ok(());
            }
            Some(Up::Taken(taken)) => {
                self.guard.shared.links.taken(link, taken.epoch);
                if !taken.refused.is_empty() {
                    self.guard.shared.metrics.refused("update");
                    tracing::warn!(instance = %self.guard.id, epoch = taken.epoch, cause = taken.refused, "update refused");
                }
                return Ok(());
            }
            Some(Up::Output(lines)) => {
                self.guard.shared.links.deliver(link, lines);
                return Ok(());
            }
            Some(Up::Order(step)) => {
                self.guard.shared.links.stepped(link, step);
                return Ok(());
            }
            Some(Up::Join(_)) => return Err(status::refusal(Reason::InvalidMessage, "a second join")),
            // A message of a newer protocol.
            None => return Ok(()),
        };
        let sent = self.guard.shared.asks.send(Ask::Event(Box::new(event))).await;
        sent.map_err(|_| Status::unavailable("this master is ending"))
    }

    fn refuse(&self, invalid: &Invalid) -> Status {
        tracing::warn!(instance = %self.guard.id, cause = %invalid, "message refused");
        self.guard.shared.metrics.refused("message");
        refused(invalid)
    }

    fn subscribe(&mut self, subscribe: &pb::Subscribe) -> Result<(), Status> {
        if subscribe.service.len() > MAX_SERVICES {
            let message = format!("service: has {} entries, at most {MAX_SERVICES}", subscribe.service.len());
            return Err(status::refusal(Reason::InvalidMessage, message));
        }
        let names: Result<BTreeSet<ServiceName>, _> = subscribe.service.iter().map(|name| name.parse()).collect();
        let names = names.map_err(|error| status::refusal(Reason::InvalidMessage, format!("service: {error}")))?;
        self.subscribed = subscribe.active.then(|| Arc::new(names));
        self.guard.shared.links.subscribed(self.guard.link, self.subscribed.clone());
        // Subscribing asks for everything anew.
        self.sent = None;
        self.due = subscribe.active.then(clock::now);
        Ok(())
    }

    /// Sees to it that what is new leaves soon: at once after a while of silence, else with what comes meanwhile.
    fn schedule(&mut self) {
        let now = clock::now();
        let earliest = self.last_sent.map_or(now, |last| (last + COALESCE).max(now));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Sends settings and routing state that the sidecar does not have yet; what does not fit is tried again.
    fn send_due(&mut self) {
        self.due = None;
        self.last_sent = Some(clock::now());
        let declaration = Arc::clone(&self.declared.borrow_and_update().declaration);
        let now = Arc::clone(&self.snapshot.borrow_and_update());
        let settled = Settled { declaration, table: now.service(self.announcement.service.as_str()).cloned() };
        // A snapshot wakes every link, and changes the settings of few.
        if !self.settled.as_ref().is_some_and(|former| former.is(&settled)) {
            let mut settings = self.guard.shared.settings(&self.announcement.service);
            settings.others_ready = settled.has_ready_beside(&self.announcement.id);
            if settings != self.settings {
                if !self.send(Down::Settings((&settings).into())) {
                    return;
                }
                self.settings = settings;
            }
            self.settled = Some(settled);
        }
        let Some(names) = self.subscribed.as_deref() else { return };
        let (kind, message) = match &self.sent {
            None => ("snapshot", Some(Down::Snapshot(table::snapshot(&now, names)))),
            Some(sent) => ("delta", table::delta(sent, &now, names).map(Down::Delta)),
        };
        let Some(message) = message else { return };
        if self.send(message) {
            self.guard.shared.metrics.published(kind);
            self.sent = Some(now);
        }
    }

    /// Tells the sidecar once all callers have taken up that its instance drains.
    fn look_at_drain(&mut self) {
        let Some((since, epoch)) = self.draining else { return };
        let (service, id) = (&self.announcement.service, &self.announcement.id);
        let epoch = epoch.or_else(|| {
            let snapshot = self.snapshot.borrow();
            let shown = snapshot.service(service.as_str()).and_then(|table| table.endpoint(id));
            let is_known = shown.is_none_or(|endpoint| !endpoint.state.takes_requests());
            is_known.then_some(snapshot.epoch().0)
        });
        let know = epoch.is_some_and(|epoch| self.guard.shared.links.have_taken(service, epoch));
        let is_late = clock::now().duration_since(since) > DRAIN_WATCHED;
        self.draining = (!know && !is_late).then_some((since, epoch));
        if know {
            self.send(Down::DrainKnown(true));
        }
    }

    /// Sends one message if there is room; if not, the next try is after the shortest time between updates.
    fn send(&mut self, message: Down) -> bool {
        let sent = self.to.try_send(Ok(pb::FromMaster { is: Some(message) })).is_ok();
        if !sent {
            self.due = Some(clock::now() + COALESCE);
        }
        sent
    }
}

async fn turned(trust: &mut Option<watch::Receiver<Arc<InForce>>>) {
    match trust {
        Some(trust) => {
            if trust.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<std::time::Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}
