//! The head of a request, checked: what may be read in two ways is refused before anything is decided on it.

use std::rc::Rc;

use http::{Method, Version};
use synego_model::{Limits, Reason};

use super::answer::Refusal;
use super::path;
use crate::fields::{self, Fields, Name};
use crate::message::Request;
use crate::spare::{Shelf, Spare};

thread_local! {
    static SPARE: Spare<Rc<Head>, 64> = const { Spare::new() };
}

/// What the steps after `accept` know of a request.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) is_grpc: bool,
    /// Whether it asks for a WebSocket; every other upgrade is ignored.
    pub(crate) is_upgrade: bool,
    /// Whether nobody on its way may keep its target in a table.
    pub(crate) is_secret: bool,
    /// Target, authority and host, one behind the other, and where each of them ends.
    text: String,
    path_end: usize,
    target_end: usize,
    authority_end: usize,
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

/// Bytes of text for which a kept one may have room.
const LARGEST: usize = 1024;

/// Fields, and their bytes, that a proxy or a part of the mesh may add to a request on its way.
const ADDED: (usize, u64) = (16, 4096);

impl Form {
    /// - `trusted`: whether it came from the proxy in front, which alone may say that it has a fallback.
    pub(crate) fn of(request: &Request, trusted: bool) -> Self {
        let fields = &request.fields;
        let accepts = |value: &[u8]| fields::ascii(value).is_some_and(|text| text.contains("application/problem+json"));
        Self {
            is_grpc: is_grpc(fields),
            wants_problem: fields.all(Name::Accept).any(accepts),
            is_head: request.method == Method::HEAD,
            is_http2: request.version == Version::HTTP_2,
            waits: fields.has(Name::Expect),
            // Says that Nginx has something to serve where no route takes the request.
            falls_back: trusted && fields.get(Name::Fallback) == Some(b"spa"),
        }
    }
}

impl Head {
    /// Checks the head of a request against the rules of its protocol; its size was checked when it came.
    ///
    /// - `is_bare`: whether it has no body; only then its connection may change its protocol.
    /// - Errors: a refusal with the rule in question named.
    pub(crate) fn check(request: &Request, is_bare: bool) -> Result<Rc<Self>, Refusal> {
        let method = request.method.clone();
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Refusal::new(Reason::MethodNotAllowed, format!("{method} is not passed on")));
        }
        let given = request.target().ok_or_else(|| bad("the target has no path"))?;
        let given = std::str::from_utf8(given).map_err(|_| bad("the target is no text"))?;
        let end = memchr::memchr(b'?', given.as_bytes()).unwrap_or(given.len());
        let (path, query) = given.split_at_checked(end).unwrap_or((given, ""));
        let path = path::canonical(path).map_err(|error| bad(error.to_string()))?;
        let authority = authority(request)?;
        let host = host_of(authority).ok_or_else(|| bad("the host is malformed"))?;

        let authority = std::str::from_utf8(authority).unwrap_or_default();
        // Of one that is kept nobody else knows.
        let mut room = SPARE.take();
        let spare = room.as_mut().and_then(Rc::get_mut);
        let mut text = spare.map(|spare| std::mem::take(&mut spare.text)).unwrap_or_default();
        text.clear();
        text.reserve(path.len() + query.len() + authority.len() + host.len());
        text.push_str(&path);
        let path_end = text.len();
        text.push_str(query);
        let target_end = text.len();
        text.push_str(authority);
        let authority_end = text.len();
        text.push_str(host);
        if let Some(host) = text.get_mut(authority_end..) {
            host.make_ascii_lowercase();
        }
        let version = request.version;
        let is_upgrade = version == Version::HTTP_11 && is_bare && asks_for_websocket(&request.fields);
        let is_grpc = is_grpc(&request.fields);
        let is_secret = request.is_secret;
        let head = Self { method, version, is_grpc, is_upgrade, is_secret, text, path_end, target_end, authority_end };
        Ok(match room {
            Some(mut room) => {
                *Rc::make_mut(&mut room) = head;
                room
            }
            None => Rc::new(head),
        })
    }

    /// Leaves its room to another request, where nobody else needs it.
    pub(crate) fn give_back(mut self: Rc<Self>) {
        let is_small = self.text.capacity() <= LARGEST;
        if is_small && Rc::get_mut(&mut self).is_some() {
            SPARE.keep(self);
        }
    }

    /// Canonical path.
    pub(crate) fn path(&self) -> &str {
        self.text.get(..self.path_end).unwrap_or_default()
    }

    /// The query as it came.
    pub(crate) fn query(&self) -> Option<&str> {
        self.text.get(self.path_end + 1..self.target_end)
    }

    /// Canonical path, and the query as it came.
    pub(crate) fn target(&self) -> &str {
        self.text.get(..self.target_end).unwrap_or_default()
    }

    /// Host with port, as it came.
    pub(crate) fn authority(&self) -> &str {
        self.text.get(self.target_end..self.authority_end).unwrap_or_default()
    }

    /// Host, lower case, without port.
    pub(crate) fn host(&self) -> &str {
        self.text.get(self.authority_end..).unwrap_or_default()
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
pub(crate) fn is_grpc(fields: &Fields) -> bool {
    let rest = fields.get(Name::ContentType).and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::BadRequest, message)
}

