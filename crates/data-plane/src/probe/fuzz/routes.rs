//! Routes: the prepared router finds what comparing the request with each route finds.
//!
//! The first line is the request, `METHOD HOST PATH[?QUERY] [NAME:VALUE …]`; every other one is a route,
//! `PLACE [=] [@METHOD,…] [?NAME=VALUE …] [NAME:VALUE …]`.

use std::cmp::Ordering;

use http::Method;
use synego_model::{Epoch, HostPattern, Limits, Route, Segment, Snapshot};

use crate::fields::{self, Fields, Name};
use crate::hop::path;
use crate::router::{Asked, Router};

/// More routes show nothing new.
const MOST: usize = 40;

/// Any bytes as a request and routes.
pub fn routes(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut words = lines.next().unwrap_or_default().split_ascii_whitespace();
    let (Some(method), Some(host), Some(target)) = (words.next(), words.next(), words.next()) else { return };
    let Ok(method) = method.parse::<Method>() else { return };
    // As `hop::head` takes them.
    let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    let (given, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let (Ok(path), true) = (path::canonical(given), is_host) else { return };
    let host = host.to_ascii_lowercase();
    let mut fields = Fields::new();
    for (name, value) in words.filter_map(|word| word.split_once(':')) {
        if fields::is_value(value.as_bytes()) {
            let name = name.to_ascii_lowercase();
            fields.append(Name::of(name.as_bytes()), name.as_bytes(), value.as_bytes(), false);
        }
    }
    let asked = Asked { host: &host, path: &path, query, method: &method, fields: &fields };
    let all: Vec<Route> = lines.take(MOST).enumerate().filter_map(|(at, line)| route(line, at)).collect();
    let expected = all.iter().filter(|route| takes(route, &asked)).fold(None, better);
    let snapshot = Snapshot::new(Epoch(1), [], all.clone(), Limits::default());
    let router = Router::new(snapshot.routes());
    let found = router.find(&asked).map(|route| (route.label.to_string(), route.service.clone()));
    assert_eq!(found, expected.map(|route| (route.place.to_string(), route.service.clone())));
}

fn route(line: &str, at: usize) -> Option<Route> {
    let mut words = line.split_ascii_whitespace();
    let mut route = Route::new(words.next()?.parse().ok()?, format!("s{at:02}").parse().ok()?, "fuzz");
    for word in words {
        if word == "=" {
            route.exact = true;
        } else if let Some(methods) = word.strip_prefix('@') {
            route.methods = methods.split(',').map(str::to_owned).collect();
        } else if let Some((name, value)) = word.strip_prefix('?').and_then(|pair| pair.split_once('=')) {
            route.query.push((name.to_owned(), value.to_owned()));
        } else if let Some((name, value)) = word.split_once(':') {
            route.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    Some(route)
}

/// The one that wins, whatever was before.
fn better<'a>(before: Option<&'a Route>, route: &'a Route) -> Option<&'a Route> {
    let Some(best) = before else { return Some(route) };
    let rank = route.cmp_rank(best).then_with(|| best.service.cmp(&route.service));
    Some(if rank == Ordering::Greater { route } else { best })
}

/// Whether all that the route says holds.
fn takes(route: &Route, asked: &Asked<'_>) -> bool {
    let can_be = route.methods.iter().all(|method| method.parse::<Method>().is_ok());
    let host = match &route.place.host {
        HostPattern::Any => true,
        HostPattern::Exact(name) => name == asked.host,
        HostPattern::Suffix(name) => asked.host.len() > name.len() + 1 && asked.host.ends_with(&format!(".{name}")),
    };
    let query = |(name, value): &(String, String)| {
        let mut pairs = asked.query.into_iter().flat_map(|query| query.split('&'));
        pairs.any(|pair| pair.split_once('=').unwrap_or((pair, "")) == (name.as_str(), value.as_str()))
    };
    let header = |(name, value): &(String, String)| {
        asked.fields.iter().any(|field| field.text == name.as_bytes() && field.value == value.as_bytes())
    };
    can_be
        && host
        && takes_path(route, asked.path)
        && (route.methods.is_empty() || route.methods.iter().any(|method| method == asked.method.as_str()))
        && route.headers.iter().all(header)
        && route.query.iter().all(query)
}

fn takes_path(route: &Route, asked: &str) -> bool {
    let wanted = &route.place.path.segments;
    let asked: Vec<&str> = asked.split('/').filter(|segment| !segment.is_empty()).collect();
    let fits = |(wanted, have): (&Segment, &&str)| match wanted {
        Segment::Literal(text) => path::canonical_segment(text) == **have,
        Segment::Param(_) => true,
    };
    let length = if route.exact { wanted.len() == asked.len() } else { wanted.len() <= asked.len() };
    length && wanted.iter().zip(&asked).all(fits)
}
