//! `patterns.json`.

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, Request};
use http::header::ALLOW;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::text;
use crate::checks::Health;
use crate::client::Client;
use crate::environment::Environment;
use crate::errors::Form;
use crate::extract::Json;
use crate::handler::{Handler, Handlers};
use crate::interceptor::{Interceptor, Parts};
use crate::options::Options;
use crate::pattern::{Pattern, Segment};

#[test]
fn patterns_follow_the_vectors() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    super::run("patterns.json", |kind, given| match kind {
        "parse" => Some(parse(text(&given["pattern"]))),
        "match" => Some(runtime.block_on(answer(given))),
        "conflict" => Some(json!({ "conflict": Handlers::new(all(&given["patterns"])).is_err() })),
        _ => None,
    });
}

fn parse(pattern: &str) -> Value {
    let Ok(pattern) = Pattern::parse(pattern) else { return json!({ "error": true }) };
    let segments = pattern.segments.iter().map(|segment| match segment {
        Segment::Literal(literal) => json!({ "literal": literal }),
        Segment::Param(name) => json!({ "param": name }),
        Segment::Rest(name) => json!({ "rest": name }),
    });
    json!({ "method": pattern.method, "segments": segments.collect::<Vec<_>>() })
}

/// Handlers that tell their pattern, in a header since HEAD has no body, and their parameters.
fn all(patterns: &Value) -> Vec<Handler> {
    let handlers = patterns.as_array().unwrap().iter().map(|pattern| {
        let pattern = text(pattern).to_owned();
        let tell = {
            let pattern = pattern.clone();
            async move |params: RawPathParams| {
                let params: Map<_, _> = params.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
                (
                    [
                        ("pattern", pattern),
                        ("params", Value::Object(params.clone()).to_string().escape_unicode().to_string()),
                    ],
                    Json(params),
                )
            }
        };
        Handler::new(&pattern, Options::inline(), Form::Http, tell).unwrap()
    });
    handlers.collect()
}

async fn answer(given: &Value) -> Value {
    let interceptor = Interceptor::new(Parts {
        handlers: Handlers::new(all(&given["patterns"])).unwrap(),
        router: None,
        grpc_health: Router::new(),
        client: Client::new(Environment::default()),
        health: watch::Sender::new(Health::new(&[])).subscribe(),
        in_flight: TaskTracker::new(),
        draining: CancellationToken::new(),
    });
    let (method, uri) = text(&given["request"]).split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
    let answer = interceptor.into_router().oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let Some(pattern) = head.headers.get("pattern") else {
        let mut out = json!({ "pattern": null, "status": head.status.as_u16() });
        if let Some(allow) = head.headers.get(ALLOW) {
            out["allow"] = allow.to_str().unwrap().split(", ").collect();
        }
        return out;
    };
    let body = body.collect().await.unwrap().to_bytes();
    let params = match method {
        "HEAD" => unescape(head.headers["params"].to_str().unwrap()),
        _ => serde_json::from_slice(&body).unwrap(),
    };
    json!({ "pattern": pattern.to_str().unwrap(), "params": params })
}

fn unescape(text: &str) -> Value {
    let digits =
        text.split("\\u{").skip(1).map(|digits| u32::from_str_radix(digits.trim_end_matches('}'), 16).unwrap());
    let text: String = digits.map(|digit| char::from_u32(digit).unwrap()).collect();
    serde_json::from_str(&text).unwrap()
}
