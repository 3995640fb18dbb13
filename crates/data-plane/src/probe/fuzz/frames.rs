//! Frames of HTTP/2 into one end of a connection that answers, sends and reads as a script tells: no panic, every window
//! kept, no more written than asked for, and nothing that depends on how the bytes are cut.

mod peer;

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http::{Method, StatusCode};
use synego_model::Limits;

use self::peer::{Peer, pattern};
use super::Chance;
use super::script::Script;
use crate::fields::{Fields, Name};
use crate::h2::Code;
use crate::h2::frame::{HEAD, Head, LARGEST, acknowledge_settings, settings};
use crate::h2::mux::{Begun, Fatal, Mux, Received, Role};
use crate::message::Frame;

/// Steps of one script; more show nothing new.
const MOST_STEPS: usize = 400;
/// Bytes that wait, before a script that is compared sends no more: beyond that it counts how large heads became, which
/// depends on the tables.
const MOST_WAITING: usize = 96 * 1024;

/// The bits of the first byte.
const SERVER: u8 = 1;
/// The script alone says when something is written.
const HOARDS: u8 = 2;
const SMALL: u8 = 4;
/// No settings come but those of the script.
const SILENT: u8 = 8;
/// Our settings are acknowledged.
const ACKNOWLEDGED: u8 = 16;

/// Any bytes as a script of frames that come and of what is done with their streams.
pub fn h2_frames(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let whole = End::new(*first).run(rest, None);
    if first & HOARDS == 0 {
        let cut = End::new(*first).run(rest, Some(Chance::of(bytes)));
        // Which of several streams goes first when all may go on is nobody's business.
        if !whole.is_unordered && !cut.is_unordered {
            assert_eq!(whole, cut, "what is made of frames depends on how they are cut");
        }
    }
}

/// What became of a script.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    events: BTreeMap<u32, Vec<String>>,
    read: BTreeMap<u32, Vec<u8>>,
    fatal: Option<u32>,
    is_unordered: bool,
}

/// One end of a connection, and what is known of it from outside.
struct End {
    mux: Mux,
    role: Role,
    hoards: bool,
    buf: BytesMut,
    peer: Peer,
    /// Streams that were begun: whether their head was written, and the bytes of the body that were sent.
    streams: Vec<(u32, bool, usize)>,
    /// Bytes that it was asked to send, generously.
    asked: usize,
    came: usize,
    trace: Trace,
}

impl End {
    fn new(bits: u8) -> Self {
        let role = if bits & SERVER == 0 { Role::Client } else { Role::Server };
        let small = Limits {
            headers: 200,
            target: 56,
            streams: 3,
            window: 1000,
            connection_window: 100_000,
            resets: 5,
            ..Limits::default()
        };
        let limits = if bits & SMALL == 0 { Limits::default() } else { small };
        let mut end = Self {
            mux: Mux::new(role, &limits, Some(limits.resets).filter(|_| role == Role::Server)),
            role,
            hoards: bits & HOARDS != 0,
            buf: BytesMut::new(),
            peer: Peer::new(role),
            streams: Vec::new(),
            asked: 0,
            came: 0,
            trace: Trace::default(),
        };
        let mut first = Vec::new();
        if bits & SILENT == 0 {
            settings(&mut first, &[]);
        }
        if bits & ACKNOWLEDGED != 0 {
            acknowledge_settings(&mut first);
        }
        end.feed(&[&first]);
        end
    }

    fn run(mut self, script: &[u8], mut cuts: Option<Chance>) -> Trace {
        let mut script = Script(script);
        for _ in 0..MOST_STEPS {
            if script.is_over() || self.trace.fatal.is_some() {
                break;
            }
            let op = script.byte();
            if op % 16 < 13 {
                let bytes = frame(op % 16, self.role, &mut script);
                match &mut cuts {
                    Some(chance) => self.feed(&chance.pieces(&bytes)),
                    None => self.feed(&[&bytes]),
                }
            } else {
                self.act(op % 16, &mut script);
            }
            self.settle();
        }
        self.finish()
    }

