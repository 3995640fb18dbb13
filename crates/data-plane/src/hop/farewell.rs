//! The polite end of a WebSocket that we carry: where its frames end, and what closes it there. Source: RFC 6455.

use rand::Rng;

/// The status of an end because the server goes away.
const GOING_AWAY: u16 = 1001;
/// What is sent of the reason.
const REASON: &[u8] = b"draining";
const OPCODE_CLOSE: u8 = 0x8;

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: [u8; 14],
    have: usize,
    /// Bytes of its payload that are still to come.
    left: u64,
    has_closed: bool,
}

impl Frames {
    /// Whether no frame has begun.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a close was said.
    pub(crate) fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Takes bytes as they pass.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.step(bytes);
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// Takes no more than the rest of the frame that has begun, and gives that part.
    pub(crate) fn pass_one<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut used = 0;
        while !self.is_between() {
            let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) else { break };
            used += self.step(rest);
        }
        bytes.get(..used).unwrap_or_default()
    }

    /// Takes some bytes, of one head or one payload; how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return taken;
        }
        let (Some(byte), Some(place)) = (bytes.first(), self.head.get_mut(self.have)) else { return bytes.len() };
        *place = *byte;
        self.have += 1;
        if let Some(length) = self.length() {
            self.has_closed |= self.head[0] & 0xf == OPCODE_CLOSE;
            (self.have, self.left) = (0, length);
        }
        1
    }

    /// Length of the payload, once the head is whole.
    fn length(&self) -> Option<u64> {
        let [_, second, more @ ..] = &self.head;
        if self.have < 2 {
            return None;
        }
        let (extended, short) = match second & 0x7f {
            126 => (2, 0),
            127 => (8, 0),
            short => (0, u64::from(short)),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 + extended + mask {
            return None;
        }
        let long = more.iter().take(extended).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        Some(if extended == 0 { short } else { long })
    }
}

/// A close to the client, and one to the service, which is masked as a client's are.
pub(crate) fn closes(rng: &mut impl Rng) -> (Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = GOING_AWAY.to_be_bytes().iter().chain(REASON).copied().collect();
    // It is far below 126 bytes.
    let length = payload.len() as u8;
    let head = 0x80 | OPCODE_CLOSE;
    let plain = [head, length].into_iter().chain(payload.iter().copied()).collect();
    let mask: [u8; 4] = rng.random();
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let masked = [head, 0x80 | length].into_iter().chain(mask).chain(masked).collect();
    (plain, masked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mut bytes = vec![0x82];
        let mask = if masked { 0x80 } else { 0 };
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(1, if masked { 4 } else { 0 } + length));
        bytes
    }

    #[test]
    fn frames_of_every_length_end_where_they_end_however_they_are_cut() {
        for (length, masked) in [(0, false), (5, true), (125, false), (126, true), (70_000, false), (70_000, true)] {
            let bytes = frame(length, masked);
            for cut in [1, 2, 3, 7, 13, bytes.len() - 1] {
                let mut frames = Frames::default();
                let (one, two) = bytes.split_at(cut.min(bytes.len() - 1));
                frames.pass(one);
                assert!(!frames.is_between(), "{length} {masked} {cut}");
                let next = [two, &frame(3, masked)].concat();
                assert_eq!(frames.pass_one(&next).len(), two.len(), "{length} {masked} {cut}");
                assert!(frames.is_between() && !frames.has_closed());
            }
        }
    }

    #[test]
    fn a_close_of_either_side_is_known_and_says_1001() {
        let (plain, masked) = closes(&mut rand::rng());
        for close in [&plain, &masked] {
            let mut frames = Frames::default();
            frames.pass(close);
            assert!(frames.is_between() && frames.has_closed());
        }
        assert_eq!(plain, b"\x88\x0a\x03\xe9draining");
    }
}
