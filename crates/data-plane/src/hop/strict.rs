//! HTTP/1.1 as it comes off the wire, looked at before hyper does: hyper resolves some ambiguities in silence that other
//! servers resolve in another way.
//!
//! Pure: bytes in, the end of a message or its fault out. Only the boundaries of messages and what may be read in two
//! ways are looked at here; everything else is left to hyper and to `head`.

use std::fmt;

/// What of a message comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The head of a message.
    Head,
    /// So many bytes of a body.
    Length(u64),
    /// A chunked body.
    Chunked(Chunks),
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the line of a size; its value and its digits so far.
    Size { size: u64, digits: u8 },
    /// Before the line feed of a size's line.
    SizeEnd { size: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// After a chunk, before its CR or LF.
    DataEnd { cr: bool },
    /// In the trailers: at the beginning of a line or not, after a CR or not.
    Trailers { line: bool, cr: bool },
}

/// Why a head can be read in two ways, or in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    BareCr = 1,
    BareLf,
    Nul,
    Folded,
    NoColon,
    BadName,
    Fragment,
    BadLength,
    TwoLengths,
    BadCoding,
    CodingAndLength,
    CodingInHttp10,
    TooLarge,
}

impl Fault {
    const ALL: [Self; 13] = [
        Self::BareCr,
        Self::BareLf,
        Self::Nul,
        Self::Folded,
        Self::NoColon,
        Self::BadName,
        Self::Fragment,
        Self::BadLength,
        Self::TwoLengths,
        Self::BadCoding,
        Self::CodingAndLength,
        Self::CodingInHttp10,
        Self::TooLarge,
    ];

    /// The fault of this number; `None`: none.
    pub(crate) fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| *fault as u8 == number)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareCr => "a carriage return without line feed in the head",
            Self::BareLf => "a line feed without carriage return in the head",
            Self::Nul => "a NUL in the head",
            Self::Folded => "a header that goes on in the next line",
            Self::NoColon => "a header line without colon",
            Self::BadName => "a header whose name is empty or not a token",
            Self::Fragment => "a `#` in the target",
            Self::BadLength => "a length that is no number",
            Self::TwoLengths => "two lengths that differ",
            Self::BadCoding => "a transfer coding other than `chunked`",
            Self::CodingAndLength => "a length beside a transfer coding",
            Self::CodingInHttp10 => "a transfer coding in HTTP/1.0",
            Self::TooLarge => "the head is larger than the limit",
        })
    }
}

/// The end of the head at the beginning of `bytes`, and what follows it; `None`: it is not complete yet.
///
/// # Errors
/// [`Fault`], as soon as the bytes that are there show it.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<(usize, Part)>, Fault> {
    // Empty lines before a request are skipped, as RFC 9112 §2.2 asks.
    let mut at = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut fields = Fields::default();
    let mut is_first = true;
    while let Some(line) = line(bytes.get(at..).unwrap_or_default())? {
        at += line.len() + 2;
        if line.is_empty() {
            return fields.body().map(|part| Some((at, part)));
        }
        if is_first {
            fields.start(line)?;
        } else {
            fields.field(line)?;
        }
        is_first = false;
    }
    Ok(None)
}

/// The line up to its CR LF, without them; `None`: its end has not come yet.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Fault> {
    for (at, byte) in bytes.iter().enumerate() {
        match (byte, bytes.get(at + 1)) {
            (0, _) => return Err(Fault::Nul),
            (b'\n', _) => return Err(Fault::BareLf),
            (b'\r', Some(b'\n')) => return Ok(bytes.get(..at)),
            (b'\r', Some(_)) => return Err(Fault::BareCr),
            _ => {}
        }
    }
    Ok(None)
}

#[derive(Default)]
struct Fields {
    is_http10: bool,
    is_chunked: bool,
    length: Option<u64>,
}

impl Fields {
    fn start(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.is_http10 = line.ends_with(b" HTTP/1.0");
        if line.contains(&b'#') { Err(Fault::Fragment) } else { Ok(()) }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Fault> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Fault::Folded);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Fault::NoColon)?;
        let (name, value) = line.split_at(colon);
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) {
            return Err(Fault::BadName);
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(value).ok().filter(|_| is_number);
            let length: u64 = text.and_then(|text| text.parse().ok()).ok_or(Fault::BadLength)?;
            if self.length.replace(length).is_some_and(|former| former != length) {
                return Err(Fault::TwoLengths);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::BadCoding);
            }
            self.is_chunked = true;
        }
        Ok(())
    }

    fn body(&self) -> Result<Part, Fault> {
        match (self.is_chunked, self.length) {
            (true, _) if self.is_http10 => Err(Fault::CodingInHttp10),
            (true, Some(_)) => Err(Fault::CodingAndLength),
            (true, None) => Ok(Part::Chunked(Chunks::Size { size: 0, digits: 0 })),
            (false, None | Some(0)) => Ok(Part::Head),
            (false, Some(length)) => Ok(Part::Length(length)),
        }
    }
}

