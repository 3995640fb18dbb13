//! What a master knows and decides: who is alive and how, which routes hold, and the snapshot that follows from it.
//!
//! Pure: [`Registry::apply`] takes an event and the time, and returns what changed. It merges what the manifest declares
//! with what sidecars announce and report. Reports are soft state: nothing of it is ever written down.
//!
//! **Invariants.** An instance has one incarnation at a time. An instance that is gone is in no table. Epochs grow with
//! each change and only then. Silence is judged by the time of the last tick, from which the judge's own lateness has
//! been taken off: a master that stood still for a while blames nobody for it.

mod access;
mod instance;
mod routes;
mod service;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use synego_model::{
    Announcement, CallFigures, Caller, Cause, Declaration, Denial, EjectionReport, Epoch, HealthReport, InstanceId, InstanceState,
    Reason, Route, ServiceName, ServiceTable, Snapshot,
};

pub use instance::{Ejection, Instance};
pub use service::ServiceStatus;

/// How long an instance that is gone is still shown with its cause, in milliseconds.
const SHOWN_GONE_MS: u64 = 60_000;
/// How long a caller counts as one after its last request, in milliseconds.
const CALLER_MS: u64 = 10_000;
/// Most instances of a mesh.
const MAX_INSTANCES: usize = 10_000;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Monotonic, in milliseconds from any beginning.
    pub ms: u64,
    /// Milliseconds since 1970-01-01 UTC, for people.
    pub unix_ms: u64,
}

/// One sidecar's link to this master; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The manifest says this from now on.
    Declared(Declaration),
    /// A sidecar linked and announced its instance.
    Linked(Link, Announcement),
    /// A linked sidecar announces this from now on.
    Announced(Link, Announcement),
    /// A linked sidecar reported.
    Reported(Link, HealthReport),
    /// A link ended.
    Unlinked(Link),
    /// What this master's own ingress sees as a caller.
    Ingress(Vec<EjectionReport>, Vec<CallFigures>, Vec<Denial>),
    /// Time went on.
    Tick,
}

/// What follows.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Routing changed.
    Published {
        /// The new state.
        snapshot: Arc<Snapshot>,
        /// Services whose table changed, came or went.
        changed: BTreeSet<ServiceName>,
    },
    /// This link is to be ended: another one speaks for the instance now.
    Superseded(Link),
    /// This link is not taken, and why.
    Refused(Link, String),
    /// An instance came or changed its state.
    Turned {
        /// Which.
        id: InstanceId,
        /// Its state before; `None`: it is new.
        from: Option<InstanceState>,
        /// Its state now.
        to: InstanceState,
        /// Why.
        cause: Option<Cause>,
    },
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// A closed word, such as `route_taken`.
    pub code: String,
    /// In one sentence.
    pub message: String,
    /// The service that it is about.
    pub service: Option<ServiceName>,
}

/// The knowledge of one master.
#[derive(Debug)]
pub struct Registry {
    declaration: Declaration,
    /// Time between ticks when nothing is late, in milliseconds.
    tick_ms: u64,
    last_tick: Option<u64>,
    instances: BTreeMap<InstanceId, Instance>,
    links: HashMap<Link, InstanceId>,
    claims: routes::Claims,
    ingress: instance::Caller,
    notices: Vec<Notice>,
    denials: access::Denials,
    snapshot: Arc<Snapshot>,
}

