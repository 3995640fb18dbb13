//! `errors.json`.

use std::time::Duration;

use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};

use super::{headers, text, without_defaults};
use crate::codes::{self, Reason};
use crate::errors::{Error, Form, is_word};

#[test]
fn errors_follow_the_vectors() {
    super::run("errors.json", |kind, given| match kind {
        "code" => {
            let code = codes::from_word(text(&given["code"])).unwrap();
            let error = Error::new(code, "");
            Some(json!({
                "number": code as i32,
                "status": error.status(),
                "blame": error.blame().word(),
                "retry": error.retry().word(),
            }))
        }
        "status" => {
            let code = codes::from_status(given["status"].as_u64().unwrap() as u16);
            Some(json!({ "code": codes::word(code) }))
        }
        "reason" => {
            let error = Error::said(Reason::from_word(text(&given["reason"])).unwrap(), "");
            Some(json!({
                "code": codes::word(error.code()),
                "status": error.status(),
                "retry": error.retry().word(),
                "blame": error.blame().word(),
                "header": error.said_word().is_some(),
            }))
        }
        "http" => Some(sent(error(&given["error"]).answer(Form::Http, None))),
        "connect" => Some(sent(error(&given["error"]).answer(Form::Connect, None))),
        "grpc" => Some(grpc(error(&given["error"]))),
        "read" => {
            let status = given["status"].as_u64().unwrap() as u16;
            let body = text(&given["body"]).as_bytes();
            Some(told(&Error::read(text(&given["service"]), status, &headers(&given["headers"]), body)))
        }
        "word" => Some(json!({ "ok": is_word(text(&given["reason"])) })),
        _ => None,
    });
}

fn error(given: &Value) -> Error {
    let request_id = given["request_id"].as_str();
    if let Some(cause) = given["foreign"].as_str() {
        return Error::foreign(cause).with_request_id(request_id);
    }
    let code = codes::from_word(text(&given["code"])).unwrap();
    let mut error = Error::new(code, text(&given["message"])).with_request_id(request_id);
    if let Some(reason) = given["reason"].as_str() {
        error = error.reason(reason);
    }
    if let Some(status) = given["status"].as_u64() {
        error = error.with_status(status as u16);
    }
    if let Some(ms) = given["retry_after_ms"].as_u64() {
        error = error.with_retry_after(Duration::from_millis(ms));
    }
    match given["service"].as_str() {
        Some(service) => error.with_service(service),
        None => error,
    }
}

fn sent(answer: Response) -> Value {
    let (head, body) = answer.into_parts();
    let body = futures_util::FutureExt::now_or_never(body.collect()).unwrap().unwrap().to_bytes();
    let named = ["content-type", "retry-after", "x-synego-reason"];
    let fields =
        named.iter().filter_map(|name| Some(((*name).to_owned(), head.headers.get(*name)?.to_str().ok()?.into())));
    let body: Value = serde_json::from_slice(&body).unwrap();
    json!({ "status": head.status.as_u16(), "headers": fields.collect::<Map<_, _>>(), "body": body })
}

fn grpc(error: Error) -> Value {
    let status = tonic::Status::from(error);
    let fault = synego_wire::status::to_fault(&status).unwrap();
    let fault = without_defaults(json!({
        "code": fault.code().as_str_name(),
        "reason": fault.reason,
        "message": fault.message,
        "blame": fault.blame().as_str_name(),
        "retry": fault.retry().as_str_name(),
        "retryAfterMs": fault.retry_after_ms,
        "requestId": fault.request_id,
        "service": fault.service,
        "fromMesh": fault.from_mesh,
    }));
    json!({ "number": status.code() as i32, "message": status.message(), "fault": fault })
}

fn told(error: &Error) -> Value {
    let mut told = json!({
        "code": codes::word(error.code()),
        "status": error.status(),
        "reason": error.reason_word(),
        "message": error.message(),
        "blame": error.blame().word(),
        "retry": error.retry().word(),
        "from_mesh": error.from_mesh(),
    });
    let further = [("request_id", error.request_id()), ("service", error.service())];
    for (name, value) in further.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        told[name] = value.into();
    }
    if let Some(wait) = error.retry_after() {
        told["retry_after_ms"] = (wait.as_millis() as u64).into();
    }
    told
}
