//! Who may call a service, as it travels to its own sidecars and to those of its callers; and what was refused.

use synego_model::{Access, AccessMode, AccessRule, AccessRules, Denial, RouteAccess};

use super::{Problems, checked, join};
use crate::pb;

/// Most rules in one list, and most routes of a service.
const MAX_RULES: usize = 256;
const MAX_METHODS: usize = 16;
const MAX_METHOD: usize = 32;
/// Longest reason of a refusal, in bytes.
const MAX_MESSAGE: usize = 1024;

impl From<&Access> for pb::Access {
    fn from(access: &Access) -> Self {
        use pb::access::Mode;
        let mode = match access.mode {
            AccessMode::Enforce => Mode::Enforce,
            AccessMode::Observe => Mode::Observe,
            AccessMode::Open => Mode::Open,
        };
        Self {
            mode: mode.into(),
            declared: access.declared,
            rules: (!access.rules.is_empty()).then(|| (&access.rules).into()),
            route: access.routes.iter().map(Into::into).collect(),
        }
    }
}

impl From<&AccessRules> for pb::AccessRules {
    fn from(rules: &AccessRules) -> Self {
        Self {
            allow: rules.allow.iter().flatten().map(Into::into).collect(),
            allow_said: rules.allow.is_some(),
            deny: rules.deny.iter().map(Into::into).collect(),
        }
    }
}

impl From<&AccessRule> for pb::AccessRule {
    fn from(rule: &AccessRule) -> Self {
        Self {
            caller: rule.caller.to_string(),
            method: rule.methods.clone(),
            path: rule.path.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl From<&RouteAccess> for pb::RouteAccess {
    fn from(route: &RouteAccess) -> Self {
        Self {
            path: route.path.to_string(),
            exact: route.exact,
            method: route.methods.clone(),
            rules: (!route.rules.is_empty()).then(|| (&route.rules).into()),
        }
    }
}

impl From<&Denial> for pb::Denial {
    fn from(denial: &Denial) -> Self {
        let end = denial.message.floor_char_boundary(MAX_MESSAGE);
        Self {
            caller: denial.caller.to_string(),
            service: denial.service.to_string(),
            observed: denial.observed,
            count: denial.count,
            message: denial.message.get(..end).unwrap_or_default().to_owned(),
        }
    }
}

checked! {
    pb::Access => Access: access;
    pb::Denial => Denial: denial;
}

/// Who may call a service.
pub(crate) fn access(message: &pb::Access, path: &str, problems: &mut Problems) -> Option<Access> {
    use pb::access::Mode;
    let mode = match Mode::try_from(message.mode) {
        Ok(Mode::Unspecified | Mode::Enforce) => Some(AccessMode::Enforce),
        Ok(Mode::Observe) => Some(AccessMode::Observe),
        Ok(Mode::Open) => Some(AccessMode::Open),
        Err(_) => {
            problems.add(join(path, "mode"), format!("is {}, expected a mode of access", message.mode));
            None
        }
    };
    let own = rules(message.rules.as_ref(), &join(path, "rules"), problems);
    problems.count(&join(path, "route"), message.route.len(), 0, MAX_RULES);
    let mut routes = Vec::with_capacity(message.route.len());
    for (at, route) in message.route.iter().enumerate() {
        let path = join(path, &format!("route[{at}]"));
        methods(&route.method, &path, problems);
        let place = problems.parse(&join(&path, "path"), &route.path);
        let (Some(place), Some(rules)) = (place, rules(route.rules.as_ref(), &join(&path, "rules"), problems)) else {
            continue;
        };
        routes.push(RouteAccess { path: place, exact: route.exact, methods: route.method.clone(), rules });
    }
    Some(Access { mode: mode?, declared: message.declared, rules: own?, routes })
}

fn rules(message: Option<&pb::AccessRules>, path: &str, problems: &mut Problems) -> Option<AccessRules> {
    let Some(message) = message else { return Some(AccessRules::default()) };
    let mut list = |name: &str, said: &[pb::AccessRule]| {
        problems.count(&join(path, name), said.len(), 0, MAX_RULES);
        let all = said.iter().enumerate();
        all.map(|(at, found)| rule(found, &join(path, &format!("{name}[{at}]")), problems)).collect::<Option<Vec<_>>>()
    };
    let (allow, deny) = (list("allow", &message.allow), list("deny", &message.deny));
    let allow = allow?;
    Some(AccessRules { allow: (message.allow_said || !allow.is_empty()).then_some(allow), deny: deny? })
}

fn rule(message: &pb::AccessRule, path: &str, problems: &mut Problems) -> Option<AccessRule> {
    let caller = problems.parse(&join(path, "caller"), &message.caller);
    methods(&message.method, path, problems);
    let place = match message.path.as_str() {
        "" => Some(None),
        text => problems.parse(&join(path, "path"), text).map(Some),
    };
    Some(AccessRule { caller: caller?, methods: message.method.clone(), path: place? })
}

fn methods(said: &[String], path: &str, problems: &mut Problems) {
    let path = join(path, "method");
    problems.count(&path, said.len(), 0, MAX_METHODS);
    for method in said {
        problems.text(&path, method, MAX_METHOD);
    }
}

/// What was refused.
pub(crate) fn denial(message: &pb::Denial, path: &str, problems: &mut Problems) -> Option<Denial> {
    let caller = problems.parse(&join(path, "caller"), &message.caller);
    let service = problems.parse(&join(path, "service"), &message.service);
    Some(Denial {
        caller: caller?,
        service: service?,
        observed: message.observed,
        count: message.count,
        message: problems.text(&join(path, "message"), &message.message, MAX_MESSAGE),
    })
}