impl Registry {
    /// The knowledge that `declaration` alone gives. `tick_ms`: the time between two [`Event::Tick`]s.
    #[must_use]
    pub fn new(declaration: Declaration, tick_ms: u64) -> Self {
        let mut registry = Self {
            declaration,
            tick_ms,
            last_tick: None,
            instances: BTreeMap::new(),
            links: HashMap::new(),
            claims: routes::Claims::default(),
            ingress: instance::Caller::default(),
            notices: Vec::new(),
            denials: access::Denials::default(),
            snapshot: Arc::new(Snapshot::empty()),
        };
        let _first = registry.publish();
        registry
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: Event, at: At) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Without a tick yet, the first event starts the clock.
        self.last_tick.get_or_insert(at.ms);
        let mut shape_changed = !matches!(event, Event::Reported(..) | Event::Ingress(..) | Event::Tick);
        let touched = match event {
            Event::Declared(declaration) => {
                self.declaration = declaration;
                self.everyone()
            }
            Event::Linked(link, announcement) => self.linked(link, announcement, at, &mut effects),
            Event::Announced(link, announcement) => self.announced(link, announcement, at, &mut effects),
            Event::Reported(link, report) => self.reported(link, report, at),
            Event::Unlinked(link) => self.unlinked(link, at),
            Event::Ingress(ejections, calls, denials) => {
                self.denials.told(&Caller::Ingress, &denials, at);
                self.ingress.told(ejections, &calls, at)
            }
            Event::Tick => {
                shape_changed = self.tick(at);
                self.everyone()
            }
        };
        self.judge(&touched, at, &mut effects);
        // Nearly all events are reports that change nothing for callers: they cost one comparison each.
        if shape_changed || !touched.iter().all(|id| self.is_published(id)) {
            effects.extend(self.publish());
        }
        effects
    }

    /// The routing state in force.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the manifest declares.
    #[must_use]
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// All instances, by id; those that are gone only for a while.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// The instance that a link speaks for.
    #[must_use]
    pub fn of_link(&self, link: Link) -> Option<&Instance> {
        self.instances.get(self.links.get(&link)?)
    }

    /// What a person should know.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.notices.iter().cloned().chain(self.denials.notices()).collect()
    }

    /// Callers that leave `id` out, with why; the ingress is called so.
    #[must_use]
    pub fn ejected_by(&self, id: &InstanceId, at: At) -> Vec<(String, Ejection)> {
        let callers = self.instances.values().filter(|found| found.state != InstanceState::Gone);
        let callers = callers.map(|found| (found.announcement.id.to_string(), &found.caller));
        let all = callers.chain([("ingress".to_owned(), &self.ingress)]);
        all.filter_map(|(name, caller)| Some((name, caller.ejection_of(id, at)?.clone()))).collect()
    }

    fn everyone(&self) -> BTreeSet<InstanceId> {
        self.instances.keys().cloned().collect()
    }

    fn linked(
        &mut self,
        link: Link,
        announcement: Announcement,
        at: At,
        effects: &mut Vec<Effect>,
    ) -> BTreeSet<InstanceId> {
        let id = announcement.id.clone();
        let refusal = match self.instances.get(&id) {
            Some(found) if found.link.is_some() && found.superseded.contains(&announcement.incarnation) => {
                Some(format!("{id} is another sidecar since {} started", found.announcement.incarnation))
            }
            None if self.instances.len() >= MAX_INSTANCES => {
                Some(format!("the mesh has {MAX_INSTANCES} instances already"))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            effects.push(Effect::Refused(link, refusal));
            return BTreeSet::new();
        }
        let mut fresh = Instance::new(announcement, link, at);
        if let Some(former) = self.instances.remove(&id) {
            if let Some(old) = former.link {
                self.links.remove(&old);
                effects.push(Effect::Superseded(old));
            }
            fresh.follow(former);
        }
        self.claims.note(&fresh.announcement);
        self.links.insert(link, id.clone());
        self.instances.insert(id.clone(), fresh);
        BTreeSet::from([id])
    }

    fn announced(
        &mut self,
        link: Link,
        announcement: Announcement,
        at: At,
        effects: &mut Vec<Effect>,
    ) -> BTreeSet<InstanceId> {
        let Some(id) = self.links.get(&link).cloned() else { return BTreeSet::new() };
        if announcement.id != id {
            let mut touched = self.unlinked(link, at);
            touched.extend(self.linked(link, announcement, at, effects));
            return touched;
        }
        self.claims.note(&announcement);
        if let Some(found) = self.instances.get_mut(&id) {
            found.announcement = announcement;
        }
        BTreeSet::from([id])
    }

    fn reported(&mut self, link: Link, mut report: HealthReport, at: At) -> BTreeSet<InstanceId> {
        let Some(id) = self.links.get(&link).cloned() else { return BTreeSet::new() };
        let Some(found) = self.instances.get_mut(&id) else { return BTreeSet::new() };
        let denials = std::mem::take(&mut report.denials);
        if !denials.is_empty() {
            self.denials.told(&Caller::Service(found.announcement.service.clone()), &denials, at);
        }
        let mut touched = found.reported(report, at);
        touched.insert(id);
        touched
    }

    fn unlinked(&mut self, link: Link, at: At) -> BTreeSet<InstanceId> {
        let Some(id) = self.links.remove(&link) else { return BTreeSet::new() };
        let Some(found) = self.instances.get_mut(&id) else { return BTreeSet::new() };
        let mut touched = found.unlinked(at);
        if found.ended_on_purpose() {
            self.instances.remove(&id);
        }
        touched.insert(id);
        touched
    }

    /// Lets time pass; returns whether an instance was forgotten.
    fn tick(&mut self, at: At) -> bool {
        let gap = at.ms.saturating_sub(self.last_tick.unwrap_or(at.ms));
        // Whoever judges late heard late: its own lag is given back to all.
        let lag = if gap > 2 * self.tick_ms { gap - self.tick_ms } else { 0 };
        self.last_tick = Some(at.ms);
        self.denials.tick(at);
        for found in self.instances.values_mut() {
            found.forgive(lag, at);
        }
        let before = self.instances.len();
        self.instances.retain(|_, found| !found.is_over(at));
        self.claims.keep_those_of(self.instances.values());
        self.instances.len() != before
    }

    /// Draws the state of the `touched` instances anew.
    fn judge(&mut self, touched: &BTreeSet<InstanceId>, at: At, effects: &mut Vec<Effect>) {
        let heard_until = self.last_tick.unwrap_or(at.ms);
        for id in touched {
            let Some(found) = self.instances.get(id) else { continue };
            let ejected = self.ejected_by_most(found, at);
            let Some(found) = self.instances.get_mut(id) else { continue };
            let before = found.shown;
            let (state, cause) = found.judged(self.declaration.liveness, heard_until, ejected, at);
            found.turn(state, cause, at);
            if before != Some(state) {
                let cause = found.cause.clone();
                effects.push(Effect::Turned { id: id.clone(), from: before, to: state, cause });
            }
        }
    }

    /// Why most of its callers leave an instance out, if they do.
    fn ejected_by_most(&self, found: &Instance, at: At) -> Option<Cause> {
        let service = &found.announcement.service;
        let callers = self.instances.values().filter(|caller| caller.state != InstanceState::Gone);
        let callers = callers.map(|caller| &caller.caller).chain([&self.ingress]);
        let callers = callers.filter(|caller| caller.calls(service, at));
        let (mut all, mut leaving, mut why) = (0_usize, 0_usize, None);
        for caller in callers {
            all += 1;
            if let Some(ejection) = caller.ejection_of(&found.announcement.id, at) {
                leaving += 1;
                why.get_or_insert(&ejection.cause);
            }
        }
        let why = why.filter(|_| leaving * 2 > all)?;
        Some(Cause {
            reason: Reason::Ejected,
            message: format!("{leaving} of {all} callers leave it out: {why}"),
            since_unix_ms: why.since_unix_ms,
        })
    }

    /// Whether callers see the instance as it is now.
    fn is_published(&self, id: &InstanceId) -> bool {
        let Some(found) = self.instances.get(id) else { return true };
        let Some(table) = self.table(&found.announcement.service) else { return false };
        let shown = table.endpoints.binary_search_by(|endpoint| endpoint.id.cmp(id));
        shown.ok().and_then(|at| table.endpoints.get(at)) == found.endpoint().as_ref()
    }

    /// Builds the next snapshot; none where it would be the same.
    fn publish(&mut self) -> Option<Effect> {
        let names = service::known(&self.declaration, self.instances.values());
        let mut changed = BTreeSet::new();
        let mut tables = Vec::with_capacity(names.len());
        let callers = access::callers(&self.declaration, self.instances.values());
        for name in &names {
            let callers = callers.get(name).into_iter().flatten().cloned().collect();
            let table = service::table(name, &self.declaration, self.instances.values(), callers);
            match self.snapshot.service(name.as_str()) {
                Some(former) if former.as_ref() == &table => tables.push(Arc::clone(former)),
                _ => {
                    changed.insert(name.clone());
                    tables.push(Arc::new(table));
                }
            }
        }
        changed.extend(self.snapshot.services().map(|table| table.name.clone()).filter(|name| !names.contains(name)));
        let (routes, notices) = routes::build(&self.declaration, &tables, &self.instances, &self.claims);
        self.notices = notices;
        self.notices.extend(access::notices(&self.declaration, self.instances.values()));
        let next = Snapshot::new(Epoch(self.snapshot.epoch().0 + 1), tables, routes, self.declaration.limits.clone());
        // The first snapshot counts even when it is empty: it says that this is all.
        let same = self.snapshot.epoch() > Epoch(0)
            && changed.is_empty()
            && next.routes() == self.snapshot.routes()
            && next.limits() == self.snapshot.limits();
        if same {
            return None;
        }
        self.snapshot = Arc::new(next);
        Some(Effect::Published { snapshot: Arc::clone(&self.snapshot), changed })
    }

    /// The state of every known service, by name.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceStatus> {
        let names = service::known(&self.declaration, self.instances.values());
        names.iter().map(|name| service::status(name, &self.declaration, self.instances.values())).collect()
    }

    /// A service's table in force.
    #[must_use]
    pub fn table(&self, service: &ServiceName) -> Option<&Arc<ServiceTable>> {
        self.snapshot.service(service.as_str())
    }

    /// The routes in force, in the order in which they win.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        self.snapshot.routes()
    }
}

#[cfg(test)]
mod tests;