    fn feed(&mut self, pieces: &[&[u8]]) {
        self.trace.is_unordered |= self.mux.waiting().0 > 1;
        for piece in pieces {
            self.buf.extend_from_slice(piece);
            self.peer.sends(piece);
            self.came += piece.len();
            while self.trace.fatal.is_none() {
                match self.mux.receive(&mut self.buf) {
                    Ok(Received::Begun(begun)) => self.begun(&begun),
                    Ok(Received::More(count)) => {
                        assert!(count > 0 && self.buf.len() + count <= HEAD + LARGEST);
                        break;
                    }
                    Err(Fatal(code)) => self.trace.fatal = Some(code.0),
                }
            }
        }
        self.mux.round();
    }

    fn begun(&mut self, begun: &Begun) {
        assert!(self.role == Role::Server && begun.id % 2 == 1);
        let head = begun.request.as_ref().map(|request| {
            let has_path = request.target().is_some_and(|target| target.starts_with(b"/"));
            assert!(has_path != (request.method == Method::CONNECT));
            assert!(!request.fields.has(Name::Connection) && !request.fields.has(Name::Upgrade));
            let (authority, target) = (request.authority(), request.target());
            format!("{} {authority:?} {target:?} {:?}", request.method, request.fields)
        });
        self.note(begun.id, format!("begun {} {head:?}", begun.is_bare));
        assert!(self.streams.last().is_none_or(|last| last.0 < begun.id), "numbers of streams grow");
        self.streams.push((begun.id, false, 0));
    }

    fn note(&mut self, id: u32, event: String) {
        self.trace.events.entry(id).or_default().push(event);
    }

    /// What whoever drives the streams does.
    fn act(&mut self, op: u8, script: &mut Script<'_>) {
        self.asked += 300;
        let (at, detail) = (script.byte(), script.byte());
        if op == 13 && self.role == Role::Client && detail & 64 == 0 {
            return self.begin(detail);
        }
        let index = usize::from(at).min(self.streams.len().saturating_sub(1));
        let Some((id, told, sent)) = self.streams.get(index).copied() else { return };
        match op {
            13 if !told => {
                self.streams[index].1 = true;
                let status = StatusCode::from_u16(200 + u16::from(detail % 8)).unwrap_or_default();
                self.mux.write_head(id, detail & 128 != 0, |encoder, out| {
                    encoder.status(out, status);
                    encoder.fields(out, &trailers(detail));
                });
            }
            14 if told => {
                let room = if self.hoards { usize::MAX } else { MOST_WAITING.saturating_sub(self.mux.waiting().1) };
                let size = usize::from(script.word()).min(room);
                self.asked += size;
                self.streams[index].2 += size;
                if detail & 2 == 0 {
                    self.mux.send(id, pattern(id, sent, size), detail & 1 != 0);
                } else {
                    self.mux.finish(id, (detail & 4 != 0).then(|| trailers(detail >> 3)));
                }
            }
            15 => self.attend(id, detail),
            _ => {}
        }
    }

    /// A request of ours.
    fn begin(&mut self, detail: u8) {
        if !self.mux.takes_streams() || self.mux.open() >= self.mux.peer_streams().min(50) {
            return;
        }
        let id = self.mux.begin(detail & 1 != 0);
        self.streams.push((id, true, 0));
        self.mux.write_head(id, detail & 128 != 0, |encoder, out| {
            encoder.method(out, if detail & 1 == 0 { &Method::POST } else { &Method::HEAD });
            encoder.scheme(out);
            encoder.authority(out, "users", false);
            encoder.fields(out, &trailers(detail));
        });
    }

