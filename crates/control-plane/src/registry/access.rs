//! Who may call whom, from what the manifest declares and, for services that it does not name, from what they announce.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use synego_model::{Access, AccessMode, Caller, Declaration, Denial, Route, RouteAccess, ServiceName, route};

use super::roster::Roster;
use super::{At, Instance, Notice};

/// How long a refused call is still shown after the last one like it, in milliseconds.
const SHOWN_MS: u64 = 300_000;
/// Most pairs of caller and callee that are shown.
const MAX_PAIRS: usize = 1_000;

/// Who has the permission of its own `uses` to call a service, by name.
///
/// The manifest's word is all for the services that it names. One that it does not name was admitted to the mesh by
/// whoever started its sidecar: what that one says it uses counts.
pub(super) fn callers(callee: &ServiceName, declaration: &Declaration, roster: &Roster) -> Arc<[ServiceName]> {
    let declared = declaration.services.values().filter(|spec| spec.uses.contains(callee)).map(|spec| &spec.name);
    let announced = roster.announced_callers(callee).filter(|caller| !declaration.services.contains_key(*caller));
    let callers: BTreeSet<&ServiceName> = declared.chain(announced).collect();
    callers.into_iter().cloned().collect()
}

/// What the manifest says of the calls to a service.
pub(super) fn of(name: &ServiceName, declaration: &Declaration) -> Access {
    let mode = declaration.access;
    let Some(spec) = declaration.services.get(name) else { return Access::undeclared(mode) };
    let routes = spec.routes.as_deref().unwrap_or_default();
    let mut ranked: Vec<Route> = Vec::new();
    if routes.iter().any(|route| !route.rules.is_empty()) {
        ranked.extend(routes.iter().cloned());
        // Hosts, headers and queries do not tell calls by name apart, so they decide nothing here.
        for route in &mut ranked {
            route.place.host = synego_model::HostPattern::Any;
            route.headers.clear();
            route.query.clear();
            route.methods.sort();
        }
        route::sort_by_rank(&mut ranked);
        // By path alone: routes of one path stand together and are judged together, whatever methods they say.
        ranked.sort_by(|a, b| b.exact.cmp(&a.exact).then_with(|| b.place.path.cmp_rank(&a.place.path)));
    }
    let routes = ranked.into_iter().map(|route| RouteAccess {
        path: route.place.path,
        exact: route.exact,
        methods: route.methods,
        rules: route.rules,
    });
    Access { mode, declared: true, rules: spec.rules.clone(), routes: routes.collect() }
}

/// What a person should know of access as it is declared.
pub(super) fn notices<'a>(declaration: &Declaration, instances: impl Iterator<Item = &'a Instance>) -> Vec<Notice> {
    let notice = |code: &str, message: String, service: Option<&ServiceName>| Notice {
        code: code.into(),
        message,
        service: service.cloned(),
    };
    let mode = match declaration.access {
        AccessMode::Enforce => None,
        AccessMode::Observe => Some("access only observes: calls that nobody permits pass, and are reported"),
        AccessMode::Open => Some("access is open: every service may call every other"),
    };
    let mut all: Vec<Notice> = mode
        .map(|words| notice(&format!("access_{}", declaration.access.word()), words.into(), None))
        .into_iter()
        .collect();
    if declaration.access == AccessMode::Open {
        return all;
    }
    let mut own_word: BTreeMap<&ServiceName, BTreeSet<&str>> = BTreeMap::new();
    for found in instances.filter(|found| !declaration.services.contains_key(&found.announcement.service)) {
        let uses = found.announcement.uses.iter().filter(|used| declaration.services.contains_key(*used));
        for used in uses {
            own_word.entry(&found.announcement.service).or_default().insert(used.as_str());
        }
    }
    for (service, uses) in own_word {
        let uses: Vec<&str> = uses.into_iter().collect();
        let message = format!(
            "{service} is not in the manifest: it may call {} because its own sidecar says `--uses`",
            uses.join(", ")
        );
        all.push(notice("undeclared_caller", message, Some(service)));
    }
    all
}

/// Calls that were refused, or would be, as callers and callees report them.
#[derive(Debug, Default)]
pub(super) struct Denials(BTreeMap<(Caller, ServiceName), Seen>);

#[derive(Debug)]
struct Seen {
    observed: bool,
    /// What the caller's side counted, and the callee's: each call of an observed mesh is seen by both.
    counts: (u64, u64),
    last_ms: u64,
    message: String,
}

impl Denials {
    /// Takes in what one reports: an instance of `reporter`, or the ingress.
    pub(super) fn told(&mut self, reporter: &Caller, denials: &[Denial], at: At) {
        for denial in denials {
            let key = (denial.caller.clone(), denial.service.clone());
            if self.0.len() >= MAX_PAIRS && !self.0.contains_key(&key) {
                continue;
            }
            let fresh = || Seen { observed: denial.observed, counts: (0, 0), last_ms: at.ms, message: String::new() };
            let seen = self.0.entry(key).or_insert_with(fresh);
            if seen.observed != denial.observed {
                (seen.observed, seen.counts) = (denial.observed, (0, 0));
            }
            let count = if *reporter == denial.caller { &mut seen.counts.0 } else { &mut seen.counts.1 };
            *count = count.saturating_add(denial.count);
            seen.last_ms = at.ms;
            seen.message.clone_from(&denial.message);
        }
    }

    /// Forgets what nobody saw for long.
    pub(super) fn tick(&mut self, at: At) {
        self.0.retain(|_, seen| at.ms.saturating_sub(seen.last_ms) < SHOWN_MS);
    }

    /// Each pair with how many calls and why.
    pub(super) fn notices(&self) -> Vec<Notice> {
        let notice = |((_, service), seen): (&(Caller, ServiceName), &Seen)| {
            let count = seen.counts.0.max(seen.counts.1);
            let calls = if count == 1 { "1 call".to_owned() } else { format!("{count} calls") };
            let (code, done) = if seen.observed {
                ("would_be_denied", "passed that `access: enforce` would refuse")
            } else {
                ("denied", "refused")
            };
            Notice {
                code: code.into(),
                message: format!("{calls} {done}: {}", seen.message),
                service: Some(service.clone()),
            }
        };
        self.0.iter().map(notice).collect()
    }
}
