//! The second look, at the whole after merging and filling: values, alternatives, and keys that are not honoured yet.
//! What passes becomes a JSON value in long form, for the types.

use serde_json::{Map, Value};

use crate::command;
use crate::keys::{Form, Key, Section, Shape};
use crate::long::{At, example_of, form_of};
use crate::problems::{Problem, Problems};
use crate::tree::{Kind, Node};
use crate::value::{Said, Scalar, scalar};

/// Checks `node` as `shape`; a part that was refused is left out of the value.
pub(crate) fn value(
    node: &Node,
    shape: &'static Shape,
    at: &At,
    key: Option<&'static Key>,
    problems: &mut Problems,
) -> Option<Value> {
    // What `defaults` says is checked there, once.
    let before = problems.mute_more(node.inherited);
    let checked = match (&node.kind, shape.meant(form_of(node))) {
        (Kind::Bad | Kind::Null { .. }, _) | (_, None) => None,
        (_, Some(Shape::Later(inner))) => {
            value(node, inner, at, key, problems);
            None
        }
        (_, Some(Shape::Map(section))) => self::section(node, section, at, problems),
        (_, Some(Shape::Named { of, .. })) => {
            let mut map = Map::new();
            for entry in node.entries() {
                // What was written short is called as it was written.
                let mut below = if node.short { at.clone() } else { at.key(&entry.key) };
                below.owner = at.owner.clone();
                if let Some(value) = value(&entry.value, of, &below, key, problems) {
                    map.insert(entry.key.clone(), value);
                }
            }
            Some(Value::Object(map))
        }
        (_, Some(Shape::List { of, .. })) => {
            let items = node.items().iter().filter_map(|item| value(item, of, at, key, problems));
            Some(Value::Array(items.collect()))
        }
        (_, Some(Shape::Command)) => {
            let words = command::read(node, at.last(), problems);
            words.map(|words| Value::Array(words.into_iter().map(Value::String).collect()))
        }
        (_, Some(Shape::Free)) => Some(Value::Object(Map::new())),
        (Kind::Text { text, plain }, Some(meant)) => {
            let example = key.map_or("", |key| key.example);
            let beside = if shape.takes(Form::Map) { ", or a mapping" } else { "" };
            let said = Said { key: at.last(), text, plain: *plain, example, beside };
            match scalar(&said, meant) {
                Ok(Scalar::Bool(value)) => Some(Value::Bool(value)),
                Ok(Scalar::Number(value)) => Some(Value::from(value)),
                Ok(Scalar::Text(value)) => Some(Value::String(value)),
                Err(problem) => {
                    problems.error(node.span, problem);
                    None
                }
            }
        }
        _ => None,
    };
    problems.mute(before);
    checked
}

fn section(node: &Node, section: &'static Section, at: &At, problems: &mut Problems) -> Option<Value> {
    alternatives(node, section, at, problems);
    let parent = crate::keys::find(&at.dotted()).and_then(|found| found.key);
    let mut map = Map::new();
    for entry in node.entries() {
        let Some(key) = section.key(&entry.key) else { continue };
        if entry.value.is_null() {
            continue;
        }
        let errors = problems.errors();
        let below = at.key(&entry.key);
        let later = !key.built || matches!(key.shape.meant(form_of(&entry.value)), Some(Shape::Later(_)));
        let value = match parent.filter(|_| node.short) {
            // What was written short is called as it was written.
            Some(parent) => value(&entry.value, key.shape, at, Some(parent), problems),
            None => value(&entry.value, key.shape, &below, Some(key), problems),
        };
        if later {
            sums(&entry.value, key, problems);
            // A mistake inside says enough; without one the key itself is what cannot be had.
            if problems.errors() == errors && !entry.value.has_bad() {
                let before = problems.mute_more(entry.value.inherited);
                problems.error(entry.span, not_yet(key, section, &below));
                problems.mute(before);
            }
        } else if let Some(value) = value {
            map.insert(entry.key.clone(), value);
        }
    }
    if section.noun == "route" {
        split_place(&mut map);
    }
    Some(Value::Object(map))
}

