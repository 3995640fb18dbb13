//! The lines of an instance, as the control plane carries them to those who ask, and how many of them there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use synego_control_plane::attach::AttachHandle;
use synego_control_plane::lines::{
    FOLLOWER_QUEUE, JournalLines, OutputSource, Printed, last_of_each, level, takes, told_level,
};
use synego_control_plane::uplink::{LogLevel, OutputLine};
use synego_control_plane::{LevelWanted, LineKind, LinesWanted};
use synego_runtime::tasks::{self, Kind};
use synego_supervise::output::{self, Level, OutputSink};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Kept and new lines of one instance: what it printed, the exchanges that its sidecar carried, and where the sidecar is
/// a program of its own, what that says.
pub struct Output {
    /// Its id, as its lines in files name it.
    pub(crate) instance: String,
    /// What it printed.
    pub(crate) printed: OutputSink,
    /// Everything else, and what stands in files.
    pub(crate) journal: JournalLines,
    /// What its SDK is told; `None`: nothing can be.
    pub(crate) level: Option<LevelOf>,
}

impl Output {
    /// Of an instance whose level nobody can change.
    #[must_use]
    pub fn new(instance: String, printed: OutputSink, journal: JournalLines) -> Self {
        Self { instance, printed, journal, level: None }
    }
}

impl OutputSource for Output {
    fn recent(&self, wanted: LinesWanted) -> BoxFuture<'static, Vec<OutputLine>> {
        // Since when they are whole is asked first: a line that comes meanwhile is in memory.
        let since = Printed { instance: self.instance.clone(), kept_since_us: self.printed.kept_since_us() };
        let lines = self.printed.last(usize::MAX);
        let mut found: Vec<OutputLine> =
            lines.iter().map(|line| told(line)).filter(|line| takes(&wanted, line)).collect();
        let journal = self.journal.clone();
        Box::pin(async move {
            let most = wanted.recent;
            found.extend(journal.recent_with(wanted, Some(since)).await);
            found.sort_by_key(|line| line.unix_us);
            last_of_each(found, most)
        })
    }

    fn follow(&self, wanted: LinesWanted) -> mpsc::Receiver<OutputLine> {
        let (_, mut lines) = self.printed.follow(0);
        let (sender, receiver) = mpsc::channel(FOLLOWER_QUEUE);
        self.journal.follow_into(&wanted, sender.clone());
        tasks::spawn("output-follower", Kind::Connection, async move {
            loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    () = sender.closed() => return,
                };
                match line.map(|line| told(&line)) {
                    Ok(line) if takes(&wanted, &line) => {
                        if sender.send(line).await.is_err() {
                            return;
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        receiver
    }

    fn set_level(&self, wanted: LevelWanted) {
        match &self.level {
            _ if wanted.mesh => self.journal.set_level(wanted),
            Some(of) => of.set(wanted),
            None => {}
        }
    }
}

/// How much an instance writes down: its SDK is told, and what is captured below it is passed over.
#[derive(Clone)]
pub(crate) struct LevelOf {
    attached: AttachHandle,
    printed: OutputSink,
    /// What is in force while nobody says otherwise.
    own: Arc<Mutex<Option<LogLevel>>>,
    /// Goes up with each setting, so that the end of an earlier one changes nothing.
    turn: Arc<AtomicU64>,
}

impl LevelOf {
    /// - `own`: the level that the manifest says; `None`: none.
    pub(crate) fn new(attached: AttachHandle, printed: OutputSink, own: Option<LogLevel>) -> Self {
        let level = Self { attached, printed, own: Arc::default(), turn: Arc::default() };
        level.set_own(own);
        level
    }

    /// From now on the manifest says this level. What somebody has set for a while is over.
    pub(crate) fn set_own(&self, own: Option<LogLevel>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = own;
        self.turn.fetch_add(1, Ordering::Relaxed);
        self.reset();
    }

    /// As it is at the start of every instance.
    fn reset(&self) {
        let own = *self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.attached.set_log_level(own.unwrap_or_default());
        self.printed.set_level(own.map_or(Level::Trace, level));
    }

    fn set(&self, wanted: LevelWanted) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        self.attached.set_log_level(wanted.level);
        self.printed.set_level(level(wanted.level));
        let Some(within) = wanted.within else { return };
        let of = self.clone();
        tasks::spawn("level-for-a-while", Kind::Connection, async move {
            tokio::time::sleep(within).await;
            if of.turn.load(Ordering::Relaxed) == turn {
                of.reset();
            }
        });
    }
}

/// A sink for the lines that a service sends over its link instead of printing them.
pub(crate) fn link_sink(sink: OutputSink) -> Arc<dyn Fn(OutputLine) -> bool + Send + Sync> {
    Arc::new(move |line| {
        sink.push(output::OutputLine {
            unix_us: line.unix_us,
            level: level(line.level),
            message: line.message,
            stderr: line.stderr,
            build: false,
            pid: line.pid,
            thread: line.thread,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: line.fields_json,
        });
        true
    })
}

/// A line that was captured, as those who ask get it.
#[must_use]
pub fn told(line: &output::OutputLine) -> OutputLine {
    OutputLine {
        unix_us: line.unix_us,
        level: told_level(line.level),
        message: line.message.clone(),
        stderr: line.stderr,
        pid: line.pid,
        request_id: line.request_id.clone(),
        trace_id: line.trace_id.clone(),
        fields_json: line.fields_json.clone(),
        thread: line.thread.clone(),
        kind: LineKind::Output,
    }
}
