//! From fields to a request, an answer or trailers (RFC 9113 §8).

use http::{Method, StatusCode, Version};

use super::hpack::{Field, Kind};
use crate::fields::{Fields, Name, Span};
use crate::hop::headers::clear_trailers;
use crate::message::{Answer, Request};

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
pub(crate) struct Gathered {
    method: Option<Method>,
    scheme: bool,
    authority: Option<Span>,
    path: Option<Span>,
    /// Whether one of these two is marked as a secret.
    is_secret: bool,
    status: Option<StatusCode>,
    fields: Fields,
    count: usize,
    bytes: usize,
    largest: usize,
    /// A field that is no pseudo-field has come: none of these may follow.
    is_plain: bool,
    refused: Option<Refused>,
}

impl Gathered {
    /// - `largest`: bytes of all names and values together that are read.
    pub(crate) fn new(largest: usize) -> Self {
        Self {
            method: None,
            scheme: false,
            authority: None,
            path: None,
            is_secret: false,
            status: None,
            fields: Fields::new(),
            count: 0,
            bytes: 0,
            largest,
            is_plain: false,
            refused: None,
        }
    }

    /// Takes the next field.
    pub(crate) fn put(&mut self, field: &Field<'_>) {
        self.count += 1;
        self.bytes += field.bytes();
        if self.bytes > self.largest || self.count > MAX_FIELDS {
            self.refused.get_or_insert(Refused::TooLarge);
            return;
        }
        let is_plain = matches!(field.kind, Kind::Plain(_));
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
    fn take(&mut self, field: &Field<'_>) -> bool {
        let value = field.value;
        self.is_secret |= field.is_secret && matches!(field.kind, Kind::Authority | Kind::Path);
        match field.kind {
            Kind::Method => self.method.replace(Method::from_bytes(value).unwrap_or_default()).is_none(),
            Kind::Scheme => !std::mem::replace(&mut self.scheme, true),
            Kind::Authority => self.authority.replace(self.fields.keep(value)).is_none(),
            Kind::Path => self.path.replace(self.fields.keep(value)).is_none(),
            Kind::Status => self.status.replace(StatusCode::from_bytes(value).unwrap_or_default()).is_none(),
            Kind::Plain(name) => {
                let is_sound = !is_of_connection(name, value);
                if is_sound {
                    self.fields.append(name, field.text, value, field.is_secret);
                }
                is_sound
            }
            Kind::Bad => false,
        }
    }

    /// The head of a request, and the length of its body where it says so.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn request(mut self) -> Result<(Request, Option<u64>), Refused> {
        let length = self.length()?;
        let (Some(method), None) = (self.method.take(), self.status) else { return Err(Refused::Malformed) };
        match (self.path, self.scheme, method == Method::CONNECT) {
            (Some(_), true, false) => {}
            // It is refused as a method that is not passed on.
            (None, false, true) if self.authority.is_some() => {}
            _ => return Err(Refused::Malformed),
        }
        let (authority, target, is_secret) = (self.authority, self.path, self.is_secret);
        let fields = std::mem::take(&mut self.fields);
        Ok((Request { method, version: Version::HTTP_2, fields, authority, target, is_secret }, length))
    }

    /// The head of an answer, and the length of its body where it says so.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn answer(mut self) -> Result<(Answer, Option<u64>), Refused> {
        let length = self.length()?;
        let Some(status) = self.status.filter(|_| !self.asks()) else { return Err(Refused::Malformed) };
        Ok((Answer { status, fields: std::mem::take(&mut self.fields), body: () }, length))
    }

    /// What stands behind a body.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn trailers(mut self) -> Result<Fields, Refused> {
        match self.refused {
            Some(refused) => Err(refused),
            None if self.asks() || self.status.is_some() => Err(Refused::Malformed),
            None => {
                clear_trailers(&mut self.fields);
                Ok(std::mem::take(&mut self.fields))
            }
        }
    }

    /// Whether it has what only a request may have.
    fn asks(&self) -> bool {
        self.method.is_some() || self.scheme || self.authority.is_some() || self.path.is_some()
    }

    /// The length of the body; said twice alike it is said once.
    fn length(&mut self) -> Result<Option<u64>, Refused> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let mut lengths = self.fields.all(Name::ContentLength);
        let Some(first) = lengths.next() else { return Ok(None) };
        let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(first).ok().filter(|_| is_number).and_then(|text| text.parse::<u64>().ok());
        let all_agree = lengths.all(|other| other == first);
        drop(lengths);
        let length = number.filter(|_| all_agree).ok_or(Refused::Malformed)?;
        if self.fields.only(Name::ContentLength).is_none() {
            self.fields.set_number(Name::ContentLength, length);
        }
        Ok(Some(length))
    }
}

/// What holds for a connection of HTTP/1.1 has no place here (RFC 9113 §8.2.2).
fn is_of_connection(name: Name, value: &[u8]) -> bool {
    match name {
        Name::Connection | Name::KeepAlive | Name::ProxyConnection | Name::TransferEncoding | Name::Upgrade => true,
        Name::Te => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> Gathered {
        let mut gathered = Gathered::new(10_000);
        for (text, value) in all {
            let kind = match *text {
                ":method" => Kind::Method,
                ":scheme" => Kind::Scheme,
                ":authority" => Kind::Authority,
                ":path" => Kind::Path,
                ":status" => Kind::Status,
                _ => Kind::Plain(Name::of(text.as_bytes())),
            };
            gathered.put(&Field { kind, text: text.as_bytes(), value: value.as_bytes(), is_secret: false });
        }
        gathered
    }

    const GET: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":authority", "users"), (":path", "/7?x")];

    #[test]
    fn a_request_is_put_together() {
        let (request, length) =
            fields(&[&GET[..], &[("te", "trailers"), ("content-length", "3")]].concat()).request().expect("a request");
        assert_eq!((request.authority(), request.target(), length), (Some(&b"users"[..]), Some(&b"/7?x"[..]), Some(3)));
        assert_eq!(request.fields.len(), 2);
        let twice = [("content-length", "3"), ("content-length", "3")];
        let (request, length) = fields(&[&GET[..], &twice].concat()).request().expect("a request");
        assert_eq!((request.fields.len(), length), (1, Some(3)));
    }

    #[test]
    fn a_mark_on_the_path_or_the_authority_is_kept() {
        let request = |secret: Option<Kind>| {
            let mut gathered = Gathered::new(10_000);
            let kinds = [Kind::Method, Kind::Scheme, Kind::Authority, Kind::Path];
            for (kind, (text, value)) in kinds.into_iter().zip(GET) {
                let is_secret = secret == Some(kind);
                gathered.put(&Field { kind, text: text.as_bytes(), value: value.as_bytes(), is_secret });
            }
            gathered.request().expect("a request").0.is_secret
        };
        assert_eq!(
            [None, Some(Kind::Method), Some(Kind::Authority), Some(Kind::Path)].map(request),
            [false, false, true, true]
        );
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
        assert_eq!(fields(&[(":status", "200")]).answer().expect("an answer").0.status, StatusCode::OK);
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
