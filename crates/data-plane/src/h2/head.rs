//! From fields to a request, an answer or trailers (RFC 9113 §8).

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, uri};

use super::hpack::Field;
use crate::h1::maps;
use crate::hop::headers::clear_trailers;

/// Fields of one message that are kept at most; more are counted and forgotten.
const MAX_FIELDS: usize = 512;
/// How many times more than what is read is no mistake but an attack: few bytes can stand for many fields.
const BOMB: usize = 4;

/// Why a message is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It breaks the rules: the stream is reset.
    Malformed,
    /// It is larger than what is read.
    TooLarge,
}

/// The fields of one message as they come.
pub(crate) struct Fields {
    method: Option<Method>,
    scheme: bool,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    count: usize,
    bytes: usize,
    largest: usize,
    /// A field that is no pseudo-field has come: none of these may follow.
    is_plain: bool,
    refused: Option<Refused>,
}

impl Fields {
    /// - `largest`: bytes of all names and values together that are read.
    pub(crate) fn new(largest: usize) -> Self {
        Self {
            method: None,
            scheme: false,
            authority: None,
            path: None,
            status: None,
            headers: maps::take(),
            count: 0,
            bytes: 0,
            largest,
            is_plain: false,
            refused: None,
        }
    }

    /// Takes the next field; `bytes`: of its name and value.
    pub(crate) fn put(&mut self, field: Field, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
        if self.bytes > self.largest || self.count > MAX_FIELDS {
            self.refused.get_or_insert(Refused::TooLarge);
            return;
        }
        let is_plain = matches!(field, Field::Plain(..));
        let is_sound = (is_plain || !self.is_plain) && self.take(field);
        self.is_plain |= is_plain;
        if !is_sound {
            self.refused = Some(Refused::Malformed);
        }
    }

    /// Whether so much came that its sender means harm.
    pub(crate) fn is_bomb(&self) -> bool {
        self.bytes > BOMB * self.largest || self.count > BOMB * MAX_FIELDS
    }

    /// Whether it may stand where it stands.
    fn take(&mut self, field: Field) -> bool {
        match field {
            Field::Method(method) => self.method.replace(method).is_none(),
            Field::Scheme => !std::mem::replace(&mut self.scheme, true),
            Field::Authority(authority) => self.authority.replace(authority).is_none(),
            Field::Path(path) => self.path.replace(path).is_none(),
            Field::Status(status) => self.status.replace(status).is_none(),
            Field::Plain(name, value) => {
                let is_sound = !is_of_connection(&name, &value);
                // A map takes no more than it can hold; what is beyond that is far beyond the limit.
                is_sound && self.headers.try_append(name, value).is_ok()
            }
            Field::Bad => false,
        }
    }

    /// The head of a request, and the length of its body where it says so.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn request(mut self) -> Result<(Request<()>, Option<u64>), Refused> {
        let length = self.length()?;
        let (Some(method), None) = (self.method.take(), self.status) else { return Err(Refused::Malformed) };
        let mut parts = uri::Parts::default();
        let is_connect = method == Method::CONNECT;
        match (self.path.take(), self.scheme, is_connect) {
            (Some(path), true, false) => {
                parts.scheme = self.authority.is_some().then_some(Scheme::HTTP);
                parts.path_and_query = Some(path);
            }
            // It is refused as a method that is not passed on.
            (None, false, true) if self.authority.is_some() => {}
            _ => return Err(Refused::Malformed),
        }
        parts.authority = self.authority.take();
        let mut request = Request::new(());
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refused::Malformed)?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = std::mem::take(&mut self.headers);
        Ok((request, length))
    }

    /// The head of an answer, and the length of its body where it says so.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn answer(mut self) -> Result<(Response<()>, Option<u64>), Refused> {
        let length = self.length()?;
        let Some(status) = self.status.filter(|_| !self.asks()) else { return Err(Refused::Malformed) };
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        *answer.version_mut() = Version::HTTP_2;
        *answer.headers_mut() = std::mem::take(&mut self.headers);
        Ok((answer, length))
    }

    /// What stands behind a body.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn trailers(mut self) -> Result<HeaderMap, Refused> {
        match self.refused {
            Some(refused) => Err(refused),
            None if self.asks() || self.status.is_some() => Err(Refused::Malformed),
            None => {
                clear_trailers(&mut self.headers);
                Ok(std::mem::take(&mut self.headers))
            }
        }
    }

    /// Whether it has what only a request may have.
    fn asks(&self) -> bool {
        self.method.is_some() || self.scheme || self.authority.is_some() || self.path.is_some()
    }

    /// The length of the body.
    fn length(&self) -> Result<Option<u64>, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else { return Ok(None) };
        if lengths.any(|other| other != length) {
            return Err(Refused::Malformed);
        }
        let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
        let length = length.to_str().ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        length.map(Some).ok_or(Refused::Malformed)
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").field("count", &self.count).field("refused", &self.refused).finish_non_exhaustive()
    }
}

