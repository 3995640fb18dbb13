//! The first look at a file: keys that do not belong, values of the wrong form; and short forms written out long.

use std::collections::HashMap;

use crate::keys::shape::Keys;
use crate::keys::{self, Form, Section, Shape, Short};
use crate::misplaced;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};
use synego_model::name::{is_name, nearest_name};
use synego_model::text::nearest;

/// Where in the manifest the walk is: the keys from the root on, and how its place is called.
#[derive(Debug, Clone, Default)]
pub(crate) struct At {
    /// Keys from the root on.
    pub(crate) path: Vec<String>,
    /// The entry of a free mapping that it is in, such as ``service `users` ``.
    pub(crate) owner: String,
}

impl At {
    /// One key further.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        Self { path, owner: self.owner.clone() }
    }

    /// The last key.
    pub(crate) fn last(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// The path with dots.
    pub(crate) fn dotted(&self) -> String {
        self.path.join(".")
    }
}

/// Checks the keys and forms of `node` and writes its short forms out.
pub(crate) fn expand(node: &mut Node, shape: &'static Shape, at: &At, problems: &mut Problems) {
    match &node.kind {
        Kind::Bad => return,
        Kind::Null { said: true } => return,
        Kind::Null { said: false } => {
            if shape.meant(Form::Map).is_some_and(|shape| !matches!(shape, Shape::Command)) {
                // All entries of a section commented out is no mistake.
                node.kind = Kind::Map(Vec::new());
            } else {
                problems.error(node.span, no_value(at, shape));
                node.kind = Kind::Bad;
                return;
            }
        }
        Kind::Map(_) | Kind::List(_) | Kind::Text { .. } => {}
    }
    let form = form_of(node);
    let Some(meant) = shape.meant(form) else {
        problems.error(node.span, wrong_type(node, shape, at));
        node.kind = Kind::Bad;
        return;
    };
    let meant = if let Shape::Later(inner) = meant { inner } else { meant };
    match meant {
        Shape::Map(section) => {
            if form != Form::Map {
                write_out(node, section.shorts, form);
            }
            section_keys(node, section, at, problems);
        }
        Shape::Named { noun, keys, of, max, shorts, .. } => {
            if form != Form::Map && !write_out_named(node, shorts, form, problems) {
                return;
            }
            named_keys(node, (noun, *keys, of, *max), at, problems);
        }
        Shape::List { of, max } => {
            if let Kind::List(items) = &mut node.kind {
                if items.len() > *max {
                    problems.error(node.span, too_many(at.last(), items.len(), *max));
                    items.truncate(*max);
                }
                items.iter_mut().for_each(|item| list_item(item, of, at, problems));
            }
        }
        Shape::Command => {
            if let Kind::List(items) = &mut node.kind {
                items.iter_mut().for_each(|item| list_item(item, &ARGUMENT, at, problems));
            }
        }
        Shape::Free => {
            drop_duplicates(node, "key", problems);
        }
        _ => {}
    }
}

static ARGUMENT: Shape = Shape::Text("text");

fn list_item(item: &mut Node, of: &'static Shape, at: &At, problems: &mut Problems) {
    if item.is_null() {
        let problem = Problem::new("no_value", format!("an entry of `{}` has no value", at.last()))
            .expected(format!("expected {}", of.what()))
            .help("leave the entry out");
        problems.error(item.span, problem);
        item.kind = Kind::Bad;
        return;
    }
    let form = form_of(item);
    if !matches!(item.kind, Kind::Bad) && of.meant(form).is_none() {
        let problem = Problem::new(
            "wrong_type",
            format!("an entry of `{}` is {}, this is {}", at.last(), of.what(), item.word()),
        )
        .expected(format!("expected {}", of.expected()))
        .help(example_of(at));
        problems.error(item.span, problem);
        item.kind = Kind::Bad;
        return;
    }
    expand(item, of, at, problems);
}

/// How a node stands in the file.
pub(crate) fn form_of(node: &Node) -> Form {
    match node.kind {
        Kind::List(_) => Form::List,
        Kind::Map(_) => Form::Map,
        Kind::Null { .. } | Kind::Text { .. } | Kind::Bad => Form::Scalar,
    }
}

/// Puts the value of a short form under the key that it means.
fn write_out(node: &mut Node, shorts: &[Short], form: Form) {
    let Some(short) = shorts.iter().find(|short| short.form() == form) else { return };
    let span = node.span;
    let mut value = node.clone();
    let key = match *short {
        Short::Scalar(key) | Short::List(key) => key,
        Short::Words(words, other) => match words.iter().find(|word| value.text() == Some(word)) {
            Some(word) => {
                value.kind = Kind::Text { text: "true".into(), plain: true };
                word
            }
            None => other,
        },
        Short::Names => return,
    };
    node.kind = Kind::Map(vec![Entry { key: key.to_owned(), span, value }]);
    node.short = true;
}

