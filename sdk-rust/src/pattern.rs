//! Patterns of handlers: `METHOD /path` with `{name}` for one segment and `{name...}` for the rest.
//!
//! The more literal pattern wins, compared segment by segment from the left: a literal before a parameter before a rest.

use std::cmp::Ordering;

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 256;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One part of a path between slashes. The order is that of precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    Literal(String),
    Param(String),
    Rest(String),
}

/// A pattern, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    pub(crate) method: String,
    pub(crate) segments: Vec<Segment>,
}

/// Text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a pattern: {problem}")]
pub(crate) struct BadPattern {
    text: String,
    problem: &'static str,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, BadPattern> {
        let bad = |problem| BadPattern { text: text.to_owned(), problem };
        if text.len() > MAX_PATTERN {
            return Err(bad("longer than 256 bytes"));
        }
        let (method, path) = text.split_once(' ').ok_or_else(|| bad("expected `METHOD /path`"))?;
        if !METHODS.contains(&method) {
            return Err(bad("expected GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS first"));
        }
        let path = path.strip_prefix('/').ok_or_else(|| bad("expected one blank and a path that begins with `/`"))?;
        let parts: Vec<_> = path.split('/').collect();
        let mut segments = Vec::with_capacity(parts.len());
        let mut names = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let is_last = at + 1 == parts.len();
            let segment = segment(part, is_last).map_err(bad)?;
            if let Segment::Param(name) | Segment::Rest(name) = &segment {
                if names.contains(name) {
                    return Err(bad("a name is used twice"));
                }
                names.push(name.clone());
            }
            segments.push(segment);
        }
        Ok(Self { text: text.to_owned(), method: method.to_owned(), segments })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The path in axum's grammar.
    pub(crate) fn axum_path(&self) -> String {
        let mut path = String::new();
        for segment in &self.segments {
            path.push('/');
            match segment {
                Segment::Literal(literal) => path.push_str(literal),
                Segment::Param(name) => path.extend(["{", name, "}"]),
                Segment::Rest(name) => path.extend(["{*", name, "}"]),
            }
        }
        path
    }

    fn matches_path(&self, path: &str) -> bool {
        let Some(mut left) = path.strip_prefix('/') else { return false };
        for (at, segment) in self.segments.iter().enumerate() {
            if let Segment::Rest(_) = segment {
                return !left.is_empty();
            }
            let (part, rest) = left.split_once('/').map_or((left, None), |(part, rest)| (part, Some(rest)));
            let is_equal = match segment {
                Segment::Literal(literal) => part == literal,
                _ => !part.is_empty(),
            };
            let is_last = at + 1 == self.segments.len();
            match rest {
                _ if !is_equal => return false,
                None => return is_last,
                Some(_) if is_last => return false,
                Some(rest) => left = rest,
            }
        }
        false
    }

    /// Whether both take exactly the same requests, whatever their parameters are called.
    fn equals(&self, other: &Self) -> bool {
        self.method == other.method
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(two)) => one == two,
                (Segment::Param(_), Segment::Param(_)) | (Segment::Rest(_), Segment::Rest(_)) => true,
                _ => false,
            })
    }

    fn precedence(&self, other: &Self) -> Ordering {
        let rank = |segment: &Segment| match segment {
            Segment::Literal(_) => 0,
            Segment::Param(_) => 1,
            Segment::Rest(_) => 2,
        };
        self.segments.iter().map(rank).cmp(other.segments.iter().map(rank))
    }
}

fn segment(part: &str, is_last: bool) -> Result<Segment, &'static str> {
    if let Some(inner) = part.strip_prefix('{') {
        let inner = inner.strip_suffix('}').ok_or("a parameter fills its segment: `{name}`")?;
        let (name, is_rest) = inner.strip_suffix("...").map_or((inner, false), |name| (name, true));
        if !is_identifier(name) {
            return Err("a parameter needs a name of letters, digits and `_`");
        }
        return match (is_rest, is_last) {
            (false, _) => Ok(Segment::Param(name.to_owned())),
            (true, true) => Ok(Segment::Rest(name.to_owned())),
            (true, false) => Err("`{name...}` must be last"),
        };
    }
    if part.is_empty() && !is_last {
        return Err("a segment is empty");
    }
    let is_literal = !part.starts_with(':')
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@".contains(&byte));
    if is_literal {
        Ok(Segment::Literal(part.to_owned()))
    } else {
        Err("a literal holds a character that may not be there")
    }
}

fn is_identifier(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word && !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// The pattern that takes a request, or why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Index of the pattern in the order of declaration.
    Handler(usize),
    /// The path is known with these methods only, sorted.
    OtherMethods(Vec<String>),
    Nothing,
}

/// All patterns of a service, in the order in which they win. Finding one costs a comparison for each pattern before it.
#[derive(Debug, Default)]
pub(crate) struct Patterns(Vec<(Pattern, usize)>);

impl Patterns {
    pub(crate) fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let mut all: Vec<_> = patterns.into_iter().enumerate().map(|(index, pattern)| (pattern, index)).collect();
        all.sort_by(|(one, _), (two, _)| one.precedence(two));
        Self(all)
    }

    /// Pairs that are equal, as their texts.
    pub(crate) fn conflicts(&self) -> Vec<(&str, &str)> {
        let mut pairs = Vec::new();
        for (at, (one, _)) in self.0.iter().enumerate() {
            pairs.extend(
                self.0[at + 1..].iter().filter(|(two, _)| one.equals(two)).map(|(two, _)| (one.as_str(), two.as_str())),
            );
        }
        pairs
    }

    pub(crate) fn find(&self, method: &str, path: &str) -> Found {
        let of_method =
            |wanted: &str| self.0.iter().find(|(pattern, _)| pattern.method == wanted && pattern.matches_path(path));
        let found = of_method(method).or_else(|| if method == "HEAD" { of_method("GET") } else { None });
        if let Some((_, index)) = found {
            return Found::Handler(*index);
        }
        let mut methods: Vec<String> = self
            .0
            .iter()
            .filter(|(pattern, _)| pattern.matches_path(path))
            .map(|(pattern, _)| pattern.method.clone())
            .collect();
        if methods.is_empty() {
            return Found::Nothing;
        }
        if methods.iter().any(|method| method == "GET") {
            methods.push("HEAD".to_owned());
        }
        methods.sort();
        methods.dedup();
        Found::OtherMethods(methods)
    }
}
