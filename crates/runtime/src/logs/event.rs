//! Our own log lines: one event becomes one line, every field bounded.

use std::fmt::{self, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Format, LineWriter};
use crate::clock;

/// Longest field of a log line, in bytes; longer ones are cut.
pub const MAX_FIELD: usize = 4 * 1024;

/// Writes each event as one line.
pub(super) struct EventLayer {
    format: Format,
    writer: LineWriter,
}

impl EventLayer {
    pub(super) fn new(format: Format, writer: LineWriter) -> Self {
        Self { format, writer }
    }
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let meta = event.metadata();
        self.writer.write(match self.format {
            Format::Json => json(clock::unix_ms(), meta.level(), meta.target(), fields),
            Format::Text => text(clock::unix_ms(), meta.level(), &fields),
        });
    }
}

/// The word of a level, as in the manifest.
fn word(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json(unix_ms: u64, level: &Level, target: &str, fields: Fields) -> String {
    let mut line = Map::new();
    line.insert("time".to_owned(), clock::rfc3339(unix_ms).into());
    line.insert("level".to_owned(), word(level).into());
    line.insert("target".to_owned(), target.into());
    line.insert("message".to_owned(), fields.message.into());
    for (name, value) in fields.others {
        // A field never takes the place of one of the four above.
        line.entry(name).or_insert(value);
    }
    Value::Object(line).to_string()
}

fn text(unix_ms: u64, level: &Level, fields: &Fields) -> String {
    let mut line = format!("{} {:<5} {}", clock::time_of_day(unix_ms), word(level), one_line(&fields.message));
    for (name, value) in &fields.others {
        // Writing into a `String` cannot fail.
        let _always = match value {
            Value::String(value) if value.contains([' ', '"', '\n']) || value.is_empty() => {
                write!(line, " {name}={value:?}")
            }
            Value::String(value) => write!(line, " {name}={value}"),
            other => write!(line, " {name}={other}"),
        };
    }
    line
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn take(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_FIELD {
            text.truncate(text.floor_char_boundary(MAX_FIELD));
            text.push('…');
        }
        if field.name() == "message" {
            self.message = text;
        } else {
            self.others.push((field.name(), text.into()));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.take(field, value.to_string());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.others.push((field.name(), u64::try_from(value).unwrap_or(u64::MAX).into()));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields {
        Fields {
            message: "instance\nejected".to_owned(),
            others: vec![("instance", "users-1".into()), ("after_ms", 12.into()), ("level", "forged".into())],
        }
    }

    #[test]
    fn a_json_line_has_its_four_names_first_and_no_field_replaces_them() {
        assert_eq!(
            json(0, &Level::WARN, "synego_balance", fields()),
            r#"{"time":"1970-01-01T00:00:00.000Z","level":"warn","target":"synego_balance","message":"instance\nejected","instance":"users-1","after_ms":12}"#
        );
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let line = text(0, &Level::WARN, &fields());
        assert!(line.ends_with(r"warn  instance\nejected instance=users-1 after_ms=12 level=forged"), "{line}");
    }
}
