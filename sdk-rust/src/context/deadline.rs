//! Deadlines on the wire: three headers that say how much time is left, of which the smallest wins.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

pub(crate) const TIMEOUT: &str = "x-synego-timeout";
pub(crate) const GRPC_TIMEOUT: &str = "grpc-timeout";
const CONNECT_TIMEOUT: &str = "connect-timeout-ms";

/// Longest time that a header may say: one day, in milliseconds.
const MAX_MS: u64 = 86_400_000;

/// Which headers a call of this kind says its deadline in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Http,
    Connect,
    Grpc,
}

/// Time left when the request came; `None`: no deadline. Values out of range are ignored.
pub(crate) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let ms = [
        text(TIMEOUT).and_then(decimal_ms),
        text(CONNECT_TIMEOUT).and_then(decimal_ms),
        text(GRPC_TIMEOUT).and_then(grpc_ms),
    ];
    ms.into_iter().flatten().min().map(Duration::from_millis)
}

fn decimal_ms(value: &str) -> Option<u64> {
    let is_decimal = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let ms = is_decimal.then(|| value.parse().ok()).flatten()?;
    (1..=MAX_MS).contains(&ms).then_some(ms)
}

/// Whole milliseconds of a `grpc-timeout`, rounded down: a deadline is never lengthened.
pub(crate) fn grpc_ms(value: &str) -> Option<u64> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let is_sound = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let amount: u64 = is_sound.then(|| digits.parse().ok()).flatten()?;
    let ms = match unit {
        "H" => amount * 3_600_000,
        "M" => amount * 60_000,
        "S" => amount * 1000,
        "m" => amount,
        "u" => amount / 1000,
        "n" => amount / 1_000_000,
        _ => return None,
    };
    Some(ms.min(MAX_MS))
}

/// Says what is left in the headers of a call.
pub(crate) fn write(left: Option<Duration>, transport: Transport, headers: &mut HeaderMap) {
    let Some(left) = left else { return };
    let ms = left.as_millis().clamp(1, u128::from(MAX_MS)) as u64;
    match transport {
        Transport::Http => {
            headers.insert(TIMEOUT, HeaderValue::from(ms));
        }
        Transport::Connect => {
            headers.insert(TIMEOUT, HeaderValue::from(ms));
            headers.insert(CONNECT_TIMEOUT, HeaderValue::from(ms));
        }
        Transport::Grpc => {
            if let Ok(value) = HeaderValue::from_str(&format!("{ms}m")) {
                headers.insert(GRPC_TIMEOUT, value);
            }
        }
    }
}
