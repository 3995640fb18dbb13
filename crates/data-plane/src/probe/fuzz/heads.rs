//! Heads of HTTP/1.1: read the same however they are cut, and as a plain reader of lines reads them; what is written of
//! them is read as the same message with the same end.

use bytes::BytesMut;
use http::{StatusCode, Version};

use super::Chance;
use crate::fields::{self, Fields, Name, Names};
use crate::h1::Fault;
use crate::h1::out::Out;
use crate::h1::parse::{self, Facts, Framing};
use crate::h1::write::{self, Asked};
use crate::hop::head::Head as Checked;
use crate::message::{Answer, Request};

/// With more headers than this nothing is written anew: the few that are added might be too many.
const MOST_HEADERS: usize = 240;

type Read<T> = fn(&mut BytesMut) -> Result<Option<(T, Facts)>, Fault>;

/// What was made of bytes.
enum Seen<T> {
    /// A head, what it says, and how many bytes it took.
    Head(T, Facts, usize),
    Fault,
    More,
}

/// What of a head is compared.
trait Head {
    fn first(&self) -> String;
    fn fields(&self) -> &Fields;
}

impl Head for Request {
    fn first(&self) -> String {
        format!("{} {:?} {:?} {:?}", self.method, self.authority(), self.target(), self.version)
    }

    fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl Head for Answer {
    fn first(&self) -> String {
        self.status.as_str().to_owned()
    }

    fn fields(&self) -> &Fields {
        &self.fields
    }
}

/// Any bytes as the head of a request.
pub fn request_head(bytes: &[u8]) {
    let Some((head, facts, taken)) = read(bytes, parse::request) else { return };
    let line = check_lines(&bytes[..taken], head.fields());
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("{} words in the first line", words.len()) };
    assert_eq!(method, head.method.as_str().as_bytes());
    assert_eq!(version, if head.version == Version::HTTP_10 { b"HTTP/1.0" } else { b"HTTP/1.1" });
    if target.first() == Some(&b'/') {
        assert_eq!(head.target(), Some(target));
    }
    check_framing(&head, facts);
    if head.fields.len() <= MOST_HEADERS {
        write_request(&head, facts);
    }
}

/// Any bytes as the head of an answer.
pub fn answer_head(bytes: &[u8]) {
    let Some((head, facts, taken)) = read(bytes, parse::answer) else { return };
    let line = check_lines(&bytes[..taken], head.fields());
    let status = line.strip_prefix(b"HTTP/1.0 ").or_else(|| line.strip_prefix(b"HTTP/1.1 ")).unwrap_or_default();
    assert!(status.starts_with(head.status.as_str().as_bytes()), "{}", head.first());
    check_framing(&head, facts);
    if head.fields.len() > MOST_HEADERS {
        return;
    }
    for version in [Version::HTTP_10, Version::HTTP_11] {
        for is_head in [false, true] {
            write_answer(&head, facts, Asked { is_head, version, keeps: facts.keeps });
        }
    }
}

/// Reads the bytes at once and in pieces; the head, if both find one.
fn read<T: Head>(bytes: &[u8], read: Read<T>) -> Option<(T, Facts, usize)> {
    let whole = in_pieces(&[bytes], read);
    let cut = in_pieces(&Chance::of(bytes).pieces(bytes), read);
    match (whole, cut) {
        (Seen::Head(head, facts, taken), Seen::Head(other, other_facts, other_taken)) => {
            assert_eq!((head.first(), head.fields()), (other.first(), other.fields()), "what a head says");
            assert_eq!((facts, taken), (other_facts, other_taken), "where a head ends");
            Some((head, facts, taken))
        }
        (Seen::Fault, Seen::Fault) | (Seen::More, Seen::More) => None,
        _ => panic!("whether it is a head depends on how it is cut"),
    }
}

fn in_pieces<T>(pieces: &[&[u8]], read: Read<T>) -> Seen<T> {
    let (mut buf, mut came) = (BytesMut::new(), 0);
    for piece in pieces {
        buf.extend_from_slice(piece);
        came += piece.len();
        match read(&mut buf) {
            Ok(Some((head, facts))) => return Seen::Head(head, facts, came - buf.len()),
            Ok(None) => assert_eq!(buf.len(), came, "nothing is taken of what is not complete"),
            Err(_) => return Seen::Fault,
        }
    }
    Seen::More
}

