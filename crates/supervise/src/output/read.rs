//! Reading of a pipe by lines: never more than a bound in memory, whatever comes.

use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{OutputSink, parse};

/// Longest line that is read whole (a JSON line must be, to be understood); bytes. The rest of a longer one is dropped.
const MAX_LINE: usize = 64 * 1024;

/// Reads lines until the pipe ends and gives each to `sink` and, raw, to `seen`. A last line without its end counts.
pub(crate) async fn read_lines<R, F>(mut pipe: R, from: From, sink: OutputSink, mut seen: F)
where
    R: AsyncRead + Unpin,
    F: FnMut(&str),
{
    let mut lines = Lines::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = pipe.read(&mut buffer).await.unwrap_or(0);
        let mut emit = |line: &[u8]| {
            let text = String::from_utf8_lossy(line);
            seen(&text);
            sink.push(parse::line(&text, from, &sink, clock::unix_us()));
        };
        if read == 0 {
            lines.end(&mut emit);
            return;
        }
        lines.take(&buffer[..read], &mut emit);
        // A process that floods its output must not starve what else this thread does.
        tokio::task::yield_now().await;
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
}

impl Lines {
    fn take(&mut self, bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let Some(last) = parts.next_back() else { return };
        for part in parts {
            self.append(part);
            self.flush(emit);
        }
        self.append(last);
    }

    fn append(&mut self, part: &[u8]) {
        let room = MAX_LINE - self.open.len();
        self.is_cut |= part.len() > room;
        self.open.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn flush(&mut self, emit: &mut impl FnMut(&[u8])) {
        if self.is_cut {
            // Without its end it is no JSON any more: what is shown of it begins with its beginning.
            self.open.truncate(super::MAX_FIELD);
            self.open.extend_from_slice("…".as_bytes());
        }
        let line = self.open.strip_suffix(b"\r").unwrap_or(&self.open);
        if !line.iter().all(u8::is_ascii_whitespace) {
            emit(line);
        }
        self.open.clear();
        self.is_cut = false;
    }

    fn end(&mut self, emit: &mut impl FnMut(&[u8])) {
        self.flush(emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        let mut emit = |line: &[u8]| found.push(String::from_utf8_lossy(line).into_owned());
        for chunk in chunks {
            lines.take(chunk, &mut emit);
        }
        lines.end(&mut emit);
        found
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
}
