//! How an error leaves: as JSON on HTTP, in Connect's form on calls by name, as a status with its fault on gRPC.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use synego_wire::{pb, status};
use tonic::metadata::MetadataValue;

use super::Error;
use crate::codes;

pub(super) const REASON_HEADER: &str = "x-synego-reason";

/// Longest message of a fault, in bytes.
const MAX_MESSAGE: usize = 1024;

/// The mesh's words that an SDK may say in the header: the sidecar believes exactly these.
const SAID_BY_SDK: [&str; 7] =
    ["invalid_body", "queue_full", "queue_timeout", "handler_stuck", "draining", "handler_timeout", "handler_crashed"];

/// What an answer must look like for its caller to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{"code":404,"msg":…}`.
    Http,
    /// `{"code":"not_found","message":…}`.
    Connect,
    /// Trailers only.
    Grpc,
}

/// Travels with an answer from a handler to the interceptor, which knows the request's id and form.
#[derive(Clone)]
pub(crate) struct Sent(pub(crate) Error);

impl Error {
    /// The answer in the given form, with the request's id unless the error has one.
    pub(crate) fn answer(&self, form: Form, request_id: Option<&str>) -> Response {
        let error = self.clone().with_request_id(request_id);
        if form == Form::Grpc {
            return tonic::Status::from(error).into_http();
        }
        let inner = &*error.0;
        let mut body = match form {
            Form::Connect => json!({ "code": codes::word(inner.code), "message": inner.message }),
            _ => json!({ "code": inner.status, "msg": inner.message }),
        };
        body["reason"] = inner.reason.as_str().into();
        if let Some(id) = &inner.request_id {
            body["request_id"] = id.as_str().into();
        }
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = StatusCode::from_u16(inner.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(word) = self.said_word() {
            headers.insert(REASON_HEADER, HeaderValue::from_static(word));
        }
        if let Some(wait) = inner.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000) as u64));
        }
        answer
    }

    /// The word for `x-synego-reason`, when it is one that an SDK may say.
    pub(crate) fn said_word(&self) -> Option<&'static str> {
        SAID_BY_SDK.into_iter().find(|word| *word == self.0.reason)
    }

    fn fault(&self) -> pb::Fault {
        let inner = &*self.0;
        let mut message = inner.message.clone();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        pb::Fault {
            code: pb::Code::from(inner.code).into(),
            reason: inner.reason.clone(),
            message,
            blame: pb::Blame::from(inner.blame).into(),
            retry: pb::Retry::from(inner.retry).into(),
            retry_after_ms: inner.retry_after.map_or(0, |wait| wait.as_millis().min(3_600_000) as u32),
            request_id: inner.request_id.clone().unwrap_or_default(),
            service: inner.service.clone().unwrap_or_default(),
            from_mesh: inner.from_mesh,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut answer = self.answer(Form::Http, None);
        answer.extensions_mut().insert(Sent(self));
        answer
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        if let Some(cause) = &error.0.cause {
            // A status has no room for it, and this is the last place that knows it.
            tracing::error!(%cause, "failed");
        }
        let mut status = status::from_fault(&error.fault());
        if let Some(word) = error.said_word() {
            status.metadata_mut().insert(REASON_HEADER, MetadataValue::from_static(word));
        }
        status
    }
}
