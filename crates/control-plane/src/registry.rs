//! What a master knows and decides: who is alive and how, which routes hold, and the snapshot that follows from it.
//!
//! Pure: [`Registry::take`] takes an event and the time, and returns what changed; [`Registry::publish`] makes the snapshot
//! that follows, of one event or of many. It merges what the manifest declares with what sidecars announce and report.
//! Reports are soft state: nothing of it is ever written down.
//!
//! **What it costs.** A report that tells callers nothing new: a few comparisons, however large the mesh. A snapshot: the
//! tables of the services in which something changed; all others, and the routes unless they changed, are shared with the
//! snapshot before. Time that goes on: a look at each instance's next moment.
//!
//! **Invariants.** An instance has one incarnation at a time. An instance that is gone is in no table. Epochs grow with
//! each change and only then. Silence is judged by the time of the last tick, from which the judge's own lateness has
//! been taken off: a master that stood still for a while blames nobody for it.

mod access;
mod callers;
mod event;
mod instance;
mod roster;
mod routes;
mod service;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use synego_model::{
    Announcement, Caller, Declaration, Epoch, HealthReport, InstanceId, Route, ServiceName, ServiceTable, Snapshot,
};

pub use callers::Ejection;
pub use event::{At, Effect, Event, Link, Notice, Pending};
pub use instance::Instance;
pub use service::ServiceStatus;

use callers::Callers;
use instance::Shown;
use roster::Roster;

/// How long an instance that is gone is still shown with its cause, in milliseconds.
const SHOWN_GONE_MS: u64 = 60_000;
/// Most instances of a mesh.
const MAX_INSTANCES: usize = 10_000;

/// The knowledge of one master.
#[derive(Debug)]
pub struct Registry {
    declaration: Declaration,
    /// Time between ticks when nothing is late, in milliseconds.
    tick_ms: u64,
    last_tick: Option<u64>,
    roster: Roster,
    links: HashMap<Link, InstanceId>,
    callers: Callers,
    notices: Vec<Notice>,
    /// The services of the snapshot in force.
    tables: BTreeMap<ServiceName, Arc<ServiceTable>>,
    denials: access::Denials,
    /// How many instances are wanted on a machine, where that is not what the manifest says.
    scaled: Scaled,
    snapshot: Arc<Snapshot>,
}

/// Numbers of instances, by service and machine.
pub(crate) type Scaled = BTreeMap<ServiceName, BTreeMap<String, u32>>;

impl Registry {
    /// The knowledge that `declaration` alone gives. `tick_ms`: the time between two [`Event::Tick`]s.
    #[must_use]
    pub fn new(declaration: Declaration, tick_ms: u64) -> Self {
        let mut registry = Self {
            declaration,
            tick_ms,
            last_tick: None,
            roster: Roster::default(),
            links: HashMap::new(),
            callers: Callers::default(),
            notices: Vec::new(),
            tables: BTreeMap::new(),
            denials: access::Denials::default(),
            scaled: Scaled::new(),
            snapshot: Arc::new(Snapshot::empty()),
        };
        registry.everything_is_stale();
        let _first = registry.publish();
        registry
    }

    /// Takes one event in, and publishes what follows from it.
    pub fn apply(&mut self, event: Event, at: At) -> Vec<Effect> {
        let mut effects = self.take(event, at);
        effects.extend(self.publish());
        effects
    }

