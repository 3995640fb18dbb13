//! Who may call: prepared when settings change, looked up for each request.
//!
//! The last word has the inbound, by what the caller's certificate says ([`Gate`]). A caller's own outbound, and the
//! ingress, refuse early what they know would be refused there ([`Permits`]); without TLS that is all there is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use synego_identity::Peer;
use synego_model::access::{Asked, Refused};
use synego_model::{
    Access, AccessMode, AccessRule, AccessRules, Caller, PathPattern, Reason, Role, Segment, ServiceName, ServiceTable,
};

use super::answer::Refusal;
use super::path;
use super::station::Station;

/// Who sends the requests of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nobody proved it: there is no TLS.
    Unproved,
    /// Somebody who may call services.
    Known(Caller),
    /// Somebody who is no service: an operator.
    Stranger(String),
}

impl Who {
    pub(crate) fn of(peer: &Peer) -> Self {
        let Some(id) = &peer.id else { return Self::Unproved };
        let caller = match &id.role {
            Role::Service(name) => Caller::Service(name.clone()),
            Role::Master => Caller::Ingress,
            Role::Operator(_) => return Self::Stranger(id.to_string()),
        };
        Self::Known(caller)
    }

    /// How a caller is called in logs and by the field that says it.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Known(caller) => Some(caller.as_str()),
            Self::Unproved | Self::Stranger(_) => None,
        }
    }
}

/// Who may pass an inbound: what the manifest says of its service, prepared for lookup.
#[derive(Debug, Default)]
pub struct Gate(Option<Known>);

#[derive(Debug)]
struct Known {
    access: Access,
    /// Those with the permission of their own `uses`; whether what they ask for decides.
    callers: HashMap<ServiceName, Standing, RandomState>,
    ingress: Standing,
}

/// What is known of a caller before he asks for anything.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Passes,
    Never(Refused),
    Depends,
}

impl Gate {
    /// - `access`: what the manifest says of the service; `callers`: who has the permission of its own `uses`.
    #[must_use]
    pub fn new(access: &Access, callers: &[ServiceName]) -> Self {
        let access = canonical(access);
        let callers = callers.iter().map(|name| (name.clone(), standing(&access, &Caller::Service(name.clone()))));
        let callers = callers.collect();
        let ingress = standing(&access, &Caller::Ingress);
        Self(Some(Known { access, callers, ingress }))
    }

    /// Whether `who` may ask for whatever it likes.
    pub(crate) fn passes(&self, who: &Who) -> bool {
        match (who, &self.0) {
            (Who::Unproved, _) => true,
            (Who::Known(caller), Some(known)) => *known.standing(caller) == Standing::Passes,
            _ => false,
        }
    }

    /// Whether `who` may ask this of `service`; one that nobody proved to be anyone is not judged.
    ///
    /// # Errors
    /// A refusal that names the line to change.
    pub(crate) fn judge(
        &self,
        station: &Station,
        service: &ServiceName,
        who: &Who,
        asked: Asked<'_>,
    ) -> Result<(), Refusal> {
        let caller = match who {
            Who::Unproved => return Ok(()),
            Who::Known(caller) => caller,
            Who::Stranger(id) => {
                return Err(Refusal::new(Reason::Denied, format!("{id} may not call {service}: it is no service")));
            }
        };
        let Some(known) = &self.0 else {
            let why = "this instance does not know yet who may call it";
            return Err(Refusal::new(Reason::Starting, why));
        };
        let judged = known.judge(caller, asked);
        settle(station, known.access.mode, caller, service, asked, judged)
    }
}

impl Known {
    fn standing(&self, caller: &Caller) -> &Standing {
        if self.access.mode == AccessMode::Open {
            return &Standing::Passes;
        }
        match caller {
            Caller::Ingress => &self.ingress,
            // Whom no manifest names can be in nobody's `uses`.
            Caller::Service(_) if !self.access.declared => &Standing::Passes,
            Caller::Service(name) => self.callers.get(name).unwrap_or(&Standing::Never(Refused::Uses)),
        }
    }

