//! Heads of HTTP/1.1 messages: found where they lie, checked, and copied once.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode, Uri, Version};

use super::fault::{self, Fault};
use crate::fields::{Fields, Name, Span};
use crate::hop::headers::clear_trailers;
use crate::hop::path;
use crate::message::{Answer, Request};

/// More headers than this are not looked at.
const MAX_HEADERS: usize = 256;

/// A longer target is none; the limits of a request lie far below.
const MAX_TARGET: usize = 60 * 1024;

/// How the end of a message's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Of requests: there is none. Of answers: it ends with the connection.
    Unsaid,
    /// By its length.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What a head says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) framing: Framing,
    /// Whether the connection may take another message.
    pub(crate) keeps: bool,
    /// Whether the sender waits for a word before it sends the body.
    pub(crate) waits: bool,
}

/// Takes the head of a request off the front of `buf`; `None`: it is not complete yet.
///
/// # Errors
/// [`Fault`]: nothing was taken, and what follows has no certain beginning.
pub(crate) fn request(buf: &mut BytesMut) -> Result<Option<(Request, Facts)>, Fault> {
    let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut head = httparse::Request::new(&mut []);
    let parsed = head.parse_with_uninit_headers(buf, &mut headers);
    let Some(length) = length(parsed, buf)? else { return Ok(None) };
    let bytes = buf.get(..length).unwrap_or_default();
    check_lines(bytes)?;
    let (Some(method), Some(path), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Fault::BadStart);
    };
    if path.len() > MAX_TARGET {
        return Err(Fault::TargetTooLong);
    }
    if path.as_bytes().contains(&b'#') {
        return Err(Fault::Fragment);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Fault::BadStart)?;
    let version = version_of(version);
    let mut fields = Fields::copy(bytes);
    let facts = read(&mut fields, bytes, head.headers, version)?;
    let (authority, target) = target(&mut fields, path, place(bytes, path.as_bytes()))?;
    buf.advance(length);
    Ok(Some((Request { method, version, fields, authority, target, is_secret: false }, facts)))
}

/// Takes the head of an answer off the front of `buf`; `None`: it is not complete yet.
///
/// # Errors
/// [`Fault`]: nothing was taken.
pub(crate) fn answer(buf: &mut BytesMut) -> Result<Option<(Answer, Facts)>, Fault> {
    let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
    let mut head = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, buf, &mut headers);
    let Some(length) = length(parsed, buf)? else { return Ok(None) };
    let bytes = buf.get(..length).unwrap_or_default();
    check_lines(bytes)?;
    let (Some(code), Some(version)) = (head.code, head.version) else { return Err(Fault::BadStart) };
    let status = StatusCode::from_u16(code).map_err(|_| Fault::BadStart)?;
    let mut fields = Fields::copy(bytes);
    let facts = read(&mut fields, bytes, head.headers, version_of(version))?;
    buf.advance(length);
    Ok(Some((Answer { status, fields, body: () }, facts)))
}

/// Takes the trailers of a chunked body off the front of `buf`; `None`: they are not complete yet.
///
/// # Errors
/// [`Fault`]: they cannot be read, or hold what only a head may say.
pub(crate) fn trailers(buf: &mut BytesMut) -> Result<Option<Fields>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS / 4];
    let (length, found) = match httparse::parse_headers(buf, &mut headers) {
        Ok(httparse::Status::Complete(complete)) => complete,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Fault::BadTrailers),
    };
    let bytes = buf.get(..length).unwrap_or_default();
    check_lines(bytes)?;
    let mut trailers = Fields::copy(bytes);
    read(&mut trailers, bytes, found, Version::HTTP_11)?;
    clear_trailers(&mut trailers);
    buf.advance(length);
    Ok(Some(trailers))
}

fn length(parsed: httparse::Result<usize>, bytes: &[u8]) -> Result<Option<usize>, Fault> {
    match parsed {
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooLarge),
        Err(_) => Err(fault::of_head(bytes)),
    }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// Every line ends with CR LF: other servers may take a bare line feed for the end of a line, or not.
fn check_lines(head: &[u8]) -> Result<(), Fault> {
    let ends_well = |at: usize| at.checked_sub(1).and_then(|before| head.get(before)) == Some(&b'\r');
    if memchr::memchr_iter(b'\n', head).all(ends_well) { Ok(()) } else { Err(Fault::BareLf) }
}

