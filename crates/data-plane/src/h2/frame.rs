//! The heads of frames, and the frames that we send (RFC 9113 §4, §6).

use super::Code;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// On DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 1;
/// On SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
/// On HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 4;
/// On DATA and HEADERS.
pub(crate) const PADDED: u8 = 8;
/// On HEADERS.
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// The largest payload that we take, and that anyone takes.
pub(crate) const LARGEST: usize = 16_384;
/// The largest window.
pub(crate) const WIDEST: i64 = 0x7fff_ffff;
/// Every window, where nothing else is said.
pub(crate) const FIRST_WINDOW: i64 = 65_535;
/// The highest number of a stream.
pub(crate) const LAST_STREAM: u32 = 0x7fff_ffff;

/// With what a client begins (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// The head at the front of `bytes`; `None`: it is not all there.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, rest @ ..] = bytes else { return None };
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        Some(Self { length, kind: *kind, flags: *flags, stream: word(rest)? & LAST_STREAM })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// The number in the first four bytes.
pub(crate) fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// What one end says of itself (RFC 9113 §6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Table(u32),
    Push(bool),
    Streams(u32),
    Window(i64),
    Frame(usize),
    List(u32),
    /// One that we do not know.
    Other,
}

impl Setting {
    /// The settings in a payload.
    ///
    /// # Errors
    /// The code for a value that none may have.
    pub(crate) fn read(payload: &[u8]) -> impl Iterator<Item = Result<Self, Code>> {
        payload.chunks_exact(6).map(|pair| {
            let [a, b, value @ ..] = pair else { return Err(Code::FRAME_SIZE_ERROR) };
            let value = word(value).ok_or(Code::FRAME_SIZE_ERROR)?;
            Ok(match (u16::from_be_bytes([*a, *b]), value) {
                (1, _) => Self::Table(value),
                (2, 0 | 1) => Self::Push(value == 1),
                (2, _) => return Err(Code::PROTOCOL_ERROR),
                (3, _) => Self::Streams(value),
                (4, 0..=0x7fff_ffff) => Self::Window(i64::from(value)),
                (4, _) => return Err(Code::FLOW_CONTROL_ERROR),
                (5, 0x4000..=0xff_ffff) => Self::Frame(value as usize),
                (5, _) => return Err(Code::PROTOCOL_ERROR),
                (6, _) => Self::List(value),
                _ => Self::Other,
            })
        })
    }
}

pub(crate) fn settings(out: &mut Vec<u8>, pairs: &[(u16, u32)]) {
    Head { length: 6 * pairs.len(), kind: SETTINGS, flags: 0, stream: 0 }.write(out);
    for (id, value) in pairs {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn acknowledge_settings(out: &mut Vec<u8>) {
    Head { length: 0, kind: SETTINGS, flags: ACK, stream: 0 }.write(out);
}

pub(crate) fn ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    Head { length: 8, kind: PING, flags, stream: 0 }.write(out);
    out.extend_from_slice(&payload);
}

pub(crate) fn reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    Head { length: 4, kind: RESET, flags: 0, stream }.write(out);
    out.extend_from_slice(&code.0.to_be_bytes());
}

pub(crate) fn window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    Head { length: 4, kind: WINDOW_UPDATE, flags: 0, stream }.write(out);
    out.extend_from_slice(&more.to_be_bytes());
}

pub(crate) fn go_away(out: &mut Vec<u8>, last: u32, code: Code) {
    Head { length: 8, kind: GOAWAY, flags: 0, stream: 0 }.write(out);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_back_and_its_reserved_bit_is_nothing() {
        let head = Head { length: 0x01_02_03, kind: DATA, flags: END_STREAM, stream: 0x7fff_fffe };
        let mut bytes = head.bytes();
        assert_eq!(Head::read(&bytes), Some(head));
        bytes[5] |= 0x80;
        assert_eq!(Head::read(&bytes), Some(head));
        assert_eq!(Head::read(&bytes[..8]), None);
    }

    #[test]
    fn settings_come_back_and_impossible_ones_have_their_code() {
        let mut out = Vec::new();
        settings(&mut out, &[(1, 0), (3, 100), (4, 65_536), (5, 16_384), (6, 1), (0x99, 7)]);
        let all: Vec<_> = Setting::read(&out[HEAD..]).collect();
        let expected = [
            Setting::Table(0),
            Setting::Streams(100),
            Setting::Window(65_536),
            Setting::Frame(16_384),
            Setting::List(1),
            Setting::Other,
        ];
        assert_eq!(all, expected.map(Ok));
        let refused = |id: u16, value: u32| {
            let mut out = Vec::new();
            settings(&mut out, &[(id, value)]);
            Setting::read(&out[HEAD..]).next().and_then(Result::err)
        };
        assert_eq!(refused(2, 2), Some(Code::PROTOCOL_ERROR));
        assert_eq!(refused(4, 1 << 31), Some(Code::FLOW_CONTROL_ERROR));
        assert_eq!((refused(5, 16_383), refused(5, 1 << 24)), (Some(Code::PROTOCOL_ERROR), Some(Code::PROTOCOL_ERROR)));
    }
}
