//! Which routes hold: the manifest's lists, else what services announce, else all for a service that is alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use synego_model::{Announcement, Declaration, InstanceId, Place, Protocol, Route, ServiceName, ServiceTable};

use super::{Instance, Notice};

/// Who announced which place first: the first one keeps it, also while its instances restart.
#[derive(Debug, Default)]
pub(super) struct Claims {
    first: BTreeMap<(ServiceName, String), u64>,
    next: u64,
}

impl Claims {
    /// Notes the places of an announcement that are new.
    pub(super) fn note(&mut self, said: &Announcement) {
        for place in said.routes.iter().flatten() {
            let key = (said.service.clone(), place.clone());
            if !self.first.contains_key(&key) {
                self.first.insert(key, self.next);
                self.next += 1;
            }
        }
    }

    /// Forgets places that no instance announces any more.
    pub(super) fn keep_those_of<'a>(&mut self, instances: impl Iterator<Item = &'a Instance>) {
        let said = |found: &'a Instance| {
            found.announcement.routes.iter().flatten().map(|place| (&found.announcement.service, place.as_str()))
        };
        let still: std::collections::HashSet<(&ServiceName, &str)> = instances.flat_map(said).collect();
        self.first.retain(|(service, place), _| still.contains(&(service, place.as_str())));
    }

    /// All of them, the first one first.
    fn in_order(&self) -> Vec<&(ServiceName, String)> {
        let mut all: Vec<_> = self.first.iter().collect();
        all.sort_by_key(|(_, number)| **number);
        all.into_iter().map(|(key, _)| key).collect()
    }
}

/// The routes in force and what a person should know of those that are not.
pub(super) fn build(
    declaration: &Declaration,
    tables: &[Arc<ServiceTable>],
    instances: &BTreeMap<InstanceId, Instance>,
    claims: &Claims,
) -> (Vec<Route>, Vec<Notice>) {
    let mut routes: Vec<Route> =
        declaration.services.values().flat_map(|spec| spec.routes.iter().flatten()).cloned().collect();
    let mut notices = Vec::new();
    for (service, text) in claims.in_order() {
        let listed = declaration.services.get(service).is_some_and(|spec| spec.routes.is_some());
        if listed {
            continue;
        }
        let Ok(place) = text.parse::<Place>() else { continue };
        let Some(origin) = origin(service, text, instances) else { continue };
        let route = Route::new(place, service.clone(), origin);
        let notice = |code: &str, message| Notice { code: code.into(), message, service: Some(service.clone()) };
        let table = tables.iter().find(|table| table.name == *service);
        if table.is_some_and(|table| table.protocol == Protocol::Tcp) {
            let message = format!("{service} speaks tcp, so `{text}` cannot be routed to it");
            notices.push(notice("route_ignored", message));
            continue;
        }
        match routes.iter().find(|other| other.ties_with(&route)) {
            Some(other) if other.service == *service => {}
            Some(other) => {
                let message =
                    format!("`{text}` stays with {} ({}), {service} asks for it too", other.service, other.origin);
                notices.push(notice("route_taken", message));
            }
            None => routes.push(route),
        }
    }
    routes.extend(lone_service(declaration, tables, instances));
    (routes, notices)
}

/// Where an announced place was said; `None` when no one says it now.
fn origin(service: &ServiceName, place: &str, instances: &BTreeMap<InstanceId, Instance>) -> Option<&'static str> {
    let said = |found: &&Instance| {
        let announcement = &found.announcement;
        announcement.service == *service && announcement.routes.iter().flatten().any(|said| said == place)
    };
    let found = instances.values().find(said)?;
    Some(if found.announcement.sdk.is_empty() { "sidecar" } else { "sdk" })
}

/// A service that is the only one of the mesh, and about whose routes no one said anything, gets all of them.
fn lone_service(
    declaration: &Declaration,
    tables: &[Arc<ServiceTable>],
    instances: &BTreeMap<InstanceId, Instance>,
) -> Option<Route> {
    let [table] = tables else { return None };
    let declared = declaration.services.get(&table.name).is_some_and(|spec| spec.routes.is_some());
    let announced = instances.values().any(|found| found.announcement.routes.is_some());
    if declared || announced || table.protocol == Protocol::Tcp {
        return None;
    }
    Some(Route::new("/".parse().ok()?, table.name.clone(), "default"))
}