/// Where `part` lies in `whole`, of which it is a part.
fn place(whole: &[u8], part: &[u8]) -> Range<usize> {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    from..from + part.len()
}

/// What a target says: the authority, and path with query.
fn target(fields: &mut Fields, text: &str, place: Range<usize>) -> Result<(Option<Span>, Option<Span>), Fault> {
    if text.starts_with('/') {
        let sound = path::is_target(text.as_bytes()).then(|| Span::of(place));
        return sound.map(|span| (None, Some(span))).ok_or(Fault::BadStart);
    }
    let uri: Uri = text.parse().map_err(|_| Fault::BadStart)?;
    let authority = uri.authority().map(|authority| fields.keep(authority.as_str().as_bytes()));
    let target = match (uri.path(), uri.query()) {
        ("", _) => None,
        (path, None) => Some(fields.keep(path.as_bytes())),
        // Of `http://a?x` the path is `/`, though none is written.
        (path, Some(query)) => Some(fields.keep(format!("{path}?{query}").as_bytes())),
    };
    Ok((authority, target))
}

/// Notes where the fields lie, and finds what they say of the message.
fn read(fields: &mut Fields, head: &[u8], found: &[httparse::Header<'_>], version: Version) -> Result<Facts, Fault> {
    let mut facts = Facts { framing: Framing::Unsaid, keeps: version == Version::HTTP_11, waits: false };
    for header in found {
        let (name, value) = fields.point(place(head, header.name.as_bytes()), place(head, header.value));
        match name {
            Name::ContentLength => {
                let length = number(value).ok_or(Fault::BadLength)?;
                match facts.framing {
                    Framing::Unsaid => facts.framing = Framing::Length(length),
                    // Said twice alike is said once.
                    Framing::Length(former) if former == length => fields.forget_last(),
                    Framing::Length(_) => return Err(Fault::TwoLengths),
                    Framing::Chunked => return Err(Fault::CodingAndLength),
                }
            }
            Name::TransferEncoding => {
                if version != Version::HTTP_11 {
                    return Err(Fault::CodingInHttp10);
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::BadCoding);
                }
                match facts.framing {
                    Framing::Unsaid => facts.framing = Framing::Chunked,
                    Framing::Length(_) => return Err(Fault::CodingAndLength),
                    Framing::Chunked => return Err(Fault::BadCoding),
                }
            }
            Name::Connection => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    facts.keeps &= !token.eq_ignore_ascii_case(b"close");
                    facts.keeps |= version == Version::HTTP_10 && token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Name::Expect => facts.waits = version == Version::HTTP_11 && value.eq_ignore_ascii_case(b"100-continue"),
            _ => {}
        }
    }
    Ok(facts)
}

