//! Heads of HTTP/1.1 messages, read in place.
//!
//! Names and values are slices of the bytes that came; only names that are not registered are copied.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::fault::{self, Fault};
use super::maps;
use crate::hop::headers::clear_trailers;

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

/// Where a name and its value lie.
type Place = [usize; 4];

thread_local! {
    static PLACES: RefCell<Vec<Place>> = RefCell::new(Vec::with_capacity(MAX_HEADERS));
}

/// Takes the head of a request off the front of `buf`; `None`: it is not complete yet.
///
/// # Errors
/// [`Fault`]: nothing was taken, and what follows has no certain beginning.
pub(crate) fn request(buf: &mut BytesMut) -> Result<Option<(Request<()>, Facts)>, Fault> {
    PLACES.with_borrow_mut(|places| {
        let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
        let mut head = httparse::Request::new(&mut []);
        let parsed = head.parse_with_uninit_headers(buf, &mut headers);
        let Some(length) = length(parsed, buf)? else { return Ok(None) };
        check_lines(buf.get(..length).unwrap_or_default())?;
        let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
            return Err(Fault::BadStart);
        };
        if target.len() > MAX_TARGET {
            return Err(Fault::TargetTooLong);
        }
        if target.as_bytes().contains(&b'#') {
            return Err(Fault::Fragment);
        }
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| Fault::BadStart)?;
        let target = place(buf, target.as_bytes());
        note(places, buf, head.headers);
        let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let taken = buf.split_to(length).freeze();
        let mut request = Request::new(());
        *request.headers_mut() = maps::take();
        *request.method_mut() = method;
        *request.version_mut() = version;
        *request.uri_mut() = Uri::from_maybe_shared(cut(&taken, target)).map_err(|_| Fault::BadStart)?;
        let facts = fields(&taken, places, version, request.headers_mut())?;
        Ok(Some((request, facts)))
    })
}

/// Takes the head of an answer off the front of `buf`; `None`: it is not complete yet.
///
/// # Errors
/// [`Fault`]: nothing was taken.
pub(crate) fn answer(buf: &mut BytesMut) -> Result<Option<(Response<()>, Facts)>, Fault> {
    PLACES.with_borrow_mut(|places| {
        let mut headers = [MaybeUninit::uninit(); MAX_HEADERS];
        let mut head = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut head, buf, &mut headers);
        let Some(length) = length(parsed, buf)? else { return Ok(None) };
        check_lines(buf.get(..length).unwrap_or_default())?;
        let (Some(code), Some(version)) = (head.code, head.version) else { return Err(Fault::BadStart) };
        let status = StatusCode::from_u16(code).map_err(|_| Fault::BadStart)?;
        note(places, buf, head.headers);
        let version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let taken = buf.split_to(length).freeze();
        let mut answer = Response::new(());
        *answer.headers_mut() = maps::take();
        *answer.status_mut() = status;
        *answer.version_mut() = version;
        let facts = fields(&taken, places, version, answer.headers_mut())?;
        Ok(Some((answer, facts)))
    })
}

/// Takes the trailers of a chunked body off the front of `buf`; `None`: they are not complete yet.
///
/// # Errors
/// [`Fault`]: they cannot be read, or hold what only a head may say.
pub(crate) fn trailers(buf: &mut BytesMut) -> Result<Option<HeaderMap>, Fault> {
    PLACES.with_borrow_mut(|places| {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS / 4];
        let (length, found) = match httparse::parse_headers(buf, &mut headers) {
            Ok(httparse::Status::Complete(complete)) => complete,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Fault::BadTrailers),
        };
        check_lines(buf.get(..length).unwrap_or_default())?;
        note(places, buf, found);
        let taken = buf.split_to(length).freeze();
        let mut trailers = HeaderMap::new();
        fields(&taken, places, Version::HTTP_11, &mut trailers)?;
        clear_trailers(&mut trailers);
        Ok(Some(trailers))
    })
}

fn length(parsed: httparse::Result<usize>, bytes: &[u8]) -> Result<Option<usize>, Fault> {
    match parsed {
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Fault::TooLarge),
        Err(_) => Err(fault::of_head(bytes)),
    }
}

/// Every line ends with CR LF: other servers may take a bare line feed for the end of a line, or not.
fn check_lines(head: &[u8]) -> Result<(), Fault> {
    let ends_well = |at: usize| at.checked_sub(1).and_then(|before| head.get(before)) == Some(&b'\r');
    if memchr::memchr_iter(b'\n', head).all(ends_well) { Ok(()) } else { Err(Fault::BareLf) }
}

/// Where `part` lies in `whole`, of which it is a part.
fn place(whole: &[u8], part: &[u8]) -> [usize; 2] {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    [from, from + part.len()]
}

