//! How many wrong tokens are looked at: a few of each source, and not many of all together. Pure: time is an argument.

use std::collections::HashMap;
use std::net::IpAddr;

/// The time over which failures are counted.
const WINDOW_MS: u64 = 60_000;
/// Failures of one source in a window.
const OF_ONE: u32 = 10;
/// Failures of all sources together in a window.
const OF_ALL: u32 = 1_000;

/// Failures since a moment.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    began_ms: u64,
    failures: u32,
}

impl Window {
    fn at(self, now_ms: u64) -> Self {
        let is_over = now_ms.saturating_sub(self.began_ms) >= WINDOW_MS;
        if is_over { Self { began_ms: now_ms, failures: 0 } } else { self }
    }

    fn left_ms(self, now_ms: u64) -> u64 {
        (self.began_ms + WINDOW_MS).saturating_sub(now_ms)
    }
}

/// Who has failed how often.
#[derive(Debug, Default)]
pub(crate) struct Lockout {
    sources: HashMap<IpAddr, Window>,
    all: Window,
}

impl Lockout {
    /// Whether a token of `source` is looked at; if not, after how many milliseconds again.
    pub(crate) fn check(&self, source: IpAddr, now_ms: u64) -> Result<(), u64> {
        let own = self.sources.get(&counted_as(source)).copied().unwrap_or_default().at(now_ms);
        let all = self.all.at(now_ms);
        match (own.failures >= OF_ONE, all.failures >= OF_ALL) {
            (true, _) => Err(own.left_ms(now_ms)),
            (false, true) => Err(all.left_ms(now_ms)),
            (false, false) => Ok(()),
        }
    }

    /// A token of `source` was wrong.
    pub(crate) fn failed(&mut self, source: IpAddr, now_ms: u64) {
        self.all = self.all.at(now_ms);
        self.all.failures += 1;
        // What is kept is bounded by the failures of all within two windows.
        self.sources.retain(|_, window| window.left_ms(now_ms) > 0);
        let own = self.sources.entry(counted_as(source)).or_insert(Window { began_ms: now_ms, failures: 0 });
        *own = own.at(now_ms);
        own.failures += 1;
    }
}

/// Whoever has one address of IPv6 has its whole /64.
fn counted_as(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn guessing_is_locked_out_for_one_source_and_nobody_else() {
        let mut lockout = Lockout::default();
        for failure in 0..u64::from(OF_ONE) {
            assert_eq!(lockout.check(ip("10.0.0.1"), 1_000 + failure), Ok(()));
            lockout.failed(ip("10.0.0.1"), 1_000 + failure);
        }
        assert_eq!(lockout.check(ip("10.0.0.1"), 2_000), Err(59_000));
        assert_eq!(lockout.check(ip("::ffff:10.0.0.1"), 2_000), Err(59_000), "the same address in another dress");
        assert_eq!(lockout.check(ip("10.0.0.2"), 2_000), Ok(()));
        assert_eq!(lockout.check(ip("10.0.0.1"), 61_000), Ok(()), "a new window");
    }

    #[test]
    fn a_network_of_one_guesser_counts_as_one() {
        let mut lockout = Lockout::default();
        for last in 0..OF_ONE {
            lockout.failed(ip(&format!("2001:db8::{last:x}")), 0);
        }
        assert!(lockout.check(ip("2001:db8::ffff"), 1).is_err());
        assert!(lockout.check(ip("2001:db8:0:1::1"), 1).is_ok());
    }

    #[test]
    fn many_sources_together_are_locked_out_too_and_what_is_kept_of_them_is_bounded() {
        let mut lockout = Lockout::default();
        for round in 0..3_u64 {
            let now = round * WINDOW_MS;
            for number in 0..OF_ALL {
                lockout.failed(IpAddr::V4((number * 7 + 1).into()), now);
            }
            assert_eq!(lockout.check(ip("192.0.2.1"), now + 10), Err(WINDOW_MS - 10));
            assert!(lockout.sources.len() <= OF_ALL as usize, "{}", lockout.sources.len());
        }
    }
}