impl Chunks {
    /// Goes through `bytes` of a chunked body: how many belong to it, and where it stands then; `None`: it is at its end.
    ///
    /// # Errors
    /// A size that is none, an extension, or a line that does not end in CR LF.
    pub(crate) fn follow(mut self, bytes: &[u8]) -> Result<(usize, Option<Self>), ()> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Self::Data { left } = self {
                let part = left.min((bytes.len() - at) as u64);
                at += usize::try_from(part).unwrap_or(usize::MAX);
                self = if part == left { Self::DataEnd { cr: false } } else { Self::Data { left: left - part } };
                continue;
            }
            at += 1;
            match self.step(*byte)? {
                Some(next) => self = next,
                None => return Ok((at, None)),
            }
        }
        Ok((at, Some(self)))
    }

    fn step(self, byte: u8) -> Result<Option<Self>, ()> {
        Ok(Some(match (self, byte) {
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size, digits: digits @ ..16 }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(())?;
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailers { line: false, cr: false },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { cr: true }, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailers { line: false, cr: true }, b'\n') => return Ok(None),
            (Self::Trailers { line: true, cr: true }, b'\n') => Self::Trailers { line: false, cr: false },
            (Self::Trailers { line, cr: false }, b'\r') => Self::Trailers { line, cr: true },
            (Self::Trailers { cr: false, .. }, 1..=9 | 11..) => Self::Trailers { line: true, cr: false },
            _ => return Err(()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_and_its_body_are_found() {
        let sized = Part::Length(3);
        let chunked = Part::Chunked(Chunks::Size { size: 0, digits: 0 });
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nGET", Some((27, Part::Head))),
            ("\r\nGET / HTTP/1.1\r\n\r\n", Some((20, Part::Head))),
            ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", Some((38, sized))),
            ("POST / HTTP/1.1\r\nContent-Length:3 \r\ncontent-length: 3\r\n\r\n", Some((57, sized))),
            ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n", Some((47, chunked))),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r", None),
            ("GET / HTTP/1.1\r", None),
            ("", None),
        ] {
            assert_eq!(head(text.as_bytes()), Ok(expected), "{text:?}");
        }
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
            ("content-length: +3\r\n", Fault::BadLength),
            ("content-length: 3, 3\r\n", Fault::BadLength),
            ("content-length: 99999999999999999999\r\n", Fault::BadLength),
            ("content-length: 3\r\ncontent-length: 4\r\n", Fault::TwoLengths),
            ("transfer-encoding: gzip, chunked\r\n", Fault::BadCoding),
            ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", Fault::BadCoding),
            ("transfer-encoding: chunked\r\ncontent-length: 3\r\n", Fault::CodingAndLength),
            ("content-length: 3\r\ntransfer-encoding: chunked\r\n", Fault::CodingAndLength),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(head(text.as_bytes()), Err(expected), "{text:?}");
            assert_eq!(Fault::of(expected as u8), Some(expected));
        }
        assert_eq!(head(b"GET /a#b HTTP/1.1\r\n\r\n"), Err(Fault::Fragment));
        assert_eq!(head(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"), Err(Fault::CodingInHttp10));
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        let body = b"3\r\nabc\r\n00a\r\n0123456789\r\n0\r\nx-a: 1\r\n\r\nGET";
        let end = body.len() - 3;
        for cut in 0..body.len() {
            let (first, second) = body.split_at(cut);
            let (used, state) = Chunks::Size { size: 0, digits: 0 }.follow(first).expect("sound");
            match state {
                None => assert_eq!(used, end),
                Some(state) => assert_eq!((used, state.follow(second)), (cut, Ok((end - cut, None))), "cut at {cut}"),
            }
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for bad in ["\r\n", "x\r\n", "-1\r\n", "3;a=b\r\n", "3\n", "3\r\nabcd", "11111111111111111\r\n", "0\r\na\n"] {
            assert_eq!(Chunks::Size { size: 0, digits: 0 }.follow(bad.as_bytes()), Err(()), "{bad:?}");
        }
    }
}
