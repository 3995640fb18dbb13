//! HPACK: the fields of a head as few bytes (RFC 7541).
//!
//! What the table keeps was checked when it came, so that a field that repeats is not checked again.

mod decode;
mod encode;
mod huffman;
mod table;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

use crate::fields::Name;

/// The size of the tables, in both directions: that of RFC 9113 §6.5.2 where nothing else is said.
const TABLE: usize = 4096;

/// What a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Method,
    /// `http` or `https`: nothing depends on which.
    Scheme,
    Authority,
    /// The path, with its query.
    Path,
    Status,
    Plain(Name),
    /// None that a message may have: its name, or its value, breaks the rules.
    Bad,
}

/// A field, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) kind: Kind,
    /// Its name, in lower case; of a pseudo-field with its colon.
    pub(crate) text: &'a [u8],
    pub(crate) value: &'a [u8],
    /// Whether nobody on its way may keep it.
    pub(crate) is_secret: bool,
}

impl Field<'_> {
    /// Bytes of its name and its value.
    pub(crate) fn bytes(&self) -> usize {
        self.text.len() + self.value.len()
    }
}

/// A block that cannot be read: neither can any that follows on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;
