//! The head of a request, checked: what may be read in two ways is refused before anything is decided on it.

use std::rc::Rc;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use synego_model::{Limits, Reason};

use super::answer::Refusal;
use super::marks::Marks;
use super::path;

/// What the steps after `accept` know of a request.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Canonical path, and the query as it came.
    pub(crate) target: PathAndQuery,
    /// Host with port, as it came.
    pub(crate) authority: HeaderValue,
    /// Host, lower case, without port.
    pub(crate) host: Rc<str>,
    pub(crate) version: Version,
    pub(crate) is_grpc: bool,
    /// Whether it asks for a WebSocket; every other upgrade is ignored.
    pub(crate) is_upgrade: bool,
}

/// In which form the mesh would answer this request itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Form {
    pub(crate) is_grpc: bool,
    pub(crate) wants_problem: bool,
    pub(crate) is_head: bool,
    pub(crate) is_http2: bool,
    /// Whether it sends its body only after a word of ours (`Expect: 100-continue`).
    pub(crate) waits: bool,
    /// Whether Nginx has an application's page for it where no route takes it.
    pub(crate) falls_back: bool,
}

/// Fields, and their bytes, that a proxy or a part of the mesh may add to a request on its way.
const ADDED: (usize, u64) = (16, 4096);
/// Says that Nginx has something to serve where no route takes the request: `spa`.
const FALLBACK: &str = "x-synego-fallback";

impl Form {
    /// - `trusted`: whether it came from the proxy in front, which alone may say that it has a fallback.
    pub(crate) fn of(request: &Request<()>, trusted: bool, marks: Marks) -> Self {
        let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("application/problem+json"));
        Self {
            is_grpc: marks.has(Marks::CONTENT_TYPE) && is_grpc(request.headers()),
            wants_problem: marks.has(Marks::ACCEPT) && request.headers().get_all(ACCEPT).iter().any(accepts),
            is_head: request.method() == Method::HEAD,
            is_http2: request.version() == Version::HTTP_2,
            waits: marks.has(Marks::EXPECT),
            falls_back: trusted
                && marks.has(Marks::INTERNAL)
                && request.headers().get(FALLBACK).is_some_and(|value| value == "spa"),
        }
    }
}

impl Head {
    /// Checks the head of a request against the rules of its protocol; its size was checked when it came.
    ///
    /// - `is_bare`: whether it has no body; only then its connection may change its protocol.
    /// - Errors: a refusal with the rule in question named.
    pub(crate) fn check(request: &Request<()>, is_bare: bool, marks: Marks) -> Result<Self, Refusal> {
        let headers = request.headers();
        let method = request.method().clone();
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal::new(Reason::MethodNotAllowed, format!("{method} is not passed on")));
        }
        let target = canonical_target(request.uri())?;
        let authority = authority(request)?;
        let host = host_of(authority.as_bytes()).ok_or_else(|| bad("the host is malformed"))?;
        let version = request.version();
        let is_upgrade =
            version == Version::HTTP_11 && is_bare && marks.has(Marks::HOP_BY_HOP) && asks_for_websocket(headers);
        let is_grpc = marks.has(Marks::CONTENT_TYPE) && is_grpc(headers);
        Ok(Self { method, target, authority, host, version, is_grpc, is_upgrade })
    }

    pub(crate) fn path(&self) -> &str {
        self.target.path()
    }

    /// Whether a repeat of this method does no more than the first (RFC 9110 §9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }
}

/// Whether a message is one of gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}

/// Checks the size of a head as it came, before anything is added to it.
///
/// - `before`: how many parts of the mesh, a proxy in front included, it has passed: what these add does not count.
/// - Errors: a refusal with the limit named.
pub(crate) fn check_sizes(request: &Request<()>, before: u8, limits: &Limits) -> Result<(), Refusal> {
    let (uri, headers) = (request.uri(), request.headers());
    let (more_fields, more_bytes) = (ADDED.0 * usize::from(before), ADDED.1 * u64::from(before));
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len()) as u64;
    if target > limits.target {
        return Err(Refusal::new(
            Reason::TargetTooLong,
            format!("the target has {target} bytes, the limit is {}", limits.target),
        ));
    }
    let too_large = |message: String| Err(Refusal::new(Reason::HeadersTooLarge, message));
    if headers.len() > limits.header_count as usize + more_fields {
        return too_large(format!("{} headers, the limit is {}", headers.len(), limits.header_count));
    }
    let mut total = 0;
    for (name, value) in headers {
        let one = (name.as_str().len() + value.len()) as u64;
        if one > limits.header {
            return too_large(format!("the header {name} has {one} bytes, the limit is {}", limits.header));
        }
        total += one;
    }
    if total > limits.headers + more_bytes {
        return too_large(format!("the headers have {total} bytes together, the limit is {}", limits.headers));
    }
    Ok(())
}

