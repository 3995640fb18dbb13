//! HPACK: the fields of a head as few bytes (RFC 7541).
//!
//! Fields that come are kept in the table as they are used, so that one that repeats is neither parsed nor copied again.

mod decode;
mod encode;
mod huffman;
mod table;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, StatusCode};

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

/// The size of the tables, in both directions: that of RFC 9113 §6.5.2 where nothing else is said.
const TABLE: usize = 4096;

/// A field, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Method(Method),
    /// `http` or `https`: nothing depends on which.
    Scheme,
    Authority(Authority),
    Path(PathAndQuery),
    Status(StatusCode),
    Plain(HeaderName, HeaderValue),
    /// None that a message may have.
    Bad,
}

/// A block that cannot be read: neither can any that follows on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;
