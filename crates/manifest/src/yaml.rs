//! YAML (and JSON, which is YAML) to a tree, within budgets.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StructureStyle};

use crate::blame;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};

/// Largest file: 1 MiB.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Most levels.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most nodes, after aliases.
pub(crate) const MAX_NODES: usize = 10_000;
/// Most bytes of text, after aliases, and after variables were filled.
pub(crate) const MAX_TEXT: usize = 4 << 20;

/// Reads the file `file` of `problems`; `None` when it cannot be read as a tree, which has been reported then.
pub(crate) fn parse(text: &str, file: u16, problems: &mut Problems) -> Option<Node> {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, a manifest has at most {MAX_BYTES} (1MiB)", text.len());
        problems.error(Span { file, line: 1, column: 1, width: 1 }, too_big(message));
        return None;
    }
    let mut builder =
        Builder { file, problems, stack: Vec::new(), anchors: HashMap::new(), nodes: 0, text: 0, root: None };
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
        simple_key_max_lookahead: 4096,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => {
                builder.take(event, span.start, span.end, span.tag_start())?;
            }
            Err(error) => {
                let span = builder.error_span(&error);
                blame::syntax(span, &error, text, builder.problems);
                return None;
            }
        }
    }
    let nothing = Node::empty(Span { file, line: 1, column: 1, width: 1 });
    Some(builder.root.filter(|root| !root.is_null()).unwrap_or(nothing))
}

pub(crate) fn too_big(message: impl Into<String>) -> Problem {
    Problem::new("too_big", message)
        .expected(format!("expected at most 1MiB, {MAX_DEPTH} levels and {MAX_NODES} values after aliases"))
        .help("split it with `include: [teams/*.yaml]`, or drop what repeats: `defaults` says it once")
}

struct Builder<'a> {
    file: u16,
    problems: &'a mut Problems,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    text: usize,
    root: Option<Node>,
}

/// A collection that is not closed yet.
struct Open {
    start: Marker,
    flow: bool,
    anchor: usize,
    filled: Filled,
}

enum Filled {
    List(Vec<Node>),
    /// The entries, and the key that waits for its value.
    Map(Vec<Entry>, Option<(String, Span)>),
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Builder<'_> {
    /// A span from `start` to `end`; over several lines it ends with the first.
    fn span(&self, start: Marker, end: Marker) -> Span {
        let line = small(start.line());
        let width = if end.line() == start.line() {
            end.col().saturating_sub(start.col())
        } else {
            self.problems.line(self.file, line).trim_end().chars().count().saturating_sub(start.col())
        };
        Span { file: self.file, line, column: small(start.col() + 1), width: small(width.max(1)) }
    }

    fn error_span(&self, error: &ScanError) -> Span {
        let marker = error.marker();
        Span { file: self.file, line: small(marker.line().max(1)), column: small(marker.col() + 1), width: 1 }
    }

