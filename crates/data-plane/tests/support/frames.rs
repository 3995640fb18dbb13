//! HTTP/2 by hand: frames and header blocks that no library would send, and what comes back, frame by frame.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::expect_used,
    reason = "each test file uses its own part of this"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use synego_runtime::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::support::until;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// On DATA and HEADERS; on SETTINGS and PING the same bit is the acknowledgement.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block, field by field, none of them compressed.
#[derive(Default, Clone)]
pub struct Block(pub Vec<u8>);

impl Block {
    /// What every request needs, with `fields` in their order after it.
    pub fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Self {
        let pseudo = [(":method", method), (":scheme", "http"), (":authority", "users"), (":path", path)];
        Self::of(&pseudo).and(fields)
    }

    pub fn of(fields: &[(&str, &str)]) -> Self {
        Self::default().and(fields)
    }

    pub fn and(mut self, fields: &[(&str, &str)]) -> Self {
        for (name, value) in fields {
            self = self.field(name.as_bytes(), value.as_bytes());
        }
        self
    }

    /// A literal that no table remembers.
    pub fn field(mut self, name: &[u8], value: &[u8]) -> Self {
        self.0.push(0);
        self.string(name);
        self.string(value);
        self
    }

    /// A literal that the table remembers: from now on its newest entry.
    pub fn remembered(mut self, name: &[u8], value: &[u8]) -> Self {
        self.0.push(0x40);
        self.string(name);
        self.string(value);
        self
    }

    /// The newest entry of the table, so many times: one byte each.
    pub fn newest(mut self, times: usize) -> Self {
        self.0.extend(std::iter::repeat_n(0x80 | 62, times));
        self
    }

    fn string(&mut self, text: &[u8]) {
        let mut length = text.len();
        if length < 127 {
            self.0.push(u8::try_from(length).expect("a short length"));
        } else {
            self.0.push(127);
            length -= 127;
            while length >= 128 {
                self.0.push(u8::try_from(length & 127).expect("seven bits") | 128);
                length >>= 7;
            }
            self.0.push(u8::try_from(length).expect("seven bits"));
        }
        self.0.extend_from_slice(text);
    }

    /// HEADERS, and CONTINUATION where one frame does not hold the block.
    pub fn frames(&self, stream: u32, flags: u8) -> Vec<u8> {
        let mut parts = self.0.chunks(16_384).peekable();
        let mut bytes = Vec::new();
        let (mut kind, mut flags) = (HEADERS, flags & !END_HEADERS);
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            bytes.extend(frame(kind, flags | last, stream, part));
            (kind, flags) = (CONTINUATION, 0);
        }
        bytes
    }
}

/// A frame that came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a request, or of the whole connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, which is not zero.
    Away(u32),
    /// The connection was closed without a word.
    Closed,
}

impl Outcome {
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Status(status) => (400..500).contains(&status),
            Self::Reset(code) | Self::Away(code) => code != 0,
            Self::Closed => false,
        }
    }
}

#[derive(Default)]
struct Heard {
    frames: Vec<Frame>,
    closed: bool,
}

/// A client that sends what it likes; what comes back is read all the time.
pub struct Raw2 {
    writer: OwnedWriteHalf,
    heard: Arc<Mutex<Heard>>,
}