    fn judge(&self, caller: &Caller, asked: Asked<'_>) -> Result<(), Refused> {
        match self.standing(caller) {
            Standing::Passes => Ok(()),
            Standing::Never(refused) => Err(refused.clone()),
            Standing::Depends => self.access.judge(caller, asked),
        }
    }
}

fn standing(access: &Access, caller: &Caller) -> Standing {
    if !access.is_plain_for(caller) {
        return Standing::Depends;
    }
    access.judge(caller, None).map_or_else(Standing::Never, |()| Standing::Passes)
}

/// Whom a service may call, as its own sidecar knows.
#[derive(Debug, Default)]
pub struct Permits(Option<Uses>);

#[derive(Debug)]
struct Uses {
    names: HashSet<ServiceName, RandomState>,
    /// Whether the manifest names the caller; if not, its sidecar's own word counts.
    declared: bool,
}

impl Permits {
    /// - `uses`: what counts as the caller's; `declared`: whether the manifest says so, or its own sidecar.
    #[must_use]
    pub fn new(uses: &[ServiceName], declared: bool) -> Self {
        Self(Some(Uses { names: uses.iter().cloned().collect(), declared }))
    }

    /// Whether the service of `table` lets pass whatever is asked of it, as far as that is known here: its name alone
    /// decides.
    pub(crate) fn passes(&self, table: &ServiceTable) -> bool {
        let access = &table.access;
        let is_used = self.0.as_ref().is_none_or(|uses| uses.names.contains(&table.name));
        access.mode == AccessMode::Open || !access.declared || (is_used && !has_rules(table))
    }

    /// Whether a call of `caller` would be let pass by the service of `table`, as far as that is known here.
    ///
    /// # Errors
    /// A refusal that names the line to change.
    pub(crate) fn judge(
        &self,
        station: &Station,
        caller: &Caller,
        table: &ServiceTable,
        asked: Asked<'_>,
    ) -> Result<(), Refusal> {
        if self.passes(table) {
            return Ok(());
        }
        let access = &table.access;
        let judged = match &self.0 {
            Some(uses) if !uses.names.contains(&table.name) => Err(Refused::Uses),
            _ => match Rules::in_force(station, table) {
                Some(access) => access.judge(caller, asked),
                None => Ok(()),
            },
        };
        let own_word = self.0.as_ref().is_some_and(|uses| !uses.declared);
        if own_word && judged == Err(Refused::Uses) && access.mode == AccessMode::Enforce {
            let callee = &table.name;
            let message = format!(
                "{caller} may not call {callee}: start its sidecar with `--uses {callee}`, or add `services.{caller}` with \
                 `uses: [{callee}]` to the manifest"
            );
            note(station, caller, callee, false, &message);
            return Err(Refusal::new(Reason::Denied, message));
        }
        settle(station, access.mode, caller, &table.name, asked, judged)
    }
}

/// Whether what comes from outside may go to the service of `table`, by the route with these rules.
///
/// # Errors
/// A refusal that names the line to change.
pub(crate) fn judge_ingress(
    station: &Station,
    table: &ServiceTable,
    route: Option<&RouteRules>,
    asked: Asked<'_>,
) -> Result<(), Refusal> {
    let mode = table.access.mode;
    if mode == AccessMode::Open {
        return Ok(());
    }
    let of_service = match Rules::in_force(station, table) {
        Some(access) => access.judge(&Caller::Ingress, asked),
        None => Ok(()),
    };
    let judged = of_service.and_then(|()| match route {
        Some(route) => {
            let judged = route.rules.judge(&Caller::Ingress, asked);
            judged.map_err(|list| Refused::Route(list, route.path.clone()))
        }
        None => Ok(()),
    });
    settle(station, mode, &Caller::Ingress, &table.name, asked, judged)
}

/// The rules of one route, prepared.
#[derive(Debug)]
pub(crate) struct RouteRules {
    path: String,
    rules: AccessRules,
}

