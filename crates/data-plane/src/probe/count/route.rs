//! Which route takes a request, among few and among many.

use http::Method;
use synego_model::{Epoch, Limits, Route, Snapshot};

use super::Run;
use crate::fields::Fields;
use crate::router::{Asked, Router};

/// Paths that are asked for in turn: the figure is the mean over their places in the table.
const ASKED: usize = 1000;

/// Routes over all tables. Where in a table a route lies is drawn anew in each process, and a small table has few places:
/// only the mean over several is always the same.
const ROUTES: usize = 20_000;

/// Tables of so many routes, half of them with a parameter.
fn routers(count: usize) -> Option<Vec<Router>> {
    let mut routes = Vec::with_capacity(count);
    for number in 0..count {
        let tail = if number % 2 == 0 { "" } else { "/:id/orders" };
        let place = format!("/service-{number:05}/v1{tail}").parse().ok()?;
        routes.push(Route::new(place, format!("service-{number:05}").parse().ok()?, "count"));
    }
    let snapshot = Snapshot::new(Epoch(1), [], routes, Limits::default());
    Some((0..(ROUTES / count).clamp(2, 20)).map(|_| Router::new(snapshot.routes())).collect())
}

pub(super) fn find(count: usize) -> Option<Run> {
    let routers = routers(count)?;
    let ask = |number: usize| {
        let number = number * 7919 % count;
        (format!("/service-{number:05}/v1/4711/orders"), format!("service-{number:05}"))
    };
    let asked: Vec<(String, String)> = (0..ASKED).map(ask).collect();
    let (method, fields) = (Method::GET, Fields::new());
    let mut turn = (0..ASKED).cycle();
    Some(Box::new(move || {
        let at = turn.next().unwrap_or_default();
        let (Some((path, service)), Some(router)) = (asked.get(at), routers.get(at / 10 % routers.len())) else {
            return false;
        };
        let asked = Asked { host: "shop.example.com", path, query: None, method: &method, fields: &fields };
        router.find(&asked).is_some_and(|route| route.service.as_str() == service)
    }))
}
