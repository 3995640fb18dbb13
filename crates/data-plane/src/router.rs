//! Routes prepared for lookup: by host, then by the segments of the path. Built once for each set of routes.
//!
//! A lookup costs a few hash lookups for each segment of the request's path, however many routes there are.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::Method;
use synego_model::{HostPattern, PathPattern, Policy, Route, Segment, ServiceName};

use crate::fields::Fields;
use crate::hop::access::RouteRules;
use crate::hop::path;

type Map<K, V> = HashMap<K, V, RandomState>;

/// What of a request a route may look at.
pub(crate) struct Asked<'a> {
    /// Host, lower case, without port.
    pub(crate) host: &'a str,
    /// Canonical path.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) method: &'a Method,
    pub(crate) fields: &'a Fields,
}

/// A route, ready to be compared with a request.
pub(crate) struct Prepared {
    /// Which it is among the routes of its router.
    pub(crate) number: usize,
    /// Its place as text: the label of metrics and logs.
    pub(crate) label: Arc<str>,
    pub(crate) service: ServiceName,
    pub(crate) policy: Option<Arc<Policy>>,
    pub(crate) rules: Option<Box<RouteRules>>,
    methods: Vec<Method>,
    /// Names in lower case, and values.
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
}

/// All routes of a snapshot.
#[derive(Default)]
pub(crate) struct Router {
    exact: Map<String, Tree>,
    suffixes: Map<String, Tree>,
    any: Tree,
    count: usize,
}

/// The routes of one host pattern by path; node 0 is `/`.
#[derive(Default)]
struct Tree {
    nodes: Vec<Node>,
    /// Whether any route wants a whole path.
    has_exact: bool,
}

#[derive(Default)]
struct Node {
    literals: Map<Box<str>, usize>,
    param: Option<usize>,
    /// Routes of exactly this path; the one that wins first.
    exact: Vec<Prepared>,
    /// Routes of this path and all below it; the one that wins first.
    prefix: Vec<Prepared>,
}

impl Router {
    /// Prepares `routes`, which are in the order in which they win.
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut router = Self::default();
        for route in routes {
            let Some(prepared) = Prepared::of(route, router.count) else { continue };
            router.count += 1;
            let tree = match &route.place.host {
                HostPattern::Any => &mut router.any,
                HostPattern::Suffix(name) => router.suffixes.entry(name.clone()).or_default(),
                HostPattern::Exact(name) => router.exact.entry(name.clone()).or_default(),
            };
            tree.insert(&route.place.path, route.exact, prepared);
        }
        router
    }

    /// How many routes there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The route that wins among those that match; `None`: no route matches.
    pub(crate) fn find(&self, asked: &Asked<'_>) -> Option<&Prepared> {
        if let Some(found) = self.exact.get(asked.host).and_then(|tree| tree.find(asked)) {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            let mut rest = asked.host;
            // From the longest suffix to the shortest; each has a label before it.
            while let Some((_, suffix)) = rest.split_once('.') {
                // Nothing at all before the dot is no label.
                let has_label = asked.host.len() > suffix.len() + 1;
                if has_label && let Some(found) = self.suffixes.get(suffix).and_then(|tree| tree.find(asked)) {
                    return Some(found);
                }
                rest = suffix;
            }
        }
        self.any.find(asked)
    }
}

impl Tree {
    fn insert(&mut self, pattern: &PathPattern, exact: bool, route: Prepared) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        for segment in &pattern.segments {
            let fresh = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = match segment {
                Segment::Literal(text) => *node.literals.entry(path::canonical_segment(text).into()).or_insert(fresh),
                Segment::Param(_) => *node.param.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            if exact {
                node.exact.push(route)
            } else {
                node.prefix.push(route)
            }
            self.has_exact |= exact;
        }
    }

    fn find(&self, asked: &Asked<'_>) -> Option<&Prepared> {
        let root = self.nodes.first()?;
        let rest = Rest::of(asked.path);
        let whole = if self.has_exact { self.whole(root, rest, asked) } else { None };
        whole.or_else(|| self.longest(root, rest, 0, asked).map(|(_, route)| route))
    }

    /// The exact route of the whole path, literals before parameters from the left.
    fn whole<'a>(&'a self, node: &'a Node, rest: Rest<'_>, asked: &Asked<'_>) -> Option<&'a Prepared> {
        let Some((first, rest)) = rest.split() else {
            return node.exact.iter().find(|route| route.takes(asked));
        };
        (self.literal(node, first).and_then(|child| self.whole(child, rest, asked)))
            .or_else(|| self.param(node, first).and_then(|child| self.whole(child, rest, asked)))
    }

    /// The deepest prefix that takes the request; at equal depth literals before parameters from the left.
    fn longest<'a>(
        &'a self,
        node: &'a Node,
        rest: Rest<'_>,
        depth: usize,
        asked: &Asked<'_>,
    ) -> Option<(usize, &'a Prepared)> {
        let mut best = None;
        // Below a node that nothing hangs on there is no need to look.
        if (node.param.is_some() || !node.literals.is_empty())
            && let Some((first, rest)) = rest.split()
        {
            best = self.literal(node, first).and_then(|child| self.longest(child, rest, depth + 1, asked));
            let other = self.param(node, first).and_then(|child| self.longest(child, rest, depth + 1, asked));
            if other.as_ref().map(|found| found.0) > best.as_ref().map(|found| found.0) {
                best = other;
            }
        }
        best.or_else(|| node.prefix.iter().find(|route| route.takes(asked)).map(|route| (depth, route)))
    }

    fn literal(&self, node: &Node, segment: &str) -> Option<&Node> {
        node.literals.get(segment).and_then(|child| self.nodes.get(*child))
    }

    fn param(&self, node: &Node, segment: &str) -> Option<&Node> {
        if segment.is_empty() { None } else { node.param.and_then(|child| self.nodes.get(child)) }
    }
}

/// The segments that are left of a path; `None`: none.
#[derive(Clone, Copy)]
struct Rest<'a>(Option<&'a str>);

impl<'a> Rest<'a> {
    /// As `segments_of` of the model: a trailing slash adds none.
    fn of(path: &'a str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        Self((!path.is_empty()).then_some(path))
    }

    fn split(self) -> Option<(&'a str, Self)> {
        let text = self.0?;
        let Some(at) = memchr::memchr(b'/', text.as_bytes()) else { return Some((text, Self(None))) };
        Some((text.get(..at)?, Self(text.get(at + 1..))))
    }
}

impl Prepared {
    /// `None` for a route that no request can match: a method that cannot exist.
    fn of(route: &Route, number: usize) -> Option<Self> {
        let header = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
        Some(Self {
            number,
            label: route.place.to_string().into(),
            service: route.service.clone(),
            policy: route.policy.clone(),
            rules: RouteRules::of(&route.place.path, &route.rules),
            methods: route.methods.iter().map(|method| method.parse().ok()).collect::<Option<_>>()?,
            headers: route.headers.iter().map(header).collect(),
            query: route.query.clone(),
        })
    }

    /// Whether the conditions beside host and path hold.
    fn takes(&self, asked: &Asked<'_>) -> bool {
        (self.methods.is_empty() || self.methods.contains(asked.method))
            && self.headers.iter().all(|(name, value)| asked.fields.named(name).any(|have| have == value.as_bytes()))
            && self.query.iter().all(|(name, value)| {
                asked.query.is_some_and(|query| path::query_values(query, name).any(|have| have == value.as_str()))
            })
    }
}

#[cfg(test)]
mod tests;
