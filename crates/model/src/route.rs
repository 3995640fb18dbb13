//! Routes: which requests go to which service, and which of several routes wins.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::AccessRules;
use crate::name::ServiceName;
use crate::place::Place;
use crate::policy::Policy;

/// A pattern of requests and the service that answers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Host and path.
    pub place: Place,
    /// Whether the path must be equal, not only begin so.
    pub exact: bool,
    /// Methods in upper case; none: all.
    pub methods: Vec<String>,
    /// Headers (lower-case name, value) that must all be there with this value.
    pub headers: Vec<(String, String)>,
    /// Query parameters that must all be there with this value.
    pub query: Vec<(String, String)>,
    /// Who answers.
    pub service: ServiceName,
    /// How its requests are treated; `None`: as the service says.
    pub policy: Option<Arc<Policy>>,
    /// Who may call by it, of those that the service lets call.
    pub rules: AccessRules,
    /// Where it was said, for people: `synego.yaml:12`, `sdk`, `sidecar` or `default`.
    pub origin: String,
}

impl Route {
    /// A route of `place` to `service` without further conditions.
    #[must_use]
    pub fn new(place: Place, service: ServiceName, origin: impl Into<String>) -> Self {
        Self {
            place,
            exact: false,
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            service,
            policy: None,
            rules: AccessRules::default(),
            origin: origin.into(),
        }
    }

    /// Which of two wins where both match: host, then `exact`, then the path, then method, headers and query said
    /// before not. `Equal` with the same pattern means: a tie, which the manifest refuses.
    #[must_use]
    pub fn cmp_rank(&self, other: &Self) -> Ordering {
        let said = |route: &Self| (!route.methods.is_empty(), route.headers.len(), route.query.len());
        (self.place.host.rank().cmp(&other.place.host.rank()))
            .then_with(|| self.exact.cmp(&other.exact))
            .then_with(|| self.place.path.cmp_rank(&other.place.path))
            .then_with(|| said(self).cmp(&said(other)))
    }

    /// Whether some request would be claimed by both with equal rank.
    #[must_use]
    pub fn ties_with(&self, other: &Self) -> bool {
        let methods_meet = self.methods.is_empty() && other.methods.is_empty()
            || self.methods.iter().any(|method| other.methods.contains(method));
        self.place.host == other.place.host
            && self.exact == other.exact
            && self.place.path.same_as(&other.place.path)
            && self.cmp_rank(other) == Ordering::Equal
            && methods_meet
            && sorted(&self.headers) == sorted(&other.headers)
            && sorted(&self.query) == sorted(&other.query)
    }
}

fn sorted(pairs: &[(String, String)]) -> Vec<&(String, String)> {
    let mut pairs: Vec<_> = pairs.iter().collect();
    pairs.sort();
    pairs
}

/// Sorts routes so that the first one that matches is the one that wins; equal ones by service, then place.
pub fn sort_by_rank(routes: &mut Vec<Route>) {
    // Written out once each: there may be ten thousand, and most are equal in rank.
    let mut written: Vec<(String, Route)> = routes.drain(..).map(|route| (route.place.to_string(), route)).collect();
    written.sort_by(|(place_a, a), (place_b, b)| {
        b.cmp_rank(a).then_with(|| a.service.cmp(&b.service)).then_with(|| place_a.cmp(place_b))
    });
    routes.extend(written.into_iter().map(|(_, route)| route));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(place: &str, service: &str) -> Option<Route> {
        Some(Route::new(place.parse().ok()?, service.parse().ok()?, "test"))
    }

    #[test]
    fn the_more_exact_route_comes_first() {
        let mut routes: Vec<Route> = ["/", "/users/:id", "/users/me", "*.example.com/", "a.example.com/", "/users"]
            .into_iter()
            .filter_map(|place| route(place, "s"))
            .collect();
        sort_by_rank(&mut routes);
        let order: Vec<String> = routes.iter().map(|route| route.place.to_string()).collect();
        assert_eq!(order, ["a.example.com/", "*.example.com/", "/users/me", "/users/:id", "/users", "/"]);
    }

    #[test]
    fn routes_tie_when_a_request_would_have_two_owners() {
        let (Some(a), Some(mut b)) = (route("/users/:id", "a"), route("/users/:name", "b")) else { panic!("places") };
        assert!(a.ties_with(&b));
        b.methods = vec!["GET".into()];
        assert!(!a.ties_with(&b), "a method said wins over none said");
    }
}
