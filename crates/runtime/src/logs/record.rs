//! The one form of a line, whoever wrote it: a service, the mesh itself, or a hop that carried an exchange.

use serde_json::{Map, Value};

use super::Level;
use crate::clock;

/// Who a line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// A service printed it.
    #[default]
    Output,
    /// A hop wrote it down at the end of an exchange.
    Access,
    /// A program of the mesh says it of itself.
    Mesh,
}

impl Kind {
    /// The word in `kind`; lines of services have none.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Output => "",
            Self::Access => "access",
            Self::Mesh => "mesh",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "access" => Self::Access,
            "mesh" => Self::Mesh,
            _ => Self::Output,
        }
    }
}

/// One line on its way into its form. What is empty, or 0, is left out.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When: microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// How much it matters.
    pub level: Level,
    /// Who it is from.
    pub kind: Kind,
    /// The service.
    pub service: &'a str,
    /// The instance, such as `users-1@vm1`.
    pub instance: &'a str,
    /// The process.
    pub pid: u32,
    /// The thread, where it is known.
    pub thread: &'a str,
    /// `stdout`, `stderr` or `build`; empty: it was not captured.
    pub stream: &'a str,
    /// The request it belongs to.
    pub request_id: &'a str,
    /// The trace it belongs to.
    pub trace_id: &'a str,
    /// What it says.
    pub message: &'a str,
    /// What else it says, as the text of a JSON object.
    pub fields: &'a str,
}

impl Record<'_> {
    /// The line, without its end.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = String::with_capacity(192 + self.message.len() + self.fields.len());
        out.push_str("{\"time\":\"");
        out.push_str(&clock::rfc3339_us(self.unix_us));
        out.push('"');
        text(&mut out, "level", self.level.word());
        text(&mut out, "kind", self.kind.word());
        text(&mut out, "service", self.service);
        text(&mut out, "instance", self.instance);
        if self.pid != 0 {
            out.push_str(",\"pid\":");
            out.push_str(&self.pid.to_string());
        }
        text(&mut out, "thread", self.thread);
        text(&mut out, "stream", self.stream);
        text(&mut out, "request_id", self.request_id);
        text(&mut out, "trace_id", self.trace_id);
        out.push_str(",\"message\":");
        quoted(&mut out, self.message);
        if !self.fields.is_empty() {
            out.push_str(",\"fields\":");
            out.push_str(self.fields);
        }
        out.push('}');
        out
    }
}

fn text(out: &mut String, name: &str, value: &str) {
    if !value.is_empty() {
        out.push_str(",\"");
        out.push_str(name);
        out.push_str("\":");
        quoted(out, value);
    }
}

fn quoted(out: &mut String, value: &str) {
    if value.bytes().any(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
        out.push_str(&serde_json::to_string(value).unwrap_or_default());
    } else {
        out.push('"');
        out.push_str(value);
        out.push('"');
    }
}

/// A line that was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When: microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// How much it matters.
    pub level: Level,
    /// Who it is from.
    pub kind: Kind,
    /// The service; may be empty.
    pub service: String,
    /// The instance; may be empty.
    pub instance: String,
    /// The process; 0: not said.
    pub pid: u32,
    /// The thread; may be empty.
    pub thread: String,
    /// `stdout`, `stderr`, `build` or empty.
    pub stream: String,
    /// The request it belongs to; may be empty.
    pub request_id: String,
    /// The trace it belongs to; may be empty.
    pub trace_id: String,
    /// What it says.
    pub message: String,
    /// What else it says, as the text of a JSON object; may be empty.
    pub fields: String,
}

impl Entry {
    /// Reads a line; `None`: it is none of this form.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut object: Map<String, Value> = serde_json::from_str(line).ok()?;
        let mut text = |name: &str| match object.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        Some(Self {
            unix_us: clock::parse_rfc3339_us(&text("time"))?,
            level: text("level").parse().ok()?,
            kind: Kind::of(&text("kind")),
            service: text("service"),
            instance: text("instance"),
            thread: text("thread"),
            stream: text("stream"),
            request_id: text("request_id"),
            trace_id: text("trace_id"),
            message: text("message"),
            pid: object.get("pid").and_then(Value::as_u64).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
            fields: object.get("fields").filter(|fields| fields.is_object()).map(Value::to_string).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            unix_us: 1_772_355_900_042_007,
            level: Level::Warn,
            kind: Kind::Output,
            service: "users",
            instance: "users-1@vm1",
            pid: 7,
            thread: "main",
            stream: "stdout",
            request_id: "r1",
            trace_id: "t1",
            message: "slow \"query\"\n",
            fields: r#"{"ms":12}"#,
        }
    }

    #[test]
    fn a_line_has_its_members_in_one_order_and_is_read_back_as_it_was() {
        let line = record().json();
        assert_eq!(
            line,
            r#"{"time":"2026-03-01T09:05:00.042007Z","level":"warn","service":"users","instance":"users-1@vm1","pid":7,"thread":"main","stream":"stdout","request_id":"r1","trace_id":"t1","message":"slow \"query\"\n","fields":{"ms":12}}"#
        );
        let entry = Entry::parse(&line).unwrap();
        assert_eq!(
            (entry.unix_us, entry.level, entry.kind, entry.pid),
            (1_772_355_900_042_007, Level::Warn, Kind::Output, 7)
        );
        assert_eq!((entry.message.as_str(), entry.fields.as_str()), ("slow \"query\"\n", r#"{"ms":12}"#));
        assert_eq!((entry.thread.as_str(), entry.stream.as_str()), ("main", "stdout"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = Record {
            service: "",
            instance: "",
            pid: 0,
            thread: "",
            stream: "",
            request_id: "",
            trace_id: "",
            fields: "",
            kind: Kind::Mesh,
            ..record()
        };
        assert_eq!(
            bare.json(),
            r#"{"time":"2026-03-01T09:05:00.042007Z","level":"warn","kind":"mesh","message":"slow \"query\"\n"}"#
        );
    }

    #[test]
    fn what_is_no_line_of_this_form_is_passed_over() {
        for text in [
            "",
            "{",
            r#"{"message":"half"#,
            "[]",
            r#"{"time":"soon","level":"info"}"#,
            r#"{"time":"2026-03-01T09:05:00Z"}"#,
        ] {
            assert_eq!(Entry::parse(text), None, "{text}");
        }
    }
}
