//! Tests of the line writer, with real files.

use super::*;

fn in_dir(dir: &std::path::Path) -> To {
    To::Dir { dir: dir.to_owned(), name: "access".to_owned() }
}

fn written(dir: &std::path::Path) -> io::Result<String> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(std::fs::read_to_string).collect()
}

#[test]
fn lines_are_written_in_order_once_flushed() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let log = LineWriter::open(in_dir(dir.path()))?;
    for n in 0..3_000 {
        log.write(n.to_string());
    }
    log.flush(Duration::from_secs(10));
    let expected: String = (0..3_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(written(dir.path())?, expected);
    Ok(())
}

#[test]
fn a_full_queue_drops_lines_and_says_how_many_instead_of_waiting() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let log = LineWriter::open(in_dir(dir.path()))?;
    let mut sent = 0_u64;
    while log.dropped() == 0 {
        log.write("x".repeat(64));
        sent += 1;
        assert!(sent < 100_000_000, "the queue is not bounded");
    }
    log.flush(Duration::from_secs(10));
    log.write("last".to_owned());
    log.flush(Duration::from_secs(10));
    let text = written(dir.path())?;
    let kept = text.lines().filter(|line| line.starts_with('x')).count() as u64;
    assert_eq!(kept + log.dropped(), sent);
    assert!(text.contains(&format!(r#""message":"log lines were dropped","fields":{{"dropped":{}}}"#, log.dropped())));
    Ok(())
}

#[test]
fn a_moved_file_is_opened_anew() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let log = LineWriter::open(in_dir(dir.path()))?;
    log.write("before".to_owned());
    log.flush(Duration::from_secs(10));
    let file = std::fs::read_dir(dir.path())?.flatten().next().map(|entry| entry.path()).unwrap_or_default();
    std::fs::rename(&file, dir.path().join("moved"))?;
    log.reopen();
    log.write("after".to_owned());
    log.flush(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(file)?, "after\n");
    Ok(())
}

#[test]
fn long_lines_that_wait_are_bounded_in_bytes() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let log = LineWriter::open(in_dir(dir.path()))?;
    let mut sent = 0_u64;
    while log.dropped() == 0 {
        log.write("x".repeat(256 * 1024));
        sent += 1;
        assert!(sent < 100_000, "the queue is not bounded");
    }
    assert!(log.counts.long.load(Ordering::Relaxed) <= LONG_QUEUE);
    log.flush(Duration::from_secs(10));
    assert_eq!(log.counts.long.load(Ordering::Relaxed), 0);
    Ok(())
}

#[test]
fn a_disk_that_takes_nothing_costs_lines_which_are_counted_and_said_once_it_takes_some_again() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join(format!("{}.access.log", clock::local_date(clock::unix_ms())));
    std::os::unix::fs::symlink("/dev/full", &file)?;
    let log = LineWriter::open(in_dir(dir.path()))?;
    for _ in 0..10 {
        log.write("lost".to_owned());
    }
    log.flush(Duration::from_secs(10));
    assert_eq!(log.dropped(), 10);
    std::fs::remove_file(&file)?;
    log.write("kept".to_owned());
    log.flush(Duration::from_secs(10));
    log.write("last".to_owned());
    log.flush(Duration::from_secs(10));
    let text = std::fs::read_to_string(&file)?;
    assert!(text.contains("kept\n") && !text.contains("lost\n"), "{text}");
    assert!(text.contains(r#""fields":{"dropped":1"#), "{text}");
    Ok(())
}

#[test]
fn a_discarded_log_has_no_thread_and_takes_everything() {
    let log = LineWriter::discard();
    log.write("gone".to_owned());
    log.flush(Duration::from_secs(10));
    assert!(!log.is_on());
    assert_eq!(log.dropped(), 0);
}
