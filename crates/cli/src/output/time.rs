//! Times: people see local time and ages, programs see RFC 3339 in UTC.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// How times are shown to people.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    zone: TimeZone,
    rfc3339: bool,
}

impl Clock {
    /// In local time, or in UTC; as a clock, or as RFC 3339.
    pub(crate) fn new(utc: bool, rfc3339: bool) -> Self {
        Self { zone: if utc { TimeZone::UTC } else { TimeZone::system() }, rfc3339 }
    }

    /// `14:03:07`; with its date when that is another one than `now`'s.
    pub(crate) fn at(&self, unix_ms: u64, now_unix_ms: u64) -> String {
        self.write(unix_ms, now_unix_ms, "%H:%M:%S")
    }

    /// `14:03:07.123`.
    pub(crate) fn exact(&self, unix_ms: u64, now_unix_ms: u64) -> String {
        self.write(unix_ms, now_unix_ms, "%H:%M:%S%.3f")
    }

    fn write(&self, unix_ms: u64, now_unix_ms: u64, format: &str) -> String {
        let (Some(then), Some(now)) = (stamp(unix_ms), stamp(now_unix_ms)) else { return "–".to_owned() };
        let (then, now) = (then.to_zoned(self.zone.clone()), now.to_zoned(self.zone.clone()));
        if self.rfc3339 {
            return then.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        }
        let clock = then.strftime(format).to_string();
        if then.date() == now.date() { clock } else { format!("{} {clock}", then.date()) }
    }
}

fn stamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

/// RFC 3339 in UTC with milliseconds, for programs.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    stamp(unix_ms).map_or_else(String::new, |at| at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// An age as people say it: `0.4 s`, `41 s`, `12m8s`, `13h4m`, `2d3h`.
pub(crate) fn age(value: Duration) -> String {
    let seconds = value.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", (value.as_secs_f64() * 10.0).floor() / 10.0),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// The age of a moment; `–` when it is not known.
pub(crate) fn since(unix_ms: u64, now_unix_ms: u64) -> String {
    if unix_ms == 0 { "–".to_owned() } else { age(Duration::from_millis(now_unix_ms.saturating_sub(unix_ms))) }
}

/// A duration as flags write it: `250ms`, `2s`, `5m`, `1h`, `7d`.
///
/// # Errors
/// A sentence when there is no unit, or no number.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || format!("`{text}` is not a duration: expected a number with a unit such as 250ms, 30s, 5m");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u64 = 1_795_348_987_123;

    #[test]
    fn programs_get_utc_and_people_get_a_clock() {
        assert_eq!(rfc3339(NOON), "2026-11-22T12:03:07.123Z");
        let clock = Clock::new(true, false);
        assert_eq!(clock.at(NOON, NOON + 1000), "12:03:07");
        assert_eq!(clock.exact(NOON, NOON), "12:03:07.123");
        assert_eq!(clock.at(NOON - 86_400_000, NOON), "2026-11-21 12:03:07");
        assert_eq!(Clock::new(true, true).at(NOON, NOON), "2026-11-22T12:03:07.123+00:00");
    }

    #[test]
    fn an_age_has_its_two_largest_units() {
        let of = |seconds: f64| age(Duration::from_secs_f64(seconds));
        assert_eq!(
            [of(0.44), of(41.0), of(728.0), of(47_040.0), of(183_600.0)],
            ["0.4 s", "41 s", "12m8s", "13h4m", "2d3h"]
        );
    }

    #[test]
    fn a_duration_without_unit_is_refused() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["30", "s", "", "1.5s", "-1s", "1y", "99999999999999999999s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
