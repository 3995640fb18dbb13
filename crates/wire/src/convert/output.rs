//! Lines of a process's output.

use crate::pb;

/// How bad a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LogLevel {
    /// The finest.
    Trace,
    /// For the one who looks for a mistake.
    Debug,
    /// What happened.
    #[default]
    Info,
    /// What may become a failure.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// The level of a number that travelled; what is not known counts as `Info`.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        match pb::LogLevel::try_from(number) {
            Ok(pb::LogLevel::Trace) => Self::Trace,
            Ok(pb::LogLevel::Debug) => Self::Debug,
            Ok(pb::LogLevel::Warn) => Self::Warn,
            Ok(pb::LogLevel::Error) => Self::Error,
            Ok(pb::LogLevel::Info | pb::LogLevel::Unspecified) | Err(_) => Self::Info,
        }
    }
}

impl From<LogLevel> for pb::LogLevel {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Trace => Self::Trace,
            LogLevel::Debug => Self::Debug,
            LogLevel::Info => Self::Info,
            LogLevel::Warn => Self::Warn,
            LogLevel::Error => Self::Error,
        }
    }
}

/// Longest text and longest fields of a line, in bytes.
pub const MAX_LINE: usize = 4096;

/// One line that a process wrote, or that its SDK sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputLine {
    /// When it was read: microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// How bad.
    pub level: LogLevel,
    /// The text; at most 4 KiB.
    pub message: String,
    /// Whether it came from stderr.
    pub stderr: bool,
    /// Process id; 0: not known.
    pub pid: u32,
    /// The request it belongs to, or empty.
    pub request_id: String,
    /// The trace it belongs to, or empty.
    pub trace_id: String,
    /// Further fields as one JSON object, or empty.
    pub fields_json: String,
}

impl From<OutputLine> for pb::OutputLine {
    fn from(line: OutputLine) -> Self {
        Self {
            unix_us: line.unix_us,
            level: pb::LogLevel::from(line.level).into(),
            message: cut(line.message),
            stderr: line.stderr,
            pid: line.pid,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: fields(line.fields_json),
        }
    }
}

impl From<pb::OutputLine> for OutputLine {
    /// Longer texts are cut, since a log line is never worth a refusal.
    fn from(line: pb::OutputLine) -> Self {
        Self {
            unix_us: line.unix_us,
            level: LogLevel::from_number(line.level),
            message: cut(line.message),
            stderr: line.stderr,
            pid: line.pid,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: fields(line.fields_json),
        }
    }
}

impl From<pb::LogLine> for OutputLine {
    fn from(line: pb::LogLine) -> Self {
        Self {
            unix_us: line.unix_us,
            level: LogLevel::from_number(line.level),
            message: cut(line.message),
            stderr: false,
            pid: 0,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: fields(line.fields_json),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_LINE));
    text
}

/// Fields are one JSON object: cut in the middle they would be none, so too long ones are dropped.
fn fields(text: String) -> String {
    if text.len() > MAX_LINE { String::new() } else { text }
}
