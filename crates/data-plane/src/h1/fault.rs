//! What is wrong with a message: it can be read in two ways, or in none.

use std::fmt;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    BareCr,
    BareLf,
    Nul,
    Folded,
    NoColon,
    BadName,
    BadValue,
    BadStart,
    Fragment,
    BadLength,
    TwoLengths,
    BadCoding,
    CodingAndLength,
    CodingInHttp10,
    TooLarge,
    TargetTooLong,
    BadChunk,
    BadTrailers,
    TooManyInterim,
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
            Self::BadValue => "a control character in a header",
            Self::BadStart => "a first line that is not one of HTTP/1.1",
            Self::Fragment => "a `#` in the target",
            Self::BadLength => "a length that is no number",
            Self::TwoLengths => "two lengths that differ",
            Self::BadCoding => "a transfer coding other than `chunked`",
            Self::CodingAndLength => "a length beside a transfer coding",
            Self::CodingInHttp10 => "a transfer coding in HTTP/1.0",
            Self::TooLarge => "the head is larger than the limit",
            Self::TargetTooLong => "the target is longer than the limit",
            Self::BadChunk => "a broken chunk",
            Self::BadTrailers => "trailers that cannot be read",
            Self::TooManyInterim => "too many interim answers",
        })
    }
}

/// What is wrong with a head that was refused: the first fault in it.
pub(crate) fn of_head(bytes: &[u8]) -> Fault {
    let mut rest = bytes;
    let mut is_first = true;
    loop {
        let line = match line(rest) {
            Ok(Some(line)) => line,
            Ok(None) => return Fault::BadStart,
            Err(fault) => return fault,
        };
        rest = rest.get(line.len() + 2..).unwrap_or_default();
        let is_blank = line.is_empty();
        match (is_first, is_blank) {
            // Empty lines before a message are skipped.
            (true, true) => continue,
            (true, false) => is_first = false,
            (false, true) => return Fault::BadStart,
            (false, false) => {
                if let Some(fault) = of_field(line) {
                    return fault;
                }
            }
        }
    }
}

/// The line up to its CR LF, without them; `None`: its end is not there.
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

fn of_field(line: &[u8]) -> Option<Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Some(Fault::Folded);
    }
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Some(Fault::NoColon) };
    let (name, value) = line.split_at(colon);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return Some(Fault::BadName);
    }
    value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f).then_some(Fault::BadValue)
}
