//! Reading of a pipe by lines, on a thread of its own: never more than a bound in memory, whatever comes, and never so slow
//! that a process would have to wait for it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{OnceLock, PoisonError};
use std::time::Duration;

use memchr::{memchr_iter, memrchr};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{clock, logs};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Level, OutputSink, parse};

/// Longest line that is read whole (a JSON line must be, to be understood); bytes. The rest of a longer one is dropped.
const MAX_LINE: usize = 64 * 1024;
/// What is read at once; bytes.
const CHUNK: usize = 64 * 1024;
/// What a pipe may hold: the more, the less often a flood wakes us. Bytes; only a wish.
const PIPE: usize = 256 * 1024;
/// Of what is dropped, so much of the end is looked at when the process ends: its last words say why. Bytes.
const TAIL: usize = 2 * 1024;
/// How long a process may be silent before it is said what was dropped of it.
const SILENCE: Duration = Duration::from_secs(1);

/// Reads `pipe` until it ends; gives each line that is kept to `sink` and, raw, to `seen`.
///
/// # Errors
/// When it is no pipe, or the thread cannot be started.
pub(crate) fn capture(
    pipe: OwnedFd,
    from: From,
    sink: OutputSink,
    seen: impl FnMut(&str) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = reader()?;
    // Whoever is at its limit of pipe memory gets less, and the rest works the same.
    let _wished = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE);
    let pipe = {
        let _within = runtime.enter();
        pipe::Receiver::from_owned_fd(pipe)?
    };
    Ok(tasks::spawn_on(runtime, "output", Kind::Connection, read_lines(pipe, from, sink, seen)))
}

/// The thread that reads all output of this process's children.
fn reader() -> io::Result<&'static Handle> {
    static READER: OnceLock<Handle> = OnceLock::new();
    if let Some(reader) = READER.get() {
        return Ok(reader);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    // Of two that begin at once one thread is too many, and idle.
    tasks::thread("output", Kind::Critical, move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(READER.get_or_init(|| handle))
}

async fn read_lines<R, F>(mut pipe: R, from: From, sink: OutputSink, mut seen: F)
where
    R: AsyncRead + Unpin,
    F: FnMut(&str),
{
    let mut lines = Lines::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        // A gap is said before what comes after it, and soon where nothing does.
        let read = if sink.has_gap() {
            match tokio::time::timeout(SILENCE, pipe.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_silence) => {
                    sink.say_gap(from);
                    continue;
                }
            }
        } else {
            pipe.read(&mut buffer).await
        }
        .unwrap_or(0);
        if read == 0 {
            sink.say_gap(from);
            lines.end(&mut |line| keep(line, from, &sink, &mut seen));
            return;
        }
        let chunk = buffer.get(..read).unwrap_or_default();
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = if sink.may_keep() {
                sink.say_gap(from);
                lines.take(rest, &mut |line| {
                    keep(line, from, &sink, &mut seen);
                    sink.spend(line.len())
                })
            } else {
                let (count, dropped) = lines.skip(rest);
                sink.drop_lines(count, dropped);
                &[]
            };
        }
        // One that floods its output must not starve the others.
        tokio::task::yield_now().await;
    }
}

fn keep(line: &[u8], from: From, sink: &OutputSink, seen: &mut impl FnMut(&str)) {
    let text = String::from_utf8_lossy(line);
    seen(&text);
    sink.push(parse::line(&text, from, sink, clock::unix_us()));
}

