//! Our own log lines: one event becomes one line, every field bounded.

use std::fmt::{self, Write};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::record::{Kind, Record};
use super::{Format, Level, LineWriter, Own};
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
        let level = Level::from(meta.level());
        let unix_us = clock::unix_us();
        let own = super::own();
        let line = || json(unix_us, level, meta.target(), &fields, own);
        if let Some(own) = own {
            own.journal.write_as(level, Kind::Mesh, line());
        }
        if self.writer.is_on() {
            let text = match self.format {
                Format::Json => line(),
                Format::Text => text(unix_us / 1000, level, &fields),
            };
            self.writer.write_as(level, Kind::Mesh, text);
        }
    }
}

fn json(unix_us: u64, level: Level, target: &str, fields: &Fields, own: Option<&Own>) -> String {
    let mut more = Map::new();
    more.insert("target".to_owned(), target.into());
    let mut known: [(&str, &str); 2] = [("request_id", ""), ("trace_id", "")];
    for (name, value) in &fields.others {
        match (known.iter_mut().find(|(known, _)| known == name), value) {
            (Some(place), Value::String(text)) => place.1 = text,
            // A field never takes the place of another.
            _ => {
                more.entry(*name).or_insert_with(|| value.clone());
            }
        }
    }
    let [(_, request_id), (_, trace_id)] = known;
    Record {
        unix_us,
        level,
        kind: Kind::Mesh,
        service: own.map_or("", |own| &own.service),
        instance: own.map_or("", |own| &own.instance),
        pid: std::process::id(),
        thread: std::thread::current().name().unwrap_or_default(),
        stream: "",
        request_id,
        trace_id,
        message: &fields.message,
        fields: &Value::Object(more).to_string(),
    }
    .json()
}

fn text(unix_ms: u64, level: Level, fields: &Fields) -> String {
    let mut line = format!("{} {level:<5} {}", clock::time_of_day(unix_ms), one_line(&fields.message));
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
            others: vec![("request_id", "r1".into()), ("after_ms", 12.into()), ("target", "forged".into())],
        }
    }

    #[test]
    fn a_line_of_ours_has_the_one_form_and_no_field_replaces_another() {
        let line = json(0, Level::Warn, "synego_balance", &fields(), None);
        let entry = crate::logs::Entry::parse(&line).unwrap();
        assert_eq!((entry.kind, entry.level, entry.unix_us), (Kind::Mesh, Level::Warn, 0));
        assert_eq!((entry.message.as_str(), entry.request_id.as_str()), ("instance\nejected", "r1"));
        assert_eq!(entry.fields, r#"{"target":"synego_balance","after_ms":12}"#);
        assert_eq!(entry.pid, std::process::id());
        assert!(!entry.thread.is_empty());
    }

    #[test]
    fn a_line_of_ours_says_whose_program_speaks() {
        let own = Own { journal: LineWriter::discard(), service: "mesh".to_owned(), instance: "master@vm1".to_owned() };
        let line = json(0, Level::Info, "synego", &fields(), Some(&own));
        let entry = crate::logs::Entry::parse(&line).unwrap();
        assert_eq!((entry.service.as_str(), entry.instance.as_str()), ("mesh", "master@vm1"));
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let line = text(0, Level::Warn, &fields());
        assert!(line.ends_with(r"warn  instance\nejected request_id=r1 after_ms=12 target=forged"), "{line}");
    }
}
