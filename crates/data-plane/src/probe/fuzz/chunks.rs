//! Chunked bodies: the same data however they are cut, as a plain reader finds it, and the same after they are framed anew.

use bytes::{Bytes, BytesMut};

use super::Chance;
use crate::fields::Fields;
use crate::h1::body::{Decoder, Part};
use crate::h1::out::Out;
use crate::h1::parse::Framing as Said;
use crate::h1::write::{self, Framing};

/// Longer ones may have trailers that are too long; whether they are seen as such depends on how they come.
const LONGEST: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum End {
    /// With so many bytes behind it.
    Whole(usize),
    Fault,
    More,
}

/// What was made of bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    data: Vec<u8>,
    trailers: Fields,
    end: End,
}

/// Any bytes as a chunked body.
pub fn chunked_body(bytes: &[u8]) {
    if bytes.len() > LONGEST {
        return;
    }
    let whole = read(&[bytes]);
    assert_eq!(whole, read(&Chance::of(bytes).pieces(bytes)), "a body depends on how it is cut");
    let (data, end) = read_plainly(bytes);
    assert_eq!(whole.data, data);
    match end {
        // What is behind the last chunk is for the reader of fields.
        End::Whole(_) => {}
        other => assert_eq!(whole.end, other),
    }
    if matches!(whole.end, End::Whole(_)) {
        write_again(&whole);
    }
}

fn read(pieces: &[&[u8]]) -> Seen {
    let mut decoder = Decoder::of_request(Said::Chunked);
    let mut seen = Seen { data: Vec::new(), trailers: Fields::new(), end: End::More };
    let (mut buf, mut rest) = (BytesMut::new(), 0);
    for piece in pieces {
        if decoder.is_done() {
            rest += piece.len();
            continue;
        }
        buf.extend_from_slice(piece);
        loop {
            let expected = decoder.expected();
            match decoder.next(&mut buf) {
                Ok(Part::Data(part)) => {
                    assert!(!part.is_empty() && (expected == 0 || part.len() as u64 <= expected));
                    seen.data.extend_from_slice(&part);
                }
                Ok(Part::Trailers(trailers)) => seen.trailers = trailers,
                Ok(Part::End | Part::More) => break,
                Err(_) => {
                    seen.end = End::Fault;
                    return seen;
                }
            }
        }
    }
    if decoder.is_done() {
        seen.end = End::Whole(buf.len() + rest);
    } else {
        assert!(!decoder.ends(), "a chunked body does not end with its connection");
    }
    seen
}

/// The data of all chunks, and what comes behind them.
fn read_plainly(bytes: &[u8]) -> (Vec<u8>, End) {
    let (mut data, mut rest) = (Vec::new(), bytes);
    loop {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let line = &rest[digits..];
        match line {
            _ if digits > 16 => return (data, End::Fault),
            [] => return (data, End::More),
            _ if digits == 0 => return (data, End::Fault),
            [b'\r'] => return (data, End::More),
            [b'\r', b'\n', ..] => {}
            _ => return (data, End::Fault),
        }
        let text = std::str::from_utf8(&rest[..digits]).unwrap_or_default();
        let Ok(size) = u64::from_str_radix(text, 16) else { panic!("{text} is a size") };
        rest = &line[2..];
        if size == 0 {
            return (data, End::Whole(rest.len()));
        }
        let there = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        data.extend_from_slice(&rest[..there]);
        rest = &rest[there..];
        match rest {
            [] | [b'\r'] => return (data, End::More),
            [b'\r', b'\n', ..] => rest = &rest[2..],
            _ => return (data, End::Fault),
        }
    }
}

fn write_again(seen: &Seen) {
    let mut out = Out::default();
    let mut chance = Chance::of(&seen.data);
    for piece in chance.pieces(&seen.data) {
        write::data(&mut out, Framing::Chunked, Bytes::copy_from_slice(piece));
    }
    write::end(&mut out, Framing::Chunked, Some(&seen.trailers));
    let text = out.take_all();
    let again = read(&chance.pieces(&text));
    assert_eq!((&again.data, &again.trailers, again.end), (&seen.data, &seen.trailers, End::Whole(0)));
}
