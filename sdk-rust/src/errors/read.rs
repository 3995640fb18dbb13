//! How an error arrives: from an HTTP answer or a gRPC status.

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use synego_wire::pb;

use super::send::REASON_HEADER;
use super::{Error, is_word};
use crate::codes::{self, Blame, Code, Reason, Retry};

/// Both forms of a JSON body: ours, and Connect's.
#[derive(Deserialize, Default)]
struct Body {
    code: Option<serde_json::Value>,
    #[serde(alias = "message")]
    msg: Option<String>,
    reason: Option<String>,
    request_id: Option<String>,
}

impl Error {
    /// The error in an HTTP answer of `service`. A body that is not in one of the two JSON forms is not shown.
    pub(crate) fn read(service: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_json = text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        let body: Body = if is_json { serde_json::from_slice(body).unwrap_or_default() } else { Body::default() };
        let code = match &body.code {
            Some(serde_json::Value::String(word)) => codes::from_word(word),
            _ => None,
        };
        let code = code.unwrap_or_else(|| codes::from_status(status));
        let message = body.msg.unwrap_or_else(|| format!("{service} answered with status {status}"));
        let mut error = Self::new(code, message).with_service(service).received();
        let inner = &mut *error.0;
        inner.status = status;
        inner.request_id = body.request_id;
        inner.from_mesh = text(REASON_HEADER).is_some_and(is_word);
        if let Some(word) = text(REASON_HEADER).or(body.reason.as_deref()).filter(|word| is_word(word)) {
            inner.reason = word.to_owned();
        }
        inner.retry_after = text("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
        error
    }

    /// Blame as the caller sees it: what a service says of itself is upstream's here.
    fn received(mut self) -> Self {
        if self.0.blame == Blame::Local {
            self.0.blame = Blame::Upstream;
        }
        self
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        let code = codes::from_number(status.code() as i32);
        let mut error = Self::new(code, status.message()).received();
        let inner = &mut *error.0;
        if let Some(fault) = synego_wire::status::to_fault(&status) {
            if is_word(&fault.reason) {
                inner.reason.clone_from(&fault.reason);
            }
            inner.retry = match fault.retry() {
                pb::Retry::Later => Retry::Later,
                pb::Retry::OtherEndpoint => Retry::OtherEndpoint,
                _ => Retry::Never,
            };
            inner.blame = match fault.blame() {
                pb::Blame::Caller => Blame::Caller,
                pb::Blame::Local if is_local(&inner.reason) => Blame::Local,
                _ => Blame::Upstream,
            };
            let some = |text: String| Some(text).filter(|text| !text.is_empty());
            inner.retry_after =
                (fault.retry_after_ms > 0).then(|| Duration::from_millis(u64::from(fault.retry_after_ms)));
            inner.request_id = some(fault.request_id);
            inner.service = some(fault.service);
            inner.from_mesh = fault.from_mesh;
        }
        let header = status.metadata().get(REASON_HEADER).and_then(|value| value.to_str().ok());
        if let Some(word) = header.filter(|word| is_word(word)) {
            inner.reason = word.to_owned();
            inner.from_mesh = true;
        }
        error
    }
}

/// Whether a reason is one that only this program itself can have made.
fn is_local(reason: &str) -> bool {
    [Reason::NoSidecar, Reason::SidecarUnreachable].iter().any(|local| local.word() == reason)
}

/// The failure of a call that got no answer in time.
pub(crate) fn out_of_time(service: &str) -> Error {
    Error::new(Code::DeadlineExceeded, format!("{service} did not answer in time")).with_service(service).received()
}
