//! One canonical path for policy and forwarding: whatever can be written in two ways is written in one, or refused.

use std::borrow::Cow;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPath {
    #[error("the path does not begin with a slash")]
    NoSlash,
    #[error("the path holds a backslash, a control character or a `#`")]
    BadCharacter,
    #[error("the path holds `%2f`, `%5c` or `%00`")]
    HiddenSeparator,
    #[error("the path holds a `%` without two hexadecimal digits")]
    BadEscape,
}

/// Whether this can be the path, and query, of a target: no blanks, no `#`, none of what a URI must escape but servers
/// take differently.
pub(crate) fn is_target(text: &[u8]) -> bool {
    let end = memchr::memchr(b'?', text).unwrap_or(text.len());
    let (path, query) = text.split_at_checked(end).unwrap_or((text, &[]));
    path.first() == Some(&b'/')
        && !path.iter().any(|byte| matches!(byte, 0..=b' ' | b'#' | b'<' | b'>' | b'`' | 0x7f))
        && !query.iter().any(|byte| matches!(byte, 0..=b' ' | b'"' | b'#' | b'<' | b'>' | 0x7f))
        && std::str::from_utf8(text).is_ok()
}

/// The canonical form of a path (without query).
///
/// - Escapes of letters, digits and `-._~` are resolved, other escapes written in upper case, bytes outside ASCII escaped;
///   then `.`, `..` and empty segments are taken away. `..` above the root stays at the root.
/// - Borrowed when nothing changes, which is the rule.
/// - Errors: [`BadPath`] for what servers read in different ways.
/// - Source: RFC 3986 §5.2.4 and §6.2.2.
pub(crate) fn canonical(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::NoSlash);
    }
    let mut plain = true;
    let mut before = 0;
    for byte in bytes {
        match byte {
            0..=0x20 | 0x7f | b'\\' | b'#' => return Err(BadPath::BadCharacter),
            b'%' | 0x80.. => plain = false,
            // `//` and segments that begin with a dot; the latter are looked at more closely below.
            b'/' | b'.' if before == b'/' => plain = false,
            _ => {}
        }
        before = *byte;
    }
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let unescaped = unescape(bytes)?;
    Ok(Cow::Owned(without_dots(&unescaped)))
}

/// The form of a route's literal segment that [`canonical`] paths have.
pub(crate) fn canonical_segment(segment: &str) -> String {
    unescape(segment.as_bytes()).unwrap_or_else(|_| segment.to_owned())
}

/// The values of a query parameter, as they are written.
pub(crate) fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn unescape(bytes: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let (Some(high), Some(low)) = (hex(rest.first()), hex(rest.get(1))) else {
                    return Err(BadPath::BadEscape);
                };
                rest = rest.get(2..).unwrap_or_default();
                match high << 4 | low {
                    b'/' | b'\\' | 0 => return Err(BadPath::HiddenSeparator),
                    byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
                    byte => escape(byte, &mut out),
                }
            }
            0x80.. => escape(*first, &mut out),
            byte => out.push(char::from(*byte)),
        }
    }
    Ok(out)
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in path.split('/').skip(1) {
        ends_open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_open || kept.is_empty() {
        out.push('/');
    }
    out
}

fn hex(byte: Option<&u8>) -> Option<u8> {
    let digit = char::from(*byte?).to_digit(16)?;
    u8::try_from(digit).ok()
}

fn escape(byte: u8, out: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    out.extend(DIGITS.get(usize::from(byte >> 4)));
    out.extend(DIGITS.get(usize::from(byte & 15)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (given, expected) in [
            ("/", "/"),
            ("/users/7", "/users/7"),
            ("/users/", "/users/"),
            ("//users", "/users"),
            ("/a//b///c", "/a/b/c"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/../../etc", "/etc"),
            ("/%2e%2E/etc", "/etc"),
            ("/a/%2e./b", "/b"),
            ("/%61dmin", "/admin"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a%20b", "/a%20b"),
            ("/..", "/"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(expected), "{given}");
            assert_eq!(canonical(expected).as_deref(), Ok(expected), "the form is its own form");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for (given, expected) in [
            ("users", BadPath::NoSlash),
            ("", BadPath::NoSlash),
            ("*", BadPath::NoSlash),
            ("/a\\b", BadPath::BadCharacter),
            ("/a#b", BadPath::BadCharacter),
            ("/a b", BadPath::BadCharacter),
            ("/a\u{7f}", BadPath::BadCharacter),
            ("/a%2fb", BadPath::HiddenSeparator),
            ("/a%2Fb", BadPath::HiddenSeparator),
            ("/a%5cb", BadPath::HiddenSeparator),
            ("/a%00", BadPath::HiddenSeparator),
            ("/a%zz", BadPath::BadEscape),
            ("/a%2", BadPath::BadEscape),
        ] {
            assert_eq!(canonical(given), Err(expected), "{given}");
        }
    }

    #[test]
    fn a_query_parameter_may_have_several_values() {
        assert_eq!(query_values("a=1&b=2&a=3&a", "a").collect::<Vec<_>>(), ["1", "3", ""]);
    }
}
