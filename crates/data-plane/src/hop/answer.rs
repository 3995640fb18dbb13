//! Answers that the mesh itself makes: one table from a reason to what the caller sees, in the caller's own form.

use http::StatusCode;
use rand::Rng;
use serde::Serialize;
use synego_model::{Code, Limits, Reason};

use super::body::AnswerBody;
use super::head::Form;
use super::trace::RequestId;
use crate::fields::{Fields, Name};
use crate::h1::Fault;
use crate::message::Answer;

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
pub(crate) fn refuse(refusal: &Refusal, form: Form, request_id: &RequestId, rng: &mut impl Rng) -> Answer<AnswerBody> {
    let Refusal { reason, message } = refusal;
    let mut answer = if form.is_grpc { grpc(reason.code(), message) } else { http(*reason, message, form, request_id) };
    let fields = &mut answer.fields;
    fields.set(Name::Reason, reason.word().as_bytes());
    fields.set(Name::RequestId, request_id.as_str().as_bytes());
    if reason.status() == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
        // Drawn, so that those who were refused together do not come back together.
        fields.set_number(Name::RetryAfter, rng.random_range(1..=RETRY_AFTER_MAX));
    }
    if closes(*reason) && !form.is_http2 {
        fields.set(Name::Connection, b"close");
    }
    if *reason == Reason::MethodNotAllowed {
        fields.set(Name::Allow, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
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
pub(crate) fn grpc_trailers(reason: Reason, message: &str) -> Fields {
    let mut trailers = Fields::new();
    trailers.set_number(Name::GrpcStatus, reason.code() as u64);
    trailers.set(Name::GrpcMessage, grpc_message(message).as_bytes());
    trailers.set(Name::Reason, reason.word().as_bytes());
    trailers
}

/// The status in the headers or trailers of a gRPC answer.
pub(crate) fn grpc_status(fields: &Fields) -> Option<u16> {
    fields.text(Name::GrpcStatus)?.parse().ok()
}

/// Whether a gRPC status says that the service, not the call, is at fault.
pub(crate) fn is_failure(status: u16) -> bool {
    [Code::Unknown, Code::Internal, Code::Unavailable, Code::DataLoss].into_iter().any(|code| code as u16 == status)
}

fn http(reason: Reason, message: &str, form: Form, request_id: &RequestId) -> Answer<AnswerBody> {
    let (code, word) = (reason.status(), reason.word());
    let request_id = request_id.as_str();
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
    let mut fields = Fields::new();
    fields.set(Name::ContentType, kind.as_bytes());
    fields.set_number(Name::ContentLength, text.len() as u64);
    fields.set(Name::Vary, b"accept");
    let body = if form.is_head { AnswerBody::empty() } else { AnswerBody::full(text.into()) };
    let status = if form.falls_back && reason == Reason::NoRoute {
        // No service answers so, hence Nginx can tell it from a 404 of a service and serve its page instead.
        StatusCode::MISDIRECTED_REQUEST
    } else {
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    };
    Answer { status, fields, body }
}

/// Trailers only: one frame of headers that ends the stream.
fn grpc(code: Code, message: &str) -> Answer<AnswerBody> {
    let mut fields = Fields::new();
    fields.set(Name::ContentType, b"application/grpc");
    fields.set_number(Name::GrpcStatus, code as u64);
    fields.set(Name::GrpcMessage, grpc_message(message).as_bytes());
    Answer { status: StatusCode::OK, fields, body: AnswerBody::empty() }
}

/// Percent-encoded: everything but visible ASCII and blanks, and `%` itself. Source: gRPC over HTTP/2, "Status-Message".
fn grpc_message(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use rand::SeedableRng;

    use super::*;
    use crate::message::{Body, Frame};

    fn refused(reason: Reason, form: Form) -> (Answer, Vec<u8>) {
        let refusal = Refusal::new(reason, "no ready endpoint for users, 2 known");
        let mut rng = rand::rngs::SmallRng::seed_from_u64(1);
        let mut fields = [("x-request-id", "id-1")].into_iter().collect();
        let id = super::super::trace::request_id(&mut fields, true, &mut rng);
        let Answer { status, fields, mut body } = refuse(&refusal, form, &id, &mut rng);
        let text = match body.poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(Frame::Data(text)))) => text.to_vec(),
            _ => Vec::new(),
        };
        (Answer { status, fields, body: () }, text)
    }

    #[test]
    fn every_reason_is_told_as_json_with_its_status() {
        for reason in Reason::ALL {
            let (answer, body) = refused(*reason, Form::default());
            let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(answer.status.as_u16(), reason.status());
            assert_eq!(said["code"], reason.status());
            assert_eq!((&said["reason"], &said["request_id"]), (&reason.word().into(), &"id-1".into()));
            assert_eq!(answer.fields.text(Name::Reason), Some(reason.word()));
            assert_eq!(answer.fields.text(Name::RequestId), Some("id-1"));
            assert_eq!(answer.fields.has(Name::RetryAfter), reason.status() == 503, "{reason}");
        }
    }

    #[test]
    fn a_problem_is_told_when_it_is_asked_for() {
        let (answer, body) = refused(Reason::NoRoute, Form { wants_problem: true, ..Form::default() });
        let said: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(answer.fields.text(Name::ContentType), Some("application/problem+json"));
        assert_eq!((&said["status"], &said["type"]), (&404.into(), &"urn:synego:reason:no_route".into()));
    }

    #[test]
    fn a_call_of_grpc_gets_its_status_in_the_one_head() {
        let (answer, body) = refused(Reason::DeadlineExceeded, Form { is_grpc: true, ..Form::default() });
        assert_eq!((answer.status.as_u16(), body.len()), (200, 0));
        assert_eq!(grpc_status(&answer.fields), Some(4));
        assert_eq!(answer.fields.text(Name::GrpcMessage), Some("no ready endpoint for users, 2 known"));
        assert_eq!(grpc_message("ä 5%\n"), "%C3%A4 5%25%0A");
    }

    #[test]
    fn an_unrouted_request_for_which_nginx_has_a_page_is_told_apart() {
        let falls_back = Form { falls_back: true, ..Form::default() };
        let (answer, _) = refused(Reason::NoRoute, falls_back);
        assert_eq!((answer.status.as_u16(), answer.fields.text(Name::Reason)), (421, Some("no_route")));
        let (answer, _) = refused(Reason::NoReadyEndpoint, falls_back);
        assert_eq!(answer.status.as_u16(), 503);
    }

    #[test]
    fn head_gets_the_head_alone() {
        let (answer, body) = refused(Reason::NoRoute, Form { is_head: true, ..Form::default() });
        assert!(body.is_empty());
        assert_ne!(answer.fields.text(Name::ContentLength), Some("0"));
    }
}
