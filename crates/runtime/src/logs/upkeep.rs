//! What is done to files that nobody writes to any more: compressed, kept for a time and up to a size, then removed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::Date;
use rustix::fs::{FlockOperation, flock};

use super::files::{FileName, list};
use crate::clock;

/// How often the folder is looked at, beside each new file.
const EVERY: Duration = Duration::from_secs(60);
/// How long nobody has written to a file before it is compressed: another process may still have it open.
const SETTLED: Duration = Duration::from_secs(60);
/// Of the whole size, a part of a day may have this share, so that removing whole parts can always make room.
const SHARE: u64 = 16;

/// What is kept in a folder of logs.
#[derive(Debug, Clone)]
pub(super) struct Upkeep {
    pub(super) dir: PathBuf,
    /// How long.
    pub(super) keep: Duration,
    /// How much all files together may take; bytes.
    pub(super) max_size: u64,
    pub(super) settled: Duration,
}

impl Upkeep {
    pub(super) fn new(dir: PathBuf, keep: Duration, max_size: u64) -> Self {
        Self { dir, keep, max_size, settled: SETTLED }
    }

    /// How large one part of a day may become; bytes.
    pub(super) fn part(&self) -> u64 {
        (self.max_size / SHARE).clamp(1, super::files::PART)
    }

