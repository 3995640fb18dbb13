//! The corpus: messages as files, each with what Synego makes of it and why others may make something else of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// One message.
pub struct Row {
    /// File and name.
    pub name: String,
    /// Its bytes.
    pub message: Vec<u8>,
    /// What Synego must make of it.
    pub expected: View,
    /// Why a server sees something else.
    pub reasons: BTreeMap<String, String>,
}

/// A request as a server has read it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// How a server went on after the last request that it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It read the request that follows each message, too.
    GoesOn,
    Refuses(u16),
    /// It closed without a refusal.
    Closes,
    /// It waits for more of the message.
    Waits,
}

/// What a server made of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct View {
    pub requests: Vec<Request>,
    pub end: End,
}

impl View {
    /// Whether `other` goes on with something else where this server goes on, or goes on longer than it refused to.
    ///
    /// - What this server has refused, nobody behind it can read in another way.
    /// - Targets are not compared: each server has its own way to write them.
    pub fn differs(&self, other: &Self) -> bool {
        let same = |(one, two): (&Request, &Request)| one.method == two.method && one.body == two.body;
        if !self.requests.iter().zip(&other.requests).all(same) {
            return true;
        }
        let (own, others) = (self.requests.len(), other.requests.len());
        match (self.end, other.end) {
            (End::Refuses(_), _) => others < own,
            (End::Closes, End::Waits) => others <= own,
            (End::Closes, End::Refuses(_)) => others < own,
            (End::Closes, _) => false,
            (_, End::Closes) => others == 0,
            (one, two) => one != two || own != others,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} \"{}\"", self.method, self.target, self.body.escape_ascii())
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.requests.iter().map(Request::to_string).collect();
        match self.end {
            End::GoesOn if parts.is_empty() => parts.push("nothing".to_owned()),
            End::GoesOn => {}
            End::Refuses(status) => parts.push(format!("refused {status}")),
            End::Closes => parts.push("closes".to_owned()),
            End::Waits => parts.push("waits".to_owned()),
        }
        f.write_str(&parts.join(" + "))
    }
}

/// Reads every file of the folder, in order.
pub fn read(folder: &Path) -> Vec<Row> {
    let files = std::fs::read_dir(folder).expect("the folder of the corpus").map(|file| file.expect("a file").path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "txt")).collect();
    files.sort();
    files.iter().flat_map(|path| rows(path)).collect()
}

fn rows(path: &Path) -> Vec<Row> {
    let file = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
    let text = std::fs::read_to_string(path).expect("a file of the corpus");
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}.txt:{}", number + 1);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let expected = View { requests: Vec::new(), end: End::GoesOn };
            let name = format!("{file}: {name}");
            rows.push(Row { name, message: Vec::new(), expected, reasons: BTreeMap::new() });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let row = rows.last_mut().unwrap_or_else(|| panic!("{place}: no row yet"));
        if let Some(text) = line.strip_prefix('|') {
            row.message.extend(bytes(text.strip_prefix(' ').unwrap_or(text), &place));
        } else if let Some(text) = line.strip_prefix("expect: ") {
            row.expected = view(text, &place);
        } else if let Some((servers, why)) = line.strip_prefix("why ").and_then(|rest| rest.split_once(": ")) {
            row.reasons.extend(servers.split(' ').map(|server| (server.to_owned(), why.to_owned())));
        } else {
            panic!("{place}: neither a line of a message nor what is expected of it: {line}");
        }
    }
    rows
}

/// A line of a message with its CR LF, which a backslash at its end takes away.
fn bytes(line: &str, place: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        if first != '\\' {
            out.extend(first.to_string().bytes());
            continue;
        }
        let Some(sign) = rest.chars().next() else { return out };
        rest = &rest[1..];
        match sign {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                out.push(u8::from_str_radix(&rest[..2], 16).unwrap_or_else(|_| panic!("{place}: no byte")));
                rest = &rest[2..];
            }
            '{' => {
                let (inner, after) = rest.split_once('}').unwrap_or_else(|| panic!("{place}: no end of a repeat"));
                let (text, times) = inner.rsplit_once('*').unwrap_or_else(|| panic!("{place}: no times"));
                let part = bytes(&format!("{text}\\"), place);
                out.extend(part.repeat(times.parse().unwrap_or_else(|_| panic!("{place}: no number"))));
                rest = after;
            }
            other => panic!("{place}: what is \\{other}?"),
        }
    }
    out.extend(b"\r\n");
    out
}

fn view(text: &str, place: &str) -> View {
    let mut view = View { requests: Vec::new(), end: End::GoesOn };
    for part in text.split(" + ") {
        match part {
            "closes" => view.end = End::Closes,
            "waits" => view.end = End::Waits,
            "nothing" => {}
            _ => match part.strip_prefix("refused ") {
                Some(status) => view.end = End::Refuses(status.parse().expect("a status")),
                None => view.requests.push(request(part).unwrap_or_else(|| panic!("{place}: no request: {part}"))),
            },
        }
    }
    view
}

fn request(text: &str) -> Option<Request> {
    let (head, body) = text.strip_suffix('"')?.split_once(" \"")?;
    let (method, target) = head.split_once(' ')?;
    Some(Request { method: method.to_owned(), target: target.to_owned(), body: bytes(&format!("{body}\\"), text) })
}
