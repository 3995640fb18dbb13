//! The lines of a journal, as those who ask for them get them: from memory, from files, and as they come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use synego_runtime::logs::{Entry, Journal, Kind, Level, LogHandle, Told, Wanted};
use synego_runtime::{clock, tasks};
use synego_wire::convert::output::{LevelWanted, LineKind, LinesWanted};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, mpsc};

use crate::{LogLevel, OutputLine};

/// Lines that may wait for one who follows; more are dropped.
pub const FOLLOWER_QUEUE: usize = 1_024;
/// Time for reading files: what was found until then is given.
const SEARCH_WITHIN: Duration = Duration::from_secs(15);
/// One at a time reads files, so that curiosity never takes a machine's disk and cores.
static SEARCHES: Semaphore = Semaphore::const_new(1);

/// Where lines are, and how much is written down.
pub trait OutputSource: Send + Sync {
    /// The lines that are wanted and there, oldest first.
    fn recent(&self, wanted: LinesWanted) -> BoxFuture<'static, Vec<OutputLine>>;
    /// Those that are wanted of all that come from now on; a receiver that is too slow loses lines.
    fn follow(&self, wanted: LinesWanted) -> mpsc::Receiver<OutputLine>;
    /// Writes down less or more from now on.
    fn set_level(&self, wanted: LevelWanted);
}

/// What a journal has of one program.
#[derive(Clone)]
pub struct JournalLines {
    /// The journal.
    pub journal: Journal,
    /// Whose exchanges are told; `None`: nobody's.
    pub access_of: Option<String>,
    /// In whose name the program speaks, and its own log; `None`: another one tells of it.
    pub program: Option<(String, LogHandle)>,
}

/// Whose printed lines are in the files too, and since when they are at hand elsewhere: microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone)]
pub struct Printed {
    /// The instance.
    pub instance: String,
    /// Later ones are left out here.
    pub kept_since_us: u64,
}

impl JournalLines {
    /// The lines that are wanted: those at hand, and those of files where the wish goes back further.
    pub async fn recent_with(self, wanted: LinesWanted, printed: Option<Printed>) -> Vec<OutputLine> {
        let told = self.look(&wanted, None);
        let mut entries = if told.kinds.is_empty() { Vec::new() } else { self.journal.recent(&told) };
        let at_hand = if told.kinds.is_empty() { u64::MAX } else { self.journal.recent_since_us() };
        let at_hand = at_hand.min(printed.as_ref().map_or(u64::MAX, |printed| printed.kept_since_us));
        if wanted.since_us.is_some_and(|since| since < at_hand) && at_hand != u64::MAX {
            let kept = printed.as_ref().map_or(0, |printed| printed.kept_since_us);
            let look = self.look(&wanted, printed.as_ref());
            let found = search(self.journal, look).await;
            entries.extend(found.into_iter().filter(|entry| entry.kind != Kind::Output || entry.unix_us < kept));
        }
        // What is at hand may stand in the files already.
        entries.sort_by(|a, b| (a.unix_us, &a.instance, &a.message).cmp(&(b.unix_us, &b.instance, &b.message)));
        entries.dedup();
        entries.into_iter().map(line).collect()
    }

