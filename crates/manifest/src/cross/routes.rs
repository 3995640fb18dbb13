//! Routes: one owner for each, and conditions that can be met.

use std::collections::HashMap;

use synego_model::{HostPattern, Place, Route, Segment, ServiceName};

use super::Whole;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};

/// A place that somebody owns.
struct Owned {
    route: Route,
    /// ``service `users` ``, `gateway.spa`.
    owner: String,
    shown: String,
    span: Span,
}

pub(super) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    let mut owned: Vec<Owned> = Vec::new();
    for service in whole.services() {
        let Some(routes) = service.value.get("routes") else { continue };
        if service.value.get("protocol").and_then(Node::text) == Some("tcp") && !routes.items().is_empty() {
            let problem =
                Problem::new("contradiction", format!("`{}` speaks bytes, which no route can tell apart", service.key))
                    .expected("expected no routes beside `protocol: tcp`")
                    .help("leave `routes` out: other services reach it by `uses` and `SYNEGO_URL_<NAME>`");
            problems.error(routes.span, problem);
            continue;
        }
        for item in routes.items() {
            conditions(item, problems);
            owned.extend(route(service, item, problems));
        }
    }
    for section in ["static", "spa"] {
        let places = whole.tree.at(&["gateway", section]).map(Node::entries).unwrap_or_default();
        owned.extend(places.iter().filter_map(|entry| {
            let place: Place = entry.key.parse().ok()?;
            let nobody = ServiceName::new("gateway").ok()?;
            Some(Owned {
                route: Route::new(place, nobody, ""),
                owner: format!("`gateway.{section}`"),
                shown: entry.key.clone(),
                span: entry.span,
            })
        }));
    }
    owned.sort_by_key(|one| (one.span.file, one.span.line, one.span.column));
    let mut alike: HashMap<String, Vec<&Owned>> = HashMap::new();
    for later in &owned {
        let before = alike.entry(likeness(&later.route)).or_default();
        let first = before.iter().copied().find(|first| first.route.ties_with(&later.route));
        before.push(later);
        let Some(first) = first else { continue };
        let problem = if first.owner == later.owner {
            Problem::new("route_taken", format!("the route `{}` stands twice in {}", later.shown, later.owner))
                .expected(format!("first at {}", problems.place(first.span)))
                .help("leave one out")
        } else {
            Problem::new("route_taken", format!("the route `{}` has two owners", later.shown))
                .expected(format!("also of {} ({})", first.owner, problems.place(first.span)))
                .help("let one add a host, a method or a longer path; for two versions of one service use `split`")
        };
        problems.error(later.span, problem);
    }
}

/// What two routes must have in common to tie: everything but methods, whatever parameters are called.
fn likeness(route: &Route) -> String {
    let shape: Vec<&str> = route
        .place
        .path
        .segments
        .iter()
        .map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Param(_) => ":",
        })
        .collect();
    format!("{} {} /{} {} {}", route.place.host, route.exact, shape.join("/"), route.headers.len(), route.query.len())
}

/// The route that one item of `routes` says, as far as it decides who wins.
fn route(service: &Entry, item: &Node, problems: &mut Problems) -> Option<Owned> {
    if item.has_bad() {
        return None;
    }
    let path_node = item.get("path");
    let path = path_node.and_then(Node::text).unwrap_or("/");
    let host = item.get("host").and_then(Node::text).unwrap_or_default();
    if !path.starts_with('/') && !host.is_empty() {
        let span = path_node.map_or(item.span, |node| node.span);
        let problem = Problem::new("either_or", format!("this route says its host twice: `{host}` and in `{path}`"))
            .expected("expected `path: /…` beside `host`")
            .help(format!("write `path: {}`", path.find('/').and_then(|at| path.get(at..)).unwrap_or("/")));
        problems.error(span, problem);
        return None;
    }
    let text = format!("{host}{path}");
    let mut route = Route::new(text.parse().ok()?, service.key.parse().ok()?, "");
    if route.place.host == HostPattern::Any && !host.is_empty() {
        return None;
    }
    route.exact = item.get("exact").and_then(Node::text) == Some("true");
    route.methods = texts(item.get("method"));
    route.headers = pairs(item.get("headers"), true);
    route.query = pairs(item.get("query"), false);
    let mut shown = route.place.to_string();
    if !route.methods.is_empty() {
        shown = format!("{} {shown}", route.methods.join(", "));
    }
    Some(Owned { route, owner: format!("service `{}`", service.key), shown, span: item.span })
}

fn texts(node: Option<&Node>) -> Vec<String> {
    node.map(Node::items).unwrap_or_default().iter().filter_map(|item| item.text().map(str::to_owned)).collect()
}

fn pairs(node: Option<&Node>, lower: bool) -> Vec<(String, String)> {
    let entries = node.map(Node::entries).unwrap_or_default();
    let name = |key: &str| if lower { key.to_ascii_lowercase() } else { key.to_owned() };
    entries.iter().filter_map(|entry| Some((name(&entry.key), entry.value.text()?.to_owned()))).collect()
}

/// Names of headers must be some.
fn conditions(item: &Node, problems: &mut Problems) {
    for entry in item.get("headers").map(Node::entries).unwrap_or_default() {
        if !is_token(&entry.key) && !matches!(entry.value.kind, Kind::Bad) {
            problems.error(entry.span, bad_header(&entry.key));
        }
    }
}

/// Text that names no header.
pub(super) fn bad_header(text: &str) -> Problem {
    Problem::new("bad_header", format!("`{text}` is no name of a header"))
        .expected("expected letters, digits and `-`")
        .help("write such as `x-user`; case does not matter")
}

/// Whether it can name a header (RFC 9110, 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
