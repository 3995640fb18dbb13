//! Answers that the mesh itself makes: one table from a reason to what the caller sees, in the caller's own form.

use http::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use rand::Rng;
use serde::Serialize;
use synego_model::{Code, Limits, Reason};

use super::body::AnswerBody;
use super::head::Form;
use super::headers::REASON;
use super::trace::REQUEST_ID;
use crate::h1::Fault;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The longest `Retry-After` that is drawn; seconds.
const RETRY_AFTER_MAX: u64 = 3;

/// Why the mesh answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    /// For people; the value in question included, secrets never.
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// For a head that never became a request.
    pub(crate) fn unreadable(fault: Fault, limits: &Limits) -> Self {
        match fault {
            Fault::TooLarge => Self::new(
                Reason::HeadersTooLarge,
                format!("{fault}: {} headers, {} bytes together", limits.header_count, limits.headers),
            ),
            Fault::TargetTooLong => Self::new(Reason::TargetTooLong, format!("{fault}: {} bytes", limits.target)),
            _ => Self::new(Reason::BadRequest, fault.to_string()),
        }
    }
}

#[derive(Serialize)]
struct Said<'a> {
    code: u16,
    msg: &'a str,
    reason: &'static str,
    request_id: &'a str,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: u16,
    msg: &'a str,
    reason: &'static str,
    request_id: &'a str,
}

/// The answer to a request that the mesh refuses.
pub(crate) fn refuse(
    refusal: &Refusal,
    form: Form,
    request_id: &HeaderValue,
    rng: &mut impl Rng,
) -> Response<AnswerBody> {
    let Refusal { reason, message } = refusal;
    let mut answer = if form.is_grpc { grpc(reason.code(), message) } else { http(*reason, message, form, request_id) };
    let headers = answer.headers_mut();
    headers.insert(REASON, HeaderValue::from_static(reason.word()));
    headers.insert(REQUEST_ID, request_id.clone());
    if reason.status() == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        // Drawn, so that those who were refused together do not come back together.
        headers.insert(RETRY_AFTER, HeaderValue::from(rng.random_range(1..=RETRY_AFTER_MAX)));
    }
    if closes(*reason) && !form.is_http2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if *reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    answer
}

/// Whether it is not certain where the next request on the connection begins.
fn closes(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BadRequest
            | Reason::HeadersTooLarge
            | Reason::TargetTooLong
            | Reason::MethodNotAllowed
            | Reason::ClientTooSlow
    )
}

/// Trailers of a gRPC answer that ends here although its head has gone out.
pub(crate) fn grpc_trailers(reason: Reason, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(reason.code() as u16));
    trailers.insert(GRPC_MESSAGE, grpc_message(message));
    trailers.insert(REASON, HeaderValue::from_static(reason.word()));
    trailers
}

/// The status in the headers or trailers of a gRPC answer.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Whether a gRPC status says that the service, not the call, is at fault.
pub(crate) fn is_failure(status: u16) -> bool {
    [Code::Unknown, Code::Internal, Code::Unavailable, Code::DataLoss].into_iter().any(|code| code as u16 == status)
}

fn http(reason: Reason, message: &str, form: Form, request_id: &HeaderValue) -> Response<AnswerBody> {
    let (code, word) = (reason.status(), reason.word());
    let request_id = request_id.to_str().unwrap_or_default();
    let (text, kind) = if form.wants_problem {
        let problem = Problem {
            r#type: format!("urn:synego:reason:{word}"),
            title: reason.meaning(),
            status: code,
            detail: message,
            code,
            msg: message,
            reason: word,
            request_id,
        };
        (serde_json::to_vec(&problem), "application/problem+json")
    } else {
        (serde_json::to_vec(&Said { code, msg: message, reason: word, request_id }), "application/json")
    };
    let text = text.unwrap_or_default();
    let length = HeaderValue::from(text.len());
    let body = if form.is_head { AnswerBody::empty() } else { AnswerBody::full(text.into()) };
    let mut answer = Response::new(body);
    *answer.status_mut() = if form.falls_back && reason == Reason::NoRoute {
        // No service answers so, hence Nginx can tell it from a 404 of a service and serve its page instead.
        StatusCode::MISDIRECTED_REQUEST
    } else {
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    };
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    answer.headers_mut().insert(http::header::VARY, HeaderValue::from(ACCEPT));
    answer
}

