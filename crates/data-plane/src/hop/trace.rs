//! Who asked, across hops: W3C trace context and the request id.

use rand::Rng;
use smallvec::SmallVec;

use crate::fields::{Fields, Name};

/// The id of a request, in visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(SmallVec<[u8; 40]>);

impl RequestId {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Default for RequestId {
    /// Of a request that has none.
    fn default() -> Self {
        Self(SmallVec::from_slice(b"-"))
    }
}

/// Longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;
/// Bytes of a `traceparent` of the version that is known.
const LENGTH: usize = 55;
/// One in so many new traces is sampled.
const SAMPLE_ONE_IN: u32 = 100;

/// Where in a trace this hop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace_id: u128,
    /// Of this hop, drawn anew.
    pub(crate) span_id: u64,
    pub(crate) is_sampled: bool,
}

impl Trace {
    /// Goes on with the trace of a request, or begins one; writes what the next hop reads.
    pub(crate) fn take(fields: &mut Fields, rng: &mut impl Rng) -> Self {
        let parent = fields.only(Name::TraceParent).and_then(parse);
        // Zero stands for none.
        let span_id = rng.random::<u64>().max(1);
        let trace = match parent {
            Some((trace_id, is_sampled)) => Self { trace_id, span_id, is_sampled },
            None => {
                fields.remove(Name::TraceState);
                let is_sampled = rng.random_ratio(1, SAMPLE_ONE_IN);
                Self { trace_id: rng.random::<u128>().max(1), span_id, is_sampled }
            }
        };
        fields.set(Name::TraceParent, &trace.text());
        trace
    }

    fn text(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&hex32(self.trace_id));
        text[36..52].copy_from_slice(&hex16(self.span_id));
        text[54] = b'0' + u8::from(self.is_sampled);
        text
    }
}

/// The eight lower-case hexadecimal digits of a number, all of them at once: a half of each byte is moved into a byte of
/// its own, and those above nine are lifted from the digits to the letters.
fn hex8(number: u32) -> [u8; 8] {
    let mut halves = u64::from(number);
    halves = (halves << 16 | halves) & 0x0000_ffff_0000_ffff;
    halves = (halves << 8 | halves) & 0x00ff_00ff_00ff_00ff;
    halves = (halves << 4 | halves) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (halves + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (halves + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// Sixteen digits.
pub(crate) fn hex16(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&hex8((number >> 32) as u32));
    low.copy_from_slice(&hex8(number as u32));
    digits
}

/// Thirty-two digits.
pub(crate) fn hex32(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    let (high, low) = digits.split_at_mut(16);
    high.copy_from_slice(&hex16((number >> 64) as u64));
    low.copy_from_slice(&hex16(number as u64));
    digits
}

/// Trace id and sampled bit of a `traceparent`; `None` when it is malformed. Source: W3C Trace Context, §3.2.
fn parse(value: &[u8]) -> Option<(u128, bool)> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let dashes = [2, 35, 52].map(|at| known.get(at));
    if dashes != [Some(&b'-'); 3] {
        return None;
    }
    let number = |from: usize, to: usize| known.get(from..to).and_then(lower_hex);
    let version = number(0, 2).filter(|version| *version != 0xff)?;
    // A later version may say more after the four known parts, behind a dash.
    if !(more.is_empty() || version > 0 && more.first() == Some(&b'-')) {
        return None;
    }
    let trace_id = number(3, 35).filter(|id| *id != 0)?;
    number(36, 52).filter(|id| *id != 0)?;
    Some((trace_id, number(53, 55)? & 1 == 1))
}

/// The number that these lower-case hexadecimal digits are.
fn lower_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let half = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(half))
    })
}

/// The id of a request: kept when its sender is trusted and it is sound, else made; written for the next hop.
pub(crate) fn request_id(fields: &mut Fields, trusted: bool, rng: &mut impl Rng) -> RequestId {
    let sound = |value: &&[u8]| (1..=MAX_REQUEST_ID).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    if let Some(kept) = fields.only(Name::RequestId).filter(sound).filter(|_| trusted) {
        return RequestId(SmallVec::from_slice(kept));
    }
    let made = hex32(rng.random());
    fields.set(Name::RequestId, &made);
    RequestId(SmallVec::from_slice(&made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn taken(value: &str) -> (Trace, Fields) {
        let mut fields: Fields = [("traceparent", value), ("tracestate", "a=b")].into_iter().collect();
        (Trace::take(&mut fields, &mut SmallRng::seed_from_u64(7)), fields)
    }

    #[test]
    fn numbers_are_written_as_digits_of_sixteen() {
        for number in [0, 1, 9, 10, 15, 16, 0x0123_4567_89ab_cdef, u64::MAX, 0xa0b1_9f8e_0a09_90f0] {
            assert_eq!(hex16(number), format!("{number:016x}").as_bytes());
            let long = u128::from(number) << 64 | 0xfedc_ba98;
            assert_eq!(hex32(long), format!("{long:032x}").as_bytes());
        }
    }

    #[test]
    fn a_sound_trace_goes_on_under_a_new_span() {
        let (trace, headers) = taken(SOUND);
        assert_eq!(trace.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert!(trace.is_sampled && trace.span_id != 0xb7ad_6b71_6920_3331);
        let text = format!("00-{:032x}-{:016x}-01", trace.trace_id, trace.span_id);
        assert_eq!(headers.only(Name::TraceParent), Some(text.as_bytes()));
        assert!(headers.has(Name::TraceState));
    }

    #[test]
    fn a_later_version_is_read_by_its_prefix() {
        let later = SOUND.replacen("00-", "cc-", 1);
        assert!(taken(&later).1.has(Name::TraceState));
        assert!(taken(&format!("{later}-what-ever")).1.has(Name::TraceState));
        assert!(!taken(&format!("{later}x")).1.has(Name::TraceState));
    }

    #[test]
    fn a_malformed_trace_is_replaced_and_its_state_dropped() {
        for bad in [
            "",
            "00",
            &SOUND.to_uppercase(),
            &format!("{SOUND}-x"),
            &SOUND.replacen("00-", "ff-", 1),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-001",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            let (trace, headers) = taken(bad);
            assert_ne!(trace.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, "{bad}");
            assert!(!headers.has(Name::TraceState), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_kept_only_when_trusted_and_sound() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut given = |value: &str, trusted| {
            let mut fields: Fields = [("x-request-id", value)].into_iter().collect();
            let id = request_id(&mut fields, trusted, &mut rng);
            assert_eq!(fields.only(Name::RequestId), Some(id.as_str().as_bytes()));
            id.as_str().to_owned()
        };
        assert_eq!(given("abc-1", true), "abc-1");
        for (bad, trusted) in [("abc", false), ("", true), ("a b", true), (&*"x".repeat(129), true)] {
            let made = given(bad, trusted);
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        }
    }
}
