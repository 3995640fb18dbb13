//! HPACK: what is encoded is decoded as it was, with the same table at both ends; any blocks in a row are read or refused
//! with a table that never exceeds its room.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::script::Script;
use crate::h2::hpack::{Decoder, Encoder, Field};

/// The size of the table, where nothing else is said.
const TABLE: usize = 4096;

/// Any bytes: behind an odd one blocks, each behind its length; behind an even one a script of fields.
pub fn hpack(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    if first % 2 == 1 { blocks(Script(rest)) } else { fields(Script(rest)) }
}

fn blocks(mut script: Script<'_>) {
    let (mut decoder, mut ends) = (Decoder::new(), Ends::default());
    while !script.is_over() {
        let block = script.string();
        let mut fields = Vec::new();
        let read = decoder.decode(Bytes::copy_from_slice(block), |field, bytes| fields.push((field, bytes)));
        let (count, size) = decoder.table_size();
        assert!(size <= TABLE && count * 32 <= size, "{count} entries of {size} bytes");
        assert!(fields.len() <= block.len(), "a field has a byte at least");
        if read.is_err() {
            return;
        }
        for (field, _) in fields {
            ends.put(field);
        }
        ends.send();
    }
}

fn fields(mut script: Script<'_>) {
    let mut ends = Ends::default();
    while !script.is_over() {
        match script.byte() {
            0 => ends.send(),
            1 => ends.encoder.resize(usize::from(script.word())),
            2 => ends.put(Method::from_bytes(script.string()).map_or(Field::Scheme, Field::Method)),
            3 => ends.put(StatusCode::from_u16(script.word() % 1000).map_or(Field::Scheme, Field::Status)),
            4 => {
                let path = [b"/", script.string()].concat();
                if let Ok(path) = PathAndQuery::try_from(path) {
                    ends.put(Field::Path(path));
                }
            }
            5 => {
                if let Ok(authority) = Authority::try_from(script.string()) {
                    ends.put(Field::Authority(authority));
                }
            }
            // Few names and values, long ones among them, so that tables fill and entries are found again.
            kind @ 6..128 => {
                let names = ["x-a", "x-b", "x-c", "etag", "cookie", "vary", "content-length", "authorization"];
                let value = [kind >> 3; 1].repeat(usize::from(script.byte()) * usize::from(kind & 3));
                let value: Vec<u8> = value.iter().map(|byte| b'a' + byte).collect();
                ends.plain(names[usize::from(kind) % names.len()].as_bytes(), &value, false);
            }
            kind => {
                let name = script.string().to_ascii_lowercase();
                ends.plain(&name, script.string(), kind >= 240);
            }
        }
    }
    ends.send();
}

/// Both ends of one direction, and a block that is being made.
struct Ends {
    encoder: Encoder,
    decoder: Decoder,
    block: Vec<u8>,
    fields: Vec<Field>,
    is_begun: bool,
}

impl Default for Ends {
    fn default() -> Self {
        let (encoder, decoder) = (Encoder::new(), Decoder::new());
        Self { encoder, decoder, block: Vec::new(), fields: Vec::new(), is_begun: false }
    }
}

impl Ends {
    fn plain(&mut self, name: &[u8], value: &[u8], is_secret: bool) {
        let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()))
        else {
            return;
        };
        value.set_sensitive(is_secret);
        self.put(Field::Plain(name, value));
    }

    fn put(&mut self, field: Field) {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.encoder.begin(&mut self.block);
        }
        let (encoder, block) = (&mut self.encoder, &mut self.block);
        match &field {
            Field::Method(method) => encoder.method(block, method),
            Field::Scheme => encoder.scheme(block),
            Field::Authority(authority) => {
                let Ok(value) = HeaderValue::from_str(authority.as_str()) else { return };
                encoder.authority(block, &value);
            }
            Field::Path(path) => encoder.path(block, path),
            Field::Status(status) => encoder.status(block, *status),
            Field::Plain(name, value) => encoder.field(block, name, value),
            Field::Bad => return,
        }
        self.fields.push(field);
    }

    /// The block goes to the other end.
    fn send(&mut self) {
        let block = Bytes::from(std::mem::take(&mut self.block));
        let mut expected = std::mem::take(&mut self.fields).into_iter();
        if !std::mem::take(&mut self.is_begun) {
            return;
        }
        let take = |field, _| {
            let sent = expected.next();
            let is_secret =
                |field: &Option<Field>| matches!(field, Some(Field::Plain(_, value)) if value.is_sensitive());
            assert!(!is_secret(&sent) || is_secret(&Some(Field::clone(&field))), "a secret stays one");
            assert_eq!(Some(field), sent);
        };
        assert_eq!(self.decoder.decode(block, take), Ok(()));
        assert_eq!(expected.next(), None);
        assert_eq!(self.encoder.table_size(), self.decoder.table_size(), "both ends have one table");
    }
}
