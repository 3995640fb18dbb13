//! The output of one running process: both pipes into the sink, the last lines at hand, a pattern watched for.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regex_lite::Regex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::output::{From, Level, OutputSink, capture};

/// Lines kept for the report of an end.
const LAST_LINES: usize = 10;
/// Longest of them, in letters.
const LAST_LINE: usize = 200;

/// Reads the output of one process.
#[derive(Debug)]
pub(crate) struct Capture {
    seen: Arc<Seen>,
    readers: [Option<JoinHandle<()>>; 2],
}

#[derive(Debug)]
struct Seen {
    pattern: Option<Regex>,
    matched: watch::Sender<bool>,
    last: Mutex<VecDeque<(bool, String)>>,
}

impl Capture {
    /// Begins to read. `build`: whether the lines are those of a build. `pattern`: see [`Self::matched`].
    pub(crate) fn begin(
        pipes: (OwnedFd, OwnedFd),
        pid: u32,
        build: bool,
        output: &OutputSink,
        pattern: Option<Regex>,
    ) -> Self {
        let seen = Arc::new(Seen { pattern, matched: watch::Sender::new(false), last: Mutex::default() });
        let (from, errors) = (From { pid, stderr: false, build }, From { pid, stderr: true, build });
        let read = |pipe: OwnedFd, from: From| {
            let reading = capture(pipe, from, output.clone(), seen.clone().note(from.stderr));
            let problem = |error| output.note(Level::Error, format!("its output cannot be read: {error}"), pid);
            reading.map_err(problem).ok()
        };
        let readers = [read(pipes.0, from), read(pipes.1, errors)];
        Self { seen, readers }
    }

    /// Returns once a line matched the pattern.
    pub(crate) async fn matched(&self) {
        let mut matched = self.seen.matched.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _found = matched.wait_for(|found| *found).await;
    }

    /// After the end of the process: what it printed last, at most 10 lines. A child that left the group may hold the
    /// pipes open: `within` bounds the wait for their end.
    pub(crate) async fn finish(mut self, within: Duration) -> LastLines {
        // What comes later than that is of someone else.
        let both = futures_util::future::join_all(self.readers.iter_mut().flatten());
        let _both = tokio::time::timeout(within, both).await;
        let last = self.seen.last.lock().unwrap_or_else(PoisonError::into_inner);
        LastLines { lines: last.iter().cloned().collect() }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for reader in self.readers.iter().flatten() {
            reader.abort();
        }
    }
}

impl Seen {
    fn note(self: Arc<Self>, stderr: bool) -> impl FnMut(&str) + Send {
        move |line| {
            let short: String = line.trim_end().chars().take(LAST_LINE).filter(|c| !c.is_control()).collect();
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.push_back((stderr, short));
            if last.len() > LAST_LINES {
                last.pop_front();
            }
            drop(last);
            if self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(line)) {
                self.matched.send_replace(true);
            }
        }
    }
}

/// The last lines of an output.
#[derive(Debug, Default)]
pub(crate) struct LastLines {
    lines: Vec<(bool, String)>,
}

impl LastLines {
    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.iter().map(|(_, line)| line.clone()).collect()
    }

    /// The one that most likely says why, for the end of a sentence (` : "…"`): one that names an error, else the last
    /// of standard error, else the last. Empty without any.
    pub(crate) fn reason(&self) -> String {
        let says_error = |line: &str| {
            let line = line.to_ascii_lowercase();
            ["error", "panic", "fatal", "exception", "cannot", "failed"].iter().any(|word| line.contains(word))
        };
        let from_errors = self.lines.iter().rev().filter(|(stderr, _)| *stderr);
        let found = (from_errors.clone().find(|(_, line)| says_error(line)))
            .or_else(|| from_errors.clone().next())
            .or_else(|| self.lines.last());
        found.map(|(_, line)| format!(": \"{}\"", line.trim())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(lines: &[(bool, &str)]) -> String {
        LastLines { lines: lines.iter().map(|(stderr, line)| (*stderr, (*line).to_owned())).collect() }.reason()
    }

    #[test]
    fn the_line_that_names_an_error_is_the_reason() {
        assert_eq!(reason(&[]), "");
        assert_eq!(reason(&[(false, "bye")]), ": \"bye\"");
        assert_eq!(reason(&[(true, "warming up"), (false, "bye")]), ": \"warming up\"");
        let node = [(true, "Error: listen EADDRINUSE: address already in use"), (true, "    at Server.listen")];
        assert_eq!(reason(&node), ": \"Error: listen EADDRINUSE: address already in use\"");
    }
}