/// What holds for a connection of HTTP/1.1 has no place here (RFC 9113 §8.2.2).
fn is_of_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        CONNECTION | TRANSFER_ENCODING | UPGRADE => true,
        TE => !value.as_bytes().eq_ignore_ascii_case(b"trailers"),
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new(10_000);
        for (name, value) in all {
            let field = match *name {
                ":method" => Field::Method(value.parse().expect("a method")),
                ":scheme" => Field::Scheme,
                ":authority" => Field::Authority(value.parse().expect("an authority")),
                ":path" => Field::Path(value.parse().expect("a path")),
                ":status" => Field::Status(value.parse().expect("a status")),
                _ => Field::Plain(name.parse().expect("a name"), value.parse().expect("a value")),
            };
            fields.put(field, name.len() + value.len());
        }
        fields
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "users"), (":path", "/7?x")];

    #[test]
    fn a_request_is_put_together() {
        let (request, length) =
            fields(&[&GET[..], &[("te", "trailers"), ("content-length", "3")]].concat()).request().expect("a request");
        assert_eq!((request.uri().to_string().as_str(), length), ("http://users/7?x", Some(3)));
        assert_eq!(request.headers().len(), 2);
    }

    #[test]
    fn what_breaks_the_rules_is_no_request() {
        let bad: [&[(&str, &str)]; 9] = [
            &[("connection", "close")],
            &[("te", "gzip")],
            &[("keep-alive", "1")],
            &[("x", "1"), (":path", "/")],
            &[(":path", "/")],
            &[(":status", "200")],
            &[("content-length", "+1")],
            &[("content-length", "1"), ("content-length", "2")],
            &[(":method", "CONNECT")],
        ];
        for more in bad {
            assert_eq!(fields(&[&GET, more].concat()).request().err(), Some(Refused::Malformed), "{more:?}");
        }
        for missing in [0, 1, 3] {
            let some: Vec<_> =
                GET.into_iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, field)| field).collect();
            assert_eq!(fields(&some).request().err(), Some(Refused::Malformed), "{missing}");
        }
    }

    #[test]
    fn an_answer_has_a_status_and_trailers_have_none() {
        assert_eq!(fields(&[(":status", "200")]).answer().expect("an answer").0.status(), 200);
        assert_eq!(fields(&[("x", "1")]).answer().err(), Some(Refused::Malformed));
        assert_eq!(fields(&[(":status", "200"), (":path", "/")]).answer().err(), Some(Refused::Malformed));
        assert_eq!(fields(&[("grpc-status", "0")]).trailers().expect("trailers").len(), 1);
        assert_eq!(fields(&[(":status", "200")]).trailers().err(), Some(Refused::Malformed));
    }

    #[test]
    fn what_is_too_large_is_told_apart() {
        let large = "v".repeat(20_000);
        assert_eq!(fields(&[&GET[..], &[("x", large.as_str())]].concat()).request().err(), Some(Refused::TooLarge));
        let many = vec![("cookie", "a"); 600];
        assert_eq!(fields(&[&GET[..], &many].concat()).request().err(), Some(Refused::TooLarge));
        assert!(!fields(&many).is_bomb() && fields(&many.repeat(4)).is_bomb());
    }
}