/// The same for a mapping of free keys; false when a list of names holds something else.
fn write_out_named(node: &mut Node, shorts: &[Short], form: Form, problems: &mut Problems) -> bool {
    let names = shorts.iter().any(|short| matches!(short, Short::Names));
    match (&node.kind, names && form == Form::List) {
        (Kind::List(items), true) => {
            let mut entries = Vec::new();
            for item in items {
                if let Some(text) = item.text() {
                    entries.push(Entry { key: text.to_owned(), span: item.span, value: Node::empty(item.span) });
                } else if !matches!(item.kind, Kind::Bad) {
                    let problem =
                        Problem::new("wrong_type", format!("an entry of this list is a name, this is {}", item.word()))
                            .expected("expected a name")
                            .help("write `[users, orders]`, or a mapping `{ users: { … } }`");
                    problems.error(item.span, problem);
                    entries.push(Entry { key: String::new(), span: item.span, value: Node::new(item.span, Kind::Bad) });
                }
            }
            node.kind = Kind::Map(entries);
            node.short = true;
        }
        _ => write_out(node, shorts, form),
    }
    true
}

fn section_keys(node: &mut Node, section: &'static Section, at: &At, problems: &mut Problems) {
    drop_duplicates(node, "", problems);
    let Some(entries) = node.entries_mut() else { return };
    for entry in entries.iter_mut() {
        match section.key(&entry.key) {
            Some(key) => expand(&mut entry.value, key.shape, &at.key(&entry.key), problems),
            None => {
                problems.error(entry.span, misplaced::unknown(section, entry, at));
                entry.value = Node::new(entry.span, Kind::Bad);
            }
        }
    }
}

fn named_keys(
    node: &mut Node,
    (noun, kind, of, max): (&'static str, Keys, &'static Shape, usize),
    at: &At,
    problems: &mut Problems,
) {
    drop_duplicates(node, noun, problems);
    let span = node.span;
    let Some(entries) = node.entries_mut() else { return };
    if entries.len() > max {
        problems.error(span, too_many(at.last(), entries.len(), max));
        entries.truncate(max);
    }
    for entry in entries.iter_mut() {
        if matches!(entry.value.kind, Kind::Bad) && entry.key.is_empty() {
            continue;
        }
        if let Some(problem) = bad_key(kind, &entry.key, at) {
            problems.error(entry.span, problem);
            entry.value = Node::new(entry.span, Kind::Bad);
            continue;
        }
        let mut below = at.key(&entry.key);
        below.owner = format!("{noun} `{}`", entry.key);
        expand(&mut entry.value, of, &below, problems);
    }
}

/// What is wrong with a free key.
fn bad_key(kind: Keys, key: &str, at: &At) -> Option<Problem> {
    match kind {
        Keys::Names => (!is_name(key)).then(|| bad_name(key)),
        Keys::Listeners => (!is_name(key)).then(|| bad_name(key)),
        Keys::Places => key.parse::<synego_model::Place>().err().map(|bad| bad_place(key, &bad)),
        Keys::Variables => (!is_variable(key)).then(|| {
            Problem::new("bad_variable", format!("`{key}` is no name of a variable"))
                .expected("expected letters, digits and _, first no digit")
                .help("write such as `NODE_ENV`")
        }),
        Keys::Free => (key.is_empty() || key.len() > 128).then(|| {
            Problem::new("bad_key", format!("a key of `{}` has 1 to 128 bytes, this has {}", at.last(), key.len()))
                .expected("expected a short key")
                .help("shorten it")
        }),
    }
}

/// Text that is no name.
pub(crate) fn bad_name(text: &str) -> Problem {
    Problem::new("bad_name", format!("`{text}` is not a name"))
        .expected("expected a-z, 0-9 and -, first a letter, at most 63")
        .nearest(nearest_name(text))
        .help("names become DNS labels and parts of certificates")
}

/// Text that is no place.
pub(crate) fn bad_place(text: &str, bad: &synego_model::BadPlace) -> Problem {
    let problem = match bad {
        synego_model::BadPlace::NoSlash(_) => {
            Problem::new("bad_place", format!("`{text}` is not a place: it has no slash"))
                .nearest(Some(format!("/{text}")))
        }
        synego_model::BadPlace::BadSegment(part) if part.contains('{') || part.contains('}') => {
            let name = part.trim_matches(['{', '}', '.']);
            Problem::new("bad_place", format!("`{text}` is not a place: `{part}` is no segment"))
                .nearest(Some(text.replace(part.as_str(), &format!(":{name}"))))
        }
        synego_model::BadPlace::BadSegment(part) if part.contains('*') => {
            Problem::new("bad_place", format!("`{text}` is not a place: `{part}` is no segment"))
        }
        synego_model::BadPlace::BadSegment(part) => {
            Problem::new("bad_place", format!("`{text}` is not a place: `{part}` is no segment"))
        }
        synego_model::BadPlace::BadHost(host) => {
            Problem::new("bad_place", format!("`{text}` is not a place: `{host}` is no host name"))
        }
        synego_model::BadPlace::TooLong(bytes) => {
            Problem::new("bad_place", format!("a place has at most 1,024 bytes, this has {bytes}"))
        }
    };
    problem.expected("expected `/path` or `host/path`").help(
        "a path is a prefix by segments: `/users` takes `/users/7`; `:id` is one segment; a port is no part of a place",
    )
}

