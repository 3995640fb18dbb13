//! Where calls go, and what they say when nobody is there.

use std::collections::HashMap;

use axum::Router;
use axum::routing::get;
use synego_wire::pb::DescribeRequest;
use synego_wire::pb::sidecar_client::SidecarClient;

use super::*;
use crate::codes::{Blame, Retry};

/// A port of the loopback on which nobody listens.
async fn dead_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn urls(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect()
}

#[test]
fn the_outbound_wins_over_a_services_own_url() {
    let urls = urls(&[("USER_STORE", "http://127.0.0.1:5")]);
    let alone = Client::new(Environment { urls: urls.clone(), ..Environment::default() });
    assert_eq!(
        alone.target("user-store").unwrap(),
        Target { base: "http://127.0.0.1:5".to_owned(), is_outbound: false }
    );
    assert_eq!(alone.target("users").unwrap_err().reason_word(), "no_sidecar");
    let beside = Client::new(Environment { urls, ..Environment::default() });
    beside.take_told("http://127.0.0.1:4001/", "web-1");
    assert_eq!(
        beside.target("user-store").unwrap(),
        Target { base: "http://127.0.0.1:4001".to_owned(), is_outbound: true }
    );
    assert_eq!(beside.instance(), "web-1");
}

#[tokio::test]
async fn a_services_own_url_is_called_without_a_sidecar() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/a", get(async || "found"));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let client = Client::new(Environment { urls: urls(&[("USERS", &url)]), ..Environment::default() });
    assert_eq!(client.get("http://users/a").await.unwrap().text().await.unwrap(), "found");
    server.abort();
}

#[tokio::test]
async fn an_outbound_that_does_not_answer_is_told_over_http_and_grpc_alike() {
    let client = Client::new(Environment { outbound: Some(dead_address().await), ..Environment::default() });
    let http = client.get("http://users/").await.unwrap_err();
    let status = SidecarClient::new(client.channel("users")).describe(DescribeRequest {}).await.unwrap_err();
    for error in [http, Error::from(status)] {
        assert_eq!((error.code(), error.reason_word()), (Code::Unavailable, "sidecar_unreachable"));
        assert_eq!((error.blame(), error.retry(), error.from_mesh()), (Blame::Local, Retry::Later, false));
        assert_eq!(error.service(), Some("users"));
    }
}

#[tokio::test]
async fn a_grpc_call_that_is_not_answered_in_time_fails_as_upstreams() {
    // Takes connections and never says a word.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = Client::new(Environment { outbound: Some(url), ..Environment::default() });
    let mut request = tonic::Request::new(DescribeRequest {});
    request.set_timeout(Duration::from_millis(30));
    let error = Error::from(SidecarClient::new(client.channel("users")).describe(request).await.unwrap_err());
    assert_eq!((error.code(), error.blame()), (Code::DeadlineExceeded, Blame::Upstream));
}

#[test]
fn what_the_parent_says_wrongly_is_told_and_what_it_says_rightly_taken() {
    let variables = [
        ("SYNEGO_SERVICE", "users"),
        ("SYNEGO_SIDECAR", "unix:/run/s.sock"),
        ("SYNEGO_OUTBOUND", "http://127.0.0.1:4001/"),
        ("SYNEGO_URL_USER_STORE", "http://127.0.0.1:5"),
        ("SYNEGO_GENERATION", "3"),
        ("PORT", "3001"),
        ("SYNEGO_INSTANCE", ""),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::from_variables(variables);
    assert!(matches!(&environment.sidecar, SidecarAddress::Unix(path) if path.ends_with("s.sock")));
    assert_eq!((environment.port, environment.generation, environment.instance.as_str()), (3001, 3, ""));
    assert_eq!(environment.outbound.as_deref(), Some("http://127.0.0.1:4001"));
    assert_eq!((environment.url("user-store"), environment.problems.len()), (Some("http://127.0.0.1:5"), 0));
    let wrong = [("SYNEGO_SIDECAR", "tcp:1"), ("PORT", "70000"), ("SYNEGO_GENERATION", "x")];
    let wrong = Environment::from_variables(wrong.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(wrong.problems.len(), 3, "{:?}", wrong.problems);
}
