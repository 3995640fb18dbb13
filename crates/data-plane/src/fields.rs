//! The fields of a message: all their bytes in one run, and beside it where each name and value lies.
//!
//! A head is copied once, as a whole; names are made lower case where they lie. What a hop adds is appended, what it takes
//! away is forgotten. The memory is used again by the next message on the same worker.

mod name;

use std::fmt;
use std::ops::Range;

pub(crate) use name::{Name, Names};

use crate::spare::{Shelf, Spare};

/// What a worker keeps for the next messages: how many, and the most bytes and fields that one has room for.
const KEPT: usize = 128;
const LARGEST: (usize, usize) = (8 * 1024, 64);
/// Room of a new one.
const FIRST: (usize, usize) = (2 * 1024, 32);

thread_local! {
    static SPARE: Spare<(Vec<u8>, Vec<Place>), KEPT> = const { Spare::new() };
}

/// Where a field lies.
#[derive(Clone, Copy)]
struct Place {
    name: Name,
    /// Whether nobody on its way may keep it.
    is_secret: bool,
    /// Whether it lies there as a line: name, colon, blank, value, CR LF.
    is_line: bool,
    name_at: u32,
    name_len: u32,
    value_at: u32,
    value_len: u32,
}

/// Some of the bytes of [`Fields`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

impl Span {
    pub(crate) fn of(place: Range<usize>) -> Self {
        Self { at: place.start as u32, len: place.len() as u32 }
    }
}

/// A field, as it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    pub(crate) name: Name,
    /// In lower case.
    pub(crate) text: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) is_secret: bool,
}

/// The fields of a message, in their order.
#[derive(Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    places: Vec<Place>,
    names: Names,
}

impl Fields {
    /// None, with room for some.
    pub(crate) fn new() -> Self {
        let (bytes, places) =
            SPARE.take().unwrap_or_else(|| (Vec::with_capacity(FIRST.0), Vec::with_capacity(FIRST.1)));
        Self { bytes, places, names: Names::default() }
    }

    /// Takes the bytes of a head, of which [`Self::point`] says what they are.
    pub(crate) fn copy(head: &[u8]) -> Self {
        let mut this = Self::new();
        this.bytes.extend_from_slice(head);
        this
    }

    /// In the copied head a field lies here; its name is made lower case.
    pub(crate) fn point(&mut self, name: Range<usize>, value: Range<usize>) -> (Name, &[u8]) {
        let text = self.bytes.get_mut(name.clone()).unwrap_or_default();
        text.make_ascii_lowercase();
        let known = Name::of(text);
        self.names.add(known);
        self.places.push(Place {
            name: known,
            is_secret: false,
            is_line: self.bytes.get(name.end..value.start) == Some(b": ")
                && self.bytes.get(value.end..value.end + 2) == Some(b"\r\n"),
            name_at: name.start as u32,
            name_len: name.len() as u32,
            value_at: value.start as u32,
            value_len: value.len() as u32,
        });
        (known, self.bytes.get(value).unwrap_or_default())
    }

    /// Forgets the field that came last.
    pub(crate) fn forget_last(&mut self) {
        if let Some(last) = self.places.pop()
            && !self.places.iter().any(|place| place.name == last.name)
        {
            self.names.remove(Names::of(&[last.name]));
        }
    }

    /// Keeps text beside the fields: the target of a request.
    pub(crate) fn keep(&mut self, text: &[u8]) -> Span {
        let span = Span { at: self.bytes.len() as u32, len: text.len() as u32 };
        self.bytes.extend_from_slice(text);
        span
    }

    /// What was kept, or lies there in the copied head.
    pub(crate) fn at(&self, span: Span) -> &[u8] {
        self.slice(span.at, span.len)
    }

    /// Adds a field; `text`: its name, in lower case.
    pub(crate) fn append(&mut self, name: Name, text: &[u8], value: &[u8], is_secret: bool) {
        let text = if name.is_known() { Span { at: 0, len: text.len() as u32 } } else { self.keep(text) };
        let value = self.keep(value);
        self.push(name, is_secret, text, value);
    }

    /// The one value of a field, in place of all that there were.
    pub(crate) fn set(&mut self, name: Name, value: &[u8]) {
        let value = self.keep(value);
        self.set_kept(name, value);
    }

    /// The same, for a number.
    pub(crate) fn set_number(&mut self, name: Name, number: u64) {
        let at = self.bytes.len() as u32;
        decimal(number, &mut self.bytes);
        self.set_kept(name, Span { at, len: self.bytes.len() as u32 - at });
    }

    fn set_kept(&mut self, name: Name, value: Span) {
        if self.names.has(name) {
            self.remove(name);
        }
        self.push(name, false, Span { at: 0, len: name.text().len() as u32 }, value);
    }

