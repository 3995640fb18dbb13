//! Heads of HTTP/1.1 messages as they go out, and bodies framed anew.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use synego_runtime::clock;

use super::out::Out;

/// How the end of a body that goes out is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    None,
    /// By a length that stands in the head.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    ToEnd,
}

/// What an answer's head depends on besides the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Whether it was `HEAD`.
    pub(crate) is_head: bool,
    pub(crate) version: Version,
    /// Whether the connection goes on after it.
    pub(crate) keeps: bool,
}

thread_local! {
    /// The date of the last answer without one, and the second in which it was made.
    static LAST_DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// Writes the head of a request; `length`: of its body, where it is known. Returns how its body is framed.
pub(crate) fn request(
    out: &mut Out,
    method: &Method,
    target: &PathAndQuery,
    host: &HeaderValue,
    headers: &HeaderMap,
    length: Option<u64>,
) -> Framing {
    let tail = out.tail();
    put(tail, &[method.as_str().as_bytes(), b" ", target.as_str().as_bytes(), b" HTTP/1.1\r\n"]);
    put(tail, &[b"host: ", host.as_bytes(), b"\r\n"]);
    let mut said = false;
    for (name, value) in headers {
        if name == HOST || name == TRANSFER_ENCODING {
            continue;
        }
        said |= name == CONTENT_LENGTH;
        put(tail, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    let wants_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let framing = match length {
        Some(0) if !said && wants_body => {
            put(tail, &[b"content-length: 0\r\n"]);
            Framing::None
        }
        Some(0) => Framing::None,
        Some(length) => {
            if !said {
                put_length(tail, length);
            }
            Framing::Length(length)
        }
        None => {
            put(tail, &[b"transfer-encoding: chunked\r\n"]);
            Framing::Chunked
        }
    };
    put(tail, &[b"\r\n"]);
    framing
}

/// Writes the head of an answer; `length`: of its body, where it is known. Returns how its body is framed, and whether
/// the connection goes on after it.
pub(crate) fn answer<B>(out: &mut Out, answer: &Response<B>, length: Option<u64>, asked: Asked) -> (Framing, bool) {
    let status = answer.status();
    let tail = out.tail();
    let reason = status.canonical_reason().unwrap_or("");
    put(tail, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let bare = status.is_informational() || status == StatusCode::NO_CONTENT;
    let framing = match length {
        _ if bare || asked.is_head || status == StatusCode::NOT_MODIFIED => Framing::None,
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::ToEnd,
    };
    let keeps = asked.keeps && framing != Framing::ToEnd && !says_close(answer.headers());
    let (mut said, mut dated) = (false, false);
    for (name, value) in answer.headers() {
        if name == CONTENT_LENGTH {
            if bare || framing == Framing::Chunked || std::mem::replace(&mut said, true) {
                continue;
            }
        } else if name == TRANSFER_ENCODING || (name == CONNECTION && !is_upgrade) {
            continue;
        }
        dated |= name == DATE;
        put(tail, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    match framing {
        Framing::Length(length) if !said => put_length(tail, length),
        Framing::Chunked => put(tail, &[b"transfer-encoding: chunked\r\n"]),
        _ => {}
    }
    if !dated && !is_upgrade {
        put_date(tail);
    }
    match (keeps, asked.version) {
        _ if is_upgrade => {}
        (false, _) => put(tail, &[b"connection: close\r\n"]),
        (true, Version::HTTP_10) => put(tail, &[b"connection: keep-alive\r\n"]),
        (true, _) => {}
    }
    put(tail, &[b"\r\n"]);
    (framing, keeps)
}

/// Writes a part of a body.
pub(crate) fn data(out: &mut Out, framing: Framing, data: Bytes) {
    if data.is_empty() {
        return;
    }
    match framing {
        Framing::None => {}
        Framing::Length(_) | Framing::ToEnd => out.push(data),
        Framing::Chunked => {
            // Writing to memory cannot fail.
            let _ = write!(out.tail(), "{:x}\r\n", data.len());
            out.push(data);
            put(out.tail(), &[b"\r\n"]);
        }
    }
}

/// Writes the end of a body.
pub(crate) fn end(out: &mut Out, framing: Framing, trailers: Option<&HeaderMap>) {
    if framing != Framing::Chunked {
        return;
    }
    put(out.tail(), &[b"0\r\n"]);
    for (name, value) in trailers.into_iter().flatten() {
        put(out.tail(), &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    put(out.tail(), &[b"\r\n"]);
}

/// Tells a client that waits to send its body.
pub(crate) fn go_on(out: &mut Out) {
    put(out.tail(), &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn put(tail: &mut Vec<u8>, parts: &[&[u8]]) {
    tail.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| tail.extend_from_slice(part));
}

fn put_length(tail: &mut Vec<u8>, length: u64) {
    // Writing to memory cannot fail.
    let _ = write!(tail, "content-length: {length}\r\n");
}

/// An answer without a date gets one here (RFC 9110 §6.6.1).
fn put_date(tail: &mut Vec<u8>) {
    put(tail, &[b"date: ", date().as_bytes(), b"\r\n"]);
}

/// The date of an answer that is made now.
pub(crate) fn date() -> HeaderValue {
    LAST_DATE.with_borrow_mut(|(second, date)| {
        let now = clock::unix_ms() / 1000;
        if *second != now {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now);
            *second = now;
            *date = HeaderValue::try_from(httpdate::fmt_http_date(time)).unwrap_or(HeaderValue::from_static(""));
        }
        date.clone()
    })
}
