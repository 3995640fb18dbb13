//! Durations and sizes as the manifest and every output write them.

use std::time::Duration;

/// A duration with the largest unit that keeps it whole: `250ms`, `30s`, `5m`, `24h`, `14d`.
#[must_use]
pub fn duration(value: Duration) -> String {
    let ms = value.as_millis();
    for (unit, of) in [("d", 86_400_000_u128), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        // A day is only written for two or more: `24h` reads better than `1d`.
        if ms.is_multiple_of(of) && ms >= of && (unit != "d" || ms > of) {
            return format!("{}{unit}", ms / of);
        }
    }
    format!("{ms}ms")
}

/// A size with the largest unit that keeps it whole: `512B`, `64KiB`, `10MiB`, `1GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (unit, of) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= of && bytes.is_multiple_of(of) {
            return format!("{}{unit}", bytes / of);
        }
    }
    format!("{bytes}B")
}

/// The word nearest to `text` among `words`, if it is near enough to be meant (at most a third of its letters differ).
#[must_use]
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    words
        .into_iter()
        .map(|word| (distance(text, word), word))
        .filter(|(distance, word)| *distance * 3 <= text.chars().count().max(word.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
///
/// Source: optimal string alignment, L. Boytsov, ACM JEA 16 (2011), §2.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_with_their_largest_whole_unit() {
        assert_eq!(duration(Duration::from_millis(250)), "250ms");
        assert_eq!(duration(Duration::from_secs(90)), "90s");
        assert_eq!(duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(duration(Duration::from_secs(14 * 86_400)), "14d");
        assert_eq!(duration(Duration::ZERO), "0ms");
        assert_eq!(size(64 * 1024), "64KiB");
        assert_eq!(size(1500), "1500B");
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("instnaces", ["instances", "image"]), Some("instances"));
        assert_eq!(nearest("user", ["users", "orders"]), Some("users"));
        assert_eq!(nearest("frobnicate", ["users", "orders"]), None);
    }
}
