//! Heads of gRPC on HTTP/2, read and written: the first ones of a connection, and those that follow.

use http::{Method, StatusCode};

use super::Run;
use crate::fields::{Fields, Name};
use crate::h2::head::Gathered;
use crate::h2::hpack::{Decoder, Encoder};
use crate::message::Request;

/// Bytes of a head that are read.
const LARGEST: usize = 64 * 1024;
/// Encoders that are tried at most until one suits.
const TRIES: usize = 1000;
/// The first id of a request; all that follow have as many digits.
const FIRST_ID: u64 = 10_000_000_000_000_000_000;

/// `POST http://inventory.synego:8080/shop.v1.Inventory/GetItem` with `content-type`, `user-agent`, `te` and
/// `grpc-timeout`: in Huffman's code, all for the table.
#[rustfmt::skip]
const REQUEST: &[u8] = &[
    0x83, 0x86, 0x44, 0x93, 0x61, 0x13, 0x9e, 0xb5, 0xfb, 0x85, 0x7c, 0x95, 0x77, 0x2d, 0x49, 0x3d, 0x9e, 0x98, 0xc4,
    0x54, 0xe4, 0x49, 0x69, 0x41, 0x90, 0x35, 0x5d, 0xcb, 0x52, 0x4f, 0x67, 0xa5, 0xd1, 0xea, 0xa2, 0xcc, 0x7b, 0x8f,
    0x01, 0xe0, 0x7f, 0x5f, 0x8b, 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64, 0x7a, 0x8a, 0x9a,
    0xca, 0xc8, 0xb4, 0xc7, 0x60, 0x2b, 0xba, 0xe2, 0xe0, 0x40, 0x82, 0x49, 0x7f, 0x86, 0x4d, 0x83, 0x35, 0x05, 0xb1,
    0x1f, 0x40, 0x89, 0x9a, 0xca, 0xc8, 0xb2, 0x4d, 0x49, 0x4f, 0x6a, 0x7f, 0x85, 0x7d, 0xf7, 0xde, 0x08, 0xad,
];

/// The same from the table, with another `grpc-timeout`.
const REQUEST_AGAIN: &[u8] =
    &[0x83, 0x86, 0xc3, 0xc2, 0xc1, 0xc0, 0xbf, 0x0f, 0x2f, 0x86, 0x7d, 0xf7, 0x9d, 0x69, 0xbb, 0x7f];

/// 200 with `content-type` and `x-request-id`.
const ANSWER: &[u8] = &[
    0x88, 0x5f, 0x8b, 0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64, 0x40, 0x89, 0xf2, 0xb5, 0x85,
    0xed, 0x69, 0x50, 0x95, 0x8d, 0x27, 0x97, 0x6e, 0x50, 0x10, 0x43, 0x7c, 0xa1, 0x76, 0x36, 0x5a, 0x91, 0xc7, 0x1e,
    0x78, 0x61, 0x23, 0x25, 0x6e, 0x57, 0x40, 0xf8, 0xa3, 0x6a, 0x4f,
];

/// The same with another `x-request-id`.
const ANSWER_AGAIN: &[u8] = &[
    0x88, 0xbf, 0x0f, 0x2f, 0x97, 0x08, 0xc5, 0x1b, 0x24, 0x6a, 0x46, 0xca, 0xe4, 0xae, 0x81, 0xe0, 0xbc, 0x27, 0xd9,
    0x1b, 0x51, 0xb6, 0x47, 0x24, 0x74, 0xaf, 0x4a, 0xff,
];

fn read(decoder: &mut Decoder, block: &[u8]) -> Option<Gathered> {
    let mut gathered = Gathered::new(LARGEST);
    decoder.decode(block, |field| gathered.put(&field)).ok()?;
    Some(gathered)
}

fn request(decoder: &mut Decoder, block: &[u8]) -> Option<Request> {
    Some(read(decoder, block)?.request().ok()?.0)
}

/// Whether the request is the one that was sent.
fn is_request(request: Option<Request>) -> bool {
    request.is_some_and(|request| request.target().map(<[u8]>::len) == Some(26) && request.fields.len() == 4)
}

/// The decoder of the connection is part of it.
pub(super) fn read_request_first() -> Option<Run> {
    Some(Box::new(|| is_request(request(&mut Decoder::new(), REQUEST))))
}

