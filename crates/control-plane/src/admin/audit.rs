//! Every change that somebody asked for, in one line: who, what, what came of it, and what was declared before and after.

use serde::Serialize;
use synego_runtime::clock;
use synego_runtime::logs::LineWriter;

/// Where changes are written down; the process's own log gets them as well.
#[derive(Clone, Default)]
pub struct Audit(Option<LineWriter>);

#[derive(Serialize)]
struct Line<'a> {
    ts: String,
    who: &'a str,
    what: &'a str,
    outcome: &'a str,
    before: &'a str,
    after: &'a str,
}

impl Audit {
    /// Into a file of its own. [`Self::default`]: into the log of the process alone.
    #[must_use]
    pub fn to(writer: LineWriter) -> Self {
        Self(Some(writer))
    }

    /// - `before`, `after`: digests of what is declared.
    pub(crate) fn change(&self, who: &str, what: &str, outcome: &str, before: &str, after: &str) {
        tracing::info!(audit = true, who, what, outcome, before, after, "change asked for");
        let Some(writer) = &self.0 else { return };
        let line = Line { ts: clock::rfc3339(clock::unix_ms()), who, what, outcome, before, after };
        if let Ok(line) = serde_json::to_string(&line) {
            writer.write(line);
        }
    }
}
