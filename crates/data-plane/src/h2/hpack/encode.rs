//! Header blocks on their way out.
//!
//! What repeats goes into the table and costs a byte from then on; what is seen once only is written as it is. Nothing is
//! written in Huffman's code: it would cost more of both ends' time than the bytes are worth.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use http::{Method, StatusCode};

use super::TABLE;
use super::table::{self, STATIC, Table};
use crate::fields::{Field, Fields, Names};

/// Places in which an entry is looked for.
const PLACES: usize = 128;

/// What was told to the other end, on one connection.
pub(crate) struct Encoder {
    table: Table<Told>,
    /// Entries told so far.
    count: u32,
    /// By the hash of a field, and of a name: the number of the entry that was told last.
    fields: [u32; PLACES],
    names: [u32; PLACES],
    /// Part of the hash of a field that was seen and not told.
    seen: [u32; PLACES],
    hasher: RandomState,
    /// The smallest size since the last block, and the one that holds now.
    resized: Option<(usize, usize)>,
}

struct Told {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(TABLE),
            count: 0,
            fields: [0; PLACES],
            names: [0; PLACES],
            seen: [0; PLACES],
            hasher: RandomState::default(),
            resized: None,
        }
    }

    /// Entries of the table, and their bytes.
    #[cfg(any(test, feature = "probe"))]
    pub(crate) fn table_size(&self) -> (usize, usize) {
        (self.table.len(), self.table.size())
    }

    /// The other end keeps a table of at most so many bytes.
    pub(crate) fn resize(&mut self, size: usize) {
        let room = size.min(TABLE);
        let least = self.resized.map_or(room, |(least, _)| least.min(room));
        self.resized = Some((least, room));
    }

    /// To be called before the first field of each block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        let Some((least, room)) = self.resized.take() else { return };
        if least < room {
            self.table.resize(least);
            integer(out, 0x20, 5, least);
        }
        if room != self.table.room() || least < room {
            self.table.resize(room);
            integer(out, 0x20, 5, room);
        }
    }

    pub(crate) fn method(&mut self, out: &mut Vec<u8>, method: &Method) {
        match *method {
            Method::GET => out.push(0x82),
            Method::POST => out.push(0x83),
            _ => {
                integer(out, 0, 4, 2);
                string(out, method.as_str().as_bytes());
            }
        }
    }

    /// `http`.
    pub(crate) fn scheme(&mut self, out: &mut Vec<u8>) {
        out.push(0x86);
    }

    /// - `is_secret`: whether nobody on its way may keep it, as its sender said.
    pub(crate) fn authority(&mut self, out: &mut Vec<u8>, authority: &str, is_secret: bool) {
        self.kept_or_not(out, b":authority", authority.as_bytes(), is_secret);
    }

    /// - `is_secret`: as of the authority; a query may hold a token.
    pub(crate) fn path(&mut self, out: &mut Vec<u8>, path: &str, is_secret: bool) {
        if path == "/" && !is_secret {
            out.push(0x84);
        } else {
            self.kept_or_not(out, b":path", path.as_bytes(), is_secret);
        }
    }

    pub(crate) fn status(&mut self, out: &mut Vec<u8>, status: StatusCode) {
        match status.as_u16() {
            200 => out.push(0x88),
            204 => out.push(0x89),
            206 => out.push(0x8a),
            304 => out.push(0x8b),
            400 => out.push(0x8c),
            404 => out.push(0x8d),
            500 => out.push(0x8e),
            _ => {
                integer(out, 0, 4, 8);
                string(out, status.as_str().as_bytes());
            }
        }
    }

    pub(crate) fn fields(&mut self, out: &mut Vec<u8>, fields: &Fields) {
        fields.iter().for_each(|field| self.field(out, &field));
    }

    pub(crate) fn field(&mut self, out: &mut Vec<u8>, field: &Field<'_>) {
        let is_secret = field.is_secret || Names::SECRET.has(field.name);
        self.kept_or_not(out, field.text, field.value, is_secret);
    }

    /// A secret goes out as a literal that is never indexed, on this hop and on all that follow (RFC 7541 §7.1.3).
    fn kept_or_not(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], is_secret: bool) {
        if !is_secret {
            return self.write(out, name, value);
        }
        match table::known(name) {
            Some(index) => integer(out, 0x10, 4, index),
            None => {
                out.push(0x10);
                string(out, name);
            }
        }
        string(out, value);
    }

    fn write(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        let name_hash = hasher.finish();
        hasher.write(value);
        let hash = hasher.finish();
        let place = hash as usize % PLACES;
        let name_place = name_hash as usize % PLACES;
        if let Some((index, told)) = self.told(self.fields.get(place))
            && *told.value == *value
            && *told.name == *name
        {
            integer(out, 0x80, 7, index);
            return;
        }
        let index = table::known(name).or_else(|| {
            let (index, told) = self.told(self.names.get(name_place))?;
            (*told.name == *name).then_some(index)
        });
        // The second time it is worth telling; so is a name that nobody knows.
        let mark = (hash >> 32) as u32 | 1;
        let was_seen = self.seen.get_mut(place).is_some_and(|seen| std::mem::replace(seen, mark) == mark);
        if !was_seen && let Some(index) = index {
            integer(out, 0, 4, index);
            string(out, value);
            return;
        }
        match index {
            Some(index) => integer(out, 0x40, 6, index),
            None => {
                out.push(0x40);
                string(out, name);
            }
        }
        string(out, value);
        self.tell(name, value, place, name_place);
    }

    /// The index of the entry of this number, if the table has it still.
    fn told(&self, number: Option<&u32>) -> Option<(usize, &Told)> {
        let number = *number.filter(|number| **number > 0)?;
        let age = self.count.wrapping_sub(number) as usize;
        let told = self.table.get(age)?;
        Some((STATIC.len() + 1 + age, told))
    }

    fn tell(&mut self, name: &[u8], value: &[u8], place: usize, name_place: usize) {
        let bytes = name.len() + value.len();
        self.table.add(Told { name: name.into(), value: value.into() }, bytes);
        if self.table.room() < bytes + table::OVERHEAD {
            // It was too large, and the table is empty.
            return;
        }
        self.count = self.count.wrapping_add(1);
        for (places, place) in [(&mut self.fields, place), (&mut self.names, name_place)] {
            if let Some(slot) = places.get_mut(place) {
                *slot = self.count;
            }
        }
    }
}

