//! HPACK: what is encoded is decoded as it was, with the same table at both ends; any blocks in a row are read or refused
//! with a table that never exceeds its room.

use http::{Method, StatusCode};

use super::script::Script;
use crate::fields::{self, Name};
use crate::h2::hpack::{Decoder, Encoder, Field, Kind};
use crate::hop::path;

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
        let read = decoder.decode(block, |field| fields.push(Owned::of(&field)));
        let (count, size) = decoder.table_size();
        assert!(size <= TABLE && count * 32 <= size, "{count} entries of {size} bytes");
        assert!(fields.len() <= block.len(), "a field has a byte at least");
        if read.is_err() {
            return;
        }
        for field in fields {
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
            2 => ends.pseudo(Kind::Method, script.string()),
            3 => ends.pseudo(Kind::Status, (script.word() % 1000).to_string().as_bytes()),
            4 => ends.pseudo(Kind::Path, &[b"/", script.string()].concat()),
            5 => ends.pseudo(Kind::Authority, script.string()),
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

/// A field, kept.
#[derive(Debug, PartialEq, Eq)]
struct Owned {
    kind: Kind,
    text: Vec<u8>,
    value: Vec<u8>,
    is_secret: bool,
}

impl Owned {
    fn of(field: &Field<'_>) -> Self {
        Self { kind: field.kind, text: field.text.into(), value: field.value.into(), is_secret: field.is_secret }
    }
}

/// Both ends of one direction, and a block that is being made.
struct Ends {
    encoder: Encoder,
    decoder: Decoder,
    block: Vec<u8>,
    fields: Vec<Owned>,
    is_begun: bool,
}

impl Default for Ends {
    fn default() -> Self {
        let (encoder, decoder) = (Encoder::new(), Decoder::new());
        Self { encoder, decoder, block: Vec::new(), fields: Vec::new(), is_begun: false }
    }
}

impl Ends {
    fn pseudo(&mut self, kind: Kind, value: &[u8]) {
        let (text, is_sound) = match kind {
            Kind::Method => (":method", Method::from_bytes(value).is_ok()),
            Kind::Status => (":status", StatusCode::from_bytes(value).is_ok()),
            Kind::Path => (":path", path::is_target(value)),
            _ => (":authority", !value.is_empty() && value.iter().all(u8::is_ascii_graphic)),
        };
        if is_sound {
            self.put(Owned { kind, text: text.into(), value: value.into(), is_secret: false });
        } else {
            self.put(Owned { kind: Kind::Scheme, text: b":scheme".into(), value: b"http".into(), is_secret: false });
        }
    }

    fn plain(&mut self, name: &[u8], value: &[u8], is_secret: bool) {
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let value = value.trim_ascii();
        if !name.is_empty() && name.iter().all(is_token) && fields::is_value(value) {
            let kind = Kind::Plain(Name::of(name));
            self.put(Owned { kind, text: name.into(), value: value.into(), is_secret });
        }
    }

    fn put(&mut self, field: Owned) {
        if !std::mem::replace(&mut self.is_begun, true) {
            self.encoder.begin(&mut self.block);
        }
        let (encoder, block) = (&mut self.encoder, &mut self.block);
        let value = std::str::from_utf8(&field.value).unwrap_or_default();
        match field.kind {
            Kind::Method => encoder.method(block, &value.parse().unwrap_or_default()),
            Kind::Scheme => encoder.scheme(block),
            Kind::Authority => encoder.authority(block, value, field.is_secret),
            Kind::Path => encoder.path(block, value, field.is_secret),
            Kind::Status => encoder.status(block, value.parse().unwrap_or_default()),
            Kind::Plain(name) => {
                let Owned { text, value, is_secret, .. } = &field;
                encoder.field(block, &fields::Field { name, text, value, is_secret: *is_secret });
            }
            Kind::Bad => return,
        }
        self.fields.push(field);
    }

    /// The block goes to the other end.
    fn send(&mut self) {
        let block = std::mem::take(&mut self.block);
        let mut expected = std::mem::take(&mut self.fields).into_iter();
        if !std::mem::take(&mut self.is_begun) {
            return;
        }
        let take = |field: Field<'_>| {
            let Some(sent) = expected.next() else { panic!("{field:?} was not sent") };
            // The other pseudo-fields hold words of the protocol, and what they say goes into no table.
            let may_be_kept = matches!(sent.kind, Kind::Method | Kind::Scheme | Kind::Status);
            assert!(!sent.is_secret || field.is_secret || may_be_kept, "a secret stays one");
            // Nothing depends on which of the two schemes it is.
            let value: &[u8] = if field.kind == Kind::Scheme { &sent.value } else { field.value };
            assert_eq!((field.kind, field.text, value), (sent.kind, &sent.text[..], &sent.value[..]));
        };
        assert_eq!(self.decoder.decode(&block, take), Ok(()));
        assert!(expected.next().is_none());
        assert_eq!(self.encoder.table_size(), self.decoder.table_size(), "both ends have one table");
    }
}
