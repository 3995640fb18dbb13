//! Tests of the line writer, with real files.

use super::*;

fn in_dir(dir: &std::path::Path) -> LineConfig {
    LineConfig::to(To::Dir { dir: dir.to_owned(), name: "access".to_owned() })
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
    assert!(text.contains(&format!(r#""message":"log lines were dropped","dropped":{}"#, log.dropped())));
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
fn a_discarded_log_has_no_thread_and_takes_everything() {
    let log = LineWriter::discard();
    log.write("gone".to_owned());
    log.flush(Duration::from_secs(10));
    assert!(!log.is_on());
    assert_eq!(log.dropped(), 0);
}
