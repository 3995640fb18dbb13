//! Tests of daily files, with a given time.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
    let mut file =
        DailyFile::open(dir.path().into(), "access".into(), Duration::from_secs(14 * 86_400), 1 << 20, NOON)?;
    file.write(b"one\n", NOON)?;
    file.write(b"two\n", NOON + DAY_MS)?;
    assert_eq!(names(dir.path())?, [format!("access-{}.log", day(0)), format!("access-{}.log", day(1))]);
    let path = dir.path().join(format!("access-{}.log", day(1)));
    assert_eq!(std::fs::read(&path)?, b"two\n");
    assert_eq!(std::fs::metadata(path)?.permissions().mode() & 0o777, 0o600);
    Ok(())
}

#[test]
fn what_is_too_old_goes_and_what_is_not_ours_stays() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    for other in ["access-2020-01-01.log", "access-2020-01-01.txt", "orders-2020-01-01.log", "access-soon.log"] {
        std::fs::write(dir.path().join(other), "old\n")?;
    }
    let mut file = DailyFile::open(dir.path().into(), "access".into(), Duration::from_secs(2 * 86_400), 1 << 20, NOON)?;
    for offset in 0..5 {
        file.write(b"line\n", NOON + offset * DAY_MS)?;
    }
    let mut expected: Vec<_> = (2..5).map(|offset| format!("access-{}.log", day(offset))).collect();
    expected.extend(["access-2020-01-01.txt", "access-soon.log", "orders-2020-01-01.log"].map(String::from));
    expected.sort();
    assert_eq!(names(dir.path())?, expected);
    Ok(())
}

#[test]
fn one_busy_day_is_bounded_in_size_too() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut file = DailyFile::open(dir.path().into(), "access".into(), Duration::from_secs(86_400), 4_000, NOON)?;
    for _ in 0..100 {
        file.write(&[b'x'; 500], NOON)?;
    }
    let total: u64 =
        std::fs::read_dir(dir.path())?.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum();
    assert!((2_000..=5_000).contains(&total), "{total} bytes");
    assert!(names(dir.path())?.len() > 1);
    Ok(())
}

#[test]
fn a_restart_goes_on_in_the_last_part() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let open = || DailyFile::open(dir.path().into(), "access".into(), Duration::from_secs(86_400), 400, NOON);
    let mut first = open()?;
    first.write(&[b'x'; 150], NOON)?;
    first.write(b"second part\n", NOON)?;
    drop(first);
    open()?.write(b"again\n", NOON)?;
    assert_eq!(std::fs::read(dir.path().join(format!("access-{}.2.log", day(0))))?, b"second part\nagain\n");
    Ok(())
}
