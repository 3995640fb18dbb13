//! A writer of lines that never makes its callers wait: a bounded queue, a thread of its own, and a count of what was
//! dropped when the queue was full or the disk refused.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Level;
use super::files::{DailyFile, PART};
use super::journal::Days;
use super::record::{Kind, Record};
use crate::{clock, config, tasks};

/// Lines that may wait for the disk; further ones are dropped and counted.
pub const QUEUE: usize = 8_192;
/// A line longer than this is a long one; bytes.
const LONG: usize = 1_024;
/// What all long lines that wait may take together; bytes.
const LONG_QUEUE: usize = 4 * 1024 * 1024;
/// Bytes that are gathered before a write.
const BATCH: usize = 64 * 1024;
/// How long the writer gathers after a write; a line is on disk after at most twice this.
const GATHER: Duration = Duration::from_millis(20);

/// Where lines go.
#[derive(Debug, Clone)]
pub enum To {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Files `YYYY-MM-DD.NAME.log` in this folder, named by the local date.
    Dir {
        /// The folder; made if missing, mode 0700.
        dir: PathBuf,
        /// What the files are of.
        name: String,
    },
    /// Nowhere: a log that is off costs nothing.
    Discard,
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) kind: Kind,
    pub(super) text: String,
}

enum Message {
    Line(Line),
    Flush(SyncSender<()>),
    Reopen,
}

/// Writes lines without ever making the caller wait. Cheap to clone; the thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct LineWriter {
    /// Bounded by the count beside it: a bounded channel takes all of its memory at once.
    queue: Option<Sender<Message>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    /// Lines that wait.
    waiting: AtomicUsize,
    /// Bytes of long lines that wait.
    long: AtomicUsize,
}

static DROPPED: AtomicU64 = AtomicU64::new(0);
static OPEN: Mutex<Vec<LineWriter>> = Mutex::new(Vec::new());

impl LineWriter {
    /// Opens the place and starts the writer's thread.
    ///
    /// # Errors
    /// When the folder cannot be made, or the machine allows no more threads.
    pub fn open(to: To) -> io::Result<Self> {
        let sink = match to {
            To::Discard => return Ok(Self::discard()),
            To::Stdout => Sink::Stdout(io::stdout()),
            To::Stderr => Sink::Stderr(io::stderr()),
            To::Dir { dir, name } => Sink::Daily(DailyFile::new(config::private_dir(&dir)?, &name, PART)),
        };
        Self::start(sink)
    }

    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let (queue, lines) = channel();
        let of_thread = counts.clone();
        tasks::thread("log", tasks::Kind::Connection, move || write_all(&lines, sink, &of_thread))?;
        Ok(Self { queue: Some(queue), counts })
    }

    /// Lines go nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self { queue: None, counts: Arc::default() }
    }

    /// Hands a line (without its end) to the writer. Never waits: when the queue is full the line is dropped and counted.
    pub fn write(&self, line: String) {
        self.write_as(Level::Info, Kind::Output, line);
    }

    /// The same for a line of this level and kind: a [`Journal`](super::Journal) has a file for each level, and keeps
    /// those of hops and of the mesh at hand.
    pub fn write_as(&self, level: Level, kind: Kind, text: String) {
        let Some(queue) = &self.queue else { return };
        let long = if text.len() > LONG { text.len() } else { 0 };
        if !self.counts.begin(long) {
            return self.counts.lose(1);
        }
        if queue.send(Message::Line(Line { level, kind, text })).is_err() {
            self.counts.end(long);
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
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits, at most `within`, until all lines handed over so far are written.
    pub fn flush(&self, within: Duration) {
        let Some(queue) = &self.queue else { return };
        let (done, written) = sync_channel(1);
        if queue.send(Message::Flush(done)).is_ok() {
            // An end of the time is no failure of the caller's: what is left is written later, if at all.
            let _in_time = written.recv_timeout(within);
        }
    }

    /// Opens the file anew: an outside program may have moved it away.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            // A thread that has ended has no file open.
            let _over = queue.send(Message::Reopen);
        }
    }

    /// From now on [`reopen_all`] and [`flush_all`] reach this writer too. It then lives as long as the process.
    #[must_use]
    pub fn for_the_process(self) -> Self {
        if self.is_on() {
            OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(self.clone());
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
    open.iter().for_each(act);
}

/// Lines dropped since the process started: by all writers, and those of [`count_dropped`].
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Counts lines that were dropped before they came to a writer.
pub fn count_dropped(lines: u64) {
    DROPPED.fetch_add(lines, Ordering::Relaxed);
}

impl Counts {
    /// A line comes to wait, with so many bytes where it is a long one; false when there is no room for it.
    fn begin(&self, long: usize) -> bool {
        let lines = self.waiting.fetch_add(1, Ordering::Relaxed);
        let bytes = if long > 0 { self.long.fetch_add(long, Ordering::Relaxed) } else { 0 };
        let fits = lines < QUEUE && (bytes == 0 || bytes + long <= LONG_QUEUE);
        if !fits {
            self.end(long);
        }
        fits
    }

    /// A line waits no longer.
    fn end(&self, long: usize) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if long > 0 {
            self.long.fetch_sub(long, Ordering::Relaxed);
        }
    }

    fn lose(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
        count_dropped(lines);
    }
}