pub(super) fn read_request_again() -> Option<Run> {
    let mut decoder = Decoder::new();
    request(&mut decoder, REQUEST)?;
    Some(Box::new(move || is_request(request(&mut decoder, REQUEST_AGAIN))))
}

pub(super) fn read_answer_again() -> Option<Run> {
    let mut decoder = Decoder::new();
    read(&mut decoder, ANSWER)?.answer().ok()?;
    Some(Box::new(move || {
        let Some(Ok((answer, _))) = read(&mut decoder, ANSWER_AGAIN).map(Gathered::answer) else { return false };
        answer.status == StatusCode::OK && answer.fields.len() == 2
    }))
}

/// What a hop writes of a call.
struct Call {
    path: String,
    /// Its fields without an id, and with the last one.
    first: Fields,
    fields: Fields,
    out: Vec<u8>,
    last_id: u64,
}

impl Call {
    fn new() -> Option<Self> {
        let request = request(&mut Decoder::new(), REQUEST)?;
        let path = String::from_utf8(request.target()?.to_vec()).ok()?;
        let out = Vec::with_capacity(4096);
        let mut first = request.fields;
        first.set(Name::Caller, b"orders");
        first.set(Name::ForwardedFor, b"192.0.2.17");
        first.set(Name::ForwardedHost, b"shop.example.com");
        first.set(Name::ForwardedProto, b"http");
        Some(Self { path, fields: first.clone(), first, out, last_id: FIRST_ID })
    }

    /// Gives the call an id that none had before.
    fn has_new_id(&mut self) {
        self.last_id += 1;
        self.fields = self.first.clone();
        self.fields.set_number(Name::RequestId, self.last_id);
    }

    /// Writes its head; how many bytes.
    fn write(&mut self, encoder: &mut Encoder) -> usize {
        self.out.clear();
        encoder.begin(&mut self.out);
        encoder.method(&mut self.out, &Method::POST);
        encoder.scheme(&mut self.out);
        encoder.authority(&mut self.out, "inventory.synego:8080", false);
        encoder.path(&mut self.out, &self.path, false);
        encoder.fields(&mut self.out, &self.fields);
        self.out.len()
    }

    /// Writes the head of its answer; how many bytes.
    fn write_answer(&mut self, encoder: &mut Encoder) -> usize {
        self.out.clear();
        encoder.begin(&mut self.out);
        encoder.status(&mut self.out, StatusCode::OK);
        encoder.fields(&mut self.out, &self.fields);
        self.out.len()
    }
}

/// An encoder that has told all that repeats. Each draws the places of its fields anew; in one whose fields share none
/// the last heads are `best` bytes long, and only there does every run cost the same.
fn settled(best: usize, mut write: impl FnMut(&mut Encoder) -> usize) -> Option<Encoder> {
    for _ in 0..TRIES {
        let mut encoder = Encoder::new();
        if (0..8).map(|_| write(&mut encoder)).skip(4).all(|length| length == best) {
            return Some(encoder);
        }
    }
    None
}

/// The encoder of the connection is part of it.
pub(super) fn write_request_first() -> Option<Run> {
    let mut call = Call::new()?;
    call.has_new_id();
    let (names, _) = call.fields.sizes();
    Some(Box::new(move || call.write(&mut Encoder::new()) as u64 > names))
}

pub(super) fn write_request_again() -> Option<Run> {
    let mut call = Call::new()?;
    // Method, scheme, authority, path and eight fields are a byte each; the name of the id takes two, its value 21.
    let best = 12 + 2 + 21;
    let mut encoder = settled(best, |encoder| {
        call.has_new_id();
        call.write(encoder)
    })?;
    Some(Box::new(move || {
        call.has_new_id();
        call.write(&mut encoder) == best
    }))
}

pub(super) fn write_answer_again() -> Option<Run> {
    let mut call = Call::new()?;
    call.first = [("content-type", "application/grpc")].into_iter().collect();
    // Status and content type are a byte each.
    let best = 2 + 2 + 21;
    let mut encoder = settled(best, |encoder| {
        call.has_new_id();
        call.write_answer(encoder)
    })?;
    Some(Box::new(move || {
        call.has_new_id();
        call.write_answer(&mut encoder) == best
    }))
}
