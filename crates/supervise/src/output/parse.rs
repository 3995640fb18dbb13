//! What a line says: level, message, ids; from JSON as common loggers write it, else from its first words.

use serde_json::{Map, Value};
use synego_runtime::clock;

use super::{From, Level, MAX_FIELD, OutputLine, OutputSink};

/// Names under which loggers write the same thing, the usual one first.
const MESSAGE: [&str; 3] = ["message", "msg", "event"];
const LEVEL: [&str; 4] = ["level", "severity", "lvl", "levelname"];
const REQUEST: [&str; 3] = ["request_id", "requestId", "req_id"];
const TRACE: [&str; 3] = ["trace_id", "traceId", "trace"];
const THREAD: [&str; 3] = ["thread", "threadName", "thread_name"];
const TIME: [&str; 4] = ["time", "ts", "timestamp", "@timestamp"];
/// What every line has anyway.
const DROPPED: [&str; 3] = ["pid", "hostname", "asctime"];
/// How much earlier than it was read a line may say that it was written; microseconds.
const BEHIND: u64 = 2_000_000;
/// How far into a plain line a word for its level is looked for; bytes.
const LEVEL_WITHIN: usize = 48;

/// Reads a line that goes to `sink`.
pub(super) fn line(text: &str, from: From, sink: &OutputSink, unix_us: u64) -> OutputLine {
    let mut line = OutputLine {
        unix_us,
        level: Level::Info,
        message: String::new(),
        stderr: from.stderr,
        build: from.build,
        pid: from.pid,
        thread: String::new(),
        request_id: String::new(),
        trace_id: String::new(),
        fields_json: String::new(),
    };
    let object = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Map<String, Value>>(text).ok());
    match object.flatten() {
        Some(object) => structured(object, sink, &mut line),
        None => {
            line.message = plain(text);
            line.level = level_of_text(&line.message).unwrap_or(Level::Info);
        }
    }
    line
}

fn structured(mut object: Map<String, Value>, sink: &OutputSink, line: &mut OutputLine) {
    let mut take = |names: &[&str]| names.iter().find_map(|name| object.shift_remove(*name));
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => plain(&text),
        Some(other) => plain(&other.to_string()),
        None => String::new(),
    };
    line.message = text(take(&MESSAGE));
    line.level = take(&LEVEL).and_then(|level| level_of_value(&level)).unwrap_or(Level::Info);
    line.request_id = text(take(&REQUEST));
    line.trace_id = text(take(&TRACE));
    line.thread = text(take(&THREAD));
    line.unix_us = take(&TIME).and_then(|time| said_time(&time, line.unix_us)).unwrap_or(line.unix_us);
    TIME.iter().for_each(|name| {
        object.shift_remove(*name);
    });
    object.retain(|name, value| !DROPPED.contains(&name.as_str()) && !sink.is_own_name(name, value));
    for (_, value) in &mut object {
        if let Value::String(text) = value
            && text.len() > MAX_FIELD
        {
            cut(text, MAX_FIELD);
        }
    }
    if !object.is_empty() {
        line.fields_json = Value::Object(object).to_string();
        if line.fields_json.len() > 4 * MAX_FIELD {
            line.fields_json = r#"{"cut":true}"#.to_owned();
        }
    }
}

/// When a line says that it was written, so that lines of one request keep their order however late they were read: the
/// latest moment that agrees with what it says and with its reading. `None`: it says nothing, or nothing credible.
fn said_time(value: &Value, read_us: u64) -> Option<u64> {
    let said_us = match value {
        Value::String(text) => clock::parse_rfc3339_us(text)?,
        // Milliseconds since 1970, as pino and bunyan write them.
        Value::Number(number) => number.as_u64()?.checked_mul(1_000)?,
        _ => return None,
    };
    // Most loggers count in milliseconds.
    let latest = if said_us.is_multiple_of(1_000) { said_us.saturating_add(999) } else { said_us };
    (said_us <= read_us && latest.saturating_add(BEHIND) >= read_us).then_some(latest.min(read_us))
}

/// Words as loggers write them, and the numbers of pino and bunyan.
fn level_of_value(value: &Value) -> Option<Level> {
    match value {
        Value::String(word) => level_of_word(word),
        Value::Number(number) => Some(match number.as_u64()? {
            0..=10 => Level::Trace,
            11..=20 => Level::Debug,
            21..=30 => Level::Info,
            31..=40 => Level::Warn,
            _ => Level::Error,
        }),
        _ => None,
    }
}

fn level_of_word(word: &str) -> Option<Level> {
    Some(match word.to_ascii_lowercase().as_str() {
        "trace" | "verbose" | "silly" => Level::Trace,
        "debug" => Level::Debug,
        "info" | "information" | "notice" => Level::Info,
        "warn" | "warning" => Level::Warn,
        "error" | "err" | "fatal" | "critical" | "crit" | "panic" | "alert" | "emergency" | "emerg" => Level::Error,
        _ => return None,
    })
}

/// The level of a plain line: a word for it in capitals, in brackets or before a colon, near the beginning. A word in
/// the middle of a sentence says nothing.
fn level_of_text(text: &str) -> Option<Level> {
    let head = &text[..text.floor_char_boundary(LEVEL_WITHIN)];
    head.split_whitespace().find_map(|word| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_marked =
            word.starts_with('[') || word.ends_with(':') || bare.bytes().all(|byte| byte.is_ascii_uppercase());
        level_of_word(bare).filter(|_| is_marked && !bare.is_empty())
    })
}

