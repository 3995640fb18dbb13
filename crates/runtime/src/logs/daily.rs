//! Files of one day each, named by the local date and bounded in age and in size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;

use crate::{clock, config};

/// Files `NAME-DATE.log`, and `NAME-DATE.N.log` once a day's file has taken its share of the size.
#[derive(Debug)]
pub(super) struct DailyFile {
    dir: PathBuf,
    name: String,
    keep: Duration,
    max_size: u64,
    day: Date,
    part: u32,
    file: Option<File>,
    written: u64,
}

/// A day's file is closed when it has this share of the whole size, so that pruning can always make room.
const SHARE: u64 = 4;

impl DailyFile {
    /// Opens, or goes on with, the file of the day of `unix_ms`.
    pub(super) fn open(dir: PathBuf, name: String, keep: Duration, max_size: u64, unix_ms: u64) -> io::Result<Self> {
        config::private_dir(&dir)?;
        let day = clock::local_date(unix_ms);
        let mut daily = Self { dir, name, keep, max_size, day, part: 1, file: None, written: 0 };
        let parts = daily.files()?.into_iter().filter(|found| found.day == day).map(|found| found.part);
        daily.part = parts.max().unwrap_or(1);
        daily.open_part()?;
        daily.prune();
        Ok(daily)
    }

    /// Appends whole lines to the file of the day of `unix_ms`.
    pub(super) fn write(&mut self, lines: &[u8], unix_ms: u64) -> io::Result<()> {
        let day = clock::local_date(unix_ms);
        let is_new_day = day != self.day;
        if is_new_day || self.written >= self.max_size / SHARE {
            self.part = if is_new_day { 1 } else { self.part + 1 };
            self.day = day;
            self.file = None;
        }
        if self.file.is_none() {
            self.open_part()?;
            self.prune();
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let outcome = file.write_all(lines);
        self.written += lines.len() as u64;
        if outcome.is_err() {
            self.file = None;
        }
        outcome
    }

    /// The next write opens the file anew.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    fn open_part(&mut self) -> io::Result<()> {
        let path = self.dir.join(file_name(&self.name, self.day, self.part));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        self.written = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn prune(&self) {
        prune_except(&self.dir, &self.name, self.keep, self.max_size, self.day, self.part);
    }

    fn files(&self) -> io::Result<Vec<Found>> {
        files(&self.dir, &self.name)
    }
}

/// Removes the files `NAME-DATE.log` in `dir` that are older than `keep`, then the oldest until all together are at most
/// `max_size` bytes; never that of today. For files that another program writes: a [`LineWriter`](super::LineWriter)
/// prunes its own.
pub fn prune(dir: &Path, name: &str, keep: Duration, max_size: u64) {
    // A program that names its files by the date alone writes the first part.
    prune_except(dir, name, keep, max_size, clock::local_date(clock::unix_ms()), 1);
}

fn prune_except(dir: &Path, name: &str, keep: Duration, max_size: u64, today: Date, open: u32) {
    let Ok(mut files) = files(dir, name) else { return };
    files.sort_by_key(|found| std::cmp::Reverse((found.day, found.part)));
    let days = i64::try_from(keep.as_secs() / 86_400).unwrap_or(i64::MAX);
    let mut total = 0;
    for found in files {
        total += found.size;
        let age = today.since(found.day).map_or(0, |span| i64::from(span.get_days()));
        let is_open = found.day == today && found.part == open;
        if !is_open && (age > days || total > max_size) {
            // Another process may have removed it; the next pruning tries again.
            let _gone = std::fs::remove_file(dir.join(file_name(name, found.day, found.part)));
        }
    }
}

fn files(dir: &Path, name: &str) -> io::Result<Vec<Found>> {
    let entries = std::fs::read_dir(dir)?.flatten();
    Ok(entries
        .filter_map(|entry| {
            let (day, part) = parse_name(name, entry.file_name().to_str()?)?;
            Some(Found { day, part, size: entry.metadata().ok()?.len() })
        })
        .collect())
}

struct Found {
    day: Date,
    part: u32,
    size: u64,
}

fn file_name(name: &str, day: Date, part: u32) -> String {
    if part == 1 { format!("{name}-{day}.log") } else { format!("{name}-{day}.{part}.log") }
}

fn parse_name(name: &str, file: &str) -> Option<(Date, u32)> {
    let rest = file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".log")?;
    let (day, part) = match rest.split_once('.') {
        Some((day, part)) => (day, part.parse().ok().filter(|part| *part > 1)?),
        None => (rest, 1),
    };
    Some((day.parse().ok().filter(|_| day.len() == 10)?, part))
}

#[cfg(test)]
#[path = "daily/tests.rs"]
mod tests;