/// Reads the head line by line, and compares the fields; the first line.
fn check_lines<'a>(head: &'a [u8], fields: &Fields) -> &'a [u8] {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    assert!(rest.is_empty(), "a head ends with its last line");
    let mut lines = lines.into_iter().skip_while(|line| line.is_empty());
    let first = lines.next().unwrap_or_default();
    let mut expected = Fields::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            assert!(lines.next().is_none(), "a head ends with its first empty line");
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { panic!("a field without colon") };
        let (name, value) = line.split_at(colon);
        let (text, value) = (name.to_ascii_lowercase(), value[1..].trim_ascii());
        assert!(!text.is_empty() && fields::is_value(value), "a field that is none: {line:?}");
        let name = Name::of(&text);
        if name != Name::ContentLength || !expected.has(name) {
            expected.append(name, &text, value, false);
        }
    }
    assert_eq!(*fields, expected);
    first
}

/// What is said of the body stands in the fields, once.
fn check_framing(head: &impl Head, facts: Facts) {
    let all = |name| head.fields().all(name).collect::<Vec<_>>();
    let (lengths, codings) = (all(Name::ContentLength), all(Name::TransferEncoding));
    match facts.framing {
        Framing::Unsaid => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        Framing::Length(length) => {
            assert!(codings.is_empty() && lengths.len() == 1);
            let digits = std::str::from_utf8(lengths[0]).unwrap_or_default();
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse() == Ok(length), "{digits}");
        }
    }
}

/// The head of the request as the next hop reads it.
fn write_request(head: &Request, facts: Facts) {
    let Request { method, version, authority, target, is_secret, .. } = head;
    let mut fields = head.fields.clone();
    if !fields.has(Name::Host) {
        fields.set(Name::Host, b"a");
    }
    let given = Request {
        method: method.clone(),
        version: *version,
        fields,
        authority: *authority,
        target: *target,
        is_secret: *is_secret,
    };
    let Ok(checked) = Checked::check(&given, true) else { return };
    let length = match facts.framing {
        Framing::Unsaid => Some(0),
        Framing::Length(length) => Some(length),
        Framing::Chunked => None,
    };
    let mut out = Out::default();
    let written = write::request(&mut out, &checked, &given.fields, length);
    let text = out.take_all();
    let Seen::Head(again, facts, taken) = in_pieces(&[&text], parse::request) else { panic!("{text:?} is refused") };
    assert_eq!(taken, text.len());
    assert_eq!((&again.method, again.version), (method, Version::HTTP_11));
    assert_eq!(again.target(), Some(checked.target().as_bytes()));
    assert_eq!(again.fields.only(Name::Host), Some(checked.authority().as_bytes()));
    match written {
        write::Framing::None => assert!(matches!(facts.framing, Framing::Unsaid | Framing::Length(0))),
        write::Framing::Length(length) => assert_eq!(facts.framing, Framing::Length(length)),
        write::Framing::Chunked => assert_eq!(facts.framing, Framing::Chunked),
        write::Framing::ToEnd => panic!("a request never ends with its connection"),
    }
    let framing = Names::of(&[Name::Host, Name::TransferEncoding, Name::ContentLength]);
    assert_eq!(without(&again.fields, framing), without(&head.fields, framing));
}

/// The head of the answer as the client reads it.
fn write_answer(head: &Answer, facts: Facts, asked: Asked) {
    let length = match facts.framing {
        Framing::Length(length) => Some(length),
        Framing::Unsaid | Framing::Chunked => None,
    };
    let mut out = Out::default();
    let (written, keeps) = write::answer(&mut out, head, length, asked);
    let text = out.take_all();
    let Seen::Head(again, facts, taken) = in_pieces(&[&text], parse::answer) else { panic!("{text:?} is refused") };
    assert_eq!(taken, text.len());
    assert!(text.starts_with(b"HTTP/1.1 ") && again.status == head.status);
    match written {
        write::Framing::None => assert_ne!(facts.framing, Framing::Chunked),
        write::Framing::Length(length) => assert_eq!(facts.framing, Framing::Length(length)),
        write::Framing::Chunked => assert_eq!((facts.framing, asked.version), (Framing::Chunked, Version::HTTP_11)),
        write::Framing::ToEnd => assert_eq!((facts.framing, keeps), (Framing::Unsaid, false)),
    }
    let is_upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
        assert_eq!((written, facts.framing), (write::Framing::None, Framing::Unsaid), "it has no body");
    }
    if !is_upgrade {
        assert_eq!(facts.keeps, keeps, "both ends know whether the connection goes on");
    }
    let mut framing = Names::of(&[Name::TransferEncoding, Name::ContentLength]);
    if !is_upgrade {
        framing = framing.and(Names::of(&[Name::Connection]));
        assert!(again.fields.has(Name::Date), "every answer has a date");
    }
    if !head.fields.has(Name::Date) {
        framing = framing.and(Names::of(&[Name::Date]));
    }
    assert_eq!(without(&again.fields, framing), without(&head.fields, framing));
}

fn without(fields: &Fields, names: Names) -> Fields {
    let mut fields = fields.clone();
    fields.remove_all(names);
    fields
}
