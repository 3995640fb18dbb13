//! Header blocks on their way in.

use super::table::{Entry, STATIC, Table};
use super::{Broken, Field, Kind, TABLE, huffman};

/// What the other end has told, on one connection.
pub(crate) struct Decoder {
    table: Table<Entry>,
    /// Where names and values in Huffman's code are written out.
    scratch: [Vec<u8>; 2],
}

/// How a literal is to be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    InTable,
    No,
    /// Nobody on its way may keep it.
    Never,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(TABLE), scratch: Default::default() }
    }

    /// Entries of the table, and their bytes.
    #[cfg(any(test, feature = "probe"))]
    pub(crate) fn table_size(&self) -> (usize, usize) {
        (self.table.len(), self.table.size())
    }

    /// Reads a whole block, and hands on each field.
    ///
    /// # Errors
    /// When the block cannot be read; a field that no message may have is no such error, it comes as [`Kind::Bad`].
    pub(crate) fn decode(&mut self, mut block: &[u8], mut put: impl FnMut(Field<'_>)) -> Result<(), Broken> {
        let mut may_resize = true;
        while let Some(first) = block.first().copied() {
            match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    put(entry(&self.table, index)?.field());
                }
                0x40.. => self.literal(&mut block, 6, Keep::InTable, &mut put)?,
                0x20.. => {
                    // Only at the beginning of a block, and not beyond what was allowed.
                    let room = integer(&mut block, 5)?;
                    if !may_resize || room > TABLE {
                        return Err(Broken);
                    }
                    self.table.resize(room);
                    continue;
                }
                0x10.. => self.literal(&mut block, 4, Keep::Never, &mut put)?,
                _ => self.literal(&mut block, 4, Keep::No, &mut put)?,
            }
            may_resize = false;
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        bits: u32,
        keep: Keep,
        put: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Broken> {
        let Self { table, scratch: [name_room, value_room] } = self;
        let (name, text) = match integer(block, bits)? {
            0 => {
                let text = string(block, name_room)?;
                (Kind::of(text), text)
            }
            index => {
                let entry = entry(table, index)?;
                (entry.name, &*entry.text)
            }
        };
        let value = string(block, value_room)?;
        if keep == Keep::InTable {
            let entry = Entry::new(name, text, value);
            put(entry.field());
            let bytes = entry.field().bytes();
            table.add(entry, bytes);
        } else {
            put(Field { kind: name.with(value), text, value, is_secret: keep == Keep::Never });
        }
        Ok(())
    }
}

fn entry(table: &Table<Entry>, index: usize) -> Result<&Entry, Broken> {
    let at = index.checked_sub(1).ok_or(Broken)?;
    STATIC.get(at).or_else(|| table.get(at - STATIC.len())).ok_or(Broken)
}

/// An integer whose first bits stand in the first byte (RFC 7541 §5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(byte(block)?) & mask;
    if value < mask {
        return Ok(value);
    }
    // Nothing here is larger than what five bytes hold.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(byte(block)?);
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken)
}

fn byte(block: &mut &[u8]) -> Result<u8, Broken> {
    let (first, rest) = block.split_first().ok_or(Broken)?;
    *block = rest;
    Ok(*first)
}

/// A name or a value; `room`: where it is written out when it comes in Huffman's code.
fn string<'b: 'r, 'r>(block: &mut &'b [u8], room: &'r mut Vec<u8>) -> Result<&'r [u8], Broken> {
    let is_coded = block.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !is_coded {
        return Ok(text);
    }
    room.clear();
    if huffman::decode(text, room) { Ok(room) } else { Err(Broken) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::Name;

    /// A field without its borrows: what it is, its value, and whether it is a secret.
    type Read = (Kind, String, bool);

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Read>, Broken> {
        let mut fields = Vec::new();
        decoder.decode(block, |field| {
            let value = String::from_utf8_lossy(field.value).into_owned();
            fields.push((field.kind, value, field.is_secret));
        })?;
        Ok(fields)
    }

    fn field(kind: Kind, value: &str) -> Read {
        (kind, value.to_owned(), false)
    }

    fn plain(name: &str, value: &str) -> Read {
        field(Kind::Plain(Name::of(name.as_bytes())), value)
    }

    /// RFC 7541 C.4: three requests on one connection, with Huffman codes.
    #[test]
    fn the_requests_of_the_rfc_are_read() {
        let mut decoder = Decoder::new();
        let first =
            [0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        let authority = field(Kind::Authority, "www.example.com");
        let head = [field(Kind::Method, "GET"), field(Kind::Scheme, "http"), field(Kind::Path, "/"), authority.clone()];
        assert_eq!(read(&mut decoder, &first).as_deref(), Ok(&head[..]));
        let second = [0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        let fields = read(&mut decoder, &second).expect("sound");
        assert_eq!(fields[3..], [authority.clone(), plain("cache-control", "no-cache")]);
        let third = [
            0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49,
            0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf,
        ];
        let fields = read(&mut decoder, &third).expect("sound");
        assert_eq!(fields[3..], [authority, plain("custom-key", "custom-value")]);
        assert_eq!(decoder.table.len(), 3);
    }

    #[test]
    fn what_is_no_block_is_told() {
        let bad: [&[u8]; 8] = [
            &[0x80],
            &[0xff, 0x7f],
            &[0, 30, b'x'],
            &[0x40],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3f, 0xff, 0x3f],
            &[0x82, 0x20],
            &[0, 1, b'x', 0x81, 0],
        ];
        for block in bad {
            assert_eq!(read(&mut Decoder::new(), block), Err(Broken), "{block:x?}");
        }
    }

    #[test]
    fn a_field_that_no_message_may_have_leaves_the_rest_readable() {
        let bad = |value| field(Kind::Bad, value);
        let block = [&[0x40, 1, b'X', 1, b'1'][..], &[0x40, 1, b'x', 2, b' ', b'1'], &[0, 1, b'y', 1, b'2']].concat();
        let mut decoder = Decoder::new();
        assert_eq!(read(&mut decoder, &block), Ok(vec![bad("1"), bad(" 1"), plain("y", "2")]));
        assert_eq!(read(&mut decoder, &[0xbf, 0xbe]), Ok(vec![bad("1"), bad(" 1")]), "they are in the table");
        assert_eq!(read(&mut decoder, &[0x0f, 47, 1, b'3']), Ok(vec![plain("x", "3")]), "the name was sound");
    }

    #[test]
    fn what_nobody_may_keep_is_marked() {
        let fields = read(&mut Decoder::new(), &[0x10, 1, b'x', 1, b'1']).expect("sound");
        assert_eq!(fields, [(Kind::Plain(Name::Other), "1".to_owned(), true)]);
    }
}
