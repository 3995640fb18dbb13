//! W3C trace context: reading `traceparent`, and writing it anew for each call.

use rand::Rng;

/// A trace that a request belongs to: which one, whose child, and whether it is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) trace_id: u128,
    pub(crate) parent_id: u64,
    pub(crate) is_sampled: bool,
}

impl Trace {
    /// A trace that begins here.
    pub(crate) fn begin() -> Self {
        let mut rng = rand::rng();
        Self { trace_id: rng.random::<u128>().max(1), parent_id: rng.random::<u64>().max(1), is_sampled: true }
    }

    /// Reads `traceparent`; `None` when it is malformed. Later versions are read by their prefix.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let bytes = value.as_bytes();
        let is_parted = bytes.len() >= 55 && [2, 35, 52].iter().all(|at| bytes[*at] == b'-');
        if !is_parted || !value.is_ascii() {
            return None;
        }
        let version = hex(&value[..2])?;
        let is_whole = if version == 0 { bytes.len() == 55 } else { bytes.len() == 55 || bytes[55] == b'-' };
        if version == 0xff || !is_whole {
            return None;
        }
        let trace_id = hex(&value[3..35])?;
        let parent_id = u64::try_from(hex(&value[36..52])?).ok()?;
        let flags = hex(&value[53..55])?;
        (trace_id != 0 && parent_id != 0).then_some(Self { trace_id, parent_id, is_sampled: flags & 1 == 1 })
    }

    /// `traceparent` for a call: the same trace, a new parent.
    pub(crate) fn call(&self) -> String {
        let parent = rand::rng().random::<u64>().max(1);
        format!("00-{:032x}-{parent:016x}-{:02x}", self.trace_id, u8::from(self.is_sampled))
    }

    /// The trace id as its 32 digits.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// Lower-case hexadecimal digits alone; `from_str_radix` would take a sign and upper case.
fn hex(digits: &str) -> Option<u128> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    is_hex.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}