impl Raw2 {
    /// Connects and exchanges settings.
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (mut reader, writer) = stream.into_split();
        let heard = Arc::<Mutex<Heard>>::default();
        let ears = heard.clone();
        tasks::spawn("test-reader", tasks::Kind::Connection, async move {
            let mut held = Vec::new();
            while reader.read_buf(&mut held).await.is_ok_and(|read| read > 0) {
                while let Some(frame) = take(&mut held) {
                    ears.lock().expect("lock").frames.push(frame);
                }
            }
            ears.lock().expect("lock").closed = true;
        });
        let mut this = Self { writer, heard };
        assert!(this.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await);
        until("the settings of the other side", || this.count(SETTINGS, 0) > 0).await;
        assert!(this.send(&frame(SETTINGS, ACK, 0, &[])).await);
        this
    }

    /// Whether all of it could be sent.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(Duration::from_secs(10), self.writer.write_all(bytes)).await;
        sent.is_ok_and(|sent| sent.is_ok())
    }

    /// Sends until all is sent or the other side has had enough.
    pub async fn flood(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(64 * 1024) {
            if self.is_over() || !self.send(part).await {
                return;
            }
        }
    }

    pub async fn ask(&mut self, stream: u32, block: &Block) -> Outcome {
        self.send(&block.frames(stream, END_STREAM)).await;
        self.outcome(stream).await
    }

    pub fn frames(&self) -> Vec<Frame> {
        self.heard.lock().expect("lock").frames.clone()
    }

    pub fn count(&self, kind: u8, flags: u8) -> usize {
        let heard = self.heard.lock().expect("lock");
        heard.frames.iter().filter(|frame| frame.kind == kind && frame.flags == flags).count()
    }

    /// The code of a GOAWAY that is more than a farewell.
    pub fn away(&self) -> Option<u32> {
        let heard = self.heard.lock().expect("lock");
        let mut codes = heard.frames.iter().filter(|frame| frame.kind == GOAWAY).map(|frame| word(&frame.payload, 4));
        codes.find(|code| *code != 0)
    }

    pub fn is_closed(&self) -> bool {
        self.heard.lock().expect("lock").closed
    }

    fn is_over(&self) -> bool {
        self.is_closed() || self.away().is_some()
    }

    fn seen(&self, stream: u32) -> Option<Outcome> {
        if let Some(code) = self.away() {
            return Some(Outcome::Away(code));
        }
        let heard = self.heard.lock().expect("lock");
        let mut own = heard.frames.iter().filter(|frame| frame.stream == stream && stream != 0);
        let outcome = own.find_map(|frame| match frame.kind {
            RESET => Some(Outcome::Reset(word(&frame.payload, 0))),
            HEADERS => Some(Outcome::Status(status(&frame.payload))).filter(|said| *said != Outcome::Status(100)),
            _ => None,
        });
        outcome.or(heard.closed.then_some(Outcome::Closed))
    }

    /// What becomes of this stream; of stream 0: how the connection ends.
    pub async fn outcome(&self, stream: u32) -> Outcome {
        until("an outcome", || self.seen(stream).is_some()).await;
        self.seen(stream).expect("it was there")
    }
}

fn take(held: &mut Vec<u8>) -> Option<Frame> {
    let head = held.get(..9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let (kind, flags, stream) = (head[3], head[4], word(head, 5) & 0x7fff_ffff);
    let payload = held.get(9..9 + length)?.to_vec();
    held.drain(..9 + length);
    Some(Frame { kind, flags, stream, payload })
}

/// Four bytes at `at`, as a number.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The status at the beginning of a header block; 0 when it is written in a way that is not known here.
fn status(block: &[u8]) -> u16 {
    // Changes of the table's size come before the first field.
    let updates = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    match &block[updates..] {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(*indexed - 0x88)],
        [0x48 | 0x08, length, text @ ..] if length & 0x80 == 0 => {
            std::str::from_utf8(&text[..usize::from(*length)]).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        [0x48 | 0x08, length, text @ ..] => digits(&text[..usize::from(length & 0x7f)]),
        _ => 0,
    }
}

/// Three digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, 3 to 9 have six.
fn digits(code: &[u8]) -> u16 {
    let mut bits = code.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    (0..3).fold(0, |number, _| {
        let five = bits.by_ref().take(5).fold(0, |value, bit| value << 1 | bit);
        let digit = if five < 3 { five } else { (five << 1 | bits.next().unwrap_or(0)) - 22 };
        number * 10 + digit
    })
}