/// Without colours and other control characters, at most 4 KiB.
fn plain(text: &str) -> String {
    if text.len() <= MAX_FIELD && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    let mut plain = String::with_capacity(text.len().min(MAX_FIELD));
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if plain.len() > MAX_FIELD {
            break;
        }
        match letter {
            // ESC [ … letter: a colour or a movement. Another ESC sequence is one letter long.
            '\u{1b}' => {
                if letters.next() == Some('[') {
                    letters.find(|letter| ('\u{40}'..='\u{7e}').contains(letter));
                }
            }
            '\t' => plain.push(' '),
            letter if letter.is_control() => {}
            letter => plain.push(letter),
        }
    }
    if plain.len() > MAX_FIELD {
        cut(&mut plain, MAX_FIELD);
    }
    plain
}

fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8())));
    text.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> OutputLine {
        let sink = OutputSink::new("users", "users-1", synego_runtime::logs::LineWriter::discard());
        line(text, From::process(1), &sink, 0)
    }

    #[test]
    fn the_names_that_every_line_has_anyway_are_left_out() {
        let line = read(r#"{"msg":"m","service":"users","instance":"users-1"}"#);
        assert_eq!(line.fields_json, "");
        assert_eq!(read(r#"{"msg":"m","service":"orders"}"#).fields_json, r#"{"service":"orders"}"#);
    }

    #[test]
    fn a_json_line_is_taken_apart_whatever_its_logger() {
        for text in [
            r#"{"level":40,"time":1700000000000,"pid":7,"hostname":"vm1","msg":"slow","requestId":"r1","trace_id":"t1","ms":3}"#,
            r#"{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"slow","request_id":"r1","trace_id":"t1","ms":3}"#,
            r#"{"severity":"warning","message":"slow","request_id":"r1","traceId":"t1","ms":3}"#,
        ] {
            let line = read(text);
            assert_eq!((line.level, line.message.as_str()), (Level::Warn, "slow"), "{text}");
            assert_eq!((line.request_id.as_str(), line.trace_id.as_str()), ("r1", "t1"), "{text}");
            assert_eq!(line.fields_json, r#"{"ms":3}"#, "{text}");
        }
    }

    #[test]
    fn a_line_is_of_the_time_that_it_says_where_that_is_credible() {
        let read_us = 1_772_355_900_042_500;
        let at = |text: &str| {
            let sink = OutputSink::new("users", "users-1", synego_runtime::logs::LineWriter::discard());
            line(text, From::process(1), &sink, read_us).unix_us
        };
        assert_eq!(at(r#"{"msg":"m","ts":"2026-03-01T09:05:00.040Z"}"#), 1_772_355_900_040_999);
        assert_eq!(at(r#"{"msg":"m","time":1772355900040}"#), 1_772_355_900_040_999);
        assert_eq!(at(r#"{"msg":"m","ts":"2026-03-01T09:05:00.042Z"}"#), read_us, "never after it was read");
        assert_eq!(at(r#"{"msg":"m","ts":"2026-03-01T09:05:00.041007Z"}"#), 1_772_355_900_041_007);
        for other in [
            r#"{"msg":"m","ts":"2026-03-01T09:04:00Z"}"#,
            r#"{"msg":"m","ts":"2030-01-01T00:00:00Z"}"#,
            r#"{"msg":"m","time":"noon"}"#,
            r#"{"msg":"m"}"#,
            "plain",
        ] {
            assert_eq!(at(other), read_us, "{other}");
        }
    }

    #[test]
    fn a_broken_json_line_is_a_plain_one() {
        assert_eq!(read(r#"{"msg":"half"#).message, r#"{"msg":"half"#);
        assert_eq!(read("{}").message, "");
    }

    #[test]
    fn the_level_of_a_plain_line_is_its_marked_word() {
        for (text, level) in [
            ("listening on 41203", Level::Info),
            ("2026-01-01 10:00:00 ERROR no database", Level::Error),
            ("[warn] slow", Level::Warn),
            ("2026/11/22 18:07:23 [emerg] 7#7: bind() failed", Level::Error),
            ("Error: listen EADDRINUSE", Level::Error),
            ("panic: runtime error", Level::Error),
            ("no error at all", Level::Info),
            ("it was an error", Level::Info),
        ] {
            assert_eq!(read(text).level, level, "{text}");
        }
    }

    #[test]
    fn colours_and_control_characters_are_gone() {
        assert_eq!(read("\u{1b}[31mred\u{1b}[0m\tand\u{7} \u{1b}]plain").message, "red and plain");
    }

    #[test]
    fn long_fields_are_cut_at_a_letter() {
        let line = read(&"ä".repeat(5_000));
        assert!(line.message.len() <= MAX_FIELD && line.message.ends_with('…'));
        let line = read(&format!(r#"{{"msg":"m","body":"{}"}}"#, "x".repeat(10_000)));
        assert!(line.fields_json.len() < MAX_FIELD + 32);
        let many: Vec<String> = (0..20).map(|n| format!(r#""f{n}":"{}""#, "x".repeat(2_000))).collect();
        assert_eq!(read(&format!("{{{}}}", many.join(","))).fields_json, r#"{"cut":true}"#);
    }
}
