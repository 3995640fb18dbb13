//! The journal of a process: every line in one form, in one file for each day and level, and the last ones of the mesh
//! itself at hand.
//!
//! What services print is kept by who captures it; here only its files are written and read.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

use super::Level;
use super::files::DailyFile;
use super::line::{Line, LineWriter, Sink};
use super::read::{self, Wanted};
use super::record::{Entry, Kind};
use super::upkeep::{Upkeep, be_humble};
use crate::{clock, config, tasks};

/// How long files are kept by default.
pub const KEEP: Duration = Duration::from_secs(14 * 86_400);
/// How much they may take together by default: 1 GiB.
pub const MAX_SIZE: u64 = 1 << 30;
/// Bytes of lines of hops and of the mesh that are kept at hand.
const KEPT_BYTES: usize = 2 * 1024 * 1024;
/// Lines that a follower may be behind before it misses some.
const FOLLOWER_QUEUE: usize = 1_024;

/// Where a journal is, and how much of it is kept.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Folder of its files, made if missing, mode 0700; `None`: in memory alone.
    pub dir: Option<PathBuf>,
    /// How long files are kept; days.
    pub keep: Duration,
    /// How much all files in the folder may take together; bytes.
    pub max_size: u64,
}

impl JournalConfig {
    /// In this folder, kept 14 days and 1 GiB.
    #[must_use]
    pub fn in_dir(dir: Option<PathBuf>) -> Self {
        Self { dir, keep: KEEP, max_size: MAX_SIZE }
    }
}

/// The journal of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    writer: LineWriter,
    kept: Arc<Kept>,
    dir: Option<Arc<Path>>,
}

impl Journal {
    /// Opens it. Files are made with their first line, so a disk that is full now loses lines and nothing else.
    ///
    /// # Errors
    /// When the folder cannot be made or is not ours, or the machine allows no more threads.
    pub fn open(config: JournalConfig) -> io::Result<Self> {
        let kept = Arc::new(Kept::new());
        let files = match config.dir {
            Some(dir) => Some(Files::open(Upkeep::new(config::private_dir(&dir)?, config.keep, config.max_size))?),
            None => None,
        };
        let dir = files.as_ref().map(|files| Arc::from(files.dir.as_path()));
        let sink = Sink::Journal(Box::new(Days { kept: kept.clone(), files }));
        Ok(Self { writer: LineWriter::start(sink)?, kept, dir })
    }

    /// By which lines get into it.
    #[must_use]
    pub fn writer(&self) -> LineWriter {
        self.writer.clone()
    }

    /// The lines of hops and of the mesh that are at hand and wanted, oldest first.
    #[must_use]
    pub fn recent(&self, wanted: &Wanted) -> Vec<Entry> {
        let lines: Vec<Arc<Told>> = self.kept.lock().lines.iter().cloned().collect();
        let takes = |line: &Arc<Told>| wanted.entry(line.text.as_bytes());
        lines.iter().filter_map(takes).collect()
    }

    /// Since when every line of hops and of the mesh is at hand: microseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn recent_since_us(&self) -> u64 {
        self.kept.lock().since_us
    }

    /// The lines in the files that are wanted, oldest first, at most the last [`Wanted::most`]. Reads disks: for a thread
    /// that may wait. `go_on` is asked now and then; when it says no, what was found so far is given.
    #[must_use]
    pub fn search(&self, wanted: &Wanted, go_on: &dyn Fn() -> bool) -> Vec<Entry> {
        self.dir.as_deref().map(|dir| read::search(dir, wanted, go_on)).unwrap_or_default()
    }

    /// Every line of hops and of the mesh from now on, as text of the one form.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Told>> {
        self.kept.followers.subscribe()
    }
}

/// A line of a hop or of the mesh.
#[derive(Debug)]
pub struct Told {
    /// When it was handed over: microseconds since 1970-01-01 UTC.
    pub unix_us: u64,
    /// The line, without its end.
    pub text: String,
}

#[derive(Debug)]
struct Kept {
    inner: Mutex<Inner>,
    followers: broadcast::Sender<Arc<Told>>,
}

#[derive(Debug)]
struct Inner {
    lines: VecDeque<Arc<Told>>,
    bytes: usize,
    since_us: u64,
}

impl Kept {
    fn new() -> Self {
        let inner = Inner { lines: VecDeque::new(), bytes: 0, since_us: clock::unix_us() };
        Self { inner: Mutex::new(inner), followers: broadcast::Sender::new(FOLLOWER_QUEUE) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, text: String) {
        let line = Arc::new(Told { unix_us: clock::unix_us(), text });
        let mut inner = self.lock();
        inner.bytes += weight(&line);
        inner.lines.push_back(line.clone());
        while inner.bytes > KEPT_BYTES {
            let Some(oldest) = inner.lines.pop_front() else { break };
            inner.bytes -= weight(&oldest);
            inner.since_us = oldest.unix_us + 1;
        }
        drop(inner);
        if self.followers.receiver_count() > 0 {
            // The last of them may just have gone.
            let _followers = self.followers.send(line);
        }
    }
}

fn weight(line: &Told) -> usize {
    size_of::<Told>() + 2 * size_of::<usize>() + line.text.capacity()
}

/// What the writer's thread of a journal does with lines.
#[derive(Debug)]
pub(super) struct Days {
    kept: Arc<Kept>,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    dir: PathBuf,
    levels: [DailyFile; Level::ALL.len()],
    turned: SyncSender<()>,
}

impl Files {
    fn open(upkeep: Upkeep) -> io::Result<Self> {
        let (turned, turns) = sync_channel(1);
        let levels = Level::ALL.map(|level| DailyFile::new(upkeep.dir.clone(), level.word(), upkeep.part()));
        let dir = upkeep.dir.clone();
        tasks::thread("log-upkeep", tasks::Kind::Connection, move || {
            be_humble();
            upkeep.run(&turns);
        })?;
        Ok(Self { dir, levels, turned })
    }
}

impl Days {
    pub(super) fn keep(&self, line: Line) {
        if line.kind != Kind::Output {
            self.kept.take(line.text);
        }
    }

    pub(super) fn write(&mut self, rank: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let Some(file) = files.levels.get_mut(rank) else { return Ok(()) };
        if file.write(bytes, clock::unix_ms())? {
            // One turn that waits is as good as two.
            let _waiting = files.turned.try_send(());
        }
        Ok(())
    }

    pub(super) fn close(&mut self) {
        self.files.iter_mut().flat_map(|files| &mut files.levels).for_each(DailyFile::close);
    }
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
