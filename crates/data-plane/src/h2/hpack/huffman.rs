//! The Huffman code of HPACK (RFC 7541 §5.2, appendix B).
//!
//! The code is canonical: among codes of one length those of smaller symbols come first, and shorter codes are smaller.
//! So the lengths alone say all of it.

use std::sync::LazyLock;

/// The length of the code of each byte; of the end of a string it is 30 as well, and comes last.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// The longest code.
const LONGEST: usize = 30;
/// Codes of up to so many bits are found in one step.
const QUICK: usize = 9;

struct Codes {
    /// By the next [`QUICK`] bits: the byte and its length; length 0: the code is longer.
    quick: [(u8, u8); 1 << QUICK],
    /// Bytes in the order of their codes.
    order: [u8; 256],
    /// For each length: the first code, how many there are, and where they begin in `order`.
    of_length: [(u32, u32, usize); LONGEST + 1],
}

static CODES: LazyLock<Codes> = LazyLock::new(Codes::new);

impl Codes {
    fn new() -> Self {
        let mut codes = Self { quick: [(0, 0); 1 << QUICK], order: [0; 256], of_length: [(0, 0, 0); LONGEST + 1] };
        let (mut code, mut place) = (0_u32, 0);
        for (length, of_length) in codes.of_length.iter_mut().enumerate() {
            code <<= 1;
            let bytes =
                (0..=u8::MAX).filter(|byte| LENGTHS.get(usize::from(*byte)).copied() == u8::try_from(length).ok());
            *of_length = (code, 0, place);
            for byte in bytes {
                if let Some(slot) = codes.order.get_mut(place) {
                    *slot = byte;
                }
                if length <= QUICK {
                    let spare = QUICK - length;
                    let first = (code as usize) << spare;
                    for slot in codes.quick.iter_mut().skip(first).take(1 << spare) {
                        *slot = (byte, length as u8);
                    }
                }
                of_length.1 += 1;
                code += 1;
                place += 1;
            }
        }
        codes
    }

    /// The byte whose code begins `bits` (at its top), and the length of its code.
    fn read(&self, bits: u64) -> Option<(u8, usize)> {
        let (byte, length) = *self.quick.get((bits >> (64 - QUICK)) as usize)?;
        if length > 0 {
            return Some((byte, usize::from(length)));
        }
        let longer = self.of_length.iter().enumerate().skip(QUICK + 1);
        for (length, (first, count, place)) in longer {
            let at = ((bits >> (64 - length)) as u32).wrapping_sub(*first);
            if at < *count {
                return Some((*self.order.get(place + at as usize)?, length));
            }
        }
        None
    }
}

/// Decodes a string to the end of `out`; false: it is none.
///
/// What fills up its last byte must be the beginning of the end's code, and shorter than a byte.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let codes = &*CODES;
    let (mut bits, mut have, mut rest) = (0_u64, 0_usize, text.iter());
    loop {
        while have <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let padded = bits | (u64::MAX >> have.min(63)) | u64::from(have == 0);
        if have < 8 && padded == u64::MAX {
            return true;
        }
        match codes.read(bits) {
            Some((byte, length)) if length <= have => {
                out.push(byte);
                bits <<= length;
                have -= length;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(text, &mut out).then_some(out)
    }

    /// The code as its own description: for each byte its code and length.
    fn encode(text: &[u8]) -> Vec<u8> {
        let (mut bits, mut have, mut out) = (0_u64, 0, Vec::new());
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let (first, _, place) = CODES.of_length[length];
            let at = CODES.order.iter().skip(place).position(|other| other == byte).expect("a code");
            bits = bits << length | u64::from(first + at as u32);
            have += length;
            while have >= 8 {
                have -= 8;
                out.push((bits >> have) as u8);
            }
        }
        if have > 0 {
            out.push((bits << (8 - have)) as u8 | (0xff >> have));
        }
        out
    }

    #[test]
    fn the_lengths_make_a_complete_code() {
        let sum: u64 = LENGTHS.iter().map(|length| 1 << (LONGEST - usize::from(*length))).sum();
        assert_eq!(sum, (1 << LONGEST) - 1, "all but the end of a string, which has one code of 30 bits");
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let examples: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf], "custom-value"),
            (&[0x64, 0x02], "302"),
        ];
        for (text, meant) in examples {
            assert_eq!(decoded(text).as_deref(), Some(meant.as_bytes()));
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decoded(&encode(&all)), Some(all.clone()));
        for byte in all {
            assert_eq!(decoded(&encode(&[byte])), Some(vec![byte]));
        }
        assert_eq!(decoded(b""), Some(Vec::new()));
    }

    #[test]
    fn what_fills_up_the_last_byte_is_the_beginning_of_the_end() {
        // `0` is 00000.
        assert_eq!(decoded(&[0b0000_0111]), Some(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), None, "not of ones alone");
        assert_eq!(decoded(&[0b0000_0111, 0xff]), None, "a whole byte of it");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the end itself");
    }
}
