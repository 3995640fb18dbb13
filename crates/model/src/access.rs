//! Who may call a service: what the manifest says of it, and how one call is judged.
//!
//! A caller needs the permission of its own `uses`; the callee's `allow` and `deny`, and those of its routes, only narrow
//! it. So a call passes when all of them let it pass, and whoever reads one of them knows the most that it permits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{BadName, ServiceName};
use crate::place::PathPattern;

/// How rules name what comes from outside.
pub const INGRESS: &str = "ingress";
/// Longest part of a path that a message repeats, in characters.
const SHOWN: usize = 120;

/// What happens to calls that nobody permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessMode {
    /// They are refused.
    #[default]
    Enforce,
    /// They pass, and are reported as what would be refused.
    Observe,
    /// They pass.
    Open,
}

impl AccessMode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Enforce, Self::Observe, Self::Open];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Open => "open",
        }
    }

    /// The mode of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Caller {
    /// What comes from outside by a route.
    Ingress,
    /// A service of the mesh.
    Service(ServiceName),
}

impl FromStr for Caller {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        if text == INGRESS { Ok(Self::Ingress) } else { ServiceName::new(text).map(Self::Service) }
    }
}

impl TryFrom<String> for Caller {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Caller> for String {
    fn from(caller: Caller) -> Self {
        caller.as_str().to_owned()
    }
}

impl Caller {
    /// As rules write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ingress => INGRESS,
            Self::Service(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is asked for; `None` where bytes are carried, which no rule can tell apart.
pub type Asked<'a> = Option<(&'a str, &'a str)>;

/// One entry of `allow` or `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Whose calls it is about.
    pub caller: Caller,
    /// Methods in upper case; none: all.
    pub methods: Vec<String>,
    /// The path and all below it; `None`: every path.
    pub path: Option<PathPattern>,
}

impl AccessRule {
    /// A rule about every call of `caller`.
    #[must_use]
    pub fn of(caller: Caller) -> Self {
        Self { caller, methods: Vec::new(), path: None }
    }

    /// Whether it looks at more than the caller.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        !self.methods.is_empty() || self.path.is_some()
    }

    fn takes(&self, caller: &Caller, asked: Asked<'_>) -> bool {
        self.caller == *caller
            && match asked {
                None => !self.has_conditions(),
                Some((method, path)) => {
                    (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
                        && self.path.as_ref().is_none_or(|pattern| pattern.matches(path, false))
                }
            }
    }
}

/// `allow` and `deny` of a service or a route.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccessRules {
    /// Who may call, of those that use it; `None`: nothing said, so all of these; empty: nobody.
    pub allow: Option<Vec<AccessRule>>,
    /// Who may not; it wins over `allow`.
    pub deny: Vec<AccessRule>,
}

impl AccessRules {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    /// Whether `caller` is judged alike whatever it asks for.
    #[must_use]
    pub fn is_plain_for(&self, caller: &Caller) -> bool {
        let all = self.allow.iter().flatten().chain(&self.deny);
        all.filter(|rule| rule.caller == *caller).all(|rule| !rule.has_conditions())
    }

    /// Whether they let a call pass.
    ///
    /// # Errors
    /// The list that does not.
    pub fn judge(&self, caller: &Caller, asked: Asked<'_>) -> Result<(), List> {
        if self.deny.iter().any(|rule| rule.takes(caller, asked)) {
            return Err(List::Deny);
        }
        match &self.allow {
            Some(allow) if !allow.iter().any(|rule| rule.takes(caller, asked)) => {
                let named = allow.iter().any(|rule| rule.caller == *caller);
                Err(if named { List::AllowOther } else { List::Allow })
            }
            _ => Ok(()),
        }
    }
}

/// Which list does not let a call pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `allow` does not name the caller.
    Allow,
    /// `allow` names the caller for other methods or paths.
    AllowOther,
    /// `deny` names the call.
    Deny,
}

