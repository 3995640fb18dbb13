//! Keeps secrets out of everything that is shown.

use std::ops::Range;

/// What stands in the place of a secret.
pub(crate) const MASK: &str = "***";

/// Where the password of a URL in `text` stands, in bytes: between `://NAME:` and `@`. References such as `${db}` are
/// none.
pub(crate) fn password(text: &str) -> Option<Range<usize>> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find("://") {
        let start = from + found + 3;
        let rest = text.get(start..)?;
        let end = rest.find(['/', ' ', '"', '\'', ',', '?', '#']).unwrap_or(rest.len());
        if let Some(at) = rest.get(..end)?.rfind('@')
            && let Some(colon) = rest.get(..at)?.find(':')
            && let Some(secret) = rest.get(colon + 1..at)
            && !secret.is_empty()
            && !secret.starts_with("${")
            && secret != MASK
        {
            return Some(start + colon + 1..start + at);
        }
        from = start;
    }
    None
}

/// Whether a variable of that name holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "PRIVATE_KEY", "API_KEY", "CREDENTIAL"]
        .iter()
        .any(|word| upper.contains(word))
        && !upper.ends_with("_FILE")
}

/// `text` with the passwords of its URLs masked.
pub(crate) fn text(text: &str) -> String {
    let mut shown = text.to_owned();
    while let Some(range) = password(&shown) {
        shown.replace_range(range, MASK);
    }
    shown
}

/// A line of a file with its passwords and the values of variables with a secret's name masked.
pub(crate) fn line(line: &str) -> String {
    let mut shown = text(line);
    let mut from = 0;
    while let Some(found) = shown.get(from..).and_then(|rest| rest.find(": ")) {
        let colon = from + found;
        let before = shown.get(..colon).unwrap_or_default();
        let name: String = before
            .trim_end_matches(['"', '\''])
            .chars()
            .rev()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let name: String = name.chars().rev().collect();
        let value = shown.get(colon + 2..).unwrap_or_default();
        // Only variables are written in capitals; `token_file` and the like are keys of ours.
        if name.chars().any(|c| c.is_ascii_uppercase())
            && is_secret_name(&name)
            && !value.trim_start().starts_with("${")
        {
            let end = value.find([',', '}']).unwrap_or(value.len());
            let range = colon + 2..colon + 2 + value.get(..end).unwrap_or_default().trim_end().len();
            shown.replace_range(range, MASK);
        }
        from = colon + 2;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(line("  db: mysql://shop:pw@10.0.0.21/shop"), "  db: mysql://shop:***@10.0.0.21/shop");
        assert_eq!(line("  env: { DB_PASSWORD: hunter2, A: b }"), "  env: { DB_PASSWORD: ***, A: b }");
        assert_eq!(text("a redis://:x@h b mysql://u:y@i"), "a redis://:***@h b mysql://u:***@i");
    }

    #[test]
    fn what_is_no_password_stays() {
        for same in ["mysql://shop:${secret:db}@h/x", "http://127.0.0.1:8080/a@b", "DB_PASSWORD: ${DB}", "a: b"] {
            assert_eq!(line(same), same);
        }
    }
}
