//! Which route takes a request, among few and among many.

use http::{HeaderMap, Method};
use synego_model::{Epoch, Limits, Route, Snapshot};

use super::Run;
use crate::router::{Asked, Router};

/// Paths that are asked for in turn: the figure is the mean over their places in the table.
const ASKED: usize = 1000;

/// A table of so many routes, half of them with a parameter.
pub(super) fn router(count: usize) -> Option<Router> {
    let mut routes = Vec::with_capacity(count);
    for number in 0..count {
        let tail = if number % 2 == 0 { "" } else { "/:id/orders" };
        let place = format!("/service-{number:05}/v1{tail}").parse().ok()?;
        routes.push(Route::new(place, format!("service-{number:05}").parse().ok()?, "count"));
    }
    Some(Router::new(Snapshot::new(Epoch(1), [], routes, Limits::default()).routes()))
}

pub(super) fn find(count: usize) -> Option<Run> {
    let router = router(count)?;
    let ask = |number: usize| {
        let number = number * 7919 % count;
        (format!("/service-{number:05}/v1/4711/orders"), format!("service-{number:05}"))
    };
    let asked: Vec<(String, String)> = (0..ASKED).map(ask).collect();
    let (method, headers) = (Method::GET, HeaderMap::new());
    let mut turn = (0..ASKED).cycle();
    Some(Box::new(move || {
        let Some((path, service)) = turn.next().and_then(|at| asked.get(at)) else { return false };
        let asked = Asked { host: "shop.example.com", path, query: None, method: &method, headers: &headers };
        router.find(&asked).is_some_and(|route| route.service.as_str() == service)
    }))
}
