//! Which routes hold: the manifest's lists, else what services announce, else all for a service that is alone.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use synego_model::{Announcement, Declaration, Place, Protocol, Route, Segment, ServiceName, ServiceTable};

use super::Notice;
use super::roster::Roster;

/// Who announced which place first: the first one keeps it, also while its instances restart.
#[derive(Debug, Default)]
pub(super) struct Claims {
    of_service: BTreeMap<ServiceName, BTreeMap<String, Claim>>,
    next: u64,
    /// Whether there are some that no instance announces now.
    some_unsaid: bool,
}

/// A place that a service asks for.
#[derive(Debug)]
struct Claim {
    /// Which came first.
    number: u64,
    /// `None`: the text is no place.
    place: Option<Place>,
    /// Instances that say it by their SDK, and those whose sidecar says it.
    by_sdk: usize,
    by_sidecar: usize,
}

impl Claim {
    /// Where it was said; `None` when no one says it now.
    fn origin(&self) -> Option<&'static str> {
        match (self.by_sdk, self.by_sidecar) {
            (0, 0) => None,
            (0, _) => Some("sidecar"),
            _ => Some("sdk"),
        }
    }

    fn sayers(&mut self, said: &Announcement) -> &mut usize {
        if said.sdk.is_empty() { &mut self.by_sidecar } else { &mut self.by_sdk }
    }
}

impl Claims {
    /// Notes the places of an announcement; returns whether that may change the routes.
    pub(super) fn note(&mut self, said: &Announcement) -> bool {
        let Some(places) = said.routes.as_ref().filter(|places| !places.is_empty()) else { return false };
        let known = self.of_service.entry(said.service.clone()).or_default();
        let mut turned = false;
        for text in places {
            if !known.contains_key(text) {
                let claim = Claim { number: self.next, place: text.parse().ok(), by_sdk: 0, by_sidecar: 0 };
                known.insert(text.clone(), claim);
                self.next += 1;
            }
            if let Some(claim) = known.get_mut(text) {
                let before = claim.origin();
                *claim.sayers(said) += 1;
                turned |= claim.origin() != before;
            }
        }
        turned
    }

    /// The counterpart of [`Self::note`]: the announcement holds no more.
    pub(super) fn unsaid(&mut self, said: &Announcement) -> bool {
        let Some(known) = self.of_service.get_mut(&said.service) else { return false };
        let mut turned = false;
        for text in said.routes.iter().flatten() {
            let Some(claim) = known.get_mut(text) else { continue };
            let before = claim.origin();
            let sayers = claim.sayers(said);
            *sayers = sayers.saturating_sub(1);
            turned |= claim.origin() != before;
            self.some_unsaid |= claim.origin().is_none();
        }
        turned
    }

    /// Forgets places that no instance announces any more: whoever announces them next is the first.
    pub(super) fn forget_unsaid(&mut self) {
        if std::mem::take(&mut self.some_unsaid) {
            self.of_service.retain(|_, known| {
                known.retain(|_, claim| claim.origin().is_some());
                !known.is_empty()
            });
        }
    }

    /// All of them, the first one first.
    fn in_order(&self) -> Vec<(&ServiceName, &str, &Claim)> {
        let mut all = Vec::new();
        for (service, known) in &self.of_service {
            all.extend(known.iter().map(|(text, claim)| (service, text.as_str(), claim)));
        }
        all.sort_unstable_by_key(|(_, _, claim)| claim.number);
        all
    }
}

/// A place as far as it decides which requests it takes: the names of its parameters do not.
struct Pattern<'a>(&'a Place);

impl PartialEq for Pattern<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.host == other.0.host && self.0.path.same_as(&other.0.path)
    }
}

impl Eq for Pattern<'_> {}

impl Hash for Pattern<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.host.hash(state);
        for segment in &self.0.path.segments {
            match segment {
                Segment::Literal(text) => text.hash(state),
                Segment::Param(_) => state.write_u8(0),
            }
        }
    }
}

/// The routes in force and what a person should know of those that are not.
pub(super) fn build(
    declaration: &Declaration,
    tables: &BTreeMap<ServiceName, Arc<ServiceTable>>,
    roster: &Roster,
) -> (Vec<Route>, Vec<Notice>) {
    let declared = || declaration.services.values().flat_map(|spec| spec.routes.iter().flatten());
    let mut routes: Vec<Route> = declared().cloned().collect();
    let mut notices = Vec::new();
    // What is announced has no conditions beside its place, so nothing with conditions is in its way.
    let mut owners: HashMap<Pattern<'_>, (&ServiceName, &str)> = HashMap::new();
    for route in declared().filter(|route| is_plain(route)) {
        owners.entry(Pattern(&route.place)).or_insert((&route.service, &route.origin));
    }
    for (service, text, claim) in roster.claims().in_order() {
        let listed = declaration.services.get(service).is_some_and(|spec| spec.routes.is_some());
        if listed {
            continue;
        }
        let (Some(place), Some(origin)) = (&claim.place, claim.origin()) else { continue };
        let notice = |code: &str, message| Notice { code: code.into(), message, service: Some(service.clone()) };
        if tables.get(service).is_some_and(|table| table.protocol == Protocol::Tcp) {
            let message = format!("{service} speaks tcp, so `{text}` cannot be routed to it");
            notices.push(notice("route_ignored", message));
            continue;
        }
        match owners.get(&Pattern(place)) {
            Some((owner, _)) if *owner == service => {}
            Some((owner, said)) => {
                let message = format!("`{text}` stays with {owner} ({said}), {service} asks for it too");
                notices.push(notice("route_taken", message));
            }
            None => {
                owners.insert(Pattern(place), (service, origin));
                routes.push(Route::new(place.clone(), service.clone(), origin));
            }
        }
    }
    routes.extend(lone_service(declaration, tables, roster));
    (routes, notices)
}

/// Whether a route takes all requests of its place and below it.
fn is_plain(route: &Route) -> bool {
    !route.exact && route.methods.is_empty() && route.headers.is_empty() && route.query.is_empty()
}

/// A service that is the only one of the mesh beside those kept inside (`routes: []`, jobs), and about whose routes no one
/// said anything, gets all of them.
fn lone_service(
    declaration: &Declaration,
    tables: &BTreeMap<ServiceName, Arc<ServiceTable>>,
    roster: &Roster,
) -> Option<Route> {
    let is_inside = |name: &ServiceName| {
        declaration.services.get(name).and_then(|spec| spec.routes.as_ref()).is_some_and(Vec::is_empty)
    };
    let mut faced = tables.values().filter(|table| !is_inside(&table.name));
    let table = faced.next().filter(|_| faced.next().is_none())?;
    let declared = declaration.services.get(&table.name).is_some_and(|spec| spec.routes.is_some());
    if declared || roster.says_routes() || table.protocol == Protocol::Tcp {
        return None;
    }
    Some(Route::new("/".parse().ok()?, table.name.clone(), "default"))
}
