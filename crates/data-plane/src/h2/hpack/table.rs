//! The tables of HPACK: the one that all know, and the one that two ends build (RFC 7541 §2.3).

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::Field;

/// What an entry takes of a table besides its bytes (RFC 7541 §4.1).
pub(super) const OVERHEAD: usize = 32;

/// What a field is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Status,
    Plain(HeaderName),
    /// None that a message may have; how many bytes it has.
    Bad(usize),
}

impl Name {
    pub(super) fn of(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":status" => Self::Status,
            // Refuses upper case and all that is no token.
            _ => HeaderName::from_lowercase(text).map_or(Self::Bad(text.len()), Self::Plain),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Method => 7,
            Self::Scheme => 7,
            Self::Authority => 10,
            Self::Path => 5,
            Self::Status => 7,
            Self::Plain(name) => name.as_str().len(),
            Self::Bad(len) => *len,
        }
    }

    /// The field of this name with this value.
    pub(super) fn with(&self, value: Bytes) -> Field {
        let field = match self {
            Self::Method => Method::from_bytes(&value).ok().map(Field::Method),
            Self::Scheme => matches!(&value[..], b"http" | b"https").then_some(Field::Scheme),
            Self::Authority => Authority::from_maybe_shared(value).ok().map(Field::Authority),
            Self::Path => {
                // A target has no fragment; a parser that drops it would see another one than its sender.
                let is_whole = value.first() == Some(&b'/') && !value.contains(&b'#');
                is_whole.then(|| PathAndQuery::from_maybe_shared(value).ok()).flatten().map(Field::Path)
            }
            Self::Status => StatusCode::from_bytes(&value).ok().map(Field::Status),
            Self::Plain(name) => plain_value(value).map(|value| Field::Plain(name.clone(), value)),
            Self::Bad(_) => None,
        };
        field.unwrap_or(Field::Bad)
    }
}

/// A value neither begins nor ends with a blank (RFC 9113 §8.2.1).
fn plain_value(value: Bytes) -> Option<HeaderValue> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_blank(value.first()) || is_blank(value.last()) {
        return None;
    }
    HeaderValue::from_maybe_shared(value).ok()
}

/// One field in a table.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: Name,
    pub(super) field: Field,
    /// Bytes of its name and its value.
    pub(super) bytes: usize,
}

impl Entry {
    pub(super) fn new(name: Name, value: Bytes) -> Self {
        let bytes = name.len() + value.len();
        Self { field: name.with(value), name, bytes }
    }
}

/// The entries of the table that all know; the first has the index 1.
pub(super) static STATIC: LazyLock<Vec<Entry>> = LazyLock::new(|| {
    let entry = |(name, value): &(&'static str, &'static str)| {
        Entry::new(Name::of(name.as_bytes()), Bytes::from_static(value.as_bytes()))
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
pub(super) fn known(name: &str) -> Option<usize> {
    Some(match name {
        "accept" => 19,
        "accept-encoding" => 16,
        "accept-language" => 17,
        "authorization" => 23,
        "cache-control" => 24,
        "content-encoding" => 26,
        "content-length" => 28,
        "content-type" => 31,
        "cookie" => 32,
        "date" => 33,
        "etag" => 34,
        "if-modified-since" => 40,
        "if-none-match" => 41,
        "last-modified" => 44,
        "link" => 45,
        "location" => 46,
        "range" => 50,
        "referer" => 51,
        "retry-after" => 53,
        "server" => 54,
        "set-cookie" => 55,
        "user-agent" => 58,
        "vary" => 59,
        "via" => 60,
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
            if let Some(index) = known(name) {
                assert_eq!(KNOWN[index - 1].0, *name, "{name} at {at}");
            }
        }
        assert!(STATIC.iter().skip(1).take(13).all(|entry| entry.field != Field::Bad));
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
