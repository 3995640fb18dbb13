//! The tree that a file becomes: every node and every key knows where it stands.

/// A stretch of one line of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Index into the sources of [`crate::problems::Problems`].
    pub(crate) file: u16,
    /// Line, from 1; 0: no place in the file.
    pub(crate) line: u32,
    /// Column in characters, from 1.
    pub(crate) column: u32,
    /// Characters that are marked, at least 1.
    pub(crate) width: u32,
}

impl Span {
    /// A part of this span: `skip` characters in, `width` wide.
    pub(crate) fn part(self, skip: usize, width: usize) -> Self {
        let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { column: self.column.saturating_add(small(skip)), width: small(width.max(1)), ..self }
    }
}

/// A value of the file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it stands.
    pub(crate) span: Span,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it came from `defaults` and not from the service that has it.
    pub(crate) inherited: bool,
    /// Whether a short form was written: in an overlay it replaces and does not merge.
    pub(crate) short: bool,
}

/// What a value is. Scalars stay as they were written: what they mean is decided by their key.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// `null` or `~` (said), or nothing behind the colon.
    Null {
        /// Whether it was written.
        said: bool,
    },
    /// A scalar.
    Text {
        /// After escapes were resolved.
        text: String,
        /// Without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file; keys may repeat until they are checked.
    Map(Vec<Entry>),
    /// Something whose mistake has been reported: later steps pass over it.
    Bad,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key stands.
    pub(crate) span: Span,
    /// Its value.
    pub(crate) value: Node,
}

impl Node {
    /// A node of `kind` at `span`.
    pub(crate) fn new(span: Span, kind: Kind) -> Self {
        Self { span, kind, inherited: false, short: false }
    }

    /// A mapping without a key.
    pub(crate) fn empty(span: Span) -> Self {
        Self::new(span, Kind::Map(Vec::new()))
    }

    /// The scalar's text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The entries of a mapping, to change.
    pub(crate) fn entries_mut(&mut self) -> Option<&mut Vec<Entry>> {
        match &mut self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The entry of a key.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key that is said and not `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    /// The value at the end of a chain of keys.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// Whether it says nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null { .. })
    }

    /// Whether something in it was refused already.
    pub(crate) fn has_bad(&self) -> bool {
        match &self.kind {
            Kind::Bad => true,
            Kind::List(items) => items.iter().any(Self::has_bad),
            Kind::Map(entries) => entries.iter().any(|entry| entry.value.has_bad()),
            Kind::Null { .. } | Kind::Text { .. } => false,
        }
    }

    /// Marks it and all below it as coming from `defaults`.
    pub(crate) fn inherit(&mut self) {
        self.inherited = true;
        match &mut self.kind {
            Kind::List(items) => items.iter_mut().for_each(Self::inherit),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.inherit()),
            _ => {}
        }
    }

    /// How many nodes it has, keys among them, and how many levels.
    pub(crate) fn extent(&self) -> (usize, usize) {
        let sum = |(count, depth): (usize, usize), (more, below): (usize, usize)| (count + more, depth.max(below + 1));
        match &self.kind {
            Kind::List(items) => items.iter().map(Self::extent).fold((1, 1), sum),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.extent()).fold((1 + entries.len(), 1), sum),
            _ => (1, 1),
        }
    }

    /// Bytes of all its texts and keys together.
    pub(crate) fn weight(&self) -> usize {
        match &self.kind {
            Kind::Text { text, .. } => text.len(),
            Kind::List(items) => items.iter().map(Self::weight).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.key.len() + entry.value.weight()).sum(),
            Kind::Null { .. } | Kind::Bad => 0,
        }
    }

    /// What it is, in words: `text`, `a list`, `a mapping`, `nothing`.
    pub(crate) fn word(&self) -> &'static str {
        match &self.kind {
            Kind::Null { .. } => "nothing",
            Kind::Text { text, plain: true } if text.bytes().all(|byte| byte.is_ascii_digit()) => "a number",
            Kind::Text { plain: true, text } if text == "true" || text == "false" => "a boolean",
            Kind::Text { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) | Kind::Bad => "a mapping",
        }
    }

    /// It on one line as YAML, at most `limit` characters long (then cut with `…`).
    pub(crate) fn brief(&self, limit: usize) -> String {
        let mut out = String::new();
        self.write_flow(&mut out, limit);
        if out.chars().count() > limit {
            out = out.chars().take(limit.saturating_sub(1)).chain(['…']).collect();
        }
        out
    }

    fn write_flow(&self, out: &mut String, limit: usize) {
        if out.len() > limit * 4 {
            return;
        }
        match &self.kind {
            Kind::Null { .. } | Kind::Bad => out.push_str("null"),
            Kind::Text { text, plain } => out.push_str(&quoted(text, !plain)),
            Kind::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    item.write_flow(out, limit);
                }
                out.push(']');
            }
            Kind::Map(entries) if entries.is_empty() => out.push_str("{}"),
            Kind::Map(entries) => {
                out.push_str("{ ");
                for (index, entry) in entries.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    out.push_str(&quoted(&entry.key, false));
                    out.push_str(": ");
                    entry.value.write_flow(out, limit);
                }
                out.push_str(" }");
            }
        }
    }
}

/// `text` as a scalar inside `[ ]` or `{ }`, in quotes where it needs them or `always`.
pub(crate) fn quoted(text: &str, always: bool) -> String {
    let first_needs = |first: char| "*&!%@`|>'\"#,[]{}?:- ".contains(first);
    let needs = always
        || text.is_empty()
        || text.starts_with(first_needs) && !(text.len() > 1 && text.starts_with('-') && !text.starts_with("- "))
        || text.contains(": ")
        || text.contains(" #")
        || text.ends_with([':', ' '])
        || text.contains(['[', ']', '{', '}', ',', '\n', '\t']);
    if !needs {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
