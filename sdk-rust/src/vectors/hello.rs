//! `hello.json`.

use std::time::Duration;

use serde_json::{Value, json};
use synego_wire::pb;

use super::{text, without_defaults};
use crate::attach::Declaration;
use crate::checks::{Health, Need, Phase, Verdict};
use crate::errors::{Error, Form};
use crate::handler::{Handler, Handlers};
use crate::options::Options;

#[test]
fn hello_follows_the_vectors() {
    super::run("hello.json", |kind, given| match kind {
        "hello" => Some(hello(given)),
        "phase" => Some(json!({ "phase": health(given).said_phase().as_str_name() })),
        "check" => {
            let mut verdict = Verdict::new("x".to_owned(), Need::Required);
            let results = given["results"].as_array().unwrap().iter().map(|passed| {
                verdict.take(if passed.as_bool().unwrap() { Ok(()) } else { Err("down".to_owned()) });
                assert_eq!(verdict.is_ok, verdict.cause.is_empty());
                verdict.is_ok
            });
            Some(json!({ "ok": results.collect::<Vec<_>>() }))
        }
        "name" => {
            let service = text(&given["service"]).to_owned();
            let listeners = vec![listener(&json!({ "protocol": "http1", "address": "127.0.0.1:3001" }))];
            let declaration = Declaration { service, listeners, ..Declaration::default() };
            Some(json!({ "ok": declaration.problems(pb::State::default()).is_empty() }))
        }
        _ => None,
    });
}

fn health(given: &Value) -> Health {
    let phase = match given["phase"].as_str().unwrap_or("starting") {
        "starting" => Phase::Starting,
        "ready" => Phase::Ready,
        "draining" => Phase::Draining,
        "drained" => Phase::Drained,
        other => panic!("unknown phase {other}"),
    };
    let checks = given["checks"].as_array().cloned().unwrap_or_default();
    let checks = checks.iter().map(|check| {
        let need = if check["required"].as_bool().unwrap() { Need::Required } else { Need::Optional };
        let mut verdict = Verdict::new(text(&check["name"]).to_owned(), need);
        let cause = check["cause"].as_str().unwrap_or("down").to_owned();
        verdict.take(if check["ok"].as_bool().unwrap() { Ok(()) } else { Err(cause) });
        verdict
    });
    Health { phase, checks: checks.collect() }
}

fn handler(given: &Value) -> Handler {
    if let Some(name) = given["rpc"].as_str() {
        return Handler::rpc(name, async |_: crate::Ctx, _: ()| Ok::<_, Error>(())).unwrap();
    }
    let mut options = Options::inline();
    if let Some(ms) = given["timeout_ms"].as_u64() {
        options = options.timeout(Duration::from_millis(ms));
    }
    if given["streaming"] == true {
        options = options.streaming();
    }
    Handler::new(text(&given["pattern"]), options, Form::Http, async || ()).unwrap()
}

fn listener(given: &Value) -> pb::Listener {
    let protocol = match text(&given["protocol"]) {
        "http1" => pb::Protocol::Http1,
        "http2" => pb::Protocol::Http2,
        "grpc" => pb::Protocol::Grpc,
        "tcp" => pb::Protocol::Tcp,
        other => panic!("unknown protocol {other}"),
    };
    let keep_alive_ms = given["keep_alive_ms"].as_u64().unwrap_or(0) as u32;
    pb::Listener { protocol: protocol.into(), address: text(&given["address"]).to_owned(), keep_alive_ms }
}

fn hello(given: &Value) -> Value {
    let all = |name: &str| given[name].as_array().cloned().unwrap_or_default();
    let optional = |name: &str| given[name].as_str().unwrap_or_default().to_owned();
    let handlers = Handlers::new(all("handlers").iter().map(handler).collect()).unwrap();
    let routes: Vec<_> = all("routes").iter().map(|route| text(route).to_owned()).collect();
    let declaration = Declaration {
        service: optional("service"),
        instance: optional("instance"),
        version: optional("version"),
        generation: given["generation"].as_u64().unwrap_or(0) as u32,
        listeners: all("listeners").iter().map(listener).collect(),
        handlers: handlers.declaration(&routes),
    };
    assert_eq!(declaration.problems(health(given).state()), Vec::<String>::new());
    let hello = declaration.hello(&optional("attachment_id"), health(given).state());
    assert_eq!((hello.pid, hello.sdk.starts_with("rust/")), (std::process::id(), true));
    protobuf_json(&hello)
}

/// The JSON form of protobuf, but for pid and sdk.
fn protobuf_json(hello: &pb::Hello) -> Value {
    let handlers = hello.handlers.clone().unwrap();
    let handler = handlers.handler.iter().map(|handler| {
        json!({
            "pattern": handler.pattern,
            "model": handler.model().as_str_name(),
            "isolation": handler.isolation().as_str_name(),
            "limit": handler.limit,
            "queue": handler.queue,
            "queueTimeoutMs": handler.queue_timeout_ms,
            "timeoutMs": handler.timeout_ms,
            "streaming": handler.streaming,
        })
    });
    let listeners = hello.listeners.iter().map(|listener| {
        json!({
            "protocol": listener.protocol().as_str_name(),
            "address": listener.address,
            "keepAliveMs": listener.keep_alive_ms,
        })
    });
    let state = hello.state.clone().unwrap();
    let check = state
        .check
        .iter()
        .map(|check| json!({ "name": check.name, "ok": check.ok, "required": check.required, "cause": check.cause }));
    without_defaults(json!({
        "protocolMin": hello.protocol_min,
        "protocolMax": hello.protocol_max,
        "features": hello.features().map(|feature| feature.as_str_name()).collect::<Vec<_>>(),
        "service": hello.service,
        "instance": hello.instance,
        "version": hello.version,
        "attachmentId": hello.attachment_id,
        "generation": hello.generation,
        "listeners": listeners.collect::<Vec<_>>(),
        "handlers": {
            "handler": handler.collect::<Vec<_>>(),
            "metricsPath": handlers.metrics_path,
            "route": handlers.route,
        },
        "state": { "phase": state.phase().as_str_name(), "check": check.collect::<Vec<_>>() },
    }))
}