impl RouteRules {
    /// `None`: nothing is said.
    pub(crate) fn of(path: &PathPattern, rules: &AccessRules) -> Option<Box<Self>> {
        (!rules.is_empty())
            .then(|| Box::new(Self { path: path.to_string(), rules: canonical_rules(rules).into_owned() }))
    }
}

/// The rules of the services in a snapshot that have any, prepared.
#[derive(Debug, Default)]
pub(crate) struct Rules(HashMap<ServiceName, Prepared, RandomState>);

#[derive(Debug)]
struct Prepared {
    given: Arc<Access>,
    access: Arc<Access>,
}

impl Rules {
    /// Those of `tables`; what did not change since `former` is taken from there.
    pub(crate) fn of<'a>(tables: impl Iterator<Item = &'a Arc<ServiceTable>>, former: &Self) -> Self {
        let prepared = |table: &Arc<ServiceTable>| {
            let given = table.access.clone();
            let known = former.0.get(&table.name).filter(|known| Arc::ptr_eq(&known.given, &given));
            let access = known.map_or_else(|| Arc::new(canonical(&given)), |known| known.access.clone());
            (table.name.clone(), Prepared { given, access })
        };
        Self(tables.filter(|table| has_rules(table)).map(prepared).collect())
    }

    /// Those of one service; `None`: it has none.
    fn in_force(station: &Station, table: &ServiceTable) -> Option<Arc<Access>> {
        if !has_rules(table) {
            return None;
        }
        // A snapshot that came meanwhile knows better than the one that the request began with.
        let published = station.snapshot.published();
        published.rules.0.get(&table.name).map(|known| known.access.clone())
    }
}

/// Whether it depends on more than the caller's name.
fn has_rules(table: &ServiceTable) -> bool {
    !table.access.rules.is_empty() || !table.access.routes.is_empty()
}

/// Refuses, or only reports, as the mode says.
fn settle(
    station: &Station,
    mode: AccessMode,
    caller: &Caller,
    service: &ServiceName,
    asked: Asked<'_>,
    judged: Result<(), Refused>,
) -> Result<(), Refusal> {
    let Err(refused) = judged else { return Ok(()) };
    let message = refused.message(caller, service, asked);
    let observed = mode == AccessMode::Observe;
    note(station, caller, service, observed, &message);
    if observed { Ok(()) } else { Err(Refusal::new(Reason::Denied, message)) }
}

/// Counts and reports a call that was refused, or would be; logs it now and then.
fn note(station: &Station, caller: &Caller, service: &ServiceName, observed: bool, message: &str) {
    station.metrics.denied(station.kind, service.as_str(), caller.as_str(), observed);
    if station.denials.note(caller, service, observed, message) {
        let verdict = if observed { "observed" } else { "refused" };
        tracing::warn!(hop = station.kind.word(), %caller, %service, verdict, cause = message, "call not permitted");
    }
}

/// The same with paths in the form that requests' paths have here.
fn canonical(access: &Access) -> Access {
    let mut access = access.clone();
    access.rules = canonical_rules(&access.rules).into_owned();
    for route in &mut access.routes {
        route.path = canonical_path(&route.path);
        route.rules = canonical_rules(&route.rules).into_owned();
    }
    access
}

fn canonical_rules(rules: &AccessRules) -> Cow<'_, AccessRules> {
    if rules.is_empty() {
        return Cow::Borrowed(rules);
    }
    let rule = |rule: &AccessRule| AccessRule { path: rule.path.as_ref().map(canonical_path), ..rule.clone() };
    let all = |list: &Vec<AccessRule>| list.iter().map(rule).collect::<Vec<_>>();
    Cow::Owned(AccessRules { allow: rules.allow.as_ref().map(all), deny: all(&rules.deny) })
}

fn canonical_path(pattern: &PathPattern) -> PathPattern {
    let segment = |segment: &Segment| match segment {
        Segment::Literal(text) => Segment::Literal(path::canonical_segment(text)),
        Segment::Param(name) => Segment::Param(name.clone()),
    };
    PathPattern { segments: pattern.segments.iter().map(segment).collect() }
}