/// An integer whose first bits share a byte with `flags` (RFC 7541 §5.1).
fn integer(out: &mut Vec<u8>, flags: u8, bits: u32, value: usize) {
    let mask = (1_usize << bits) - 1;
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Kind};
    use super::*;
    use crate::fields::Name;

    /// Both ends of one direction.
    struct Ends(Encoder, Decoder);

    impl Ends {
        fn new() -> Self {
            Self(Encoder::new(), Decoder::new())
        }

        /// The size of the block, and whether it came through.
        fn send(&mut self, headers: &Fields) -> usize {
            let mut block = Vec::new();
            self.0.begin(&mut block);
            self.0.fields(&mut block, headers);
            let size = block.len();
            let mut got = Fields::new();
            let put = |field: super::super::Field<'_>| match field.kind {
                Kind::Plain(name) => got.append(name, field.text, field.value, field.is_secret),
                other => panic!("{other:?}"),
            };
            self.1.decode(&block, put).expect("a block");
            assert_eq!(got, *headers);
            size
        }
    }

    fn headers(fields: &[(&str, &str)]) -> Fields {
        fields.iter().copied().collect()
    }

    #[test]
    fn what_repeats_costs_a_byte_and_what_changes_its_value_alone() {
        let mut ends = Ends::new();
        let head =
            |id: &str| headers(&[("content-type", "application/grpc"), ("x-request-id", id), ("te", "trailers")]);
        let sizes: Vec<usize> = (0..4).map(|number| ends.send(&head(&format!("id-{number}")))).collect();
        assert_eq!(sizes[2..], [1 + 2 + 5 + 1; 2], "{sizes:?}");
    }

    #[test]
    fn what_comes_through_is_what_was_sent_however_the_table_turns() {
        let mut ends = Ends::new();
        for round in 0..2_000_usize {
            if round % 97 == 0 {
                ends.0.resize([4096, 0, 300, 8192][round / 97 % 4]);
            }
            if round % 291 == 0 {
                ends.0.resize(4096);
            }
            let value = "v".repeat(round * 7919 % 5000);
            let names = ["x-a", "x-b", "etag", "x-c", "cookie", "x-d"];
            let few = [(names[round % 6], value.as_str()), (names[round / 3 % 6], "same"), ("vary", "accept")];
            ends.send(&headers(&few));
        }
    }

    #[test]
    fn secrets_are_never_in_the_table() {
        let mut ends = Ends::new();
        let mut secret = headers(&[("authorization", "Bearer x")]);
        secret.append(Name::Other, b"x-key", b"k", true);
        for _ in 0..3 {
            let mut block = Vec::new();
            ends.0.authority(&mut block, "users", true);
            ends.0.path(&mut block, "/", true);
            ends.0.path(&mut block, "/?token=x", true);
            ends.0.fields(&mut block, &secret);
            let mut marks = Vec::new();
            ends.1.decode(&block, |field| marks.push(field.is_secret)).expect("a block");
            assert_eq!(marks, [true; 5], "the next one learns that they are");
        }
        assert_eq!(ends.0.table.len(), 0);
    }
}