fn canonical_target(uri: &Uri) -> Result<PathAndQuery, Refusal> {
    let given = uri.path_and_query().ok_or_else(|| bad("the target has no path"))?;
    let path = path::canonical(given.path()).map_err(|error| bad(error.to_string()))?;
    // Of `http://a?x` the path is `/`, though none is written.
    if path == given.path() && given.as_str().starts_with('/') {
        return Ok(given.clone());
    }
    let text = given.query().map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
    PathAndQuery::try_from(text).map_err(|_| bad("the target is malformed"))
}

/// The one host that a request names: in its target, in `Host`, or the same in both.
fn authority(request: &Request<()>) -> Result<HeaderValue, Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one `Host`"));
    }
    match (request.uri().authority(), host) {
        (None, None) => Err(bad("`Host` is missing")),
        (None, Some(host)) => Ok(host.clone()),
        (Some(_), None) if request.version() != Version::HTTP_2 => Err(bad("`Host` is missing")),
        (Some(named), Some(host)) if !named.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(bad("the host of the target is not that of `Host`"))
        }
        (Some(named), _) => HeaderValue::from_str(named.as_str()).map_err(|_| bad("the host is malformed")),
    }
}

/// Host, lower case, without port; `None` when it is none.
fn host_of(authority: &[u8]) -> Option<Rc<str>> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (text.get(..address.len() + 2)?, port)
        }
        None => {
            let at = text.find(':').unwrap_or(text.len());
            let (host, port) = text.split_at(at);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host, port)
        }
    };
    let port_is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    port_is_sound.then(|| host.to_ascii_lowercase().into())
}

/// Whether a head changes its connection to a WebSocket.
pub(crate) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let names_upgrade = |value: &HeaderValue| tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let is_websocket = upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_websocket && upgrades.next().is_none() && headers.get_all(CONNECTION).iter().any(names_upgrade)
}

/// The tokens of a comma list.
pub(crate) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::get(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a request")
    }

    fn check(request: Request<()>) -> Result<Head, Refusal> {
        check_sizes(&request, 0, &Limits::default())?;
        Head::check(&request, true, Marks::of(request.headers()))
    }

    fn reason(request: Request<()>) -> Option<Reason> {
        check(request).err().map(|refusal| refusal.reason)
    }

    #[test]
    fn a_request_names_one_host() {
        let hosts = [
            ("users", "users"),
            ("Users:80", "users"),
            ("127.0.0.1:3000", "127.0.0.1"),
            ("[::1]:3000", "[::1]"),
            ("[::1]", "[::1]"),
        ];
        for (host, expected) in hosts {
            let head = check(request("/", &[("host", host)])).expect(host);
            assert_eq!(&*head.host, expected);
        }
        for bad in ["", "a b", "a@b", "a:b", "a:99999", "[::1", "[x]", "a/b", "ä"] {
            assert_eq!(reason(request("/", &[("host", bad)])), Some(Reason::BadRequest), "{bad}");
        }
        assert_eq!(reason(request("/", &[])), Some(Reason::BadRequest));
        assert_eq!(reason(request("/", &[("host", "a"), ("host", "a")])), Some(Reason::BadRequest));
    }

    #[test]
    fn an_absolute_target_agrees_with_its_host() {
        let head = check(request("http://users/7?x", &[("host", "users")])).expect("sound");
        assert_eq!((&*head.host, head.target.as_str()), ("users", "/7?x"));
        let head = check(request("http://users?x", &[("host", "users")])).expect("sound");
        assert_eq!(head.target.as_str(), "/?x");
        assert_eq!(reason(request("http://users/", &[("host", "orders")])), Some(Reason::BadRequest));
    }

    #[test]
    fn sizes_have_limits_and_the_answer_names_them() {
        let long = format!("/{}", "a".repeat(9000));
        assert_eq!(reason(request(&long, &[("host", "a")])), Some(Reason::TargetTooLong));
        let one = "v".repeat(17 * 1024);
        assert_eq!(reason(request("/", &[("host", "a"), ("x-a", &one)])), Some(Reason::HeadersTooLarge));
        let many: Vec<_> = std::iter::repeat_n(("x-a", "1"), 101).collect();
        assert_eq!(reason(request("/", &many)), Some(Reason::HeadersTooLarge));
        let part = "v".repeat(15 * 1024);
        let large: Vec<_> = std::iter::repeat_n(("x-a", part.as_str()), 5).collect();
        assert_eq!(reason(request("/", &large)), Some(Reason::HeadersTooLarge));
    }

    #[test]
    fn only_a_websocket_is_an_upgrade() {
        let upgrade = |connection: &str, upgrade: &str| {
            let headers = [("host", "a"), ("connection", connection), ("upgrade", upgrade)];
            check(request("/", &headers)).expect("sound").is_upgrade
        };
        assert!(upgrade("keep-alive, Upgrade", "WebSocket"));
        assert!(!upgrade("keep-alive", "websocket"));
        assert!(!upgrade("upgrade", "h2c"));
    }

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let kind = |value: &str| is_grpc(request("/", &[("content-type", value)]).headers());
        assert!(kind("application/grpc") && kind("application/grpc+proto") && kind("application/grpc;x=y"));
        assert!(!kind("application/grpc-web") && !kind("application/json"));
    }
}