fn note(places: &mut Vec<Place>, whole: &[u8], headers: &[httparse::Header<'_>]) {
    places.clear();
    places.extend(headers.iter().map(|header| {
        let [[name, name_end], [value, value_end]] = [place(whole, header.name.as_bytes()), place(whole, header.value)];
        [name, name_end, value, value_end]
    }));
}

fn cut(whole: &Bytes, [from, to]: [usize; 2]) -> Bytes {
    whole.slice(from..to)
}

/// Makes the map of headers, and finds what they say of the message.
fn fields(head: &Bytes, places: &[Place], version: Version, map: &mut HeaderMap) -> Result<Facts, Fault> {
    map.reserve(places.len() + 6);
    let mut facts = Facts { framing: Framing::Unsaid, keeps: version == Version::HTTP_11, waits: false };
    for [name, name_end, value, value_end] in places {
        let name = head.get(*name..*name_end).unwrap_or_default();
        let name = HeaderName::from_bytes(name).map_err(|_| Fault::BadName)?;
        let value = cut(head, [*value, *value_end]);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Fault::BadValue)?;
        if name == CONTENT_LENGTH {
            let length = number(value.as_bytes()).ok_or(Fault::BadLength)?;
            match facts.framing {
                Framing::Unsaid => facts.framing = Framing::Length(length),
                // Said twice alike is said once.
                Framing::Length(former) if former == length => continue,
                Framing::Length(_) => return Err(Fault::TwoLengths),
                Framing::Chunked => return Err(Fault::CodingAndLength),
            }
        } else if name == TRANSFER_ENCODING {
            if version != Version::HTTP_11 {
                return Err(Fault::CodingInHttp10);
            }
            if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::BadCoding);
            }
            match facts.framing {
                Framing::Unsaid => facts.framing = Framing::Chunked,
                Framing::Length(_) => return Err(Fault::CodingAndLength),
                Framing::Chunked => return Err(Fault::BadCoding),
            }
        } else if name == CONNECTION {
            for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                facts.keeps &= !token.eq_ignore_ascii_case(b"close");
                facts.keeps |= version == Version::HTTP_10 && token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == EXPECT {
            facts.waits = version == Version::HTTP_11 && value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
        map.append(name, value);
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

    fn read(text: &str) -> Result<Option<(Request<()>, Facts)>, Fault> {
        request(&mut BytesMut::from(text))
    }

    #[test]
    fn a_head_is_taken_and_what_follows_is_left() {
        let mut buf =
            BytesMut::from("\r\nPOST /a?b HTTP/1.1\r\nHost: users\r\nX-Own:  v \r\ncontent-length: 3\r\n\r\nabcGET");
        let (head, facts) = request(&mut buf).expect("sound").expect("complete");
        assert_eq!((head.method(), head.uri().path(), head.uri().query()), (&Method::POST, "/a", Some("b")));
        assert_eq!(
            (&head.headers()["host"], &head.headers()["x-own"]),
            (&"users".parse().expect("v"), &"v".parse().expect("v"))
        );
        assert_eq!(facts, Facts { framing: Framing::Length(3), keeps: true, waits: false });
        assert_eq!(&buf[..], b"abcGET");
        for text in ["", "GET / HTTP/1.1\r\nhost: a\r\n\r", "GET / HTTP/1.1\r", "GE"] {
            assert!(matches!(read(text), Ok(None)), "{text:?}");
        }
    }

    #[test]
    fn a_connection_is_kept_or_not_as_its_head_says() {
        let keeps = |text: &str| read(text).expect("sound").expect("complete").1.keeps;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n") && keeps("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n") && !keeps("GET / HTTP/1.1\r\nconnection: x, Close\r\n\r\n"));
        assert!(read("PUT / HTTP/1.1\r\nexpect: 100-Continue\r\n\r\n").expect("sound").expect("complete").1.waits);
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
            assert_eq!(read(&text).err(), Some(expected), "{text:?}");
        }
        for (text, expected) in [
            ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Fragment),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Fault::CodingInHttp10),
            ("GET /\r\n\r\n", Fault::BadStart),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::BadStart),
            ("GET / HTTP/2.0\r\n\r\n", Fault::BadStart),
            ("GET / HTTP/1.1\n\n", Fault::BareLf),
        ] {
            assert_eq!(read(text).err(), Some(expected), "{text:?}");
        }
        let twice = "POST / HTTP/1.1\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\n";
        let (head, facts) = read(twice).expect("sound").expect("complete");
        assert_eq!((facts.framing, head.headers().get_all("content-length").iter().count()), (Framing::Length(3), 1));
    }

    #[test]
    fn an_answer_tells_its_status_and_its_end() {
        let read = |text: &str| answer(&mut BytesMut::from(text)).map(|head| head.expect("complete"));
        let (head, facts) = read("HTTP/1.1 204\r\n\r\n").expect("sound");
        assert_eq!((head.status().as_u16(), facts.framing, facts.keeps), (204, Framing::Unsaid, true));
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
        assert_eq!((found.len(), &found["x-sum"], &buf[..]), (1, &"1".parse().expect("v"), &b"rest"[..]));
        assert_eq!(trailers(&mut BytesMut::from("\r\n")), Ok(Some(HeaderMap::new())));
        assert_eq!(trailers(&mut BytesMut::from("x: 1\r\n")), Ok(None));
        assert_eq!(trailers(&mut BytesMut::from("x: 1\n\r\n")), Err(Fault::BareLf));
        assert_eq!(trailers(&mut BytesMut::from("a b\r\n\r\n")), Err(Fault::BadTrailers));
    }
}
