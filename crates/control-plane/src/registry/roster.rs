//! The instances of a mesh by id and by service, and what a change among them makes stale.

use std::collections::{BTreeMap, BTreeSet};

use synego_model::{Announcement, InstanceId, ServiceName};

use super::Instance;
use super::routes::Claims;

/// What of the snapshot in force may not hold any more.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Services whose table is to be made anew.
    pub(super) services: BTreeSet<ServiceName>,
    /// Whether the routes are to be made anew.
    pub(super) routes: bool,
    /// Whether callers should know soon: more than figures of load changed.
    pub(super) urgent: bool,
}

impl Stale {
    /// Notes a service of which callers should know soon.
    pub(super) fn service(&mut self, name: &ServiceName) {
        self.urgent = true;
        self.load(name);
    }

    /// Notes a service of which only figures of load changed.
    pub(super) fn load(&mut self, name: &ServiceName) {
        if !self.services.contains(name) {
            self.services.insert(name.clone());
        }
    }
}

/// All instances that are known; those that are gone only for a while.
#[derive(Debug, Default)]
pub(super) struct Roster {
    instances: BTreeMap<InstanceId, Instance>,
    of_service: BTreeMap<ServiceName, BTreeSet<InstanceId>>,
    /// By callee: the services that say they call it, and how many of their instances do.
    callers: BTreeMap<ServiceName, BTreeMap<ServiceName, usize>>,
    /// How many of them say something of routes, be it that there are none.
    saying: usize,
    claims: Claims,
    /// What changes made stale since the last snapshot.
    pub(super) stale: Stale,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    pub(super) fn get(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// To change anything but what it announced, which is [`Self::announce`].
    pub(super) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.instances.get_mut(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.instances.values_mut()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &InstanceId> {
        self.instances.keys()
    }

    /// The instances of a service, by id.
    pub(super) fn of(&self, service: &ServiceName) -> impl Iterator<Item = &Instance> {
        self.of_service.get(service).into_iter().flatten().filter_map(|id| self.instances.get(id))
    }

    /// Services that somebody announces.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.of_service.keys()
    }

    /// Services whose instances say that they call this one.
    pub(super) fn announced_callers(&self, callee: &ServiceName) -> impl Iterator<Item = &ServiceName> {
        self.callers.get(callee).into_iter().flat_map(BTreeMap::keys)
    }

    /// Who announced which place first.
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether anyone says something of routes.
    pub(super) fn says_routes(&self) -> bool {
        self.saying > 0
    }

    /// Adds an instance; returns the one whose place it takes.
    pub(super) fn put(&mut self, instance: Instance) -> Option<Instance> {
        // First what comes, then what goes: so a place that both ask for is never free.
        self.enter(&instance.announcement);
        let former = self.instances.insert(instance.announcement.id.clone(), instance);
        if let Some(former) = &former {
            self.leave(&former.announcement);
        }
        former
    }

    /// It announces this from now on, under the same id.
    pub(super) fn announce(&mut self, announcement: Announcement) {
        self.enter(&announcement);
        let former = self
            .instances
            .get_mut(&announcement.id)
            .map(|found| std::mem::replace(&mut found.announcement, announcement));
        if let Some(former) = former {
            self.leave(&former);
        }
    }

    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<Instance> {
        let former = self.instances.remove(id)?;
        self.leave(&former.announcement);
        Some(former)
    }

    /// Forgets places that no instance announces any more.
    pub(super) fn forget_claims(&mut self) {
        self.claims.forget_unsaid();
    }

    fn enter(&mut self, said: &Announcement) {
        self.stale.service(&said.service);
        for callee in &said.uses {
            let callers = self.callers.entry(callee.clone()).or_default();
            let instances = callers.entry(said.service.clone()).or_default();
            *instances += 1;
            if *instances == 1 {
                // Who may call it is part of its table.
                self.stale.service(callee);
            }
        }
        self.stale.routes |= self.claims.note(said);
        if said.routes.is_some() {
            self.saying += 1;
            self.stale.routes |= self.saying == 1;
        }
        let mine = self.of_service.entry(said.service.clone()).or_default();
        mine.insert(said.id.clone());
    }

    /// The counterpart of [`Self::enter`], once the instance, or what it announced, is there no more.
    fn leave(&mut self, said: &Announcement) {
        self.stale.service(&said.service);
        for callee in &said.uses {
            let Some(callers) = self.callers.get_mut(callee) else { continue };
            let Some(instances) = callers.get_mut(&said.service) else { continue };
            *instances -= 1;
            if *instances == 0 {
                callers.remove(&said.service);
                if callers.is_empty() {
                    self.callers.remove(callee);
                }
                self.stale.service(callee);
            }
        }
        self.stale.routes |= self.claims.unsaid(said);
        if said.routes.is_some() {
            self.saying -= 1;
            self.stale.routes |= self.saying == 0;
        }
        let stays = self.instances.get(&said.id).is_some_and(|found| found.announcement.service == said.service);
        if !stays && let Some(mine) = self.of_service.get_mut(&said.service) {
            mine.remove(&said.id);
            if mine.is_empty() {
                self.of_service.remove(&said.service);
            }
        }
    }
}