/// Checks the size of a head as it came, before anything is added to it.
///
/// - `before`: how many parts of the mesh, a proxy in front included, it has passed: what these add does not count.
/// - Errors: a refusal with the limit named.
pub(crate) fn check_sizes(request: &Request, before: u8, limits: &Limits) -> Result<(), Refusal> {
    let fields = &request.fields;
    let (more_fields, more_bytes) = (ADDED.0 * usize::from(before), ADDED.1 * u64::from(before));
    let target = request.target().map_or(0, <[u8]>::len) as u64;
    if target > limits.target {
        return Err(Refusal::new(
            Reason::TargetTooLong,
            format!("the target has {target} bytes, the limit is {}", limits.target),
        ));
    }
    let too_large = |message: String| Err(Refusal::new(Reason::HeadersTooLarge, message));
    if fields.len() > limits.header_count as usize + more_fields {
        return too_large(format!("{} headers, the limit is {}", fields.len(), limits.header_count));
    }
    let (total, largest) = fields.sizes();
    if largest > limits.header {
        let one = |field: &fields::Field<'_>| (field.text.len() + field.value.len()) as u64;
        let text = fields.iter().find(|field| one(field) == largest).map_or(&[][..], |field| field.text);
        let name = String::from_utf8_lossy(text);
        return too_large(format!("the header {name} has {largest} bytes, the limit is {}", limits.header));
    }
    if total > limits.headers + more_bytes {
        return too_large(format!("the headers have {total} bytes together, the limit is {}", limits.headers));
    }
    Ok(())
}

/// The one host that a request names: in its target, in `Host`, or the same in both.
fn authority(request: &Request) -> Result<&[u8], Refusal> {
    let mut hosts = request.fields.all(Name::Host);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one `Host`"));
    }
    match (request.authority(), host) {
        (None, None) => Err(bad("`Host` is missing")),
        (None, Some(host)) => Ok(host),
        (Some(_), None) if request.version != Version::HTTP_2 => Err(bad("`Host` is missing")),
        (Some(named), Some(host)) if !named.eq_ignore_ascii_case(host) => {
            Err(bad("the host of the target is not that of `Host`"))
        }
        (Some(named), _) => Ok(named),
    }
}

/// Host without port, as it came; `None` when it is none.
fn host_of(authority: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (text.get(..address.len() + 2)?, port)
        }
        None => {
            let at = memchr::memchr(b':', authority).unwrap_or(text.len());
            let (host, port) = text.split_at_checked(at)?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            if host.is_empty() || !host.bytes().all(is_name) {
                return None;
            }
            (host, port)
        }
    };
    let port_is_sound = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    port_is_sound.then_some(host)
}

/// Whether a head changes its connection to a WebSocket.
pub(crate) fn asks_for_websocket(fields: &Fields) -> bool {
    let names_upgrade = |value: &[u8]| tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let is_websocket = fields.only(Name::Upgrade).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    is_websocket && fields.all(Name::Connection).any(names_upgrade)
}

/// The tokens of a comma list.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &str> {
    fields::ascii(value).unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as it comes on HTTP/1.1, or as near to one as a test wants it.
    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut fields: Fields = headers.iter().copied().collect();
        let (authority, target) = match uri.strip_prefix("http://") {
            None => (None, uri.to_owned()),
            Some(rest) => {
                let at = rest.find(['/', '?']).unwrap_or(rest.len());
                let slash = if rest[at..].starts_with('/') { "" } else { "/" };
                (Some(&rest[..at]), format!("{slash}{}", &rest[at..]))
            }
        };
        let authority = authority.map(|text| fields.keep(text.as_bytes()));
        let target = Some(fields.keep(target.as_bytes()));
        Request { method: Method::GET, version: Version::HTTP_11, fields, authority, target, is_secret: false }
    }

    fn check(request: Request) -> Result<Rc<Head>, Refusal> {
        check_sizes(&request, 0, &Limits::default())?;
        Head::check(&request, true)
    }

    fn reason(request: Request) -> Option<Reason> {
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
            assert_eq!((head.host(), head.authority()), (expected, host));
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
        assert_eq!((head.host(), head.target(), head.path(), head.query()), ("users", "/7?x", "/7", Some("x")));
        let head = check(request("http://users?x", &[("host", "users")])).expect("sound");
        assert_eq!(head.target(), "/?x");
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
        let kind = |value: &str| is_grpc(&request("/", &[("content-type", value)]).fields);
        assert!(kind("application/grpc") && kind("application/grpc+proto") && kind("application/grpc;x=y"));
        assert!(!kind("application/grpc-web") && !kind("application/json"));
    }
}