    /// Looks after the folder until the other end of `turned` is gone.
    pub(super) fn run(&self, turned: &Receiver<()>) {
        loop {
            // What cannot be done now is tried again: a full disk, a folder that is not there for a while.
            let _outcome = self.once(clock::local_date(clock::unix_ms()));
            match turned.recv_timeout(EVERY) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One look. Of several processes that share the folder one does it at a time.
    pub(super) fn once(&self, today: Date) -> io::Result<()> {
        let folder = File::open(&self.dir)?;
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        self.split_foreign(today)?;
        self.prune(today)?;
        for (file, _) in self.closed(today)?.into_iter().filter(|(file, _)| !file.is_packed) {
            if self.is_settled(&file) {
                self.pack(&file)?;
                // Others may have written much meanwhile.
                self.prune(today)?;
            }
        }
        Ok(())
    }

    /// Nginx writes one file a day, opened by its name at each line: one that is too long becomes a part of its day.
    fn split_foreign(&self, today: Date) -> io::Result<()> {
        let all = list(&self.dir)?;
        let of_nginx: Vec<_> = all.iter().filter(|(file, _)| file.name == "nginx" && file.day == today).collect();
        let last = of_nginx.iter().map(|(file, _)| file.part).max().unwrap_or(1);
        for (file, size) in of_nginx {
            if file.part == 1 && !file.is_packed && *size > self.part() {
                let next = FileName { part: last + 1, ..file.clone() };
                std::fs::rename(file.in_dir(&self.dir), next.in_dir(&self.dir))?;
            }
        }
        Ok(())
    }

    /// The files that nobody appends to: those of former days, and the parts of today before the last one.
    fn closed(&self, today: Date) -> io::Result<Vec<(FileName, u64)>> {
        let all = list(&self.dir)?;
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for (file, _) in all.iter().filter(|(file, _)| file.day >= today) {
            let part = last.entry(file.name.clone()).or_default();
            *part = (*part).max(file.part);
        }
        let is_open = |file: &FileName| {
            let open = if file.name == "nginx" { Some(&1) } else { last.get(&file.name) };
            !file.is_packed && file.day >= today && open == Some(&file.part)
        };
        Ok(all.into_iter().filter(|(file, _)| !is_open(file)).collect())
    }

    /// Removes what is too old; then, until all fits, the oldest of whatever takes the most, so that a flood of one level
    /// never costs the lines of another.
    fn prune(&self, today: Date) -> io::Result<()> {
        let days = i64::try_from(self.keep.as_secs() / 86_400).unwrap_or(i64::MAX);
        let mut closed: BTreeMap<String, Vec<(FileName, u64)>> = BTreeMap::new();
        for (file, size) in self.closed(today)? {
            let age = today.since(file.day).map_or(0, |span| i64::from(span.get_days()));
            if age > days {
                std::fs::remove_file(file.in_dir(&self.dir))?;
            } else {
                closed.entry(file.name.clone()).or_default().push((file, size));
            }
        }
        let open = list(&self.dir)?.len() as u64 - closed.values().map(|files| files.len() as u64).sum::<u64>();
        // The open ones may grow to a whole part each.
        let room = self.max_size.saturating_sub(open * self.part());
        closed.values_mut().for_each(|files| files.sort_by(|a, b| b.cmp(a)));
        loop {
            let sums = closed.iter().map(|(name, files)| (files.iter().map(|(_, size)| size).sum::<u64>(), name));
            let (total, largest) = sums.fold((0, (0, None)), |(total, most), (sum, name)| {
                (total + sum, if sum >= most.0 { (sum, Some(name.clone())) } else { most })
            });
            let Some(name) = largest.1.filter(|_| total > room) else { return Ok(()) };
            match closed.get_mut(&name).and_then(Vec::pop) {
                Some((oldest, _)) => std::fs::remove_file(oldest.in_dir(&self.dir))?,
                None => return Ok(()),
            }
        }
    }

    fn is_settled(&self, file: &FileName) -> bool {
        let written = std::fs::metadata(file.in_dir(&self.dir)).and_then(|found| found.modified());
        written.is_ok_and(|at| at.elapsed().unwrap_or_default() >= self.settled)
    }

    /// Replaces a file by itself in gzip; whoever reads sees the one or the other.
    fn pack(&self, file: &FileName) -> io::Result<()> {
        let from = file.in_dir(&self.dir);
        let packed = FileName { is_packed: true, ..file.clone() }.in_dir(&self.dir);
        // Of no name of ours: one that a crash left is written over.
        let half = self.dir.join(".packing");
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        let mut encoder = GzEncoder::new(to, Compression::fast());
        let packing = io::copy(&mut BufReader::with_capacity(64 * 1024, File::open(&from)?), &mut encoder)
            .and_then(|_| encoder.finish())
            .and_then(|mut to| to.flush());
        if let Err(error) = packing {
            // A full disk: what there is stays as it is.
            let _gone = std::fs::remove_file(&half);
            return Err(error);
        }
        std::fs::rename(&half, packed)?;
        std::fs::remove_file(from)
    }
}

/// Lets the thread that calls it run only when nothing else wants to (on Linux this is of one thread alone).
pub(super) fn be_humble() {
    let _as_before = rustix::process::setpriority_process(None, 19);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn folder(files: &[(&str, usize)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, size) in files {
            std::fs::write(dir.path().join(file), vec![b'x'; *size]).unwrap();
        }
        dir
    }

    fn upkeep(dir: &Path, days: u64, max_size: u64) -> Upkeep {
        Upkeep { settled: Duration::ZERO, ..Upkeep::new(dir.to_owned(), Duration::from_secs(days * 86_400), max_size) }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().flatten().map(|file| file.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_closed_is_compressed_what_is_too_old_goes_and_what_is_not_ours_stays() {
        let dir = folder(&[
            ("2026-03-01.info.log", 10),
            ("2026-03-03.info.log", 10),
            ("2026-03-04.info.log", 10),
            ("2026-03-04.info.2.log", 10),
            ("2026-03-04.error.log", 10),
            ("notes.txt", 10),
            ("access-2020-01-01.log", 10),
        ]);
        upkeep(dir.path(), 2, 1 << 30).once(day("2026-03-04")).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "2026-03-03.info.log.gz",
                "2026-03-04.error.log",
                "2026-03-04.info.2.log",
                "2026-03-04.info.log.gz",
                "access-2020-01-01.log",
                "notes.txt"
            ]
        );
    }

    #[test]
    fn what_another_process_may_still_write_to_is_left_alone() {
        let dir = folder(&[("2026-03-03.info.log", 10)]);
        Upkeep { settled: SETTLED, ..upkeep(dir.path(), 9, 1 << 30) }.once(day("2026-03-04")).unwrap();
        assert_eq!(names(dir.path()), ["2026-03-03.info.log"]);
    }

    #[test]
    fn a_flood_of_one_level_never_costs_the_lines_of_another() {
        let part = 1_000_usize;
        let mut files = vec![("2026-03-01.error.log.gz".to_owned(), 100), ("2026-03-04.info.99.log".to_owned(), 10)];
        files.extend((2..40).map(|number| (format!("2026-03-04.info.{number}.log.gz"), part)));
        let files: Vec<(&str, usize)> = files.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        let dir = folder(&files);
        let upkeep = upkeep(dir.path(), 30, 16_000);
        upkeep.once(day("2026-03-04")).unwrap();
        let left = names(dir.path());
        assert!(left.contains(&"2026-03-01.error.log.gz".to_owned()), "{left:?}");
        assert!(left.contains(&"2026-03-04.info.39.log.gz".to_owned()), "{left:?}");
        assert!(!left.contains(&"2026-03-04.info.2.log.gz".to_owned()), "{left:?}");
        let total: u64 = list(dir.path()).unwrap().iter().map(|(_, size)| size).sum();
        assert!(total + upkeep.part() <= 16_000 + 10, "{total} bytes");
    }

    #[test]
    fn a_long_file_of_nginx_becomes_a_part_of_its_day() {
        let dir = folder(&[("2026-03-04.nginx.log", 2_000)]);
        upkeep(dir.path(), 9, 16_000).once(day("2026-03-04")).unwrap();
        assert_eq!(names(dir.path()), ["2026-03-04.nginx.2.log.gz"]);
    }
}