/// A key of the design that this version refuses.
fn not_yet(key: &Key, section: &Section, at: &At) -> Problem {
    let of = match section.noun {
        "manifest" => String::new(),
        _ => format!(" of {}", section.article()),
    };
    let form = if key.built { " as a mapping" } else { "" };
    Problem::new("not_yet", format!("`{}`{form}{of} is not honoured by this version yet", key.name))
        .expected(format!("it will say: {}", key.meaning))
        .help(format!(
            "leave it out: what is not honoured is refused, never ignored; `synego explain {}`",
            page_path(at)
        ))
}

/// The path of a key's page: names of entries become `NAME`.
fn page_path(at: &At) -> String {
    crate::keys::find(&at.dotted()).map_or_else(|| at.dotted(), |found| found.path)
}

/// Keys of one group that are said beside each other.
fn alternatives(node: &Node, section: &'static Section, at: &At, problems: &mut Problems) {
    for group in section.either {
        let mut said =
            node.entries().iter().filter(|entry| group.contains(&entry.key.as_str()) && !entry.value.is_null());
        let (Some(first), Some(second)) = (said.next(), said.next()) else { continue };
        if matches!((&first.value.kind, &second.value.kind), (Kind::Bad, _) | (_, Kind::Bad)) {
            continue;
        }
        let (first, second) = if (first.span.line, first.span.column) <= (second.span.line, second.span.column) {
            (first, second)
        } else {
            (second, first)
        };
        if second.value.inherited {
            continue;
        }
        let subject = if section.many && at.path.len() >= 2 { at.last() } else { section.noun };
        let message = format!("`{subject}` has both `{}` (line {}) and `{}`", first.key, first.span.line, second.key);
        let problem = Problem::new("either_or", message);
        let run = node.get("run").is_some() && node.get("address").is_some() && group.contains(&"run");
        let problem = if run {
            let port =
                node.get("address").and_then(Node::text).and_then(|text| text.rsplit(':').next()).unwrap_or("9000");
            let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "9000" };
            problem
                .expected("expected one: `run` starts it, `address` finds it running")
                .help(format!("to start it on a fixed port: keep `run`, write `port: {port}`"))
        } else {
            problem
                .expected(format!("expected one of {}", crate::keys::shape::words(group.iter())))
                .help(format!("keep one: {}", example_of(&at.key(&first.key))))
        };
        problems.error(second.span, problem);
    }
}

/// The shares of `split` must make a whole.
fn sums(node: &Node, key: &Key, problems: &mut Problems) {
    if key.name != "split" {
        return;
    }
    let shares: Option<Vec<(&str, u32)>> = node
        .entries()
        .iter()
        .map(|entry| Some((entry.key.as_str(), crate::value::percent(entry.value.text()?)?)))
        .collect();
    let Some(shares) = shares.filter(|shares| !shares.is_empty()) else { return };
    let sum: u32 = shares.iter().map(|(_, share)| share).sum();
    let Some((version, largest)) = shares.iter().max_by_key(|(_, share)| *share) else { return };
    if sum == 100 {
        return;
    }
    let problem = Problem::new("bad_sum", format!("the shares of `split` make {sum}%, not 100%"));
    let problem = if sum < 100 {
        problem
            .expected(format!("{}% would go nowhere", 100 - sum))
            .help(format!("write `{version}: {}%`", largest + 100 - sum))
    } else {
        let help = match largest.checked_sub(sum - 100) {
            Some(rest) => format!("write `{version}: {rest}%`"),
            None => "lower them until they make 100%".to_owned(),
        };
        problem.expected(format!("{}% too much", sum - 100)).help(help)
    };
    problems.error(node.span, problem);
}

/// The short form of a route is a place: its host goes under `host`.
fn split_place(map: &mut Map<String, Value>) {
    let Some(Value::String(path)) = map.get("path") else { return };
    let Some(slash) = path.find('/').filter(|slash| *slash > 0) else { return };
    let (host, rest) = path.split_at(slash);
    let (host, rest) = (host.to_ascii_lowercase(), rest.to_owned());
    map.insert("path".into(), Value::String(rest));
    map.entry("host").or_insert(Value::String(host));
}