    fn attend(&mut self, id: u32, detail: u8) {
        let cx = &Context::from_waker(Waker::noop());
        match detail % 8 {
            0..=2 => {
                for _ in 0..[1, 8, usize::MAX][usize::from(detail % 8)] {
                    let Poll::Ready(read) = self.mux.poll_data(id, cx) else { break };
                    match read {
                        Some(Ok(Frame::Data(data))) => self.trace.read.entry(id).or_default().extend_from_slice(&data),
                        Some(Ok(Frame::Trailers(trailers))) => self.note(id, format!("read {trailers:?}")),
                        other => {
                            self.note(id, format!("read {other:?}"));
                            break;
                        }
                    }
                }
            }
            3 => {
                let answer = self.mux.poll_answer(id, cx);
                self.note(id, format!("answer {answer:?}"));
            }
            4 => self.mux.release(id),
            5 => {
                let given_up = self.mux.is_given_up(id, cx);
                let seen = (given_up, self.mux.is_ended(id), self.mux.expected(id));
                self.note(id, format!("state {seen:?}"));
            }
            6 if detail & 8 != 0 && self.role == Role::Server => {
                let last = self.mux.last_begun();
                self.mux.go_away(last, Code::NO_ERROR);
            }
            6 => self.mux.ping([detail; 8]),
            _ => self.flush(),
        }
    }

    /// What must hold after each step.
    fn settle(&mut self) {
        if self.trace.fatal.is_some() {
            return;
        }
        if !self.hoards {
            self.flush();
        }
        self.mux.check();
        assert!(self.mux.out.len() <= self.most(), "{} bytes wait", self.mux.out.len());
        if self.mux.out.is_empty() {
            self.peer.check(&self.mux);
        }
    }

    /// Bytes that may have been written in all: an answer to every frame that came, and a frame for every byte that was
    /// sent, which is what windows of one byte make of it.
    fn most(&self) -> usize {
        1024 + 6 * self.came + 12 * self.asked
    }

    fn flush(&mut self) {
        loop {
            self.mux.fill();
            if self.mux.out.is_empty() {
                return;
            }
            let bytes = self.mux.out.take_all();
            self.peer.gets(&bytes);
        }
    }

    fn finish(mut self) -> Trace {
        if let Some(code) = self.trace.fatal {
            let last = self.mux.last_begun();
            self.mux.go_away(last, Code(code));
            self.mux.die();
        }
        self.flush();
        for (id, ..) in std::mem::take(&mut self.streams) {
            self.mux.release(id);
        }
        self.flush();
        assert!(self.mux.is_idle() && self.mux.open() == 0, "no stream is left");
        assert!(self.peer.got <= self.most(), "{} bytes were written", self.peer.got);
        self.peer.describe(&mut self.trace.events);
        self.trace
    }
}

/// A frame of the kind that the script says, or a part of one.
fn frame(kind: u8, role: Role, script: &mut Script<'_>) -> Vec<u8> {
    let (flags, stream) = match kind {
        12 => return script.string().to_vec(),
        _ => (script.byte(), stream(script.byte())),
    };
    let payload = match kind {
        10 => block(role, script.byte()),
        11 => vec![0x61; usize::from(script.word()) % (LARGEST + 1)],
        _ => script.string().to_vec(),
    };
    let (kind, flags) = match kind {
        10 => (1, flags & 1 | 4),
        // Nothing of it is padding.
        11 => (0, flags & 1),
        _ => (kind, flags),
    };
    let mut bytes = Head { length: payload.len(), kind, flags, stream }.bytes().to_vec();
    bytes.extend_from_slice(&payload);
    bytes
}

/// Mostly one of few streams.
fn stream(byte: u8) -> u32 {
    match byte {
        0..0xf0 => u32::from(byte & 0x1f),
        _ => 0x7fff_ff00 | u32::from(byte),
    }
}

/// A head that is well made.
fn block(role: Role, detail: u8) -> Vec<u8> {
    let mut block = match role {
        Role::Server => vec![0x82 + (detail & 1), 0x86, 0x84, 0x41, 1, b'a'],
        Role::Client => vec![[0x88, 0x89, 0x8b][usize::from(detail % 3)]],
    };
    if detail & 4 != 0 {
        block.extend_from_slice(&[0x0f, 13, 1, b'0' + (detail >> 3) % 10]);
    }
    if detail & 128 != 0 {
        block.extend_from_slice(&[0x40, 3, b'x', b'-', b'a', 1, detail]);
    }
    block
}

fn trailers(detail: u8) -> Fields {
    let name = ["etag", "vary", "x-a", "grpc-status"][usize::from(detail & 3)];
    let value = "v".repeat(usize::from(detail & 31));
    [(name, value.as_str())].into_iter().collect()
}
