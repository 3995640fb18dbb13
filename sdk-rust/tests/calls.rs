//! Calls by name: over HTTP, by RPC and over gRPC, with the context of the request that caused them.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::time::Duration;

use serde_json::{Value, json};
use synego_sdk::axum::http::HeaderMap;
use synego_sdk::testing::TestMesh;
use synego_sdk::{Blame, Client, Code, Ctx, Error, Json, Priority, Retry, Service};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Tells the headers that it got.
fn echo() -> Service {
    Service::new("echo").handle("GET /headers", async |headers: HeaderMap| {
        let fields = headers.iter().map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap())));
        Json(Value::Object(fields.collect()))
    })
}

#[tokio::test]
async fn a_call_carries_the_context_of_its_request() {
    let shop = Service::new("shop").handle("GET /ask", async |ctx: Ctx| {
        let call = ctx.get("http://echo/headers").priority(Priority::Background);
        let told: Value = call.await?.json().await?;
        assert_eq!((ctx.request_id(), ctx.protocol()), (Some("r-1"), "http1"));
        assert!(told["host"] == "echo" && ctx.left().unwrap() <= Duration::from_secs(4));
        Ok::<_, Error>(Json(told))
    });
    let mesh = TestMesh::new().service(echo()).service(shop).start().await.unwrap();
    let asked = mesh.get("http://shop/ask").header("x-request-id", "r-1").header("baggage", "plan=pro");
    let asked = asked.header("x-synego-caller", "spiffe://test/svc/web").timeout(Duration::from_secs(4));
    let told: Value = asked.await.unwrap().json().await.unwrap();
    assert_eq!((&told["x-request-id"], &told["baggage"]), (&"r-1".into(), &"plan=pro".into()));
    assert_eq!(told["x-synego-priority"], "background");
    assert_eq!(told["x-synego-caller"], Value::Null, "who calls is the sidecar's to say");
    let left: u64 = told["x-synego-timeout"].as_str().unwrap().parse().unwrap();
    assert!((1..=4000).contains(&left), "{left}");
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_is_one_trace_with_a_new_parent() {
    let shop = Service::new("shop").handle("GET /ask", async |ctx: Ctx| {
        let told: Value = ctx.get("http://echo/headers").await?.json().await?;
        Ok::<_, Error>(Json(json!({ "own": ctx.trace_id(), "sent": told["traceparent"], "state": told["tracestate"] })))
    });
    let mesh = TestMesh::new().service(echo()).service(shop).start().await.unwrap();
    let address = mesh.address("shop").unwrap();
    // Straight to the service, as its sidecar does: the client of a test begins a trace of its own.
    let direct = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::get(format!("http://{address}/ask"))
        .header("traceparent", TRACEPARENT)
        .header("tracestate", "vendor=1")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = direct.request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&told["own"], &told["state"]), (&TRACEPARENT[3..35].into(), &"vendor=1".into()));
    let sent = told["sent"].as_str().unwrap();
    assert_eq!((&sent[..36], &sent[52..]), (&TRACEPARENT[..36], "-01"));
    assert_ne!(sent, TRACEPARENT);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn an_error_of_another_service_arrives_with_all_it_says() {
    let users = Service::new("users").handle("GET /users/{id}", async || {
        Err::<(), _>(
            Error::new(Code::NotFound, "no user 9").reason("unknown_user").with_retry_after(Duration::from_secs(3)),
        )
    });
    let mesh = TestMesh::new().service(users).start().await.unwrap();
    let error = mesh.get("http://users/users/9").await.unwrap().json::<Value>().await.unwrap_err();
    assert_eq!((error.code(), error.status(), error.reason_word()), (Code::NotFound, 404, "unknown_user"));
    assert_eq!((error.blame(), error.service(), error.from_mesh()), (Blame::Caller, Some("users"), false));
    assert_eq!((error.message(), error.retry_after()), ("no user 9", Some(Duration::from_secs(3))));
    assert!(error.request_id().is_some_and(|id| id.starts_with("test-")));
    let error = mesh.get("http://nobody/").await.unwrap().json::<Value>().await.unwrap_err();
    assert_eq!((error.reason_word(), error.from_mesh()), ("unknown_service", true));
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn rpc_by_name_gives_values_and_errors_in_connects_form() {
    let prices = Service::new("prices").rpc("quote", async |ctx: Ctx, sku: String| {
        assert!(ctx.left().is_some());
        if sku == "tea" { Ok(900) } else { Err(Error::new(Code::NotFound, "no such sku").reason("unknown_sku")) }
    });
    let shop = Service::new("shop").rpc("total", async |ctx: Ctx, sku: String| {
        let price: u64 = ctx.call("prices", "quote", &sku).timeout(Duration::from_secs(2)).await?;
        Ok(2 * price)
    });
    let mesh = TestMesh::new().service(prices).service(shop).start().await.unwrap();
    assert_eq!(mesh.client().call::<u64>("shop", "total", &"tea").await.unwrap(), 1800);
    let error = mesh.client().call::<u64>("shop", "total", &"coffee").await.unwrap_err();
    assert_eq!((error.code(), error.reason_word(), error.message()), (Code::NotFound, "unknown_sku", "no such sku"));
    let raw = mesh.post("http://prices/rpc/quote").json(&7).await.unwrap();
    assert_eq!(raw.status().as_u16(), 400);
    assert_eq!(raw.headers()["x-synego-reason"], "invalid_body");
    let body: Value = serde_json::from_slice(&raw.bytes().await.unwrap()).unwrap();
    assert_eq!((&body["code"], &body["reason"]), (&"invalid_argument".into(), &"invalid_body".into()));
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_stub_answers_for_a_service_that_is_not_there() {
    let shop = Service::new("shop").rpc("total", async |ctx: Ctx, _: ()| {
        let price: Value = ctx.call("prices", "quote", &"tea").await?;
        Ok(price["cents"].clone())
    });
    let mesh = TestMesh::new().service(shop).stub("prices", "quote", json!({ "cents": 900 })).start().await.unwrap();
    assert_eq!(mesh.client().call::<u64>("shop", "total", &()).await.unwrap(), 900);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_whose_time_is_over_is_not_sent() {
    let shop =
        Service::new("shop").handle_with("GET /late", synego_sdk::Options::inline().streaming(), async |ctx: Ctx| {
            ctx.cancelled().await;
            let error = ctx.get("http://echo/headers").await.unwrap_err();
            Json((error.reason_word().to_owned(), error.message().to_owned()))
        });
    let mesh = TestMesh::new().service(shop).start().await.unwrap();
    let address = mesh.address("shop").unwrap();
    let direct = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request = http::Request::get(format!("http://{address}/late")).header("x-synego-timeout", "5");
    let answer = direct.request(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    // The mesh has no `echo`: had the call been sent, it would say so.
    assert_eq!(body, r#"["deadline_exceeded","echo did not answer in time"]"#);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_not_answered_in_time_fails_as_upstreams() {
    let slow = Service::new("slow").handle("GET /", async || tokio::time::sleep(Duration::from_secs(5)).await);
    let mesh = TestMesh::new().service(slow).start().await.unwrap();
    let error = mesh.get("http://slow/").timeout(Duration::from_millis(30)).await.map(|answer| answer.status());
    // Either side may be the first to give up: this one, or the handler, by the deadline that it was told.
    match error {
        Ok(status) => assert_eq!(status.as_u16(), 504),
        Err(error) => assert_eq!((error.code(), error.blame()), (Code::DeadlineExceeded, Blame::Upstream)),
    }
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_sidecar_calls_by_name_say_so() {
    let client = Client::dial().await.unwrap();
    let error = client.get("http://users/").await.unwrap_err();
    assert_eq!((error.code(), error.reason_word(), error.retry()), (Code::Unavailable, "no_sidecar", Retry::Never));
    assert_eq!((error.blame(), error.from_mesh()), (Blame::Local, false));
}
