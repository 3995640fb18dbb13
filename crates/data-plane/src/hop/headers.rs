//! Header fields at a hop: what ends here, what goes on, what is added.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use synego_model::Reason;

use super::head::tokens;
use super::marks::Marks;

pub(crate) const REASON: HeaderName = HeaderName::from_static("x-synego-reason");
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-synego-caller");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// Load reports of services to their callers (ORCA): for the mesh alone.
const LOAD_REPORTS: [HeaderName; 2] =
    [HeaderName::from_static("endpoint-load-metrics"), HeaderName::from_static("endpoint-load-metrics-bin")];

/// Removes what holds for one connection only: the known fields and all that `Connection` names (RFC 9110 §7.6.1).
///
/// Names that the mesh relies on are protected: a `Connection` that lists them takes nothing away.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap, marks: Marks) {
    if !marks.has(Marks::HOP_BY_HOP) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .filter(|name| !is_protected(name))
            .collect();
        headers.remove(CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    if headers.contains_key(TE) {
        let trailers = headers.get_all(TE).iter().flat_map(tokens).any(|token| token.eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
}

/// Removes from trailers what frames or routes a message, or holds for one connection: it has its place in the head alone
/// (RFC 9110 §6.5.1).
pub(crate) fn clear_trailers(trailers: &mut HeaderMap) {
    const HEAD_ALONE: [HeaderName; 8] =
        [CONNECTION, CONTENT_LENGTH, HOST, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];
    for name in HEAD_ALONE {
        trailers.remove(name);
    }
}

fn is_protected(name: &HeaderName) -> bool {
    let text = name.as_str();
    [HOST, CONTENT_LENGTH, TE].contains(name)
        || text.starts_with("x-synego-")
        || text.starts_with("x-forwarded-")
        || matches!(text, "x-request-id" | "traceparent" | "tracestate" | "forwarded" | "authorization" | "cookie")
        || text.starts_with("grpc-")
}

/// Makes a request ready for the next hop: no hop-by-hop fields, and `Expect` met here.
pub(crate) fn forward_request(headers: &mut HeaderMap, marks: Marks) {
    remove_hop_by_hop(headers, marks);
    if marks.has(Marks::EXPECT) {
        // The body is asked for when the next hop wants it; it need not wait for a word of ours.
        headers.remove(EXPECT);
    }
}

/// What changes a connection to a WebSocket, in a request and in its answer; set after the hop-by-hop fields are gone.
pub(crate) fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Removes what only the mesh may say, and what must not cross its border.
pub(crate) fn remove_internal(headers: &mut HeaderMap) {
    remove_all(headers, |name| name.starts_with("x-synego-") || name.starts_with("x_synego_"));
}

/// Removes the second spelling of what only the mesh may say.
pub(crate) fn remove_underscored(headers: &mut HeaderMap) {
    remove_all(headers, |name| name.starts_with("x_synego_"));
}

fn remove_all(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let named: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name.as_str())).cloned().collect();
    for name in named {
        headers.remove(name);
    }
}

/// At the border: who is behind this request. A listed proxy's word is appended to, everyone else's replaced.
pub(crate) fn say_forwarded(
    headers: &mut HeaderMap,
    marks: Marks,
    peer: &HeaderValue,
    host: &HeaderValue,
    trusted: bool,
) {
    if !marks.has(Marks::FORWARDED) {
        headers.insert(FORWARDED_FOR, peer.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(FORWARDED_HOST, host.clone());
        return;
    }
    headers.remove(BAGGAGE);
    if !trusted {
        for name in [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED] {
            headers.remove(name);
        }
    }
    let so_far: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let list = match so_far.as_slice() {
        [] => peer.clone(),
        _ => HeaderValue::from_bytes(&[&so_far.join(&b", "[..]), peer.as_bytes()].join(&b", "[..]))
            .unwrap_or_else(|_| peer.clone()),
    };
    headers.insert(FORWARDED_FOR, list);
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// Removes load reports from an answer that leaves the mesh.
pub(crate) fn remove_load_reports(headers: &mut HeaderMap) {
    for name in LOAD_REPORTS {
        headers.remove(name);
    }
}

/// The reason that an answer names, if it is one of the closed list.
pub(crate) fn reason(headers: &HeaderMap) -> Option<Reason> {
    headers.get(REASON).and_then(|value| value.to_str().ok()).and_then(Reason::from_word)
}

/// Whether a service itself may say this reason: those of the SDKs' handlers.
pub(crate) fn is_of_service(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::InvalidBody
            | Reason::QueueFull
            | Reason::QueueTimeout
            | Reason::HandlerStuck
            | Reason::HandlerTimeout
            | Reason::HandlerCrashed
            | Reason::NoHandler
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(field).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_connection_names_ends_here_unless_it_is_protected() {
        let mut headers = map(&[
            ("connection", "close, X-Mine, x-request-id, x-synego-caller, host, @@"),
            ("x-mine", "1"),
            ("x-request-id", "1"),
            ("x-synego-caller", "users"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("accept", "*/*"),
        ]);
        let marks = Marks::of(&headers);
        remove_hop_by_hop(&mut headers, marks);
        assert_eq!(names(&headers), ["accept", "host", "te", "x-request-id", "x-synego-caller"]);
        assert_eq!(headers[TE], "trailers");
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut headers = map(&[("te", "gzip")]);
        let marks = Marks::of(&headers);
        remove_hop_by_hop(&mut headers, marks);
        assert!(headers.is_empty());
    }

    #[test]
    fn internal_fields_go_in_both_spellings() {
        let mut headers =
            map(&[("x-synego-caller", "a"), ("x_synego_caller", "a"), ("x-synego-timeout", "1"), ("x-a", "1")]);
        remove_internal(&mut headers);
        assert_eq!(names(&headers), ["x-a"]);
    }

    #[test]
    fn a_listed_proxy_is_believed_and_others_are_not() {
        let peer = HeaderValue::from_static("10.0.0.1");
        let host = HeaderValue::from_static("shop.example");
        let given = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("baggage", "a=b")];
        let mut headers = map(&given);
        say_forwarded(&mut headers, Marks::FORWARDED, &peer, &host, true);
        assert_eq!(
            (&headers[FORWARDED_FOR], &headers[FORWARDED_PROTO]),
            (&"1.2.3.4, 10.0.0.1".parse().expect("v"), &"https".parse().expect("v"))
        );
        assert!(!headers.contains_key(BAGGAGE));
        let mut headers = map(&given);
        say_forwarded(&mut headers, Marks::FORWARDED, &peer, &host, false);
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1");
        assert_eq!(headers[FORWARDED_PROTO], "http");
        assert_eq!(headers[FORWARDED_HOST], "shop.example");
    }
}
