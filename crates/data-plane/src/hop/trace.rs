//! Who asked, across hops: W3C trace context and the request id.

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;

use super::marks::Marks;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest request id that is kept.
const MAX_REQUEST_ID: usize = 128;
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
    pub(crate) fn take(headers: &mut HeaderMap, marks: Marks, rng: &mut impl Rng) -> Self {
        let parent = if marks.has(Marks::TRACE) { parent(headers) } else { None };
        let span_id = rng.random_range(1..=u64::MAX);
        let trace = match parent {
            Some((trace_id, is_sampled)) => Self { trace_id, span_id, is_sampled },
            None => {
                if marks.has(Marks::TRACE) {
                    headers.remove(TRACESTATE);
                }
                let is_sampled = rng.random_ratio(1, SAMPLE_ONE_IN);
                Self { trace_id: rng.random_range(1..=u128::MAX), span_id, is_sampled }
            }
        };
        headers.insert(TRACEPARENT, trace.value());
        trace
    }

    fn value(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text.get_mut(3..35).into_iter().for_each(|part| hex(&self.trace_id.to_be_bytes(), part));
        text.get_mut(36..52).into_iter().for_each(|part| hex(&self.span_id.to_be_bytes(), part));
        text.get_mut(53..55).into_iter().for_each(|part| hex(&[u8::from(self.is_sampled)], part));
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

/// Writes bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8], digits: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| DIGITS.get(usize::from(half)).copied().unwrap_or(b'0');
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// What the one `traceparent` of a request says.
fn parent(headers: &HeaderMap) -> Option<(u128, bool)> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let only = given.next().filter(|_| given.next().is_none());
    only.and_then(|value| parse(value.as_bytes()))
}

/// Trace id and sampled bit of a `traceparent`; `None` when it is malformed. Source: W3C Trace Context, §3.2.
fn parse(value: &[u8]) -> Option<(u128, bool)> {
    let text = std::str::from_utf8(value).ok()?;
    let is_lower_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let version = text.get(..2).filter(|version| is_lower_hex(version) && *version != "ff")?;
    // A later version may say more after the four known parts, behind a dash.
    let sound = if version == "00" { text.len() == 55 } else { matches!(text.as_bytes().get(55), None | Some(b'-')) };
    let mut parts = text.get(..55).filter(|_| sound)?.split('-').skip(1);
    let (trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let right_size = trace.len() == 32 && parent.len() == 16 && flags.len() == 2;
    if !right_size || ![trace, parent, flags].into_iter().all(is_lower_hex) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, u8::from_str_radix(flags, 16).ok()? & 1 == 1))
}

/// The id of a request: kept when its sender is trusted and it is sound, else made; written for the next hop.
pub(crate) fn request_id(headers: &mut HeaderMap, trusted: bool, rng: &mut impl Rng) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let only = given.next().filter(|_| given.next().is_none());
    let sound = |value: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(kept) = only.filter(sound).filter(|_| trusted) {
        return kept.clone();
    }
    let mut made = [0; 32];
    hex(&rng.random::<[u8; 16]>(), &mut made);
    let value = HeaderValue::from_bytes(&made).unwrap_or(HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID, value.clone());
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const SOUND: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn taken(value: &str) -> (Trace, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(value).expect("a value"));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        (Trace::take(&mut headers, Marks::TRACE, &mut SmallRng::seed_from_u64(7)), headers)
    }

    #[test]
    fn a_sound_trace_goes_on_under_a_new_span() {
        let (trace, headers) = taken(SOUND);
        assert_eq!(trace.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert!(trace.is_sampled && trace.span_id != 0xb7ad_6b71_6920_3331);
        assert_eq!(headers[TRACEPARENT], trace.value());
        let text = format!("00-{:032x}-{:016x}-01", trace.trace_id, trace.span_id);
        assert_eq!(headers[TRACEPARENT], text.as_str());
        assert!(headers.contains_key(TRACESTATE));
    }

    #[test]
    fn a_later_version_is_read_by_its_prefix() {
        let later = SOUND.replacen("00-", "cc-", 1);
        assert!(taken(&later).1.contains_key(TRACESTATE));
        assert!(taken(&format!("{later}-what-ever")).1.contains_key(TRACESTATE));
        assert!(!taken(&format!("{later}x")).1.contains_key(TRACESTATE));
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
            assert!(!headers.contains_key(TRACESTATE), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_kept_only_when_trusted_and_sound() {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut given = |value: &str, trusted| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).expect("a value"));
            let id = request_id(&mut headers, trusted, &mut rng);
            assert_eq!(headers[REQUEST_ID], id);
            id.to_str().map(str::to_owned).unwrap_or_default()
        };
        assert_eq!(given("abc-1", true), "abc-1");
        for (bad, trusted) in [("abc", false), ("", true), ("a b", true), (&*"x".repeat(129), true)] {
            let made = given(bad, trusted);
            assert!(made.len() == 32 && made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
        }
    }
}
