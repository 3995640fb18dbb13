//! What processes print: bounded lines, read for what they say, kept, followed and written to files.
//!
//! A process that prints more than its share loses lines, which are counted and said; it never waits.

mod budget;
mod parse;
mod read;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use synego_runtime::clock;
use synego_runtime::logs::{Kind, LineWriter, Record};
use tokio::sync::broadcast;

use self::budget::Budget;
pub(crate) use read::{From, capture};
pub use synego_runtime::logs::Level;

/// Lines kept of one instance.
pub const KEPT_LINES: usize = 10_000;
/// Bytes kept of one instance: what a flood of long lines may cost.
pub const KEPT_BYTES: usize = 8 * 1024 * 1024;
/// Longest message, and longest field, of a line; bytes.
pub const MAX_FIELD: usize = 4 * 1024;
/// Lines that a follower may be behind before it misses some.
const FOLLOWER_QUEUE: usize = 1_024;

/// One line of a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputLine {
    /// When: microseconds since 1970-01-01 UTC. As a line says itself, where it does, within what its reading allows.
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
    /// Thread that a JSON line names; may be empty.
    pub thread: String,
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
    writers: Vec<LineWriter>,
    /// Lines below this are passed over.
    least: AtomicU8,
    budget: Mutex<Budget>,
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Arc<OutputLine>>,
}

#[derive(Debug)]
struct Kept {
    lines: VecDeque<Arc<OutputLine>>,
    bytes: usize,
    /// Since when every line is here: microseconds since 1970-01-01 UTC.
    since_us: u64,
}

impl OutputSink {
    /// - `service`, `instance`: as the lines name them.
    /// - `writer`: where lines go too, as JSON; [`LineWriter::discard`]: nowhere.
    #[must_use]
    pub fn new(service: impl Into<String>, instance: impl Into<String>, writer: LineWriter) -> Self {
        Self::to_all(service, instance, vec![writer])
    }

    /// The same with several writers.
    #[must_use]
    pub fn to_all(service: impl Into<String>, instance: impl Into<String>, writers: Vec<LineWriter>) -> Self {
        let shared = Shared {
            service: service.into(),
            instance: instance.into(),
            writers: writers.into_iter().filter(LineWriter::is_on).collect(),
            least: AtomicU8::new(Level::Trace.rank()),
            budget: Mutex::new(Budget::new(clock::now())),
            kept: Mutex::new(Kept { lines: VecDeque::new(), bytes: 0, since_us: clock::unix_us() }),
            followers: broadcast::Sender::new(FOLLOWER_QUEUE),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lines below `least` are passed over from now on, wherever they would go.
    pub fn set_level(&self, least: Level) {
        self.shared.least.store(least.rank(), Ordering::Relaxed);
    }

    /// Takes a line, unless it is below the level.
    pub fn push(&self, line: OutputLine) {
        if line.level.rank() >= self.shared.least.load(Ordering::Relaxed) {
            self.keep(line);
        }
    }

    fn keep(&self, line: OutputLine) {
        if let Some((last, others)) = self.shared.writers.split_last() {
            let text = self.as_json(&line);
            others.iter().for_each(|writer| writer.write_as(line.level, Kind::Output, text.clone()));
            last.write_as(line.level, Kind::Output, text);
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
            kept.since_us = kept.since_us.max(oldest.unix_us + 1);
        }
        // Nobody may be following.
        let _followers = self.shared.followers.send(line);
    }

    /// Takes a line of ours about the process, whatever the level, so that who reads its output sees what became of it.
    pub fn note(&self, level: Level, message: String, pid: u32) {
        let fields_json = r#"{"by":"synego"}"#.to_owned();
        self.keep(OutputLine {
            level,
            fields_json,
            ..parse::line(&message, From::process(pid), self, clock::unix_us())
        });
    }

    /// Whether a field of a line says only what the line's own place says: its service or its instance.
    fn is_own_name(&self, field: &str, value: &Value) -> bool {
        match field {
            "service" => value == self.shared.service.as_str(),
            "instance" => {
                let own = self.shared.instance.as_str();
                value == own || own.split('@').next().is_some_and(|short| value == short)
            }
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

    /// Since when every line is kept: microseconds since 1970-01-01 UTC. What came before is in files alone.
    #[must_use]
    pub fn kept_since_us(&self) -> u64 {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).since_us
    }

    /// The line in the form of files.
    fn as_json(&self, line: &OutputLine) -> String {
        let stream = match line {
            OutputLine { build: true, .. } => "build",
            OutputLine { stderr: true, .. } => "stderr",
            _ => "stdout",
        };
        Record {
            unix_us: line.unix_us,
            level: line.level,
            kind: Kind::Output,
            service: &self.shared.service,
            instance: &self.shared.instance,
            pid: line.pid,
            thread: &line.thread,
            stream,
            request_id: &line.request_id,
            trace_id: &line.trace_id,
            message: &line.message,
            fields: &line.fields_json,
        }
        .json()
    }
}

fn weight_of(line: &OutputLine) -> usize {
    let texts = [&line.message, &line.thread, &line.request_id, &line.trace_id, &line.fields_json];
    // Besides the letters: the line itself, its count, and what an allocator adds to each text that is not empty.
    size_of::<OutputLine>()
        + 32
        + texts.iter().filter(|text| !text.is_empty()).map(|text| text.len() + 16).sum::<usize>()
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
        let text = sink().as_json(&line(r#"{"level":"warn","msg":"slow","request_id":"r1","thread":"io-1","ms":12}"#));
        assert_eq!(
            text,
            r#"{"time":"1970-01-01T00:00:01.000000Z","level":"warn","service":"users","instance":"users-1","pid":7,"thread":"io-1","stream":"stdout","request_id":"r1","message":"slow","fields":{"ms":12}}"#
        );
    }

    #[test]
    fn lines_below_the_level_are_passed_over_and_our_own_notes_are_not() {
        let sink = sink();
        sink.set_level(Level::Warn);
        sink.push(line(r#"{"level":"info","msg":"quiet"}"#));
        sink.push(line(r#"{"level":"warn","msg":"loud"}"#));
        sink.note(Level::Info, "starts again".to_owned(), 7);
        let said: Vec<String> = sink.last(9).iter().map(|line| line.message.clone()).collect();
        assert_eq!(said, ["loud", "starts again"]);
    }

    #[test]
    fn it_is_known_since_when_every_line_is_kept() {
        let sink = sink();
        let begun = sink.kept_since_us();
        for number in 0..=KEPT_LINES {
            sink.push(OutputLine { unix_us: begun + 10 + number as u64, ..line("x") });
        }
        assert_eq!(sink.kept_since_us(), begun + 11);
    }
}
