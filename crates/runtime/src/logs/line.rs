//! A writer of lines that never makes its callers wait: a bounded queue, a thread of its own, and a count of what was
//! dropped when the queue was full or the disk refused.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::daily::DailyFile;
use crate::{clock, tasks};

/// Lines that may wait for the disk; further ones are dropped and counted.
pub const QUEUE: usize = 8_192;
/// How long daily files are kept by default.
pub(super) const KEEP: Duration = Duration::from_secs(14 * 86_400);
/// How large the daily files of a name may become together by default: 1 GiB.
pub(super) const MAX_SIZE: u64 = 1 << 30;

/// Bytes that are gathered before a write.
const BATCH: usize = 64 * 1024;
/// How long the writer gathers after a write; a line is on disk after at most twice this.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Daily files `NAME-YYYY-MM-DD.log` in this folder, named by the local date.
    Dir {
        /// The folder; made if missing, mode 0700.
        dir: PathBuf,
        /// What the files' names begin with.
        name: String,
    },
    /// Nowhere: a log that is off costs nothing.
    Discard,
}

/// How lines are written.
#[derive(Debug, Clone)]
pub struct LineConfig {
    /// Where they go.
    pub to: To,
    /// How long daily files are kept.
    pub keep: Duration,
    /// How large the daily files of this name may become together; bytes. The oldest go first.
    pub max_size: u64,
}

impl LineConfig {
    /// To this place, kept 14 days and 1 GiB.
    #[must_use]
    pub fn to(to: To) -> Self {
        Self { to, keep: KEEP, max_size: MAX_SIZE }
    }
}

enum Message {
    Line(String),
    Flush(SyncSender<()>),
    Reopen,
}

/// Writes lines without ever making the caller wait. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct LineWriter {
    queue: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
static OPEN: Mutex<Vec<(SyncSender<Message>, Arc<AtomicU64>)>> = Mutex::new(Vec::new());

impl LineWriter {
    /// Opens the place and starts the writer's thread.
    ///
    /// # Errors
    /// When the folder or file cannot be made, or the machine allows no more threads.
    pub fn open(config: LineConfig) -> io::Result<Self> {
        let dropped = Arc::new(AtomicU64::new(0));
        let sink = match config.to {
            To::Discard => return Ok(Self { queue: None, dropped }),
            To::Stdout => Sink::Stdout(io::stdout()),
            To::Stderr => Sink::Stderr(io::stderr()),
            To::Dir { dir, name } => {
                Sink::Daily(DailyFile::open(dir, name, config.keep, config.max_size, clock::unix_ms())?)
            }
        };
        let (queue, lines) = sync_channel(QUEUE);
        let lost = dropped.clone();
        tasks::thread("log", tasks::Kind::Connection, move || write_all(&lines, sink, &lost))?;
        Ok(Self { queue: Some(queue), dropped })
    }

    /// Lines go nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self { queue: None, dropped: Arc::new(AtomicU64::new(0)) }
    }

    /// Hands a line (without its end) to the writer. Never waits: when the queue is full the line is dropped and counted.
    pub fn write(&self, line: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_)) = queue.try_send(Message::Line(line)) {
            lose(&self.dropped, 1);
        }
    }

    /// Whether lines go anywhere: lets a caller skip the making of one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Lines dropped by this writer so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `within`, until all lines handed over so far are written.
    pub fn flush(&self, within: Duration) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = sync_channel(1);
        let began = clock::now();
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(again)) = queue.try_send(message) {
            if clock::now().duration_since(began) >= within {
                return;
            }
            message = again;
            std::thread::sleep(Duration::from_millis(1));
        }
        // An end of the time is no failure of the caller's: what is left is written later, if at all.
        let _in_time = written.recv_timeout(within.saturating_sub(clock::now().duration_since(began)));
    }

    /// Opens the file anew: an outside program may have moved it away.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // A full queue means that the writer is behind: it opens each day's file anew anyway.
            let _queued = queue.try_send(Message::Reopen);
        }
    }

    /// From now on [`reopen_all`] and [`flush_all`] reach this writer too. It then lives as long as the process.
    #[must_use]
    pub fn for_the_process(self) -> Self {
        if let Some(queue) = &self.queue {
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).push((queue.clone(), self.dropped.clone()));
        }
        self
    }
}

/// Opens the files of all writers of the process anew (signal USR1).
pub fn reopen_all() {
    each(LineWriter::reopen);
}

/// Waits, at most `within` for each, until all writers of the process have written what they have.
pub fn flush_all(within: Duration) {
    each(|writer| writer.flush(within));
}

fn each(act: impl Fn(&LineWriter)) {
    let open: Vec<_> = OPEN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (queue, dropped) in open {
        act(&LineWriter { queue: Some(queue), dropped });
    }
}

/// Lines dropped by all writers since the process started.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

fn lose(dropped: &AtomicU64, lines: u64) {
    dropped.fetch_add(lines, Ordering::Relaxed);
    DROPPED.fetch_add(lines, Ordering::Relaxed);
}

enum Sink {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    Daily(DailyFile),
}

impl Sink {
    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.write_all(batch).and_then(|()| out.flush()),
            Self::Stderr(out) => out.write_all(batch),
            Self::Daily(file) => file.write(batch, clock::unix_ms()),
        }
    }
}

/// The writer's thread: gathers what waits, writes it at once, sleeps a little so that lines gather again.
fn write_all(lines: &Receiver<Message>, mut sink: Sink, dropped: &AtomicU64) {
    let mut batch = Batch::default();
    let mut told = 0;
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            batch.take(message, &mut sink);
            if batch.bytes.len() >= BATCH {
                batch.write(&mut sink, dropped);
            }
            next = lines.try_recv().ok();
        }
        let lost = dropped.load(Ordering::Relaxed);
        if lost > told {
            let (time, new) = (clock::rfc3339(clock::unix_ms()), lost - told);
            batch.push(&format!(
                r#"{{"time":"{time}","level":"warn","message":"log lines were dropped","dropped":{new}}}"#
            ));
        }
        let waited_for = !batch.flushes.is_empty();
        if batch.write(&mut sink, dropped) {
            told = lost;
        }
        if !waited_for {
            std::thread::sleep(GATHER);
        }
    }
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    flushes: Vec<SyncSender<()>>,
}

impl Batch {
    fn take(&mut self, message: Message, sink: &mut Sink) {
        match message {
            Message::Line(line) => self.push(&line),
            Message::Flush(done) => self.flushes.push(done),
            Message::Reopen => {
                if let Sink::Daily(file) = sink {
                    file.close();
                }
            }
        }
    }

    fn push(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.bytes.push(b'\n');
        self.lines += 1;
    }

    /// Writes what was gathered; false when it was lost.
    fn write(&mut self, sink: &mut Sink, dropped: &AtomicU64) -> bool {
        let written = self.bytes.is_empty() || sink.write(&self.bytes).is_ok();
        if !written {
            lose(dropped, self.lines);
        }
        self.bytes.clear();
        self.lines = 0;
        for done in self.flushes.drain(..) {
            // Who waited may have given up.
            let _heard = done.try_send(());
        }
        written
    }
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
