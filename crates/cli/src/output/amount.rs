//! Amounts as people read them: rates, times, shares, sizes, counts.

/// Requests a second: one decimal; `–` when there are none.
pub(crate) fn rate(value: f64) -> String {
    if value.is_finite() && value >= 0.05 { format!("{value:.1}") } else { "–".to_owned() }
}

/// A time in seconds: `0.4 ms`, `8 ms`, `1.90 s`; `–` when it is not known.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() || value <= 0.0 {
        return "–".to_owned();
    }
    let ms = value * 1000.0;
    match ms {
        ms if ms < 0.95 => format!("{:.1} ms", ms.max(0.1)),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        _ if value < 100.0 => format!("{value:.2} s"),
        _ => format!("{value:.0} s"),
    }
}

/// A share of 0 to 1 as percent with two decimals.
pub(crate) fn share(value: f64) -> String {
    format!("{:.2}%", if value.is_finite() { value * 100.0 } else { 0.0 })
}

/// Bytes: `88 MiB`, `2.1 KiB`; `–` when they are not known.
pub(crate) fn bytes(value: u64) -> String {
    if value == 0 {
        return "–".to_owned();
    }
    let (mut amount, mut unit) = (value as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if amount < 1000.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if unit == "B" || amount >= 9.95 { format!("{amount:.0} {unit}") } else { format!("{amount:.1} {unit}") }
}

/// `1 service`, `2 services`.
pub(crate) fn count(number: usize, one: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{number} {one}{many}")
}

/// `–` for an empty text.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "–".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_unit_and_few_digits() {
        assert_eq!([rate(0.0), rate(3.04), rate(1204.0)], ["–", "3.0", "1204.0"]);
        assert_eq!(
            [seconds(0.0), seconds(0.0004), seconds(0.0079), seconds(0.9996), seconds(1.9)],
            ["–", "0.4 ms", "8 ms", "1.00 s", "1.90 s"]
        );
        assert_eq!([share(0.0002), share(1.0), share(f64::NAN)], ["0.02%", "100.00%", "0.00%"]);
        assert_eq!([bytes(0), bytes(512), bytes(2150), bytes(92_274_688)], ["–", "512 B", "2.1 KiB", "88 MiB"]);
        assert_eq!([count(1, "service"), count(0, "route")], ["1 service", "0 routes"]);
    }
}
