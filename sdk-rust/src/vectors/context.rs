//! `trace.json` and `deadline.json`.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{headers, text};
use crate::context::{Carried, Trace, Transport, grpc_ms, request_id, write_deadline};

#[test]
fn deadlines_follow_the_vectors() {
    super::run("deadline.json", |kind, given| match kind {
        "grpc_timeout" => Some(json!({ "ms": grpc_ms(text(&given["value"])) })),
        "left" => {
            let arrived = Instant::now();
            let now = arrived + Duration::from_millis(given["elapsed_ms"].as_u64().unwrap());
            let limit = given["call_timeout_ms"].as_u64().map(Duration::from_millis);
            let left = Carried::read(&headers(&given["headers"]), arrived).left(now, limit);
            Some(json!({ "left_ms": left.map(|left| left.as_millis() as u64) }))
        }
        "write" => {
            let transport = match text(&given["transport"]) {
                "http" => Transport::Http,
                "connect" => Transport::Connect,
                other => panic!("unknown transport {other}"),
            };
            let mut written = HeaderMap::new();
            write_deadline(given["left_ms"].as_u64().map(Duration::from_millis), transport, &mut written);
            Some(json!({ "headers": object(&written) }))
        }
        _ => None,
    });
}

#[test]
fn traces_follow_the_vectors() {
    super::run("trace.json", |kind, given| match kind {
        "traceparent" => Some(traceparent(given)),
        "request_id" => Some(json!({ "request_id": given["value"].as_str().and_then(request_id) })),
        "carry" => Some(carry(given)),
        "priority" => {
            let mut incoming = HeaderMap::new();
            if let Some(word) = given["incoming"].as_str() {
                incoming.insert("x-synego-priority", word.parse().unwrap());
            }
            let asked = given["asked"].as_str().map(|word| priority(word).unwrap());
            let mut sent = HeaderMap::new();
            Carried::read(&incoming, Instant::now()).write(&mut sent, Transport::Http, None, asked);
            Some(json!({ "sent": sent.get("x-synego-priority").map(|word| word.to_str().unwrap()) }))
        }
        _ => None,
    });
}

fn priority(word: &str) -> Option<crate::Priority> {
    use crate::Priority::{Background, Critical, Normal};
    [Background, Normal, Critical].into_iter().find(|priority| priority.word() == word)
}

fn traceparent(given: &Value) -> Value {
    let trace = given["traceparent"].as_str().and_then(Trace::parse);
    let mut incoming = HeaderMap::new();
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = given[name].as_str() {
            incoming.insert(name, value.parse().unwrap());
        }
    }
    let mut sent = HeaderMap::new();
    Carried::read(&incoming, Instant::now()).write(&mut sent, Transport::Http, None, None);
    let tracestate = sent.get("tracestate").map(|value| value.to_str().unwrap());
    match trace {
        Some(trace) => json!({
            "kept": true,
            "trace_id": trace.id(),
            "parent_id": format!("{:016x}", trace.parent_id),
            "sampled": trace.is_sampled,
            "tracestate": tracestate,
        }),
        None => json!({ "kept": false, "tracestate": tracestate }),
    }
}

/// The headers of a call, with the new `traceparent` taken apart.
fn carry(given: &Value) -> Value {
    let incoming = headers(&given["headers"]);
    let carried = Carried::read(&incoming, Instant::now());
    let mut sent = HeaderMap::new();
    carried.write(&mut sent, Transport::Http, None, None);
    let traceparent = sent.remove("traceparent").unwrap();
    let traceparent = traceparent.to_str().unwrap();
    let call = Trace::parse(traceparent).unwrap();
    assert_eq!(traceparent.len(), 55);
    let came = incoming.get("traceparent").and_then(|value| Trace::parse(value.to_str().unwrap()));
    assert_ne!(Some(call.parent_id), came.map(|came| came.parent_id), "a call is a new parent");
    json!({
        "headers": object(&sent),
        "trace_id": came.map(|_| call.id()),
        "flags": &traceparent[53..],
    })
}

fn object(headers: &HeaderMap) -> Value {
    let fields = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    Value::Object(fields.collect::<Map<_, _>>())
}
