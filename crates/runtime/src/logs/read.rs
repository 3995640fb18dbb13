//! Reading a journal back: which lines are wanted, and those of its files, compressed or not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use memchr::memmem;

use super::Level;
use super::files::{FileName, list};
use super::record::{Entry, Kind};
use crate::clock;

/// The longest line that is looked at; a longer one is no line of ours. Bytes.
const LONGEST: u64 = 256 * 1024;
/// Lines between two questions whether to go on.
const ASK_EVERY: usize = 4_096;

/// Which lines are wanted: those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Not before: microseconds since 1970-01-01 UTC.
    pub since_us: Option<u64>,
    /// Not after: microseconds since 1970-01-01 UTC.
    pub until_us: Option<u64>,
    /// Of this level or worse.
    pub level: Option<Level>,
    /// Of a request whose id begins so; empty: whichever.
    pub request: String,
    /// With this text in the message or a field, case ignored, in small letters; empty: whichever.
    pub grep: String,
    /// Of one of these instances, as `users-1@vm1`; none: of all.
    pub instances: Vec<String>,
    /// Of these kinds; none: of all.
    pub kinds: Vec<Kind>,
    /// The most lines of a [search](super::Journal::search): the last ones. 0: none.
    pub most: usize,
}

impl Wanted {
    /// The line as read, when it is wanted.
    #[must_use]
    pub fn entry(&self, line: &[u8]) -> Option<Entry> {
        // Looking is much cheaper than reading, and most lines are not wanted.
        if !self.request.is_empty() && memmem::find(line, self.request.as_bytes()).is_none() {
            return None;
        }
        if !self.instances.is_empty() && !self.instances.iter().any(|id| memmem::find(line, id.as_bytes()).is_some()) {
            return None;
        }
        Entry::parse(std::str::from_utf8(line).ok()?).filter(|entry| self.takes(entry))
    }

    /// Whether a line is wanted.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        self.level.is_none_or(|level| entry.level >= level)
            && self.since_us.is_none_or(|since| entry.unix_us >= since)
            && self.until_us.is_none_or(|until| entry.unix_us <= until)
            && (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (self.instances.is_empty() || self.instances.contains(&entry.instance))
            && self.is_of_request(&entry.request_id)
            && self.has_text([&entry.message, &entry.fields])
    }

    /// Whether a line of the request `id` is wanted.
    #[must_use]
    pub fn is_of_request(&self, id: &str) -> bool {
        self.request.is_empty() || id.starts_with(&self.request)
    }

    /// Whether a line of these texts is wanted.
    #[must_use]
    pub fn has_text(&self, texts: [&str; 2]) -> bool {
        self.grep.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&self.grep))
    }
}

/// The lines in the files of `dir` that are wanted.
pub(super) fn search(dir: &Path, wanted: &Wanted, go_on: &dyn Fn() -> bool) -> Vec<Entry> {
    let mut found = Found { entries: Vec::new(), most: wanted.most };
    let day = |us: Option<u64>| us.map(|us| clock::local_date(us / 1000));
    // A line of an exchange stands where the exchange ended and bears the time of its beginning, so that later files may
    // hold it; those before the day of `since` cannot.
    let since = day(wanted.since_us);
    let mut files: Vec<FileName> = list(dir).unwrap_or_default().into_iter().map(|(file, _)| file).collect();
    files.retain(|file| since.is_none_or(|since| file.day >= since) && is_of_level(&file.name, wanted.level));
    files.sort();
    for file in files {
        // One that was compressed or removed meanwhile is not there any more.
        let _gone = lines_of(dir, &file, &mut |line| found.take(wanted.entry(line)), go_on);
        if !go_on() {
            break;
        }
    }
    found.end()
}

fn is_of_level(name: &str, least: Option<Level>) -> bool {
    name.parse::<Level>().is_ok_and(|level| least.is_none_or(|least| level >= least))
}

/// Calls `take` with each line, as long as `go_on` says yes.
fn lines_of(dir: &Path, file: &FileName, take: &mut dyn FnMut(&[u8]), go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let opened = File::open(file.in_dir(dir)).or_else(|error| match file.is_packed {
        true => Err(error),
        false => File::open(FileName { is_packed: true, ..file.clone() }.in_dir(dir)),
    })?;
    let mut magic = BufReader::with_capacity(64 * 1024, opened);
    let is_packed = magic.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let mut lines: Box<dyn BufRead> =
        if is_packed { Box::new(BufReader::new(MultiGzDecoder::new(magic))) } else { Box::new(magic) };
    let (mut line, mut seen) = (Vec::new(), 0_usize);
    loop {
        line.clear();
        if lines.by_ref().take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        seen += 1;
        if line.ends_with(b"\n") {
            line.pop();
            take(&line);
        }
        if seen.is_multiple_of(ASK_EVERY) && !go_on() {
            return Ok(());
        }
    }
}

/// The last lines that were found, bounded while they are being found.
struct Found {
    entries: Vec<Entry>,
    most: usize,
}

impl Found {
    fn take(&mut self, entry: Option<Entry>) {
        self.entries.extend(entry);
        if self.entries.len() >= 2 * self.most.max(512) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.entries.sort_by_key(|entry| entry.unix_us);
        let surplus = self.entries.len().saturating_sub(self.most);
        self.entries.drain(..surplus);
    }

    fn end(mut self) -> Vec<Entry> {
        self.cut();
        self.entries
    }
}
