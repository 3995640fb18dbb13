//! The tables of HPACK: the one that all know, and the one that two ends build (RFC 7541 §2.3).

use std::collections::VecDeque;
use std::sync::LazyLock;

use http::{Method, StatusCode};

use super::{Field, Kind};
use crate::fields::{self, Name};
use crate::hop::path;

/// What an entry takes of a table besides its bytes (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

impl Kind {
    /// What a field of this name is.
    pub(super) fn of(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            _ if !text.is_empty() && text.iter().all(is_token) => Self::Plain(Name::of(text)),
            _ => Self::Bad,
        }
    }

    /// The same, or [`Kind::Bad`] when no message may have it with this value.
    pub(super) fn with(self, value: &[u8]) -> Self {
        let is_sound = match self {
            Self::Method => Method::from_bytes(value).is_ok(),
            Self::Scheme => matches!(value, b"http" | b"https"),
            Self::Authority => !value.is_empty() && value.iter().all(u8::is_ascii_graphic),
            Self::Path => path::is_target(value),
            Self::Status => StatusCode::from_bytes(value).is_ok(),
            Self::Plain(_) => is_plain_value(value),
            Self::Bad => false,
        };
        if is_sound { self } else { Self::Bad }
    }
}

/// A byte of a name; upper case is none (RFC 9113 §8.2.1).
fn is_token(byte: &u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'^' | b'`' | b'|' | b'~')
}

/// A value neither begins nor ends with a blank (RFC 9113 §8.2.1).
fn is_plain_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_blank(value.first()) && !is_blank(value.last()) && fields::is_value(value)
}

/// One field in a table.
#[derive(Debug)]
pub(super) struct Entry {
    /// By its name alone.
    pub(super) name: Kind,
    /// With its value.
    kind: Kind,
    pub(super) text: Box<[u8]>,
    value: Box<[u8]>,
}

impl Entry {
    pub(super) fn new(name: Kind, text: &[u8], value: &[u8]) -> Self {
        Self { name, kind: name.with(value), text: text.into(), value: value.into() }
    }

    pub(super) fn field(&self) -> Field<'_> {
        Field { kind: self.kind, text: &self.text, value: &self.value, is_secret: false }
    }
}

/// The entries of the table that all know; the first has the index 1.
pub(super) static STATIC: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(name, value): &(&str, &str)| {
        let text = name.as_bytes();
        Entry::new(Kind::of(text), text, value.as_bytes())
    };
    KNOWN.iter().map(entry).collect()
});

/// RFC 7541, appendix A.
#[rustfmt::skip]
const KNOWN: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// The index of a name that all know.
pub(super) fn known(name: &[u8]) -> Option<usize> {
    Some(match name {
        b":authority" => 1,
        b":path" => 4,
        b"accept" => 19,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-encoding" => 26,
        b"content-length" => 28,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"range" => 50,
        b"referer" => 51,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        _ => return None,
    })
}

/// The table that two ends build: the newest entry first, the oldest given up when there is no room.
#[derive(Debug)]
pub(super) struct Table<E> {
    entries: VecDeque<(E, usize)>,
    size: usize,
    room: usize,
}

impl<E> Table<E> {
    pub(super) fn new(room: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, room }
    }

    pub(super) fn room(&self) -> usize {
        self.room
    }

    #[cfg(any(test, feature = "probe"))]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of all entries.
    #[cfg(any(test, feature = "probe"))]
    pub(super) fn size(&self) -> usize {
        assert_eq!(self.size, self.entries.iter().map(|(_, size)| size).sum::<usize>());
        self.size
    }

    /// The entry that so many others came after.
    pub(super) fn get(&self, age: usize) -> Option<&E> {
        self.entries.get(age).map(|(entry, _)| entry)
    }

    pub(super) fn resize(&mut self, room: usize) {
        self.room = room;
        self.make(0);
    }

    /// Adds the newest; one that is larger than the table only empties it.
    pub(super) fn add(&mut self, entry: E, bytes: usize) {
        let size = bytes + OVERHEAD;
        self.make(size);
        if size <= self.room {
            self.size += size;
            self.entries.push_front((entry, size));
        }
    }

    fn make(&mut self, size: usize) {
        while self.size + size > self.room {
            let Some((_, oldest)) = self.entries.pop_back() else { return };
            self.size -= oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_all_know_have_their_index() {
        for (at, (name, _)) in KNOWN.iter().enumerate() {
            if let Some(index) = known(name.as_bytes()) {
                assert_eq!(KNOWN[index - 1].0, *name, "{name} at {at}");
            }
        }
        assert!(STATIC.iter().skip(1).take(13).all(|entry| entry.field().kind != Kind::Bad));
    }

    #[test]
    fn the_oldest_leaves_where_there_is_no_room() {
        let mut table = Table::new(100);
        table.add('a', 10);
        table.add('b', 10);
        assert_eq!((table.get(0), table.get(1), table.len()), (Some(&'b'), Some(&'a'), 2));
        table.add('c', 20);
        assert_eq!((table.get(0), table.get(1), table.len()), (Some(&'c'), Some(&'b'), 2));
        table.add('d', 100);
        assert_eq!(table.len(), 0, "one that is larger than the table empties it");
        table.add('e', 1);
        table.resize(10);
        assert_eq!((table.len(), table.room()), (0, 10));
    }
}
