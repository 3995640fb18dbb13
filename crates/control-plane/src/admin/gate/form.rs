//! The form of a call and of its refusal: what no page in a browser can send on its own, and from no other origin.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use serde::Serialize;
use synego_model::Reason;
use synego_wire::status;

use super::Whence;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// The authority that our own tools give, wherever they connect to.
const OWN_NAME: &str = "admin.synego";

/// Why a call is refused.
pub(super) struct Refused {
    pub(super) reason: Reason,
    pub(super) message: String,
    /// After how many seconds the same may be answered otherwise.
    pub(super) retry_after_s: Option<u64>,
}

impl Refused {
    pub(super) fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, retry_after_s: None }
    }
}

/// Refuses what is not a call, or not from here.
pub(super) fn form(from: &Whence, request: &Request) -> Result<(), Refused> {
    let refused = |reason, message: String| Err(Refused::new(reason, message));
    let headers = request.headers();
    if !matches!(from, Whence::User(_)) {
        let authority = authority(request.uri(), headers);
        if !is_own(authority) {
            let message = format!("the host `{authority}` is not this API's: name it by its address, or `localhost`");
            return refused(Reason::Denied, message);
        }
        origin(authority, headers)?;
    }
    if request.method() != Method::POST {
        return refused(Reason::MethodNotAllowed, format!("{} asks nothing here: calls are POSTs", request.method()));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_grpc(kind) {
        let kind = if kind.is_empty() { "nothing" } else { kind };
        return refused(
            Reason::UnsupportedType,
            format!("the body is said to be {kind}: calls are `application/grpc`"),
        );
    }
    Ok(())
}

/// Under which name this API is asked.
pub(super) fn authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let said = headers.get(HOST).and_then(|value| value.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(said).unwrap_or_default()
}

/// Refuses what another site's page could have made a browser send.
pub(super) fn origin(authority: &str, headers: &HeaderMap) -> Result<(), Refused> {
    let denied = |message: String| Err(Refused::new(Reason::Denied, message));
    let same = |origin: &str| origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(authority));
    for origin in headers.get_all(ORIGIN) {
        let origin = origin.to_str().unwrap_or("unreadable");
        if !same(origin) {
            return denied(format!("a page of `{origin}` may not ask this API"));
        }
    }
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return denied("a page of another site may not ask this API".into());
    }
    Ok(())
}

/// Names that nobody can point here: addresses, `localhost`, and the one of our own tools.
fn is_own(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") || host == OWN_NAME
}

fn is_grpc(kind: &str) -> bool {
    kind.strip_prefix("application/grpc")
        .is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'+' | b';' | b' ')))
        && !kind.starts_with("application/grpc-web")
}

pub(super) fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[derive(Serialize)]
struct Said<'a> {
    code: u16,
    msg: &'a str,
    reason: &'static str,
}

/// In the caller's own form: a status of HTTP, and that of gRPC beside it.
pub(super) fn answer(refused: &Refused, asked: &HeaderMap) -> Response {
    let Refused { reason, message, retry_after_s } = refused;
    let is_grpc = asked.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_grpc);
    let mut answer: Response = if is_grpc {
        status::refusal(*reason, message.clone()).into_http()
    } else {
        let said = serde_json::to_vec(&Said { code: reason.status(), msg: message, reason: reason.word() });
        let mut answer = Response::new(Body::from(said.unwrap_or_default()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    };
    *answer.status_mut() = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::FORBIDDEN);
    let headers = answer.headers_mut();
    headers.insert("x-synego-reason", HeaderValue::from_static(reason.word()));
    if let Some(seconds) = retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    match reason {
        Reason::MethodNotAllowed => drop(headers.insert(ALLOW, HeaderValue::from_static("POST"))),
        Reason::Unauthenticated => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        Reason::UnsupportedType => drop(headers.insert("accept-post", HeaderValue::from_static("application/grpc"))),
        _ => {}
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_can_point_here_are_own() {
        for own in ["127.0.0.1:3002", "[::1]:3002", "10.0.0.11", "localhost:3002", "LOCALHOST", "admin.synego"] {
            assert!(is_own(own), "{own}");
        }
        for foreign in
            ["", "evil.example", "evil.example:3002", "localhost.evil.example", "admin.synego.evil", "127.0.0.1.nip.io"]
        {
            assert!(!is_own(foreign), "{foreign}");
        }
    }
}