/// Digits alone: no sign, no blank, no list.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> Result<Option<(Request, Facts)>, Fault> {
        request(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_taken_and_what_follows_is_left() {
        let mut buf =
            BytesMut::from("\r\nPOST /a?b HTTP/1.1\r\nHost: users\r\nX-Own:  v \r\ncontent-length: 3\r\n\r\nabcGET");
        let (head, facts) = request(&mut buf).expect("sound").expect("complete");
        assert_eq!((head.method.as_str(), head.target(), head.authority()), ("POST", Some(&b"/a?b"[..]), None));
        assert_eq!(head.fields.get(Name::Host), Some(&b"users"[..]));
        assert_eq!(head.fields.named("x-own").collect::<Vec<_>>(), [b"v"]);
        assert_eq!(facts, Facts { framing: Framing::Length(3), keeps: true, waits: false });
        assert_eq!(&buf[..], b"abcGET");
        for text in ["", "GET / HTTP/1.1\r\nhost: a\r\n\r", "GET / HTTP/1.1\r", "GE"] {
            assert!(matches!(taken(text), Ok(None)), "{text:?}");
        }
    }

    #[test]
    fn an_absolute_target_is_taken_apart() {
        for (text, authority, target) in [
            ("http://users/7?x", Some(&b"users"[..]), Some(&b"/7?x"[..])),
            ("http://users?x", Some(b"users"), Some(b"/?x")),
            ("http://users:80", Some(b"users:80"), Some(b"/")),
            ("users:443", Some(b"users:443"), None),
            ("*", None, Some(b"*")),
        ] {
            let (head, _) = taken(&format!("GET {text} HTTP/1.1\r\n\r\n")).expect("sound").expect("complete");
            assert_eq!((head.authority(), head.target()), (authority, target), "{text}");
        }
        for bad in ["/<", "/a?\"", "/`", "http://", "a b"] {
            assert_eq!(taken(&format!("GET {bad} HTTP/1.1\r\n\r\n")).err(), Some(Fault::BadStart), "{bad}");
        }
    }

    #[test]
    fn a_head_with_a_fault_is_left_where_it_is() {
        let text = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n";
        let mut buf = BytesMut::from(text);
        assert!(request(&mut buf).is_err());
        assert_eq!(&buf[..], text.as_bytes());
    }

    #[test]
    fn a_connection_is_kept_or_not_as_its_head_says() {
        let keeps = |text: &str| taken(text).expect("sound").expect("complete").1.keeps;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n") && keeps("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n") && !keeps("GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n"));
        assert!(taken("PUT / HTTP/1.1\r\nexpect: 100-Continue\r\n\r\n").expect("sound").expect("complete").1.waits);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_a_fault() {
        for (lines, expected) in [
            ("x: 1\n", Fault::BareLf),
            ("x: 1\r2", Fault::BareCr),
            ("x: \0", Fault::Nul),
            ("x: 1\r\n y\r\n", Fault::Folded),
            ("x\r\n", Fault::NoColon),
            (": 1\r\n", Fault::BadName),
            ("x : 1\r\n", Fault::BadName),
            ("x: \u{1}\r\n", Fault::BadValue),
            ("content-length: +3\r\n", Fault::BadLength),
            ("content-length: 3, 3\r\n", Fault::BadLength),
            ("content-length:\r\n", Fault::BadLength),
            ("content-length: 99999999999999999999\r\n", Fault::BadLength),
            ("content-length: 3\r\ncontent-length: 4\r\n", Fault::TwoLengths),
            ("transfer-encoding: gzip, chunked\r\n", Fault::BadCoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Fault::BadCoding),
            ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", Fault::CodingAndLength),
            ("content-length: 3\r\ntransfer-encoding: chunked\r\n", Fault::CodingAndLength),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(taken(&text).err(), Some(expected), "{text:?}");
        }
        for (text, expected) in [
            ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Fragment),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Fault::CodingInHttp10),
            ("GET /\r\n\r\n", Fault::BadStart),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::BadStart),
            ("GET / HTTP/2.0\r\n\r\n", Fault::BadStart),
            ("GET / HTTP/1.1\n\n", Fault::BareLf),
        ] {
            assert_eq!(taken(text).err(), Some(expected), "{text:?}");
        }
        let twice = "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n";
        let (head, facts) = taken(twice).expect("sound").expect("complete");
        assert_eq!((facts.framing, head.fields.all(Name::ContentLength).count()), (Framing::Length(3), 1));
    }

    #[test]
    fn an_answer_tells_its_status_and_its_end() {
        let read = |text: &str| answer(&mut BytesMut::from(text)).map(|head| head.expect("complete"));
        let (head, facts) = read("HTTP/1.1 204\r\n\r\n").expect("sound");
        assert_eq!((head.status.as_u16(), facts.framing, facts.keeps), (204, Framing::Unsaid, true));
        let (_, facts) =
            read("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").expect("sound");
        assert_eq!((facts.framing, facts.keeps), (Framing::Chunked, false));
        for bad in [
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx: 1\n\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn trailers_hold_no_framing() {
        let mut buf = BytesMut::from("x-sum: 1\r\ncontent-length: 9\r\n\r\nrest");
        let found = trailers(&mut buf).expect("sound").expect("complete");
        let sum: Vec<_> = found.named("x-sum").collect();
        assert_eq!((found.len(), sum, &buf[..]), (1, vec![&b"1"[..]], &b"rest"[..]));
        assert_eq!(trailers(&mut BytesMut::from("\r\n")), Ok(Some(Fields::default())));
        assert_eq!(trailers(&mut BytesMut::from("x: 1\r\n")), Ok(None));
        assert_eq!(trailers(&mut BytesMut::from("x: 1\n\r\n")), Err(Fault::BareLf));
        assert_eq!(trailers(&mut BytesMut::from("a b\r\n\r\n")), Err(Fault::BadTrailers));
    }
}
