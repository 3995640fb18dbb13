//! Files of one day each, named by the local date: `DATE.NAME.log`, then `DATE.NAME.2.log` and so on once a part is full.
//!
//! Several processes may append to the same files: each looks at the length of the file, not at what it wrote itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

use crate::clock;

/// A part of a day is closed before it grows past this; bytes.
pub(super) const PART: u64 = 64 * 1024 * 1024;

/// What a file's name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileName {
    /// The local date.
    pub(super) day: Date,
    /// The level, or what else the file is of.
    pub(super) name: String,
    /// From 1.
    pub(super) part: u32,
    /// Whether it is compressed.
    pub(super) is_packed: bool,
}

impl FileName {
    pub(super) fn parse(file: &str) -> Option<Self> {
        let (rest, is_packed) = file.strip_suffix(".gz").map_or((file, false), |rest| (rest, true));
        let mut parts = rest.strip_suffix(".log")?.split('.');
        let day = parts.next().filter(|day| day.len() == 10)?.parse().ok()?;
        let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
        let part = match parts.next() {
            Some(part) => part.parse().ok().filter(|part| *part > 1)?,
            None => 1,
        };
        parts.next().is_none().then_some(Self { day, name, part, is_packed })
    }

    pub(super) fn in_dir(&self, dir: &Path) -> PathBuf {
        let part = if self.part == 1 { String::new() } else { format!(".{}", self.part) };
        dir.join(format!("{}.{}{part}.log{}", self.day, self.name, if self.is_packed { ".gz" } else { "" }))
    }
}

/// The files of this scheme in a folder, with their sizes.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(FileName, u64)>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    Ok(entries
        .filter_map(|entry| Some((FileName::parse(entry.file_name().to_str()?)?, entry.metadata().ok()?.len())))
        .collect())
}

/// Appends to the file of the day.
#[derive(Debug)]
pub(super) struct DailyFile {
    dir: PathBuf,
    name: String,
    most: u64,
    open: Option<(File, Date, u32)>,
    /// Whether the last write was cut off in the middle of a line.
    is_torn: bool,
}

impl DailyFile {
    /// Nothing is opened before the first write. `most`: bytes of one part.
    pub(super) fn new(dir: PathBuf, name: &str, most: u64) -> Self {
        Self { dir, name: name.to_owned(), most, open: None, is_torn: false }
    }

    /// Appends whole lines to the file of the day of `unix_ms`; true when that began another file.
    pub(super) fn write(&mut self, lines: &[u8], unix_ms: u64) -> io::Result<bool> {
        let outcome = self.append(lines, clock::local_date(unix_ms));
        if outcome.is_err() {
            self.open = None;
            // A part of it may be there; the next line must not be joined to it.
            self.is_torn = true;
        }
        outcome
    }

    fn append(&mut self, lines: &[u8], day: Date) -> io::Result<bool> {
        let mut turned = false;
        if self.open.as_ref().is_some_and(|(_, of, _)| *of != day) {
            self.open = None;
        }
        if self.open.is_none() {
            let part = self.last_part(day);
            self.begin(day, part)?;
            turned = true;
        }
        while let Some((file, _, part)) = &self.open {
            let length = file.metadata()?.len();
            if length == 0 || length + lines.len() as u64 <= self.most {
                break;
            }
            let next = part + 1;
            self.begin(day, next)?;
            turned = true;
        }
        if let Some((file, ..)) = &mut self.open {
            if self.is_torn {
                file.write_all(b"\n")?;
                self.is_torn = false;
            }
            file.write_all(lines)?;
        }
        Ok(turned)
    }

    /// The next write opens the file by its name anew.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    fn begin(&mut self, day: Date, part: u32) -> io::Result<()> {
        let name = FileName { day, name: self.name.clone(), part, is_packed: false };
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(name.in_dir(&self.dir))?;
        self.open = Some((file, day, part));
        Ok(())
    }

    /// Where the day goes on: in its last part, or behind it where that is compressed already.
    fn last_part(&self, day: Date) -> u32 {
        let all = list(&self.dir).unwrap_or_default().into_iter().map(|(file, _)| file);
        let own = all.filter(|file| file.day == day && file.name == self.name);
        own.map(|file| if file.is_packed { file.part + 1 } else { file.part }).max().unwrap_or(1)
    }
}

#[cfg(test)]
#[path = "files/tests.rs"]
mod tests;