    fn push(&mut self, name: Name, is_secret: bool, text: Span, value: Span) {
        self.names.add(name);
        self.places.push(Place {
            name,
            is_secret,
            is_line: false,
            name_at: text.at,
            name_len: text.len,
            value_at: value.at,
            value_len: value.len,
        });
    }

    /// Removes all fields of this name, which is one that is known.
    pub(crate) fn remove(&mut self, name: Name) {
        self.remove_all(Names::of(&[name]));
    }

    /// Removes all fields of these names.
    pub(crate) fn remove_all(&mut self, names: Names) {
        if self.names.meets(names) {
            self.names.remove(names);
            self.places.retain(|place| !names.has(place.name));
        }
    }

    /// Keeps the fields of which `is_kept` says so.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(Field<'_>) -> bool) {
        let mut places = std::mem::take(&mut self.places);
        let mut names = Names::default();
        places.retain(|place| {
            let is_kept = is_kept(self.field(place));
            if is_kept {
                names.add(place.name);
            }
            is_kept
        });
        (self.places, self.names) = (places, names);
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> Names {
        self.names
    }

    pub(crate) fn has(&self, name: Name) -> bool {
        self.names.has(name)
    }

    /// The first value of a field.
    pub(crate) fn get(&self, name: Name) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The value of a field that there is once.
    pub(crate) fn only(&self, name: Name) -> Option<&[u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    /// The first value of a field, where it is text of visible ASCII and blanks.
    pub(crate) fn text(&self, name: Name) -> Option<&str> {
        self.get(name).and_then(ascii)
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let places: &[Place] = if self.names.has(name) { &self.places } else { &[] };
        places.iter().filter(move |place| place.name == name).map(|place| self.slice(place.value_at, place.value_len))
    }

    /// All values of a field of any name, which is in lower case.
    pub(crate) fn named<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let name = Name::of(text.as_bytes());
        let is_meant = move |field: &Field<'_>| field.name == name && field.text == text.as_bytes();
        self.iter().filter(is_meant).map(|field| field.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| self.field(place))
    }

    /// Writes all but those of some names as lines. What lies there as lines is copied as it lies, a run of them at once.
    pub(crate) fn write(&self, but: impl Fn(Name) -> bool, out: &mut Vec<u8>) {
        let (total, _) = self.sizes();
        out.reserve(total as usize + 4 * self.places.len());
        let mut run = Span::default();
        for place in self.places.iter().filter(|place| !but(place.name)) {
            if place.is_line && place.name_at == run.at + run.len {
                run.len = place.value_at + place.value_len + 2 - run.at;
                continue;
            }
            out.extend_from_slice(self.at(std::mem::take(&mut run)));
            if place.is_line {
                run = Span { at: place.name_at, len: place.value_at + place.value_len + 2 - place.name_at };
                continue;
            }
            let field = self.field(place);
            out.extend_from_slice(field.text);
            out.extend_from_slice(b": ");
            out.extend_from_slice(field.value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(self.at(run));
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of the names and values of all, and of the largest.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        self.places.iter().fold((0, 0), |(sum, largest), place| {
            let size = u64::from(place.name_len) + u64::from(place.value_len);
            (sum + size, size.max(largest))
        })
    }

    fn field(&self, place: &Place) -> Field<'_> {
        let name = place.name;
        let text = if name.is_known() { name.text().as_bytes() } else { self.slice(place.name_at, place.name_len) };
        Field { name, text, value: self.slice(place.value_at, place.value_len), is_secret: place.is_secret }
    }

    fn slice(&self, at: u32, len: u32) -> &[u8] {
        let at = at as usize;
        self.bytes.get(at..at + len as usize).unwrap_or_default()
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let mut copy = Self::copy(&self.bytes);
        copy.places.extend_from_slice(&self.places);
        copy.names = self.names;
        copy
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        let room = (self.bytes.capacity(), self.places.capacity());
        if room.0 == 0 || room.0 > LARGEST.0 || room.1 > LARGEST.1 {
            return;
        }
        let (mut bytes, mut places) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.places));
        bytes.clear();
        places.clear();
        SPARE.keep((bytes, places));
    }
}

impl PartialEq for Fields {
    /// Whether both say the same; which of it is a secret does not count.
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(|field| (field.text, field.value)).eq(other.iter().map(|field| (field.text, field.value)))
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    /// Names alone: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.text).into_owned())).finish()
    }
}

#[cfg(any(test, feature = "probe"))]
impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(all: I) -> Self {
        let mut fields = Self::new();
        for (text, value) in all {
            fields.append(Name::of(text.as_bytes()), text.as_bytes(), value.as_bytes(), false);
        }
        fields
    }
}

/// Text of visible ASCII and blanks.
pub(crate) fn ascii(value: &[u8]) -> Option<&str> {
    let is_text = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    std::str::from_utf8(value).ok().filter(|_| is_text)
}

/// Whether all of it may stand in the value of a field.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// Appends a number.
pub(crate) fn decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    let mut at = digits.len();
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
        at = place;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests;
