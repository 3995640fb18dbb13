//! Heads and chunks of HTTP/1.1, read and written.

use bytes::{Bytes, BytesMut};
use http::Version;

use super::Run;
use crate::h1::body::{Decoder, Part};
use crate::h1::out::Out;
use crate::h1::parse::{self, Framing};
use crate::h1::write;
use crate::hop::head::Head;
use crate::message::{Answer, Request};

/// What a small client sends: one field.
pub(super) const PLAIN: &str = "GET /users/7/orders HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";

/// What a browser sends: twelve fields.
pub(super) const BROWSER: &str = "GET /users/7/orders?page=2&sort=date HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/users/7\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0f1e2d3c4b5a69788796a5b4c3d2e1f0; theme=dark\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\r\n";

/// What a service answers: eight fields.
const ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Mon, 23 Nov 2026 08:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: private, max-age=0\r\n\
    ETag: \"6921f0a0-400\"\r\n\
    Vary: Accept-Encoding\r\n\
    X-Content-Type-Options: nosniff\r\n\r\n";

const CHUNK: &str = "40\r\n{\"id\":7,\"name\":\"a line of an answer that comes as it is made\"}\n\n\r\n";
const CHUNKS: usize = 16;

/// A request as `h1::server` has it.
pub(super) fn request_of(text: &str) -> Option<Request> {
    Some(parse::request(&mut BytesMut::from(text)).ok()??.0)
}

fn answer() -> Option<Answer> {
    Some(parse::answer(&mut BytesMut::from(ANSWER)).ok()??.0)
}

pub(super) fn read_request(text: &'static str, fields: usize) -> Option<Run> {
    Some(Box::new(move || {
        let Ok(Some((request, facts))) = parse::request(&mut read(text)) else { return false };
        facts.keeps && request.fields.len() == fields
    }))
}

pub(super) fn read_answer() -> Option<Run> {
    Some(Box::new(|| {
        let Ok(Some((answer, facts))) = parse::answer(&mut read(ANSWER)) else { return false };
        facts.framing == Framing::Length(1024) && answer.fields.len() == 8
    }))
}

/// A body of sixteen chunks that came in one read.
pub(super) fn read_chunks() -> Option<Run> {
    let text = format!("{}0\r\n\r\n", CHUNK.repeat(CHUNKS));
    Some(Box::new(move || {
        let mut buf = read(&text);
        let mut decoder = Decoder::of_answer(Framing::Chunked);
        let mut chunks = 0;
        loop {
            match decoder.next(&mut buf) {
                Ok(Part::Data(data)) if data.len() == 64 => chunks += 1,
                Ok(Part::End) => return chunks == CHUNKS,
                _ => return false,
            }
        }
    }))
}

pub(super) fn write_request() -> Option<Run> {
    let request = request_of(BROWSER)?;
    let head = Head::check(&request, true).ok()?;
    let mut out = Out::default();
    Some(Box::new(move || {
        out.tail().clear();
        let framing = write::request(&mut out, &head, &request.fields, Some(0));
        framing == write::Framing::None && out.len() == BROWSER.len()
    }))
}

pub(super) fn write_answer() -> Option<Run> {
    let answer = answer()?.with(Bytes::new());
    let asked = write::Asked { is_head: false, version: Version::HTTP_11, keeps: true };
    let mut out = Out::default();
    Some(Box::new(move || {
        out.tail().clear();
        let (framing, keeps) = write::answer(&mut out, &answer, Some(1024), asked);
        framing == write::Framing::Length(1024) && keeps && out.len() == ANSWER.len()
    }))
}

/// A buffer as a read leaves it.
fn read(text: &str) -> BytesMut {
    let mut buf = BytesMut::new();
    buf.extend_from_slice(text.as_bytes());
    buf
}