    /// Sends the lines that are wanted, as they come, until nobody takes them any more.
    pub fn follow_into(&self, wanted: &LinesWanted, to: mpsc::Sender<OutputLine>) {
        let look = self.look(wanted, None);
        if look.kinds.is_empty() {
            return;
        }
        let mut told = self.journal.follow();
        tasks::spawn("journal-follower", tasks::Kind::Connection, async move {
            loop {
                let next: Result<Arc<Told>, RecvError> = tokio::select! {
                    next = told.recv() => next,
                    () = to.closed() => return,
                };
                match next {
                    Ok(told) => {
                        if let Some(entry) = look.entry(told.text.as_bytes())
                            && to.send(line(entry)).await.is_err()
                        {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    /// What to look for; without any kind there is nothing to look for here.
    fn look(&self, wanted: &LinesWanted, printed: Option<&Printed>) -> Wanted {
        let mut kinds = Vec::new();
        let mut instances = Vec::new();
        let access = self.access_of.iter().filter(|_| wanted.access).map(|of| (Kind::Access, of));
        let mesh = self.program.iter().filter(|_| wanted.mesh).map(|(name, _)| (Kind::Mesh, name));
        let output = printed.map(|printed| (Kind::Output, &printed.instance));
        for (kind, instance) in access.chain(mesh).chain(output) {
            kinds.push(kind);
            instances.push(instance.clone());
        }
        Wanted {
            since_us: wanted.since_us,
            until_us: wanted.until_us,
            level: wanted.level.map(level),
            request: wanted.request_id.clone(),
            grep: wanted.grep.clone(),
            most: wanted.recent * kinds.len(),
            instances,
            kinds,
        }
    }
}

impl OutputSource for JournalLines {
    fn recent(&self, wanted: LinesWanted) -> BoxFuture<'static, Vec<OutputLine>> {
        let most = wanted.recent;
        let found = self.clone().recent_with(wanted, None);
        Box::pin(async move { last_of_each(found.await, most) })
    }

    fn follow(&self, wanted: LinesWanted) -> mpsc::Receiver<OutputLine> {
        let (to, lines) = mpsc::channel(FOLLOWER_QUEUE);
        self.follow_into(&wanted, to);
        lines
    }

    fn set_level(&self, wanted: LevelWanted) {
        if let (Some((_, log)), true) = (&self.program, wanted.mesh) {
            log.set_level_for(level(wanted.level), wanted.within);
        }
    }
}

async fn search(journal: Journal, look: Wanted) -> Vec<Entry> {
    // It is never closed.
    let Ok(_turn) = SEARCHES.acquire().await else { return Vec::new() };
    let deadline = clock::now() + SEARCH_WITHIN;
    let searching = tasks::spawn_blocking("log-search", move || journal.search(&look, &|| clock::now() < deadline));
    searching.await.unwrap_or_default()
}

/// The last `most` lines of each kind, oldest first.
#[must_use]
pub fn last_of_each(lines: Vec<OutputLine>, most: usize) -> Vec<OutputLine> {
    let mut left = [most; 3];
    let mut kept: Vec<OutputLine> = Vec::new();
    for line in lines.into_iter().rev() {
        let left = match line.kind {
            LineKind::Output => &mut left[0],
            LineKind::Access => &mut left[1],
            LineKind::Mesh => &mut left[2],
        };
        if *left > 0 {
            *left -= 1;
            kept.push(line);
        }
    }
    kept.reverse();
    kept
}

/// Whether a line that a service printed is wanted.
#[must_use]
pub fn takes(wanted: &LinesWanted, line: &OutputLine) -> bool {
    let has_text = |text: &str| text.to_lowercase().contains(&wanted.grep);
    wanted.since_us.is_none_or(|since| line.unix_us >= since)
        && wanted.until_us.is_none_or(|until| line.unix_us <= until)
        && wanted.level.is_none_or(|least| level(line.level) >= level(least))
        && (wanted.request_id.is_empty() || line.request_id.starts_with(&wanted.request_id))
        && (wanted.grep.is_empty() || has_text(&line.message) || has_text(&line.fields_json))
}

/// The same level as the runtime has it.
#[must_use]
pub fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
    }
}

/// The same level as the wire has it.
#[must_use]
pub fn told_level(level: Level) -> LogLevel {
    match level {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
    }
}

fn line(entry: Entry) -> OutputLine {
    let kind = match entry.kind {
        Kind::Output => LineKind::Output,
        Kind::Access => LineKind::Access,
        Kind::Mesh => LineKind::Mesh,
    };
    let fields_json = if kind == LineKind::Mesh { with_program(&entry.instance, entry.fields) } else { entry.fields };
    OutputLine {
        unix_us: entry.unix_us,
        level: told_level(entry.level),
        message: entry.message,
        stderr: entry.stream == "stderr",
        pid: entry.pid,
        request_id: entry.request_id,
        trace_id: entry.trace_id,
        fields_json,
        thread: entry.thread,
        kind,
    }
}

/// Which program it was: those who ask see `mesh` in the place of an instance.
fn with_program(program: &str, fields: String) -> String {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&fields).unwrap_or_default();
    object.insert("program".to_owned(), program.into());
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: LineKind, unix_us: u64) -> OutputLine {
        OutputLine { unix_us, kind, message: "Slow query".into(), request_id: "r-17".into(), ..OutputLine::default() }
    }

    #[test]
    fn the_last_lines_of_each_kind_are_given_in_their_order() {
        let lines = vec![
            said(LineKind::Output, 1),
            said(LineKind::Access, 2),
            said(LineKind::Output, 3),
            said(LineKind::Output, 4),
        ];
        let times: Vec<u64> = last_of_each(lines, 2).iter().map(|line| line.unix_us).collect();
        assert_eq!(times, [2, 3, 4]);
    }

    #[test]
    fn a_line_is_wanted_when_it_meets_every_condition() {
        let line = said(LineKind::Output, 100);
        let of = |wanted: LinesWanted| takes(&wanted, &line);
        assert!(of(LinesWanted::default()));
        assert!(of(LinesWanted { request_id: "r-1".into(), grep: "slow".into(), ..LinesWanted::default() }));
        assert!(!of(LinesWanted { request_id: "r-2".into(), ..LinesWanted::default() }));
        assert!(!of(LinesWanted { grep: "fast".into(), ..LinesWanted::default() }));
        assert!(!of(LinesWanted { level: Some(LogLevel::Warn), ..LinesWanted::default() }));
        assert!(!of(LinesWanted { since_us: Some(101), ..LinesWanted::default() }));
        assert!(!of(LinesWanted { until_us: Some(99), ..LinesWanted::default() }));
    }

    #[test]
    fn a_line_of_the_mesh_says_which_program_speaks() {
        assert_eq!(with_program("master@vm1", String::new()), r#"{"program":"master@vm1"}"#);
        assert_eq!(with_program("up@vm1", r#"{"a":1}"#.into()), r#"{"a":1,"program":"up@vm1"}"#);
    }
}
