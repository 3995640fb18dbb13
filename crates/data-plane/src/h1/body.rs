//! Where the body of a message ends.
//!
//! Pure: bytes in, parts of the body out, however the bytes are cut.

use bytes::{Bytes, BytesMut};

use super::fault::Fault;
use super::parse::{self, Framing};
use crate::fields::Fields;

/// Bytes of trailers that are read at most.
const MAX_TRAILERS: usize = 64 * 1024;

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// All of it was read.
    Done,
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// To the end of the connection.
    ToEnd,
}

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In the line of a size; its value and its digits so far.
    Size { size: u64, digits: u8 },
    /// Before the line feed of a size's line.
    SizeEnd { size: u64 },
    /// In a chunk.
    Data { left: u64 },
    /// After a chunk, before its CR or LF.
    DataEnd { cr: bool },
    /// After the last chunk.
    Trailers,
}

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Data(Bytes),
    Trailers(Fields),
    End,
    /// More bytes must come first.
    More,
}

impl Decoder {
    /// Of a request: without a word on it there is none.
    pub(crate) fn of_request(framing: Framing) -> Self {
        Self::of(framing, Self::Done)
    }

    /// Of an answer: without a word on it, it ends with the connection.
    pub(crate) fn of_answer(framing: Framing) -> Self {
        Self::of(framing, Self::ToEnd)
    }

    fn of(framing: Framing, unsaid: Self) -> Self {
        match framing {
            Framing::Unsaid => unsaid,
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunk::Size { size: 0, digits: 0 }),
        }
    }

    pub(crate) fn is_done(self) -> bool {
        self == Self::Done
    }

    /// Bytes of the body that are certain to come.
    pub(crate) fn expected(self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunk::Data { left }) => left,
            Self::Done | Self::Chunked(_) | Self::ToEnd => 0,
        }
    }

    /// Bytes of the body that are still to come, where that is known.
    pub(crate) fn length(self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(left),
            Self::Chunked(_) | Self::ToEnd => None,
        }
    }

    /// A part of the data was read past the buffer: not more than is expected.
    pub(crate) fn took(&mut self, bytes: usize) {
        let (Self::Length(left) | Self::Chunked(Chunk::Data { left })) = self else { return };
        *left = left.saturating_sub(bytes as u64);
        match *self {
            Self::Length(0) => *self = Self::Done,
            Self::Chunked(Chunk::Data { left: 0 }) => *self = Self::Chunked(Chunk::DataEnd { cr: false }),
            _ => {}
        }
    }

    /// Takes the next part off the front of `buf`.
    ///
    /// # Errors
    /// When the chunks are broken.
    pub(crate) fn next(&mut self, buf: &mut BytesMut) -> Result<Part, Fault> {
        loop {
            match self {
                Self::Done => return Ok(Part::End),
                _ if buf.is_empty() => return Ok(Part::More),
                Self::ToEnd => return Ok(Part::Data(buf.split().freeze())),
                Self::Length(left) => {
                    let data = take(buf, left);
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Ok(Part::Data(data));
                }
                Self::Chunked(Chunk::Data { left }) => {
                    let data = take(buf, left);
                    if *left == 0 {
                        *self = Self::Chunked(Chunk::DataEnd { cr: false });
                    }
                    return Ok(Part::Data(data));
                }
                Self::Chunked(Chunk::Trailers) => {
                    let before = buf.len();
                    let trailers = parse::trailers(buf)?;
                    // Whole or not, they may take so much and no more.
                    let size = if trailers.is_some() { before - buf.len() } else { before };
                    if size > MAX_TRAILERS {
                        return Err(Fault::TooLarge);
                    }
                    let Some(trailers) = trailers else { return Ok(Part::More) };
                    *self = Self::Done;
                    return Ok(if trailers.is_empty() { Part::End } else { Part::Trailers(trailers) });
                }
                Self::Chunked(chunk) => chunk.read(buf)?,
            }
        }
    }

    /// The connection ended here; false when the body has not.
    pub(crate) fn ends(&mut self) -> bool {
        let ends = matches!(self, Self::Done | Self::ToEnd);
        if ends {
            *self = Self::Done;
        }
        ends
    }
}

