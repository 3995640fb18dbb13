//! Header fields at a hop: what ends here, what goes on, what is added.

use synego_model::Reason;

use super::head::tokens;
use crate::fields::{Fields, Name, Names};

/// What a `Connection` that lists it does not take away: the mesh relies on it.
const PROTECTED: Names = Names::of(&[
    Name::Authorization,
    Name::ContentLength,
    Name::Cookie,
    Name::GrpcMessage,
    Name::GrpcStatus,
    Name::GrpcTimeout,
    Name::Host,
    Name::RequestId,
    Name::Te,
    Name::TraceParent,
    Name::TraceState,
])
.and(Names::FORWARDED)
.and(Names::INTERNAL);

/// Removes what holds for one connection only: the known fields and all that `Connection` names (RFC 9110 §7.6.1).
///
/// Names that the mesh relies on are protected: a `Connection` that lists them takes nothing away.
pub(crate) fn remove_hop_by_hop(fields: &mut Fields) {
    if !fields.names().meets(Names::HOP_BY_HOP) {
        return;
    }
    if fields.has(Name::Connection) {
        remove_named(fields);
    }
    let trailers = fields.all(Name::Te).flat_map(tokens).any(|token| token.eq_ignore_ascii_case("trailers"));
    fields.remove_all(Names::HOP_BY_HOP);
    if trailers {
        fields.set(Name::Te, b"trailers");
    }
}

/// Removes what `Connection` names.
fn remove_named(fields: &mut Fields) {
    let is_meant = |token: &&str| {
        let name = Name::of(token.as_bytes());
        !(PROTECTED.has(name) || token.starts_with("x-forwarded-") || token.starts_with("grpc-"))
    };
    let is_plain = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
    if fields.all(Name::Connection).all(is_plain) {
        return;
    }
    let lower = |token: &str| token.to_ascii_lowercase();
    // What most say names no field.
    let says_more = |token: &&str| !(token.eq_ignore_ascii_case("keep-alive") || token.eq_ignore_ascii_case("close"));
    let named: Vec<String> = fields.all(Name::Connection).flat_map(tokens).filter(says_more).map(lower).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).filter(is_meant).collect();
    if !named.is_empty() {
        fields.retain(|field| !named.iter().any(|name| name.as_bytes() == field.text));
    }
}

/// Removes from trailers what frames or routes a message, or holds for one connection: it has its place in the head alone
/// (RFC 9110 §6.5.1).
pub(crate) fn clear_trailers(trailers: &mut Fields) {
    trailers.remove_all(Names::of(&[Name::ContentLength, Name::Host]).and(Names::HOP_BY_HOP));
}

/// Makes a request ready for the next hop: no hop-by-hop fields, and `Expect` met here.
pub(crate) fn forward_request(fields: &mut Fields) {
    remove_hop_by_hop(fields);
    // The body is asked for when the next hop wants it; it need not wait for a word of ours.
    fields.remove(Name::Expect);
}

/// What changes a connection to a WebSocket, in a request and in its answer; set after the hop-by-hop fields are gone.
pub(crate) fn ask_for_websocket(fields: &mut Fields) {
    fields.set(Name::Connection, b"upgrade");
    fields.set(Name::Upgrade, b"websocket");
}

/// Removes what only the mesh may say, and what must not cross its border.
pub(crate) fn remove_internal(fields: &mut Fields) {
    fields.remove_all(Names::INTERNAL);
}

/// Removes the second spelling of what only the mesh may say.
pub(crate) fn remove_underscored(fields: &mut Fields) {
    if fields.has(Name::Internal) {
        fields.retain(|field| !field.text.starts_with(b"x_synego_"));
    }
}

/// At the border: who is behind this request. A listed proxy's word is appended to, everyone else's replaced.
pub(crate) fn say_forwarded(fields: &mut Fields, peer: &str, host: &str, trusted: bool) {
    fields.remove(Name::Baggage);
    if !trusted {
        fields.remove_all(Names::FORWARDED);
    }
    if fields.has(Name::ForwardedFor) {
        let so_far: Vec<&[u8]> = fields.all(Name::ForwardedFor).chain([peer.as_bytes()]).collect();
        let list = so_far.join(&b", "[..]);
        fields.set(Name::ForwardedFor, &list);
    } else {
        fields.set(Name::ForwardedFor, peer.as_bytes());
    }
    if !fields.has(Name::ForwardedProto) {
        fields.set(Name::ForwardedProto, b"http");
    }
    if !fields.has(Name::ForwardedHost) {
        fields.set(Name::ForwardedHost, host.as_bytes());
    }
}

/// The reason that an answer names, if it is one of the closed list.
pub(crate) fn reason(fields: &Fields) -> Option<Reason> {
    fields.text(Name::Reason).and_then(Reason::from_word)
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

    fn map(fields: &[(&str, &str)]) -> Fields {
        fields.iter().copied().collect()
    }

    fn names(fields: &Fields) -> Vec<String> {
        let mut names: Vec<String> =
            fields.iter().map(|field| String::from_utf8_lossy(field.text).into_owned()).collect();
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
        remove_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), ["accept", "host", "te", "x-request-id", "x-synego-caller"]);
        assert_eq!(headers.get(Name::Te), Some(&b"trailers"[..]));
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut headers = map(&[("te", "gzip")]);
        remove_hop_by_hop(&mut headers);
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
        let given = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("baggage", "a=b")];
        let said = |trusted| {
            let mut fields = map(&given);
            say_forwarded(&mut fields, "10.0.0.1", "shop.example", trusted);
            assert!(!fields.has(Name::Baggage));
            let text = |name| fields.text(name).map(str::to_owned).unwrap_or_default();
            [Name::ForwardedFor, Name::ForwardedProto, Name::ForwardedHost].map(text)
        };
        assert_eq!(said(true), ["1.2.3.4, 10.0.0.1", "https", "shop.example"]);
        assert_eq!(said(false), ["10.0.0.1", "http", "shop.example"]);
    }
}
