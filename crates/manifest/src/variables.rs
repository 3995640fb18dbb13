//! `${NAME}`, `${NAME:-default}` and `$${`: filled into values after parsing and merging, once.

use std::collections::BTreeMap;

use crate::long::{At, is_variable};
use crate::problems::{Problem, Problems};
use crate::tree::{Kind, Node, Span};
use crate::{keys, yaml};

/// Fills the variables of all scalars in `node`; one that cannot be filled becomes bad.
pub(crate) fn fill(node: &mut Node, environment: &BTreeMap<String, String>, problems: &mut Problems) {
    let mut left = yaml::MAX_TEXT;
    below(node, &At::default(), environment, &mut left, problems);
}

fn below(node: &mut Node, at: &At, environment: &BTreeMap<String, String>, left: &mut usize, problems: &mut Problems) {
    let span = node.span;
    match &mut node.kind {
        Kind::Text { text, plain } if text.contains("${") => {
            let mut filler = Filler { span, at, environment, left, problems };
            match filler.scalar(text) {
                Some(filled) => {
                    *text = filled;
                    // Inside brackets a variable needs quotes, whatever it holds: they say nothing of its kind.
                    *plain = true;
                }
                None => node.kind = Kind::Bad,
            }
        }
        Kind::List(items) => items.iter_mut().for_each(|item| below(item, at, environment, left, problems)),
        Kind::Map(entries) => {
            for entry in entries {
                below(&mut entry.value, &at.key(&entry.key), environment, left, problems);
            }
        }
        _ => {}
    }
}

struct Filler<'a> {
    span: Span,
    at: &'a At,
    environment: &'a BTreeMap<String, String>,
    /// Bytes that may still be filled in.
    left: &'a mut usize,
    problems: &'a mut Problems,
}

impl Filler<'_> {
    /// The text with its variables filled; `None` after a mistake.
    fn scalar(&mut self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut sound = true;
        while let Some(found) = rest.find("${") {
            let (before, after) = rest.split_at(found);
            let inner = after.get(2..).unwrap_or_default();
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = inner;
                continue;
            }
            out.push_str(before);
            let Some(end) = inner.find('}') else {
                self.bad(after, after, "it is not closed");
                return None;
            };
            let reference = inner.get(..end).unwrap_or_default();
            let whole = after.get(..end + 3).unwrap_or(after);
            match self.value(reference, whole) {
                Some(value) if value.len() > *self.left => {
                    let message = "the values of all variables together have more than 4MiB";
                    self.problems.error(self.span, yaml::too_big(message));
                    return None;
                }
                Some(value) => {
                    *self.left -= value.len();
                    out.push_str(&value);
                }
                None => sound = false,
            }
            rest = inner.get(end + 1..).unwrap_or_default();
        }
        out.push_str(rest);
        sound.then_some(out)
    }

    fn value(&mut self, reference: &str, whole: &str) -> Option<String> {
        if let Some(name) = reference.strip_prefix("secret:") {
            let problem = Problem::new("not_yet", "secrets are not honoured by this version yet")
                .expected(format!("`{name}` would stand here"))
                .help(format!(
                    "until then a variable can hold it: `${{{}}}`",
                    name.to_ascii_uppercase().replace('-', "_")
                ));
            self.problems.error(self.span_of(whole), problem);
            return None;
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_variable(name) {
            self.bad(whole, reference, "a name of letters, digits and _ is expected");
            return None;
        }
        if default.is_some_and(|default| default.contains("${")) {
            self.bad(whole, reference, "a default holds no variable: values are filled once");
            return None;
        }
        match (self.environment.get(name).filter(|value| default.is_none() || !value.is_empty()), default) {
            (Some(value), _) => Some(value.clone()),
            (None, Some(default)) => Some(default.to_owned()),
            (None, None) => {
                let help = if name == "PORT" && self.at.path.iter().any(|key| key == "run") {
                    "each process is told its own port in the variable `PORT`; as an argument: `run: [sh, -c, \"exec ./app --port $PORT\"]`"
                        .to_owned()
                } else {
                    format!("`export {name}=…`, or give a default: `${{{name}:-{}}}`", sample(self.at, name))
                };
                let problem = Problem::new("unset_variable", format!("the variable `{name}` is not set"))
                    .expected("not in the environment, no `vars_file`, no default")
                    .help(help);
                self.problems.error(self.span_of(whole), problem);
                None
            }
        }
    }

    fn bad(&mut self, whole: &str, reference: &str, why: &str) {
        let shown: String = reference.chars().take(40).collect();
        let problem = Problem::new("bad_variable", format!("`{shown}` is no variable: {why}"))
            .expected("expected `${NAME}` or `${NAME:-default}`")
            .help("a literal `${` is written `$${`; a lone `$` is a dollar");
        let span = self.span_of(whole);
        self.problems.error(span, problem);
    }

    /// Where `whole` stands in the file: it is looked for from the start of the value on.
    fn span_of(&self, whole: &str) -> Span {
        if self.problems.full() {
            return self.span;
        }
        let line = self.problems.line(self.span.file, self.span.line);
        let skip = usize::try_from(self.span.column).unwrap_or(1).saturating_sub(1);
        let shown: String = line.chars().skip(skip).collect();
        match shown.find(whole) {
            Some(bytes) => {
                let chars = shown.get(..bytes).unwrap_or_default().chars().count();
                self.span.part(chars, whole.chars().count())
            }
            None => self.span,
        }
    }
}

/// A value that would do at this key.
fn sample(at: &At, name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    for (word, value) in [
        ("REDIS", "redis://127.0.0.1:6379"),
        ("MYSQL", "mysql://127.0.0.1/test"),
        ("NATS", "nats://127.0.0.1:4222"),
        ("PORT", "8080"),
        ("HOST", "127.0.0.1"),
    ] {
        if upper.contains(word) {
            return value.to_owned();
        }
    }
    let key = keys::find(&at.dotted()).and_then(|found| found.key);
    match key.filter(|key| !key.default.is_empty() && !key.default.starts_with(['[', '{'])) {
        Some(key) => key.default.to_owned(),
        None => "VALUE".to_owned(),
    }
}