impl OutputSink {
    fn budget<T>(&self, act: impl FnOnce(&mut super::Budget) -> T) -> T {
        act(&mut self.shared.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn may_keep(&self) -> bool {
        let now = clock::now();
        self.budget(|budget| budget.is_open(now))
    }

    /// A line was kept; whether the next may be.
    fn spend(&self, bytes: usize) -> bool {
        let now = clock::now();
        self.budget(|budget| {
            budget.take(bytes);
            budget.is_open(now)
        })
    }

    fn drop_lines(&self, lines: u64, bytes: u64) {
        logs::count_dropped(lines);
        self.budget(|budget| budget.dropped(lines, bytes));
    }

    fn has_gap(&self) -> bool {
        self.budget(|budget| budget.has_gap())
    }

    fn say_gap(&self, from: From) {
        if let Some(dropped) = self.budget(super::Budget::take_gap) {
            let message = format!(
                "{} lines ({} KiB) were dropped: it prints more than can be kept, 10,000 lines or 4 MiB a second",
                dropped.lines,
                dropped.bytes / 1024
            );
            self.note(Level::Warn, message, from.pid);
        }
    }
}

/// Where lines come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From {
    pub(crate) pid: u32,
    pub(crate) stderr: bool,
    pub(crate) build: bool,
}

impl From {
    /// Standard output of a process.
    pub(crate) fn process(pid: u32) -> Self {
        Self { pid, stderr: false, build: false }
    }
}

#[derive(Default)]
struct Lines {
    open: Vec<u8>,
    is_cut: bool,
    /// Whether the line that is open is being dropped: what comes of it still is no line.
    is_skipped: bool,
    tail: Vec<u8>,
}

impl Lines {
    /// Finds lines, as long as `emit` wants more; what is left then.
    fn take<'a>(&mut self, bytes: &'a [u8], emit: &mut impl FnMut(&[u8]) -> bool) -> &'a [u8] {
        let mut begin = 0;
        for end in memchr_iter(b'\n', bytes) {
            let part = bytes.get(begin..end).unwrap_or_default();
            begin = end + 1;
            if std::mem::take(&mut self.is_skipped) {
                continue;
            }
            self.append(part);
            if !self.flush(emit) {
                return bytes.get(begin..).unwrap_or_default();
            }
        }
        if !self.is_skipped {
            self.append(bytes.get(begin..).unwrap_or_default());
        }
        &[]
    }

    /// Drops what comes; how many lines and bytes that were.
    fn skip(&mut self, bytes: &[u8]) -> (u64, u64) {
        let dropped = self.open.len() + bytes.len();
        let count = memchr_iter(b'\n', bytes).count() as u64;
        self.open.clear();
        self.is_cut = false;
        self.is_skipped = !bytes.ends_with(b"\n");
        self.tail.extend_from_slice(bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        (count, dropped as u64)
    }

    fn append(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.open.len();
        self.is_cut |= part.len() > room;
        self.open.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
    }

    fn flush(&mut self, emit: &mut impl FnMut(&[u8]) -> bool) -> bool {
        if self.is_cut {
            // Without its end it is no JSON any more: what is shown of it begins with its beginning.
            self.open.truncate(super::MAX_FIELD);
            self.open.extend_from_slice("…".as_bytes());
        }
        // What was dropped before is of no interest any more.
        self.tail.clear();
        let line = self.open.strip_suffix(b"\r").unwrap_or(&self.open);
        let goes_on = line.iter().all(u8::is_ascii_whitespace) || emit(line);
        self.open.clear();
        self.open.shrink_to(super::MAX_FIELD);
        self.is_cut = false;
        goes_on
    }

    /// The last line may have no end; of what was dropped at last, the last words are given all the same.
    fn end(&mut self, emit: &mut impl FnMut(&[u8])) {
        let tail = std::mem::take(&mut self.tail);
        let whole = memrchr(b'\n', tail.get(..tail.len().saturating_sub(1)).unwrap_or_default());
        if let Some(last) = whole.and_then(|at| tail.get(at + 1..)) {
            emit(last.strip_suffix(b"\n").unwrap_or(last));
        }
        self.flush(&mut |line| {
            emit(line);
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &[u8]) -> String {
        String::from_utf8_lossy(line).into_owned()
    }

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        for chunk in chunks {
            let rest = lines.take(chunk, &mut |line| {
                all.push(found(line));
                true
            });
            assert!(rest.is_empty());
        }
        lines.end(&mut |line| all.push(found(line)));
        all
    }

    #[test]
    fn lines_are_found_wherever_reads_end() {
        assert_eq!(lines_of(&[b"on", b"e\r\n\ntwo\nth", b"ree"]), ["one", "two", "three"]);
        assert!(lines_of(&[b"", b"\n\n"]).is_empty());
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let flood = vec![b'x'; 40_000];
        let found = lines_of(&[&flood, &flood, &flood, b"\nnext\n"]);
        assert_eq!(found.len(), 2);
        assert!(found[0].len() < 5_000 && found[0].ends_with('…'));
        assert_eq!(found[1], "next");
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        assert_eq!(lines_of(&[b"a\xff\xfeb\n"]), ["a\u{fffd}\u{fffd}b"]);
    }

    #[test]
    fn what_is_dropped_is_counted_and_half_a_line_is_never_shown() {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        let rest = lines.take(b"one\ntwo\nthr", &mut |line| {
            all.push(found(line));
            false
        });
        assert_eq!(lines.skip(rest), (1, 7), "two lines, one of them open");
        lines.take(b"ee\nfour\n", &mut |line| {
            all.push(found(line));
            true
        });
        assert_eq!(all, ["one", "four"]);
    }

    #[test]
    fn the_last_words_of_a_flood_are_heard() {
        let (mut lines, mut all) = (Lines::default(), Vec::new());
        lines.skip(&b"noise\n".repeat(10_000));
        lines.skip(b"fatal: no space\n");
        lines.end(&mut |line| all.push(found(line)));
        assert_eq!(all, ["fatal: no space"]);
        assert!(lines.tail.capacity() < 2 * CHUNK);
    }
}
