//! Tests of daily files, with a given time.

use std::os::unix::fs::PermissionsExt;

use super::*;

const DAY_MS: u64 = 86_400_000;
/// Noon UTC, so that most time zones agree on the date.
const NOON: u64 = 1_772_366_400_000;

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn day(offset: u64) -> Date {
    clock::local_date(NOON + offset * DAY_MS)
}

#[test]
fn a_new_day_has_a_new_file_closed_to_others() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = DailyFile::new(dir.path().into(), "info", PART);
    assert!(file.write(b"one\n", NOON)?, "a file begins");
    assert!(!file.write(b"two\n", NOON)?, "the same goes on");
    assert!(file.write(b"three\n", NOON + DAY_MS)?, "another begins");
    assert_eq!(names(dir.path())?, [format!("{}.info.log", day(0)), format!("{}.info.log", day(1))]);
    let path = dir.path().join(format!("{}.info.log", day(1)));
    assert_eq!(std::fs::read(&path)?, b"three\n");
    assert_eq!(std::fs::metadata(path)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

#[test]
fn a_part_never_grows_past_its_limit_whoever_writes_to_it() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut one = DailyFile::new(dir.path().into(), "info", 1_000);
    let mut two = DailyFile::new(dir.path().into(), "info", 1_000);
    for _ in 0..20 {
        one.write(&[b'x'; 150], NOON)?;
        two.write(&[b'y'; 150], NOON)?;
    }
    let sizes: Vec<u64> = list(dir.path())?.into_iter().map(|(_, size)| size).collect();
    assert!(sizes.iter().all(|size| *size <= 1_000), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<u64>(), 6_000);
    Ok(())
}

#[test]
fn a_restart_goes_on_in_the_last_part_and_never_in_a_compressed_one() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let open = || DailyFile::new(dir.path().into(), "info", 200);
    let mut first = open();
    first.write(&[b'x'; 150], NOON)?;
    first.write(&[b'y'; 100], NOON)?;
    drop(first);
    open().write(b"again\n", NOON)?;
    let second = dir.path().join(format!("{}.info.2.log", day(0)));
    assert!(std::fs::read(&second)?.ends_with(b"yagain\n"));
    std::fs::rename(&second, dir.path().join(format!("{}.info.2.log.gz", day(0))))?;
    open().write(b"third\n", NOON)?;
    assert_eq!(std::fs::read(dir.path().join(format!("{}.info.3.log", day(0))))?, b"third\n");
    Ok(())
}

#[test]
fn what_follows_a_write_that_failed_begins_a_line_of_its_own() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = DailyFile::new(dir.path().into(), "info", PART);
    file.write(b"{\"half", NOON)?;
    file.is_torn = true;
    file.write(b"whole\n", NOON)?;
    assert_eq!(std::fs::read_to_string(dir.path().join(format!("{}.info.log", day(0))))?, "{\"half\nwhole\n");
    Ok(())
}

#[test]
fn names_of_other_forms_are_not_ours() {
    for (file, part) in [("2026-03-01.info.log", 1), ("2026-03-01.error.12.log", 12), ("2026-03-01.nginx.log.gz", 1)] {
        let found = FileName::parse(file).unwrap();
        assert_eq!(found.part, part);
        assert_eq!(found.in_dir(Path::new("")).to_str(), Some(file));
    }
    for file in ["2026-03-01.log", "info.log", "2026-03-01.info.1.log", "2026-03-01.info.log.bak", "2026-3-1.info.log"]
    {
        assert_eq!(FileName::parse(file), None, "{file}");
    }
}
