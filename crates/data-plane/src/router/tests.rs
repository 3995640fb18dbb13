//! The prepared router agrees with the order of the model, and costs the same however many routes there are.

use super::*;
use synego_model::{Epoch, Limits, Snapshot};

fn routes(places: &[&str]) -> Vec<Route> {
    let route = |place: &&str| {
        let service = "s".parse().expect("a name");
        Route::new(place.parse().expect("a place"), service, "test")
    };
    Snapshot::new(Epoch(1), [], places.iter().map(route).collect(), Limits::default()).routes().to_vec()
}

fn label(router: &Router, host: &str, path: &str) -> Option<String> {
    let (method, fields) = (Method::GET, Fields::new());
    let asked = Asked { host, path, query: None, method: &method, fields: &fields };
    router.find(&asked).map(|route| route.label.to_string())
}

#[test]
fn the_most_exact_place_wins() {
    let router = Router::new(&routes(&[
        "/",
        "/users",
        "/users/:id",
        "/users/me",
        "/users/:id/orders",
        "/:any/:thing/orders",
        "a.example.com/",
        "*.example.com/users",
        "*.a.example.com/",
    ]));
    for (host, path, expected) in [
        ("x", "/", "/"),
        ("x", "/other", "/"),
        ("x", "/users", "/users"),
        ("x", "/users/", "/users"),
        ("x", "/usersx", "/"),
        ("x", "/users/7", "/users/:id"),
        ("x", "/users/me", "/users/me"),
        ("x", "/users/me/orders", "/users/:id/orders"),
        ("x", "/a/b/orders/c", "/:any/:thing/orders"),
        ("a.example.com", "/users/7", "a.example.com/"),
        ("b.example.com", "/users/7", "*.example.com/users"),
        ("b.example.com", "/other", "/"),
        ("b.a.example.com", "/users", "*.a.example.com/"),
    ] {
        assert_eq!(label(&router, host, path).as_deref(), Some(expected), "{host}{path}");
    }
    assert_eq!(label(&Router::new(&[]), "x", "/"), None);
}

#[test]
fn the_router_finds_what_a_walk_over_all_routes_finds() {
    let places = ["/a", "/a/:x", "/:y/b", "/a/b/c", "/:x/:y/c", "*.h.io/a", "h.io/:z", "g.h.io/a/b"];
    let routes = routes(&places);
    let router = Router::new(&routes);
    let words = ["a", "b", "c", "d"];
    for host in ["h.io", "g.h.io", "f.g.h.io", "other"] {
        for first in words {
            for second in words {
                for path in [format!("/{first}"), format!("/{first}/{second}"), format!("/{first}/{second}/c")] {
                    let walked = routes
                        .iter()
                        .find(|route| route.place.host.matches(host) && route.place.path.matches(&path, route.exact));
                    assert_eq!(
                        label(&router, host, &path),
                        walked.map(|route| route.place.to_string()),
                        "{host}{path}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_host_of_a_dot_and_a_name_is_not_below_that_name() {
    let router = Router::new(&routes(&["*.example.com/", "/"]));
    assert_eq!(label(&router, ".example.com", "/a").as_deref(), Some("/"));
    assert_eq!(label(&router, "a..example.com", "/a").as_deref(), Some("*.example.com/"));
}

#[test]
fn an_exact_route_takes_only_its_own_path() {
    let mut all = routes(&["/users", "/"]);
    all[0].exact = true;
    let router = Router::new(&all);
    assert_eq!(label(&router, "x", "/users/").as_deref(), Some("/users"));
    assert_eq!(label(&router, "x", "/users/7").as_deref(), Some("/"));
}

#[test]
fn methods_headers_and_query_must_all_hold() {
    let mut all = routes(&["/", "/"]);
    all[0].methods = vec!["POST".into()];
    all[0].headers = vec![("x-kind".into(), "b".into())];
    all[0].query = vec![("v".into(), "2".into())];
    all[0].service = "special".parse().expect("a name");
    let router = Router::new(&all);
    let headers: Fields = [("x-kind", "a"), ("x-kind", "b")].into_iter().collect();
    let service = |method: &Method, query, fields: &Fields| {
        let asked = Asked { host: "x", path: "/p", query, method, fields };
        router.find(&asked).map(|route| route.service.to_string())
    };
    assert_eq!(service(&Method::POST, Some("a=1&v=2"), &headers).as_deref(), Some("special"));
    assert_eq!(service(&Method::GET, Some("v=2"), &headers).as_deref(), Some("s"));
    assert_eq!(service(&Method::POST, Some("v=3"), &headers).as_deref(), Some("s"));
    assert_eq!(service(&Method::POST, Some("v=2"), &Fields::new()).as_deref(), Some("s"));
}

#[test]
fn a_route_with_letters_outside_ascii_is_found_by_its_encoded_path() {
    let router = Router::new(&routes(&["/café"]));
    assert_eq!(label(&router, "x", "/caf%C3%A9/menu").as_deref(), Some("/café"));
}
