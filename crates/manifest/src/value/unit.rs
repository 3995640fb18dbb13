//! Values with a unit: durations, sizes, shares.

use std::time::Duration;

use synego_model::text;

use super::Said;
use crate::problems::Problem;

/// Units of time, in milliseconds.
const TIME: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Units of size, in bytes.
const SIZE: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// One number and one unit, as the smallest unit.
pub(super) fn unit(said: &Said<'_>, what: &str) -> Result<u64, Problem> {
    let units = if what == "duration" { TIME } else { SIZE };
    let digits = said.text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = said.text.split_at(digits);
    let (such, ways) = match what {
        "duration" => ("a duration such as `250ms`, `30s`, `5m`", "ms, s, m, h or d"),
        _ => ("a size such as `64KiB`, `10MiB`, `1GiB`", "B, KiB, MiB or GiB"),
    };
    if amount.is_empty() {
        return Err(Problem::new("no_unit", format!("`{}` is not a {what}", said.text))
            .expected(format!("expected {such}"))
            .help(format!("write `{}`", said.example)));
    }
    if unit.is_empty() {
        let help = match what {
            "duration" => format!("write `{amount}s` if seconds were meant, `{amount}ms` if milliseconds"),
            _ => format!("write `{amount}B` if bytes were meant, `{amount}MiB` if mebibytes"),
        };
        return Err(Problem::new("no_unit", format!("a {what} needs its unit"))
            .expected(format!("expected {such}"))
            .help(help));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let help = match what {
            "duration" => "a duration is one number and one unit: `90s`, not `1m30s` or `1.5m`",
            _ => "sizes are in powers of 1,024 everywhere, so that limits compare",
        };
        let meant = meant_unit(amount, unit, what);
        return Err(bad_unit(said, unit, what, ways, meant).help(help));
    };
    amount.parse::<u64>().ok().and_then(|amount| amount.checked_mul(*factor)).ok_or_else(|| {
        Problem::new("out_of_range", format!("`{}` is {}", said.key, said.text))
            .expected(format!("expected {such}"))
            .help(format!("write `{}`", said.example))
    })
}

pub(super) fn bad_unit(said: &Said<'_>, unit: &str, what: &str, ways: &str, meant: Option<String>) -> Problem {
    let unit = if unit.is_empty() { said.text } else { unit };
    Problem::new("bad_unit", format!("`{unit}` is not a unit of {what} here"))
        .expected(format!("expected {ways}"))
        .nearest(meant)
}

/// The value with the unit that was meant.
fn meant_unit(amount: &str, unit: &str, what: &str) -> Option<String> {
    let lower = unit.trim().to_ascii_lowercase();
    let meant = if what == "duration" {
        match lower.as_str() {
            "ms" | "msec" | "millis" | "milliseconds" => "ms",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hour" | "hours" => "h",
            "d" | "day" | "days" => "d",
            _ => return compound(amount, &lower),
        }
    } else {
        match lower.as_str() {
            "b" | "byte" | "bytes" => "B",
            "k" | "kb" | "kib" | "ki" => "KiB",
            "m" | "mb" | "mib" | "mi" => "MiB",
            "g" | "gb" | "gib" | "gi" => "GiB",
            _ => return None,
        }
    };
    Some(format!("{amount}{meant}"))
}

/// `1m30s` as seconds, `1.5s` as milliseconds.
fn compound(amount: &str, rest: &str) -> Option<String> {
    let text = format!("{amount}{rest}");
    if let Some(seconds) = text.strip_suffix('s').and_then(|text| text.parse::<f64>().ok()) {
        let ms = (seconds * 1_000.0).round();
        return (1.0..1e12).contains(&ms).then(|| format!("{ms}ms"));
    }
    let mut total = 0_u64;
    let mut left = text.as_str();
    while !left.is_empty() {
        let digits = left.bytes().take_while(u8::is_ascii_digit).count();
        let (amount, after) = left.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let (_, factor) = TIME.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(amount.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        left = after;
    }
    Some(text::duration(Duration::from_millis(total)))
}

/// The percent of a share that was checked.
pub(crate) fn percent(text: &str) -> Option<u32> {
    text.strip_suffix('%')?.parse().ok().filter(|percent| *percent <= 100)
}

/// The duration of a text that was checked.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    amount(text, TIME).map(Duration::from_millis)
}

/// The bytes of a text that was checked.
pub(crate) fn size(text: &str) -> Option<u64> {
    amount(text, SIZE)
}

/// The thousandths of a core of a text that was checked; at least one.
pub(crate) fn milli_cores(text: &str) -> Option<u32> {
    let cores = text.parse::<f64>().ok().filter(|cores| *cores > 0.0 && *cores <= 1_024.0)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 1,024,000")]
    let milli = (cores * 1_000.0).round() as u32;
    Some(milli.max(1))
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (amount, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    amount.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Shape;
    use crate::value::scalar;

    fn said(text: &str) -> Said<'_> {
        Said { key: "timeout", text, plain: true, example: "timeout: 2s", beside: "" }
    }

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        let shape = Shape::Duration { min: 0, max: u64::MAX };
        for good in ["250ms", "30s", "5m", "24h", "14d", "0s"] {
            assert!(scalar(&said(good), &shape).is_ok(), "{good}");
        }
        for bad in ["30", "", "s", "1.5s", "1m30s", "-1s", "30 s", "30S", "99999999999999999999s", "5w"] {
            assert!(scalar(&said(bad), &shape).is_err(), "{bad}");
        }
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!((milli_cores("0.5"), milli_cores("2"), milli_cores("0.0001")), (Some(500), Some(2_000), Some(1)));
    }

    #[test]
    fn a_foreign_unit_leads_to_ours() {
        for (amount, unit, what, meant) in [
            ("100", "MB", "size", Some("100MiB")),
            ("30", "sec", "duration", Some("30s")),
            ("1", "m30s", "duration", Some("90s")),
            ("1", ".5s", "duration", Some("1500ms")),
            ("2", "fortnights", "duration", None),
        ] {
            assert_eq!(meant_unit(amount, unit, what).as_deref(), meant);
        }
    }
}
