//! Paths: one canonical form, which is its own form, holds nothing that can be read in two ways, and is what resolving
//! segment by segment gives.

use crate::hop::path::{canonical, canonical_segment};

/// Any bytes as a path.
pub fn path(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let found = canonical(&text);
    assert_eq!(found.as_deref().ok(), resolved(&text).as_deref(), "{text:?}");
    if let Some(expected) = text.strip_prefix('/').and_then(resolved_segment)
        && !is_open(&expected)
    {
        assert_eq!(canonical_segment(&text[1..]), expected, "a literal of a route has the form of paths");
    }
    let Ok(found) = found else { return };
    assert_eq!(canonical(&found).as_deref(), Ok(&*found), "the form is its own form");
    assert!(found.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#'), "{found:?}");
    let segments: Vec<&str> = found.split('/').skip(1).collect();
    let (last, before) = segments.split_last().map_or(("", &[][..]), |(last, before)| (*last, before));
    assert!(!before.iter().any(|segment| is_open(segment)) && !matches!(last, "." | ".."), "{found:?}");
}

/// Whether it stands for a folder, not for a name.
fn is_open(segment: &str) -> bool {
    matches!(segment, "" | "." | "..")
}

fn resolved(path: &str) -> Option<String> {
    let mut kept = Vec::new();
    let mut ends_open = true;
    for segment in path.strip_prefix('/')?.split('/') {
        let segment = resolved_segment(segment)?;
        ends_open = is_open(&segment);
        match segment.as_str() {
            ".." => drop(kept.pop()),
            _ if ends_open => {}
            _ => kept.push(segment),
        }
    }
    let slash = if ends_open && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{slash}", kept.join("/")))
}

/// Every escape read, and written again where it must be; `None`: it is refused.
fn resolved_segment(segment: &str) -> Option<String> {
    let bytes = segment.as_bytes();
    let (mut at, mut out) = (0, String::new());
    while let Some(byte) = bytes.get(at).copied() {
        at += 1;
        let is_escape = byte == b'%';
        let byte = if is_escape {
            let digits = bytes.get(at..at + 2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            at += 2;
            u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
        } else {
            byte
        };
        let is_refused = match byte {
            b'\\' | b'/' | 0 => true,
            b'#' | 1..=b' ' | 0x7f => !is_escape,
            _ => false,
        };
        if is_refused {
            return None;
        }
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_unreserved || (!is_escape && byte.is_ascii()) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(out)
}
