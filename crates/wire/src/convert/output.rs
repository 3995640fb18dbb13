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
    /// The level of this name; `None`: there is none.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => return None,
        })
    }

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

/// Who a line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum LineKind {
    /// A service printed it.
    #[default]
    Output,
    /// A hop wrote it down at the end of an exchange; it is of the time at which that began.
    Access,
    /// A program of the mesh says it of itself.
    Mesh,
}

impl From<LineKind> for pb::LineKind {
    fn from(kind: LineKind) -> Self {
        match kind {
            LineKind::Output => Self::Output,
            LineKind::Access => Self::Access,
            LineKind::Mesh => Self::Mesh,
        }
    }
}

impl From<pb::LineKind> for LineKind {
    fn from(kind: pb::LineKind) -> Self {
        match kind {
            pb::LineKind::Unspecified | pb::LineKind::Output => Self::Output,
            pb::LineKind::Access => Self::Access,
            pb::LineKind::Mesh => Self::Mesh,
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
    /// The thread, where it is known, or empty.
    pub thread: String,
    /// Who it is from.
    pub kind: LineKind,
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
            thread: cut(line.thread),
            kind: pb::LineKind::from(line.kind).into(),
        }
    }
}

impl From<pb::OutputLine> for OutputLine {
    /// Longer texts are cut, since a log line is never worth a refusal.
    fn from(line: pb::OutputLine) -> Self {
        Self {
            unix_us: line.unix_us,
            level: LogLevel::from_number(line.level),
            kind: line.kind().into(),
            message: cut(line.message),
            stderr: line.stderr,
            pid: line.pid,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: fields(line.fields_json),
            thread: cut(line.thread),
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
            thread: String::new(),
            kind: LineKind::Output,
        }
    }
}

/// Which lines are wanted: those that meet every condition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinesWanted {
    /// The last ones, of each kind; at most 10,000.
    pub recent: usize,
    /// Whether to go on with new ones.
    pub follow: bool,
    /// Not before: microseconds since 1970-01-01 UTC; `None`: whichever are at hand, and no file is read.
    pub since_us: Option<u64>,
    /// Not after: microseconds since 1970-01-01 UTC.
    pub until_us: Option<u64>,
    /// Of this level or worse.
    pub level: Option<LogLevel>,
    /// Of a request whose id begins so; empty: whichever.
    pub request_id: String,
    /// With this text in the message or a field, case ignored, in small letters; empty: whichever.
    pub grep: String,
    /// Also one line for each exchange that the sidecar carried.
    pub access: bool,
    /// Also what the program of the sidecar says of itself.
    pub mesh: bool,
}

impl LinesWanted {
    /// The last ones that a service printed.
    #[must_use]
    pub fn recent(lines: usize) -> Self {
        Self { recent: lines.min(MAX_RECENT), ..Self::default() }
    }
}

/// The most lines that can be wanted of each kind.
pub const MAX_RECENT: usize = 10_000;

impl From<pb::LinesWanted> for LinesWanted {
    /// What is too much is cut down: nobody who looks for lines is helped by a refusal.
    fn from(wanted: pb::LinesWanted) -> Self {
        let said = |number: u64| (number > 0).then_some(number);
        Self {
            recent: usize::try_from(wanted.recent).unwrap_or(usize::MAX).min(MAX_RECENT),
            follow: wanted.follow,
            since_us: said(wanted.since_us),
            until_us: said(wanted.until_us),
            level: (wanted.level != 0).then(|| LogLevel::from_number(wanted.level)),
            request_id: cut(wanted.request_id),
            grep: cut(wanted.grep).to_lowercase(),
            access: wanted.access,
            mesh: wanted.mesh,
        }
    }
}

impl From<&LinesWanted> for pb::LinesWanted {
    fn from(wanted: &LinesWanted) -> Self {
        Self {
            recent: u32::try_from(wanted.recent).unwrap_or(u32::MAX),
            follow: wanted.follow,
            since_us: wanted.since_us.unwrap_or(0),
            until_us: wanted.until_us.unwrap_or(0),
            level: wanted.level.map_or(0, |level| pb::LogLevel::from(level).into()),
            request_id: wanted.request_id.clone(),
            grep: wanted.grep.clone(),
            access: wanted.access,
            mesh: wanted.mesh,
        }
    }
}

/// The longest that another level can be wanted for: a day.
const MAX_FOR_MS: u32 = 86_400_000;

/// What is to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelWanted {
    /// Lines of this level or worse.
    pub level: LogLevel,
    /// For how long; `None`: until the program ends.
    pub within: Option<std::time::Duration>,
    /// Of what the program of the sidecar says of itself, not of its service.
    pub mesh: bool,
}

impl From<pb::LevelWanted> for LevelWanted {
    fn from(wanted: pb::LevelWanted) -> Self {
        let within = (wanted.for_ms > 0).then(|| wanted.for_ms.min(MAX_FOR_MS).into());
        Self {
            level: LogLevel::from_number(wanted.level),
            within: within.map(std::time::Duration::from_millis),
            mesh: wanted.mesh,
        }
    }
}

impl From<LevelWanted> for pb::LevelWanted {
    fn from(wanted: LevelWanted) -> Self {
        let for_ms = wanted.within.map_or(0, |within| u32::try_from(within.as_millis()).unwrap_or(MAX_FOR_MS));
        Self { level: pb::LogLevel::from(wanted.level).into(), for_ms, mesh: wanted.mesh }
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