    /// Takes one event; `None` when reading cannot go on.
    fn take(&mut self, event: Event<'_>, start: Marker, end: Marker, tag: Option<Marker>) -> Option<()> {
        let tagged = matches!(
            &event,
            Event::Scalar(_, _, _, Some(_)) | Event::SequenceStart(_, _, Some(_)) | Event::MappingStart(_, _, Some(_))
        );
        if tagged {
            let at = tag.unwrap_or(start);
            blame::needs_quotes(self.span(at, at), '!', self.problems);
        }
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let span = self.span(start, end);
                let plain = style == ScalarStyle::Plain;
                let kind = match &*text {
                    // Nothing behind a colon arrives as `~` of no width.
                    _ if plain && start.index() == end.index() => Kind::Null { said: false },
                    "null" | "~" if plain => Kind::Null { said: true },
                    _ => Kind::Text { text: text.into_owned(), plain },
                };
                let kind = if tagged { Kind::Bad } else { kind };
                self.node(Node::new(span, kind), anchor)
            }
            Event::SequenceStart(style, anchor, _) => self.open(start, style, anchor, Filled::List(Vec::new())),
            Event::MappingStart(style, anchor, _) => self.open(start, style, anchor, Filled::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.close(end),
            Event::Alias(id) => self.alias(id, self.span(start, end)),
            Event::UnresolvedAlias(name) => {
                let span = self.span(start, end);
                blame::alias(span, &name, self.problems);
                self.node(Node::new(span, Kind::Bad), 0)
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                let problem = Problem::new("several_documents", "a manifest is one document, here begins another")
                    .expected("expected the end of the file")
                    .help("what differs for one environment goes into a file of its own, synego.NAME.yaml");
                let span = self.span(start, end);
                self.problems.error(span, problem);
                None
            }
            _ => Some(()),
        }
    }

    fn open(&mut self, start: Marker, style: StructureStyle, anchor: usize, filled: Filled) -> Option<()> {
        if self.stack.len() >= MAX_DEPTH {
            let span = self.span(start, start);
            self.problems.error(span, too_big(format!("more than {MAX_DEPTH} levels lie within one another")));
            return None;
        }
        self.stack.push(Open { start, flow: style == StructureStyle::Flow, anchor, filled });
        Some(())
    }

    fn close(&mut self, end: Marker) -> Option<()> {
        let open = self.stack.pop()?;
        // A block collection has no closing mark: its first line is what can be shown of it.
        let far = if open.flow { end } else { Marker::new(end.index(), open.start.line() + 1, 0) };
        let span = self.span(open.start, far);
        let kind = match open.filled {
            Filled::List(items) => Kind::List(items),
            Filled::Map(entries, _) => Kind::Map(entries),
        };
        self.node(Node::new(span, kind), open.anchor)
    }

    fn alias(&mut self, id: usize, span: Span) -> Option<()> {
        let Some(target) = self.anchors.get(&id).cloned() else {
            let problem = Problem::new("bad_alias", "this alias stands inside what it refers to")
                .expected("expected the name of an anchor that is complete")
                .help("write the value out");
            self.problems.error(span, problem);
            return None;
        };
        let (nodes, depth) = target.extent();
        if self.stack.len() + depth > MAX_DEPTH {
            self.problems
                .error(span, too_big(format!("with this alias more than {MAX_DEPTH} levels lie within one another")));
            return None;
        }
        self.nodes += nodes - 1;
        self.text += target.weight();
        if self.text > MAX_TEXT {
            self.problems.error(span, too_big("with this alias the file holds more than 4MiB of text"));
            return None;
        }
        self.node(target, 0)
    }

    /// Puts a complete node where it belongs.
    fn node(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.problems.error(node.span, too_big(format!("the file has more than {MAX_NODES} values after aliases")));
            return None;
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match &mut open.filled {
            Filled::List(items) => items.push(node),
            Filled::Map(entries, waiting) => match waiting.take() {
                Some((key, span)) => entries.push(Entry { key, span, value: node }),
                None => match key_of(&node) {
                    Some(key) if key == "<<" => {
                        self.problems.error(node.span, merge_key());
                        *waiting = Some((MERGED.to_owned(), node.span));
                    }
                    Some(key) => *waiting = Some((key, node.span)),
                    None => {
                        let problem = Problem::new("bad_key", format!("a key is text, this is {}", node.word()))
                            .expected("expected `key: value`")
                            .help("if text was meant, put it in quotes");
                        self.problems.error(node.span, problem);
                        return None;
                    }
                },
            },
        }
        // A refused `<<` leaves nothing behind.
        if let Some(Open { filled: Filled::Map(entries, _), .. }) = self.stack.last_mut()
            && entries.last().is_some_and(|entry| entry.key == MERGED)
        {
            entries.pop();
        }
        Some(())
    }
}

/// Stands for a refused `<<` until its value has passed; no key of a file contains a NUL.
const MERGED: &str = "\0<<";

fn key_of(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text { text, .. } => Some(text.clone()),
        Kind::Null { said: true } => Some("null".to_owned()),
        Kind::Null { said: false } => Some(String::new()),
        _ => None,
    }
}

fn merge_key() -> Problem {
    Problem::new("merge_key", "`<<` does not merge here")
        .expected("expected a key")
        .help("what holds for every service goes into `defaults`; an alias `*NAME` repeats a whole value")
}
