//! What processes print: bounded lines, read for what they say, kept, followed and written to files.

mod parse;
mod read;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use synego_runtime::{clock, logs::LineWriter};
use tokio::sync::broadcast;

pub(crate) use read::{From, read_lines};

/// Lines kept of one instance.
pub const KEPT_LINES: usize = 10_000;
/// Bytes kept of one instance: what a flood of long lines may cost.
pub const KEPT_BYTES: usize = 8 * 1024 * 1024;
/// Longest message, and longest field, of a line; bytes.
pub const MAX_FIELD: usize = 4 * 1024;
/// Lines that a follower may be behind before it misses some.
const FOLLOWER_QUEUE: usize = 1_024;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every step.
    Trace,
    /// For who looks for a mistake.
    Debug,
    /// Course of things.
    Info,
    /// Not as it should be.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => return Err(format!("`{text}` is no level: expected trace, debug, info, warn or error")),
        })
    }
}

/// One line of a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// When it was read: microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// As the line says; else info.
    pub level: Level,
    /// What it says: the message of a JSON line, else the whole line; without control characters, at most 4 KiB.
    pub message: String,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// Whether the build printed it, not the process.
    pub build: bool,
    /// Who printed it.
    pub pid: u32,
    /// Request id that a JSON line names; may be empty.
    pub request_id: String,
    /// Trace id that a JSON line names; may be empty.
    pub trace_id: String,
    /// The other fields of a JSON line, as a JSON object; may be empty.
    pub fields_json: String,
}

/// Takes the output of one instance, over all its restarts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OutputSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    service: String,
    instance: String,
    file: LineWriter,
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Arc<OutputLine>>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Arc<OutputLine>>,
    bytes: usize,
}

impl OutputSink {
    /// - `service`, `instance`: as the lines of the file name them.
    /// - `file`: where lines go too, as JSON; [`LineWriter::discard`]: nowhere.
    #[must_use]
    pub fn new(service: impl Into<String>, instance: impl Into<String>, file: LineWriter) -> Self {
        let shared = Shared {
            service: service.into(),
            instance: instance.into(),
            file,
            kept: Mutex::default(),
            followers: broadcast::Sender::new(FOLLOWER_QUEUE),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a line.
    pub fn push(&self, line: OutputLine) {
        if self.shared.file.is_on() {
            self.shared.file.write(self.as_json(&line));
        }
        let line = Arc::new(line);
        let size = weight_of(&line);
        // Kept and told under one lock, so that a follower misses none and gets none twice.
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += size;
        kept.lines.push_back(line.clone());
        while kept.lines.len() > KEPT_LINES || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.lines.pop_front() else { break };
            kept.bytes -= weight_of(&oldest);
        }
        // Nobody may be following.
        let _followers = self.shared.followers.send(line);
    }

    /// Takes a line of ours about the process, so that who reads its output sees what became of it.
    pub fn note(&self, level: Level, message: String, pid: u32) {
        let fields_json = r#"{"by":"synego"}"#.to_owned();
        self.push(OutputLine {
            level,
            fields_json,
            ..parse::line(&message, From::process(pid), self, clock::unix_us())
        });
    }

    /// Whether a field of a line says only what the line's own place says: its service or its instance.
    fn is_own_name(&self, field: &str, value: &Value) -> bool {
        match field {
            "service" => value == self.shared.service.as_str(),
            "instance" => value == self.shared.instance.as_str(),
            _ => false,
        }
    }

    /// The last `count` lines, oldest first.
    #[must_use]
    pub fn last(&self, count: usize) -> Vec<Arc<OutputLine>> {
        self.follow(count).0
    }

    /// The last `count` lines, oldest first, and all that follow them. A follower that falls behind is told how many
    /// lines it missed (`Lagged`).
    #[must_use]
    pub fn follow(&self, count: usize) -> (Vec<Arc<OutputLine>>, broadcast::Receiver<Arc<OutputLine>>) {
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.lines.len().saturating_sub(count);
        (kept.lines.iter().skip(skip).cloned().collect(), self.shared.followers.subscribe())
    }

    /// The line as its file has it.
    fn as_json(&self, line: &OutputLine) -> String {
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| {
            object.insert(name.to_owned(), value);
        };
        put("time", clock::rfc3339(line.unix_us / 1000).into());
        put("level", line.level.word().into());
        put("service", self.shared.service.as_str().into());
        put("instance", self.shared.instance.as_str().into());
        put("pid", line.pid.into());
        put(
            "stream",
            if line.build {
                "build"
            } else if line.stderr {
                "stderr"
            } else {
                "stdout"
            }
            .into(),
        );
        for (name, value) in [("request_id", &line.request_id), ("trace_id", &line.trace_id)] {
            if !value.is_empty() {
                put(name, value.as_str().into());
            }
        }
        put("message", line.message.as_str().into());
        if !line.fields_json.is_empty() {
            put("fields", serde_json::from_str(&line.fields_json).unwrap_or_else(|_| json!({})));
        }
        Value::Object(object).to_string()
    }
}

fn weight_of(line: &OutputLine) -> usize {
    size_of::<OutputLine>() + line.message.len() + line.request_id.len() + line.trace_id.len() + line.fields_json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> OutputLine {
        parse::line(message, From::process(7), &sink(), 1_000_000)
    }

    fn sink() -> OutputSink {
        OutputSink::new("users", "users-1", LineWriter::discard())
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let sink = sink();
        for n in 0..KEPT_LINES + 5 {
            sink.push(line(&n.to_string()));
        }
        let all = sink.last(usize::MAX);
        assert_eq!((all.len(), all[0].message.as_str()), (KEPT_LINES, "5"));
        assert_eq!(sink.last(2).iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["10003", "10004"]);
    }

    #[test]
    fn a_flood_of_long_lines_is_bounded_in_bytes() {
        let sink = sink();
        for _ in 0..5_000 {
            sink.push(line(&"x".repeat(MAX_FIELD)));
        }
        assert!(sink.last(usize::MAX).len() * MAX_FIELD <= KEPT_BYTES);
    }

    #[tokio::test]
    async fn a_follower_gets_the_past_then_all_that_follows() {
        let sink = sink();
        sink.push(line("past"));
        let (past, mut following) = sink.follow(10);
        sink.push(line("next"));
        assert_eq!(past[0].message, "past");
        assert_eq!(following.recv().await.unwrap().message, "next");
    }

    #[test]
    fn a_note_of_ours_is_marked_as_such() {
        let sink = sink();
        sink.note(Level::Error, "ended by signal KILL; starts again in 98ms".to_owned(), 7);
        let note = &sink.last(1)[0];
        assert_eq!((note.level, note.fields_json.as_str()), (Level::Error, r#"{"by":"synego"}"#));
    }

    #[test]
    fn a_line_of_the_file_names_service_instance_and_stream() {
        let text = sink().as_json(&line(r#"{"level":"warn","msg":"slow","request_id":"r1","ms":12}"#));
        assert_eq!(
            text,
            r#"{"time":"1970-01-01T00:00:01.000Z","level":"warn","service":"users","instance":"users-1","pid":7,"stream":"stdout","request_id":"r1","message":"slow","fields":{"ms":12}}"#
        );
    }
}