/// Whether it can name a variable.
pub(crate) fn is_variable(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn drop_duplicates(node: &mut Node, noun: &str, problems: &mut Problems) {
    let Some(entries) = node.entries_mut() else { return };
    let mut first: HashMap<String, Span> = HashMap::new();
    entries.retain(|entry| match first.get(&entry.key) {
        None => {
            first.insert(entry.key.clone(), entry.span);
            true
        }
        Some(before) => {
            problems.error(entry.span, said_twice(noun, &entry.key, &format!("line {}", before.line)));
            false
        }
    });
}

/// A key or name that stands at two places.
pub(crate) fn said_twice(noun: &str, key: &str, first: &str) -> Problem {
    let noun = if noun.is_empty() || noun == "key" { String::new() } else { format!("{noun} ") };
    let first = if first.starts_with("line ") { format!("at {first}") } else { format!("in {first}") };
    Problem::new("duplicate_key", format!("{noun}`{key}` is said twice"))
        .expected(format!("first said {first}"))
        .help("keep one; what differs for one environment goes into an overlay, synego.NAME.yaml")
}

/// More entries than a list or mapping can have.
pub(crate) fn too_many(key: &str, count: usize, max: usize) -> Problem {
    Problem::new("out_of_range", format!("`{key}` has {count} entries"))
        .expected(format!("expected at most {max}"))
        .help("split what can be split into several services or meshes")
}

fn no_value(at: &At, shape: &'static Shape) -> Problem {
    let key = keys::find(&at.dotted()).and_then(|found| found.key).filter(|key| key.name == at.last());
    let help = match key {
        Some(key) if key.default.is_empty() => format!("write `{}`, or leave the key out", key.example),
        Some(key) => format!("write `{}`, or leave the key out: {} is its default", key.example, key.default),
        None => format!("write such as `{}: \"\"` for empty text", at.last()),
    };
    Problem::new("no_value", format!("`{}` has no value", at.last()))
        .expected(format!("expected {}", shape.expected()))
        .help(help)
}

/// How the key at `at` is written.
pub(crate) fn example_of(at: &At) -> String {
    match keys::find(&at.dotted()).and_then(|found| found.key) {
        Some(key) => format!("write `{}`", key.example),
        None => "`synego explain manifest` lists every key".to_owned(),
    }
}

/// A list, mapping or scalar where another of them belongs.
fn wrong_type(node: &Node, shape: &'static Shape, at: &At) -> Problem {
    let name = at.last();
    let mut help = example_of(at);
    if let Some(pairs) = as_pairs(node, shape) {
        help = format!("write `{name}: {{ {pairs} }}`");
    } else if let (true, Kind::Text { .. }) = (shape.takes(Form::List), &node.kind) {
        help = format!("write `{name}: [{}]`", node.brief(60));
    } else if let (Shape::Text(_), Kind::List(items)) = (shape, &node.kind) {
        let texts: Vec<&str> = items.iter().filter_map(Node::text).collect();
        help = format!("write `{name}: {}`", crate::tree::quoted(&texts.join(", "), true));
    }
    Problem::new("wrong_type", format!("`{name}` is {}, this is {}", shape.what(), node.word()))
        .expected(format!("expected {}", shape.expected()))
        .help(help)
}

/// `[A=B, C=D]` as the pairs that were meant.
fn as_pairs(node: &Node, shape: &Shape) -> Option<String> {
    let Shape::Named { .. } = shape else { return None };
    let pairs: Option<Vec<String>> = node
        .items()
        .iter()
        .map(|item| {
            let (name, value) = item.text()?.split_once('=')?;
            is_variable(name).then(|| format!("{name}: {}", crate::tree::quoted(value, false)))
        })
        .collect();
    pairs.filter(|pairs| !pairs.is_empty() && pairs.len() <= 4).map(|pairs| pairs.join(", "))
}

/// The nearest of the keys of a section to a word that is none of them.
pub(crate) fn nearest_key(section: &'static Section, word: &str) -> Option<&'static str> {
    section.synonym(word).or_else(|| nearest(word, section.keys().map(|key| key.name)))
}
