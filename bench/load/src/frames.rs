//! WebSocket frames, as far as an echo needs them: binary, final, masked by the client with one fixed key.

/// The sample key of RFC 6455, section 1.3, and the answer that it must get.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// A frame with this payload, as a client (masked) or a server sends it.
pub(crate) fn frame(payload: &[u8], masked: bool) -> Vec<u8> {
    let mut frame = vec![FINAL_BINARY];
    let bit = if masked { MASKED } else { 0 };
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(bit | short),
        _ => {
            frame.push(bit | 126);
            frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    if masked {
        frame.extend(MASK);
    }
    let start = frame.len();
    frame.extend(payload);
    if masked && let Some(payload) = frame.get_mut(start..) {
        mask(payload, MASK);
    }
    frame
}

/// Masks, or unmasks.
pub(crate) fn mask(payload: &mut [u8], mask: [u8; 4]) {
    for four in payload.chunks_mut(4) {
        for (byte, key) in four.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

/// The first whole frame of a client in `got`: its payload's place, its mask and where it ends.
pub(crate) fn first(got: &[u8]) -> Option<(usize, [u8; 4], usize)> {
    let length = got.get(1)? & !MASKED;
    let (length, at) = match length {
        126 => (usize::from(u16::from_be_bytes([*got.get(2)?, *got.get(3)?])), 4),
        short => (usize::from(short), 2),
    };
    let mask: [u8; 4] = got.get(at..at + 4)?.try_into().ok()?;
    let end = at + 4 + length;
    (got.len() >= end).then_some((at + 4, mask, end))
}