    /// Takes one event in. What it changes for callers is [`Self::pending`] until [`Self::publish`].
    pub fn take(&mut self, event: Event, at: At) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Without a tick yet, the first event starts the clock.
        self.last_tick.get_or_insert(at.ms);
        let touched = match event {
            Event::Declared(declaration) => {
                self.declaration = declaration;
                self.everything_is_stale();
                self.everyone()
            }
            Event::Linked(link, announcement) => self.linked(link, announcement, at, &mut effects),
            Event::Announced(link, announcement) => self.announced(link, announcement, at, &mut effects),
            Event::Reported(link, report) => self.reported(link, report, at),
            Event::Unlinked(link) => self.unlinked(link, at),
            Event::Ingress(ejections, calls, denials) => {
                self.denials.told(&Caller::Ingress, &denials, at);
                self.callers.told(None, ejections, &calls, at)
            }
            Event::Scaled(service, node, instances) => {
                self.scale(service, node, instances);
                BTreeSet::new()
            }
            Event::Tick => self.tick(at),
        };
        self.judge(&touched, at, &mut effects);
        effects
    }

    /// Whether something changed for callers since the last snapshot, as far as can be told without making one.
    #[must_use]
    pub fn pending(&self) -> Option<Pending> {
        let stale = &self.roster.stale;
        if stale.urgent || stale.routes {
            Some(Pending::Change)
        } else {
            (!stale.services.is_empty()).then_some(Pending::Load)
        }
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
        self.roster.iter()
    }

    /// The instances of one service, by id.
    pub fn instances_of(&self, service: &ServiceName) -> impl Iterator<Item = &Instance> {
        self.roster.of(service)
    }

    /// The instance that a link speaks for.
    #[must_use]
    pub fn of_link(&self, link: Link) -> Option<&Instance> {
        self.roster.get(self.links.get(&link)?)
    }

    /// What a person should know.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        let of_access = access::notices(&self.declaration, self.roster.iter());
        let of_scale = self.scaled.keys().flat_map(|service| service::scaled(service, self));
        self.notices.iter().cloned().chain(of_access).chain(self.denials.notices()).chain(of_scale).collect()
    }

    /// Callers that leave `id` out, with why; the ingress is called so.
    #[must_use]
    pub fn ejected_by(&self, id: &InstanceId, at: At) -> Vec<(String, Ejection)> {
        let name = |who: &Option<InstanceId>| who.as_ref().map_or_else(|| "ingress".to_owned(), ToString::to_string);
        self.callers.of(id, &self.roster, at).map(|(who, ejection)| (name(who), ejection.clone())).collect()
    }

    fn everyone(&self) -> BTreeSet<InstanceId> {
        self.roster.ids().cloned().collect()
    }

    /// The services that are declared or that someone announces.
    fn known(&self) -> BTreeSet<&ServiceName> {
        self.declaration.services.keys().chain(self.roster.services()).collect()
    }

    fn everything_is_stale(&mut self) {
        let all: Vec<ServiceName> = self.known().into_iter().chain(self.tables.keys()).cloned().collect();
        let stale = &mut self.roster.stale;
        all.iter().for_each(|name| stale.service(name));
        (stale.routes, stale.urgent) = (true, true);
    }

    fn linked(
        &mut self,
        link: Link,
        announcement: Announcement,
        at: At,
        effects: &mut Vec<Effect>,
    ) -> BTreeSet<InstanceId> {
        let id = announcement.id.clone();
        let refusal = match self.roster.get(&id) {
            Some(found) if found.link.is_some() && found.superseded.contains(&announcement.incarnation) => {
                Some(format!("{id} is another sidecar since {} started", found.announcement.incarnation))
            }
            None if self.roster.len() >= MAX_INSTANCES => {
                Some(format!("the mesh has {MAX_INSTANCES} instances already"))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            effects.push(Effect::Refused(link, refusal));
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::from([id.clone()]);
        if let Some(former) = self.roster.put(Instance::new(announcement, link, at)) {
            if let Some(old) = former.link {
                self.links.remove(&old);
                effects.push(Effect::Superseded(old));
            }
            touched.extend(self.callers.left(&Some(id.clone())));
            if let Some(fresh) = self.roster.get_mut(&id) {
                fresh.follow(former);
            }
        }
        self.links.insert(link, id);
        touched
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
        self.roster.announce(announcement);
        BTreeSet::from([id])
    }

    fn reported(&mut self, link: Link, mut report: HealthReport, at: At) -> BTreeSet<InstanceId> {
        let Some(id) = self.links.get(&link).cloned() else { return BTreeSet::new() };
        let Some(found) = self.roster.get_mut(&id) else { return BTreeSet::new() };
        let denials = std::mem::take(&mut report.denials);
        if !denials.is_empty() {
            self.denials.told(&Caller::Service(found.announcement.service.clone()), &denials, at);
        }
        let mut touched = self.callers.told(Some(id.clone()), std::mem::take(&mut report.ejections), &report.calls, at);
        found.reported(report, at);
        touched.insert(id);
        touched
    }

    fn unlinked(&mut self, link: Link, at: At) -> BTreeSet<InstanceId> {
        let Some(id) = self.links.remove(&link) else { return BTreeSet::new() };
        let Some(found) = self.roster.get_mut(&id) else { return BTreeSet::new() };
        found.unlinked(at);
        if found.ended_on_purpose() {
            self.roster.remove(&id);
        }
        let mut touched = self.callers.left(&Some(id.clone()));
        touched.insert(id);
        touched
    }

    /// The machines on which another number of instances of a service is wanted than the manifest says.
    pub fn scaled(&self, service: &ServiceName) -> impl Iterator<Item = (&String, u32)> {
        self.scaled.get(service).into_iter().flatten().map(|(node, count)| (node, *count))
    }

    fn scale(&mut self, service: ServiceName, node: String, instances: Option<u32>) {
        let file = self.declaration.services.get(&service).map(|spec| spec.instances);
        let machines = self.scaled.entry(service.clone()).or_default();
        match instances.filter(|count| Some(*count) != file) {
            Some(count) => drop(machines.insert(node, count)),
            None => drop(machines.remove(&node)),
        }
        self.scaled.retain(|_, machines| !machines.is_empty());
    }

    /// Lets time pass; returns those of whom it may have made something else.
    fn tick(&mut self, at: At) -> BTreeSet<InstanceId> {
        let gap = at.ms.saturating_sub(self.last_tick.unwrap_or(at.ms));
        // Whoever judges late heard late: its own lag is given back to all.
        let lag = if gap > 2 * self.tick_ms { gap - self.tick_ms } else { 0 };
        self.last_tick = Some(at.ms);
        self.denials.tick(at);
        let over: Vec<InstanceId> = self.roster.iter().filter(|found| found.is_over(at)).map(Instance::id).collect();
        over.iter().for_each(|id| drop(self.roster.remove(id)));
        self.roster.forget_claims();
        if lag > 0 {
            self.roster.iter_mut().for_each(|found| found.forgive(lag, at));
            return self.everyone();
        }
        let due = self.roster.iter().filter(|found| found.is_due(at)).map(Instance::id);
        due.chain(self.callers.all_left_out().cloned()).collect()
    }

    /// Draws the state of the `touched` instances anew, and notes what callers do not see as it is now.
    fn judge(&mut self, touched: &BTreeSet<InstanceId>, at: At, effects: &mut Vec<Effect>) {
        let (liveness, heard_until) = (self.declaration.liveness, self.last_tick.unwrap_or(at.ms));
        let mut ejected = self.callers.left_out_by_most(touched, &self.roster, at);
        for id in touched {
            let Some(found) = self.roster.get_mut(id) else { continue };
            let before = found.shown;
            let (state, cause) = found.judged(liveness, heard_until, ejected.remove(id), at);
            found.turn(state, cause, at);
            found.note_due(liveness, heard_until);
            let name = &found.announcement.service;
            let shown = self.tables.get(name).and_then(|table| table.endpoint(id));
            let (shown, name) = (found.is_shown_by(shown), name.clone());
            if before != Some(state) {
                let cause = found.cause.clone();
                effects.push(Effect::Turned { id: id.clone(), from: before, to: state, cause });
            }
            match shown {
                Shown::Right => {}
                Shown::OtherLoad => self.roster.stale.load(&name),
                Shown::Wrong => self.roster.stale.service(&name),
            }
        }
    }

    /// Makes the snapshot that follows from all that was taken in since the last one; none where it would be the same.
    pub fn publish(&mut self) -> Option<Effect> {
        self.pending()?;
        let stale = std::mem::take(&mut self.roster.stale);
        let (mut changed, mut turns_routes) = (BTreeSet::new(), stale.routes);
        for name in stale.services {
            let is_known = self.declaration.services.contains_key(&name) || self.roster.of(&name).next().is_some();
            let table = is_known.then(|| service::table(&name, &self.declaration, &self.roster));
            let former = self.tables.get(&name).map(AsRef::as_ref);
            if former == table.as_ref() {
                continue;
            }
            // Which services there are, and whether HTTP reaches them, decides on routes as well.
            turns_routes |= former.map(|former| former.protocol) != table.as_ref().map(|table| table.protocol);
            match table {
                Some(table) => drop(self.tables.insert(name.clone(), Arc::new(table))),
                None => drop(self.tables.remove(&name)),
            }
            changed.insert(name);
        }
        let routes = turns_routes.then(|| {
            let (routes, notices) = routes::build(&self.declaration, &self.tables, &self.roster);
            self.notices = notices;
            routes
        });
        let next = self.snapshot.next(self.tables.values().cloned(), routes, &self.declaration.limits);
        // The first snapshot counts even when it is empty: it says that this is all.
        let same = self.snapshot.epoch() > Epoch(0)
            && changed.is_empty()
            && next.has_routes_of(&self.snapshot)
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
        self.known()
            .into_iter()
            .map(|name| service::status(name, &self.declaration, &self.roster, self.scaled.get(name)))
            .collect()
    }

    /// A service's table in force.
    #[must_use]
    pub fn table(&self, service: &ServiceName) -> Option<&Arc<ServiceTable>> {
        self.tables.get(service)
    }

    /// The routes in force, in the order in which they win.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        self.snapshot.routes()
    }
}

#[cfg(test)]
mod tests;
