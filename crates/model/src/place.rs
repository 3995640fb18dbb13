//! Places: `[host]/path`, the one grammar of routes, static files and whatever else is said of a part of the address space.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest place, in bytes.
pub const MAX_PLACE: usize = 1024;

/// Text that is no place, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// No slash in it.
    #[error("`{0}` is not a place: expected `/path` or `host/path`")]
    NoSlash(String),
    /// The host is none.
    #[error("`{0}` is not a host name: expected letters, digits, - and dots, or `*.` and such a name")]
    BadHost(String),
    /// A segment is none.
    #[error("`{0}` is not a path segment: expected visible characters without `?`, `#`, `\\` or `%2f`")]
    BadSegment(String),
    /// It is too long.
    #[error("a place has at most {MAX_PLACE} bytes, this one has {0}")]
    TooLong(usize),
}

/// Which hosts a place holds for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPattern {
    /// Every host.
    Any,
    /// Hosts that end in `.` and this name (lower case), with one or more labels before it.
    Suffix(String),
    /// This host (lower case, without port).
    Exact(String),
}

impl HostPattern {
    /// Whether `host` (lower case, without port) is one of them.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name == host,
            Self::Suffix(name) => host
                .strip_suffix(name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty()),
        }
    }

    /// How exactly it says which host: more wins.
    #[must_use]
    pub fn rank(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Suffix(name) => (1, name.len()),
            Self::Exact(_) => (2, 0),
        }
    }
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// This text.
    Literal(String),
    /// Any one segment, with a name for people.
    Param(String),
}

/// A path by segments; as a prefix `/users` takes `/users` and `/users/7`, not `/usersx`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct PathPattern {
    /// The segments between the slashes; none: `/`.
    pub segments: Vec<Segment>,
}

impl PathPattern {
    /// Whether `path` (begins with `/`, without query) lies at or, unless `exact`, below it.
    #[must_use]
    pub fn matches(&self, path: &str, exact: bool) -> bool {
        let mut parts = segments_of(path);
        for segment in &self.segments {
            match (segment, parts.next()) {
                (Segment::Literal(want), Some(have)) if want == have => {}
                (Segment::Param(_), Some(have)) if !have.is_empty() => {}
                _ => return false,
            }
        }
        !exact || parts.next().is_none()
    }

    /// Which of two that both match wins: the longer in segments, then literal before parameter, from the left.
    #[must_use]
    pub fn cmp_rank(&self, other: &Self) -> Ordering {
        self.segments.len().cmp(&other.segments.len()).then_with(|| {
            let kind = |segment: &Segment| matches!(segment, Segment::Literal(_));
            self.segments.iter().map(kind).cmp(other.segments.iter().map(kind))
        })
    }

    /// Whether both match the same paths, whatever the parameters are called.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (Segment::Param(_), Segment::Param(_)) => true,
                _ => false,
            })
    }
}

/// The segments of a path: what stands between its slashes; a trailing slash adds none.
pub fn segments_of(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    (!path.is_empty()).then(|| path.split('/')).into_iter().flatten()
}

impl FromStr for PathPattern {
    type Err = BadPlace;
    fn from_str(text: &str) -> Result<Self, BadPlace> {
        if !text.starts_with('/') {
            return Err(BadPlace::NoSlash(text.to_owned()));
        }
        let segment = |part: &str| {
            let lower = part.to_ascii_lowercase();
            let hostile = part.is_empty()
                || part == "."
                || part == ".."
                || lower.contains("%2f")
                || lower.contains("%5c")
                || lower.contains("%00")
                || part.chars().any(|c| c.is_whitespace() || c.is_control() || "?#\\{}\"'`<>^|;$".contains(c));
            match part.strip_prefix(':') {
                Some(name) if !name.is_empty() && !hostile => Ok(Segment::Param(name.to_owned())),
                None if !hostile => Ok(Segment::Literal(part.to_owned())),
                _ => Err(BadPlace::BadSegment(part.to_owned())),
            }
        };
        Ok(Self { segments: segments_of(text).map(segment).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/:{name}")?,
            }
        }
        Ok(())
    }
}

/// A host pattern and a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// Which hosts.
    pub host: HostPattern,
    /// Which paths.
    pub path: PathPattern,
}

impl FromStr for Place {
    type Err = BadPlace;
    fn from_str(text: &str) -> Result<Self, BadPlace> {
        if text.len() > MAX_PLACE {
            return Err(BadPlace::TooLong(text.len()));
        }
        let Some(slash) = text.find('/') else { return Err(BadPlace::NoSlash(text.to_owned())) };
        let (host, path) = text.split_at(slash);
        Ok(Self { host: host.parse()?, path: path.parse()? })
    }
}

impl FromStr for HostPattern {
    type Err = BadPlace;
    /// Empty: any host; `*.name`: below it; else that host. An IPv4 address is a host too; a port is none of it.
    fn from_str(text: &str) -> Result<Self, BadPlace> {
        if text.is_empty() {
            return Ok(Self::Any);
        }
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(BadPlace::BadHost(text.to_owned()));
        }
        Ok(if name.len() == lower.len() { Self::Exact(lower) } else { Self::Suffix(name.to_owned()) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Suffix(name) => write!(f, "*.{name}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl TryFrom<String> for Place {
    type Error = BadPlace;
    fn try_from(text: String) -> Result<Self, BadPlace> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PathPattern {
        text.parse().unwrap_or_default()
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        assert!(path("/users").matches("/users", false));
        assert!(path("/users").matches("/users/7", false));
        assert!(path("/users").matches("/users/", true));
        assert!(!path("/users").matches("/usersx", false));
        assert!(!path("/users").matches("/users/7", true));
        assert!(path("/").matches("/anything/at/all", false));
    }

    #[test]
    fn a_parameter_takes_exactly_one_segment() {
        assert!(path("/users/:id/orders").matches("/users/7/orders", false));
        assert!(!path("/users/:id/orders").matches("/users/7/8/orders", false));
        assert!(!path("/users/:id").matches("/users", false));
    }

    #[test]
    fn longer_wins_then_literal_before_parameter() {
        assert_eq!(path("/a/b").cmp_rank(&path("/a")), Ordering::Greater);
        assert_eq!(path("/a/b").cmp_rank(&path("/a/:x")), Ordering::Greater);
        assert_eq!(path("/:x/b").cmp_rank(&path("/a/:y")), Ordering::Less);
        assert!(path("/a/:x").same_as(&path("/a/:y")));
    }

    #[test]
    fn a_wildcard_host_takes_one_or_more_labels() {
        let host: HostPattern = "*.example.com".parse().unwrap_or(HostPattern::Any);
        assert!(host.matches("a.example.com") && host.matches("a.b.example.com"));
        assert!(!host.matches("example.com") && !host.matches("badexample.com"));
    }

    #[test]
    fn hostile_places_are_refused() {
        for bad in ["users", "/a/../b", "/a%2Fb", "/a;b", "/a b", "a b/", "-x.com/", "/a//b", "/:", "/a?b"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_written_as_it_was_read() {
        for text in ["/", "/users/:id", "admin.example.com/", "*.example.com/files"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(text));
        }
    }
}