fn take(buf: &mut BytesMut, left: &mut u64) -> Bytes {
    let size = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
    *left -= size as u64;
    buf.split_to(size).freeze()
}

impl Chunk {
    /// Reads what stands around the chunks, as far as it is there.
    fn read(&mut self, buf: &mut BytesMut) -> Result<(), Fault> {
        let mut read = 0;
        for byte in buf.iter() {
            if matches!(self, Self::Data { .. } | Self::Trailers) {
                break;
            }
            *self = self.step(*byte).ok_or(Fault::BadChunk)?;
            read += 1;
        }
        let _ = buf.split_to(read);
        Ok(())
    }

    /// Extensions are refused: nobody sends them, and servers disagree where they end.
    fn step(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size, digits: digits @ ..16 }, _) => {
                let digit = char::from(byte).to_digit(16)?;
                Self::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailers,
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataEnd { cr: false }, b'\r') => Self::DataEnd { cr: true },
            (Self::DataEnd { cr: true }, b'\n') => Self::Size { size: 0, digits: 0 },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked() -> Decoder {
        Decoder::of_request(Framing::Chunked)
    }

    /// All parts of a body whose bytes come in these pieces: its data, its trailers, and what is left behind it.
    fn read(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut buf, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buf)? {
                    Part::Data(part) => data.extend_from_slice(&part),
                    Part::Trailers(found) => trailers += found.len(),
                    Part::End | Part::More => break,
                }
            }
        }
        assert!(decoder.is_done(), "{decoder:?}");
        Ok((data, trailers, buf.to_vec()))
    }

    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut() {
        let body = b"3\r\nabc\r\n00a\r\n0123456789\r\n0\r\nx-a: 1\r\n\r\nGET";
        for cut in 0..body.len() {
            let (first, second) = body.split_at(cut);
            let (data, trailers, rest) = read(chunked(), &[first, second]).expect("sound");
            assert_eq!((data.as_slice(), trailers, rest.as_slice()), (&b"abc0123456789"[..], 1, &b"GET"[..]), "{cut}");
        }
    }

    #[test]
    fn a_body_of_a_length_leaves_what_follows() {
        let (data, _, rest) = read(Decoder::of_request(Framing::Length(3)), &[b"a", b"bcGET"]).expect("sound");
        assert_eq!((data.as_slice(), rest.as_slice()), (&b"abc"[..], &b"GET"[..]));
        assert!(Decoder::of_request(Framing::Length(0)).is_done() && Decoder::of_request(Framing::Unsaid).is_done());
    }

    #[test]
    fn only_an_answer_without_a_length_ends_with_its_connection() {
        assert!(Decoder::of_answer(Framing::Unsaid).ends());
        assert!(!Decoder::of_answer(Framing::Length(1)).ends() && !chunked().ends());
    }

    #[test]
    fn trailers_that_are_too_large_are_refused_whether_they_come_whole_or_in_pieces() {
        let line = format!("x-a: {}\r\n", "v".repeat(8 * 1024));
        let whole = format!("0\r\n{}\r\n", line.repeat(8));
        let (half, _) = whole.split_at(whole.len() - 2);
        for bytes in [whole.as_str(), half] {
            assert_eq!(chunked().next(&mut BytesMut::from(bytes)), Err(Fault::TooLarge), "{}", bytes.len());
        }
        let fits = format!("0\r\n{}\r\n", line.repeat(7));
        assert!(matches!(chunked().next(&mut BytesMut::from(fits.as_str())), Ok(Part::Trailers(_))));
    }

    #[test]
    fn broken_chunks_are_refused() {
        let sizes = ["\r\n", "x\r\n", "-1\r\n", "3;a=b\r\n", "3\n", "3\r\nabcd", "11111111111111111\r\n", "3 \r\n"];
        for bad in sizes.into_iter().chain(["0\r\na\n\r\n", "0\r\n a: 1\r\n\r\n"]) {
            let mut buf = BytesMut::from(bad);
            let mut decoder = chunked();
            let mut seen = decoder.next(&mut buf);
            while matches!(seen, Ok(Part::Data(_))) {
                seen = decoder.next(&mut buf);
            }
            assert!(seen.is_err(), "{bad:?}: {seen:?}");
        }
    }
}
