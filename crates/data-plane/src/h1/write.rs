//! Heads of HTTP/1.1 messages as they go out, and bodies framed anew.

use std::cell::RefCell;
use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use synego_runtime::clock;

use super::out::Out;
use crate::fields::{self, Fields, Name, Names};
use crate::hop::head::Head;
use crate::message::Answer;

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

/// The bytes of a date, as RFC 9110 §5.6.7 wants it.
const DATE: usize = 29;

/// What is written anew for the next hop.
const OWN: Names = Names::of(&[Name::Host, Name::TransferEncoding]);

thread_local! {
    /// The date of the last answer without one, and the second in which it was made.
    static LAST_DATE: RefCell<(u64, [u8; DATE])> = const { RefCell::new((0, [b' '; DATE])) };
}

/// Writes the head of a request; `length`: of its body, where it is known. Returns how its body is framed.
pub(crate) fn request(out: &mut Out, head: &Head, fields: &Fields, length: Option<u64>) -> Framing {
    let tail = out.tail();
    put(tail, &[head.method.as_str().as_bytes(), b" ", head.target().as_bytes(), b" HTTP/1.1\r\n"]);
    put(tail, &[b"host: ", head.authority().as_bytes(), b"\r\n"]);
    fields.write(|name| OWN.has(name), tail);
    let said = fields.has(Name::ContentLength);
    let wants_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
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
pub(crate) fn answer<B>(out: &mut Out, answer: &Answer<B>, length: Option<u64>, asked: Asked) -> (Framing, bool) {
    let Answer { status, fields, .. } = answer;
    let status = *status;
    let tail = out.tail();
    put_status(tail, status);
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let bare = status.is_informational() || status == StatusCode::NO_CONTENT;
    let framing = match length {
        _ if bare || asked.is_head || status == StatusCode::NOT_MODIFIED => Framing::None,
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::ToEnd,
    };
    let keeps = asked.keeps && framing != Framing::ToEnd && !says_close(fields);
    let keeps_length = !bare && framing != Framing::Chunked;
    let said = keeps_length && fields.has(Name::ContentLength);
    let but = |name| match name {
        Name::ContentLength => !keeps_length,
        Name::TransferEncoding => true,
        Name::Connection => !is_upgrade,
        _ => false,
    };
    fields.write(but, tail);
    match framing {
        Framing::Length(length) if !said => put_length(tail, length),
        Framing::Chunked => put(tail, &[b"transfer-encoding: chunked\r\n"]),
        _ => {}
    }
    if !fields.has(Name::Date) && !is_upgrade {
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

/// Writes an interim answer (1xx): its head is all of it.
pub(crate) fn interim(out: &mut Out, answer: &Answer) {
    let tail = out.tail();
    put_status(tail, answer.status);
    answer.fields.write(|_| false, tail);
    put(tail, &[b"\r\n"]);
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
pub(crate) fn end(out: &mut Out, framing: Framing, trailers: Option<&Fields>) {
    if framing != Framing::Chunked {
        return;
    }
    put(out.tail(), &[b"0\r\n"]);
    if let Some(trailers) = trailers {
        trailers.write(|_| false, out.tail());
    }
    put(out.tail(), &[b"\r\n"]);
}

/// Tells a client that waits to send its body.
pub(crate) fn go_on(out: &mut Out) {
    put(out.tail(), &[b"HTTP/1.1 100 Continue\r\n\r\n"]);
}

fn says_close(fields: &Fields) -> bool {
    fields.get(Name::Connection).is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
}

fn put(tail: &mut Vec<u8>, parts: &[&[u8]]) {
    tail.reserve(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| tail.extend_from_slice(part));
}

fn put_status(tail: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or("");
    put(tail, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

fn put_length(tail: &mut Vec<u8>, length: u64) {
    tail.extend_from_slice(b"content-length: ");
    fields::decimal(length, tail);
    tail.extend_from_slice(b"\r\n");
}

/// An answer without a date gets one here (RFC 9110 §6.6.1).
fn put_date(tail: &mut Vec<u8>) {
    put(tail, &[b"date: ", &date(), b"\r\n"]);
}

/// The date of an answer that is made now.
pub(crate) fn date() -> [u8; DATE] {
    LAST_DATE.with_borrow_mut(|(second, date)| {
        let now = clock::unix_ms() / 1000;
        if *second != now {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now);
            *second = now;
            date.copy_from_slice(format!("{:<DATE$.DATE$}", httpdate::fmt_http_date(time)).as_bytes());
        }
        *date
    })
}