/// What a route of a service says of access, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAccess {
    /// The path of the route.
    pub path: PathPattern,
    /// Whether the path must be equal.
    pub exact: bool,
    /// Its methods; none: all.
    pub methods: Vec<String>,
    /// Its rules.
    pub rules: AccessRules,
}

impl RouteAccess {
    fn takes(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
            && self.path.matches(path, self.exact)
    }
}

/// Who may call a service, beside the `uses` of its callers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Access {
    /// What happens to calls that nobody permits.
    pub mode: AccessMode,
    /// Whether the manifest names the service; one that it does not name can be in nobody's `uses`, so every service of
    /// the mesh may call it.
    pub declared: bool,
    /// The rules of the service.
    pub rules: AccessRules,
    /// All of its routes, the more exact first, where one of them has rules; else none.
    pub routes: Vec<RouteAccess>,
}

impl Access {
    /// That of a service of which the manifest says nothing.
    #[must_use]
    pub fn undeclared(mode: AccessMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Whether `caller` is judged alike whatever it asks for.
    #[must_use]
    pub fn is_plain_for(&self, caller: &Caller) -> bool {
        self.rules.is_plain_for(caller) && (self.routes.is_empty() || *caller == Caller::Ingress)
    }

    /// Whether its rules let a call pass: those of the service, then those of the route at whose place it lies.
    ///
    /// Of a service's call only path and method decide which route that is: whoever calls by name could write any host
    /// and any header. Where several routes share the path, all of them must let it pass. For what comes from outside the
    /// ingress knows the very route, and judges by [`AccessRules::judge`] of that.
    ///
    /// # Errors
    /// Who does not let it pass.
    pub fn judge(&self, caller: &Caller, asked: Asked<'_>) -> Result<(), Refused> {
        self.rules.judge(caller, asked).map_err(Refused::Service)?;
        let (Some((method, path)), false) = (asked, *caller == Caller::Ingress) else { return Ok(()) };
        let mut taking = self.routes.iter().filter(|route| route.takes(method, path));
        let Some(first) = taking.next() else { return Ok(()) };
        let alike = |route: &&RouteAccess| route.exact == first.exact && route.path.same_as(&first.path);
        for route in std::iter::once(first).chain(taking.take_while(alike)) {
            route.rules.judge(caller, asked).map_err(|list| Refused::Route(list, route.path.to_string()))?;
        }
        Ok(())
    }
}

/// Why a call is not let pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The caller's `uses` does not name the callee.
    Uses,
    /// The rules of the service.
    Service(List),
    /// The rules of its route of this path.
    Route(List, String),
}

impl Refused {
    /// In one sentence, with the line that would change it.
    #[must_use]
    pub fn message(&self, caller: &Caller, callee: &ServiceName, asked: Asked<'_>) -> String {
        let (list, owner) = match self {
            Self::Uses => {
                return format!("{caller} may not call {callee}: add `{callee}` to `uses` of `services.{caller}`");
            }
            Self::Service(list) => (list, format!("`services.{callee}`")),
            Self::Route(list, path) => (list, format!("the route `{path}` of `services.{callee}`")),
        };
        let call = match asked {
            Some((method, path)) => format!("{method} {} of {callee}", shown(path)),
            None => format!("call {callee}"),
        };
        match list {
            List::Deny => format!("{caller} may not {call}: `deny` of {owner} names it"),
            List::Allow => format!("{caller} may not {call}: add `{caller}` to `allow` of {owner}"),
            List::AllowOther => {
                format!("{caller} may not {call}: `allow` of {owner} lets it do other things; add a rule for this")
            }
        }
    }
}

fn shown(path: &str) -> &str {
    path.char_indices().nth(SHOWN).and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

/// Calls that were refused, or would be, as the one who saw it reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Who called.
    pub caller: Caller,
    /// Whom.
    pub service: ServiceName,
    /// Whether they passed all the same, since the mesh only observes.
    pub observed: bool,
    /// How many since the last report.
    pub count: u64,
    /// Why the last one was, with the line that would change it.
    pub message: String,
}

#[cfg(test)]
mod tests;