pub(super) enum Sink {
    Stdout(io::Stdout),
    Stderr(io::Stderr),
    Daily(DailyFile),
    Journal(Box<Days>),
}

impl Sink {
    /// One buffer of a batch; a journal has one for each level.
    fn write(&mut self, rank: usize, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.write_all(bytes).and_then(|()| out.flush()),
            Self::Stderr(out) => out.write_all(bytes),
            Self::Daily(file) => file.write(bytes, clock::unix_ms()).map(|_| ()),
            Self::Journal(days) => days.write(rank, bytes),
        }
    }

    fn reopen(&mut self) {
        match self {
            Self::Daily(file) => file.close(),
            Self::Journal(days) => days.close(),
            Self::Stdout(_) | Self::Stderr(_) => {}
        }
    }
}

/// The writer's thread: gathers what waits, writes it at once, sleeps a little so that lines gather again.
fn write_all(lines: &Receiver<Message>, mut sink: Sink, counts: &Counts) {
    let mut batch = Batch::default();
    let mut told = 0;
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            batch.take(message, &mut sink, counts);
            if batch.gathered >= BATCH {
                batch.write(&mut sink, counts);
            }
            next = lines.try_recv().ok();
        }
        let lost = counts.dropped.load(Ordering::Relaxed);
        if lost > told {
            batch.push(&mut sink, of_loss(lost - told));
        }
        let waited_for = !batch.flushes.is_empty();
        if batch.write(&mut sink, counts) {
            told = lost;
        }
        if !waited_for {
            std::thread::sleep(GATHER);
        }
    }
}

fn of_loss(lines: u64) -> Line {
    let record = Record {
        unix_us: clock::unix_us(),
        level: Level::Warn,
        kind: Kind::Mesh,
        service: "",
        instance: "",
        pid: std::process::id(),
        thread: "",
        stream: "",
        request_id: "",
        trace_id: "",
        message: "log lines were dropped",
        fields: &format!(r#"{{"dropped":{lines}}}"#),
    };
    Line { level: Level::Warn, kind: Kind::Mesh, text: record.json() }
}

#[derive(Default)]
struct Batch {
    /// Bytes and lines of each level.
    levels: [(Vec<u8>, u64); Level::ALL.len()],
    gathered: usize,
    flushes: Vec<SyncSender<()>>,
}

impl Batch {
    fn take(&mut self, message: Message, sink: &mut Sink, counts: &Counts) {
        match message {
            Message::Line(line) => {
                counts.end(if line.text.len() > LONG { line.text.len() } else { 0 });
                self.push(sink, line);
            }
            Message::Flush(done) => self.flushes.push(done),
            Message::Reopen => {
                // What was said before belongs to the file of before.
                self.write(sink, counts);
                sink.reopen();
            }
        }
    }

    fn push(&mut self, sink: &mut Sink, line: Line) {
        let rank = if matches!(sink, Sink::Journal(_)) { usize::from(line.level.rank()) } else { 0 };
        if let Some((bytes, lines)) = self.levels.get_mut(rank) {
            bytes.extend_from_slice(line.text.as_bytes());
            bytes.push(b'\n');
            *lines += 1;
            self.gathered += line.text.len() + 1;
        }
        if let Sink::Journal(days) = sink {
            days.keep(line);
        }
    }

    /// Writes what was gathered; false when some of it was lost.
    fn write(&mut self, sink: &mut Sink, counts: &Counts) -> bool {
        let mut all = true;
        for (rank, (bytes, lines)) in self.levels.iter_mut().enumerate() {
            if !bytes.is_empty() && sink.write(rank, bytes).is_err() {
                counts.lose(*lines);
                all = false;
            }
            bytes.clear();
            // One very long line must not be paid for ever after.
            bytes.shrink_to(2 * BATCH);
            *lines = 0;
        }
        self.gathered = 0;
        for done in self.flushes.drain(..) {
            // Who waited may have given up.
            let _heard = done.try_send(());
        }
        all
    }
}

#[cfg(test)]
#[path = "line/tests.rs"]
mod tests;
