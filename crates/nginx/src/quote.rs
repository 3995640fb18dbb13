//! Values on their way into the configuration: refused when they could be syntax, then quoted all the same.

use std::path::Path;

/// Characters that mean something to Nginx inside or around a value, and those that end a line.
const HOSTILE: [char; 7] = [';', '{', '}', '$', '"', '\'', '\\'];

/// A path that may stand in the configuration.
///
/// # Errors
/// A sentence that names the value and the character that keeps it out.
pub(crate) fn safe_path(key: &str, path: &Path) -> Result<String, String> {
    let Some(text) = path.to_str() else {
        return Err(format!("{key}: `{}` is not UTF-8, so it cannot stand in Nginx's configuration", path.display()));
    };
    if !path.is_absolute() {
        return Err(format!("{key}: `{text}` is not an absolute path"));
    }
    safe(key, text)
}

/// Text that may stand in the configuration.
///
/// # Errors
/// As [`safe_path`].
pub(crate) fn safe(key: &str, text: &str) -> Result<String, String> {
    match text.chars().find(|letter| letter.is_control() || HOSTILE.contains(letter)) {
        None => Ok(text.to_owned()),
        Some(letter) => Err(format!("{key}: {text:?} has {letter:?}, which cannot stand in Nginx's configuration")),
    }
}

/// The filter `q`: a value in quotes, whatever is in it. There is no escape for `$` in Nginx, so that one must have been
/// refused before.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_syntax_is_refused_by_name() {
        for bad in ["/a;b", "/a{b", "/a}b", "/a$b", "/a\"b", "/a'b", "/a\\b", "/a\nb", "/a\rb", "/a\0b"] {
            let error = safe_path("gateway.static", Path::new(bad)).unwrap_err();
            assert!(error.starts_with("gateway.static: ") && error.contains("cannot stand in"), "{error}");
        }
        assert_eq!(safe_path("k", Path::new("/srv/my site/ünï#1")), Ok("/srv/my site/ünï#1".to_owned()));
        assert_eq!(safe_path("k", Path::new("public")), Err("k: `public` is not an absolute path".to_owned()));
    }

    #[test]
    fn whatever_comes_through_stays_one_value() {
        assert_eq!(quoted("/my site"), "\"/my site\"");
        assert_eq!(quoted("a\"; evil \\"), r#""a\"; evil \\""#);
    }
}