/// Trailers only: one frame of headers that ends the stream.
fn grpc(code: Code, message: &str) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::empty());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer.headers_mut().insert(GRPC_STATUS, HeaderValue::from(code as u16));
    answer.headers_mut().insert(GRPC_MESSAGE, grpc_message(message));
    answer
}

/// Percent-encoded: everything but visible ASCII and blanks, and `%` itself. Source: gRPC over HTTP/2, "Status-Message".
fn grpc_message(message: &str) -> HeaderValue {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(out).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use rand::SeedableRng;

    async fn refused(reason: Reason, form: Form) -> (http::response::Parts, Vec<u8>) {
        let refusal = Refusal::new(reason, "no ready endpoint for users, 2 known");
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let (parts, body) = refuse(&refusal, form, &HeaderValue::from_static("id-1"), &mut rng).into_parts();
        (parts, body.collect().await.map(|all| all.to_bytes().to_vec()).unwrap_or_default())
    }

    #[tokio::test]
    async fn every_reason_is_told_as_json_with_its_status() {
        for reason in Reason::ALL {
            let (parts, body) = refused(*reason, Form::default()).await;
            let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(parts.status.as_u16(), reason.status());
            assert_eq!(said["code"], reason.status());
            assert_eq!((&said["reason"], &said["request_id"]), (&reason.word().into(), &"id-1".into()));
            assert_eq!(parts.headers[REASON], reason.word());
            assert_eq!(parts.headers[REQUEST_ID], "id-1");
            assert_eq!(parts.headers.contains_key(RETRY_AFTER), reason.status() == 503, "{reason}");
        }
    }

    #[tokio::test]
    async fn a_problem_is_told_when_it_is_asked_for() {
        let (parts, body) = refused(Reason::NoRoute, Form { wants_problem: true, ..Form::default() }).await;
        let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(parts.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!((&said["status"], &said["type"]), (&404.into(), &"urn:synego:reason:no_route".into()));
    }

    #[tokio::test]
    async fn a_call_of_grpc_gets_its_status_in_the_one_head() {
        let (parts, body) = refused(Reason::DeadlineExceeded, Form { is_grpc: true, ..Form::default() }).await;
        assert_eq!((parts.status.as_u16(), body.len()), (200, 0));
        assert_eq!(grpc_status(&parts.headers), Some(4));
        assert_eq!(parts.headers[GRPC_MESSAGE], "no ready endpoint for users, 2 known");
        assert_eq!(grpc_message("ä 5%\n"), "%C3%A4 5%25%0A");
    }

    #[tokio::test]
    async fn an_unrouted_request_for_which_nginx_has_a_page_is_told_apart() {
        let falls_back = Form { falls_back: true, ..Form::default() };
        let (parts, _) = refused(Reason::NoRoute, falls_back).await;
        assert_eq!((parts.status.as_u16(), parts.headers[REASON].as_bytes()), (421, &b"no_route"[..]));
        let (parts, _) = refused(Reason::NoReadyEndpoint, falls_back).await;
        assert_eq!(parts.status.as_u16(), 503);
    }

    #[tokio::test]
    async fn head_gets_the_head_alone() {
        let (parts, body) = refused(Reason::NoRoute, Form { is_head: true, ..Form::default() }).await;
        assert!(body.is_empty());
        assert_ne!(parts.headers[http::header::CONTENT_LENGTH], "0");
    }
}
