//! Tests of a journal, with real files.

use super::super::record::Record;
use super::*;

const WITHIN: Duration = Duration::from_secs(10);

fn line(unix_us: u64, level: Level, kind: Kind, instance: &str, request_id: &str, message: &str) -> String {
    Record {
        unix_us,
        level,
        kind,
        service: "users",
        instance,
        pid: 7,
        thread: "",
        stream: "",
        request_id,
        trace_id: "",
        message,
        fields: "",
    }
    .json()
}

fn write(journal: &Journal, level: Level, kind: Kind, instance: &str, request_id: &str, message: &str) {
    let text = line(clock::unix_us(), level, kind, instance, request_id, message);
    journal.writer().write_as(level, kind, text);
}

fn messages(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.message.as_str()).collect()
}

fn all() -> Wanted {
    Wanted { most: 100, ..Wanted::default() }
}

#[test]
fn each_level_has_a_file_of_its_own_and_all_are_read_back_in_order() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let journal = Journal::open(JournalConfig::in_dir(Some(dir.path().into())))?;
    for (number, level) in Level::ALL.into_iter().enumerate() {
        write(&journal, level, Kind::Output, "users-1@vm1", "", &number.to_string());
    }
    journal.writer().flush(WITHIN);
    let day = clock::local_date(clock::unix_ms());
    for level in Level::ALL {
        let text = std::fs::read_to_string(dir.path().join(format!("{day}.{level}.log")))?;
        assert_eq!(text.lines().count(), 1, "{level}");
    }
    assert_eq!(messages(&journal.search(&all(), &|| true)), ["0", "1", "2", "3", "4"]);
    let worse = Wanted { level: Some(Level::Warn), ..all() };
    assert_eq!(messages(&journal.search(&worse, &|| true)), ["3", "4"]);
    let last = Wanted { most: 2, ..all() };
    assert_eq!(messages(&journal.search(&last, &|| true)), ["3", "4"]);
    assert!(journal.recent(&all()).is_empty(), "what services print is kept by who captures it");
    Ok(())
}

#[test]
fn lines_are_wanted_by_instance_request_text_kind_and_time() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let journal = Journal::open(JournalConfig::in_dir(Some(dir.path().into())))?;
    write(&journal, Level::Info, Kind::Access, "users-1@vm1", "r-1", "GET /users");
    write(&journal, Level::Info, Kind::Output, "users-1@vm1", "r-1", "found Them");
    write(&journal, Level::Warn, Kind::Mesh, "orders-1@vm1", "", "users-1@vm1 was left out for r-1");
    journal.writer().flush(WITHIN);
    let found = |wanted: Wanted| {
        journal.search(&wanted, &|| true).iter().map(|entry| entry.message.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(Wanted { request: "r-".into(), ..all() }), ["GET /users", "found Them"]);
    assert_eq!(found(Wanted { grep: "them".into(), ..all() }), ["found Them"]);
    assert_eq!(found(Wanted { instances: vec!["users-1@vm1".into()], ..all() }), ["GET /users", "found Them"]);
    assert_eq!(found(Wanted { kinds: vec![Kind::Mesh], ..all() }), ["users-1@vm1 was left out for r-1"]);
    assert!(found(Wanted { until_us: Some(1), ..all() }).is_empty());
    assert!(found(Wanted { since_us: Some(clock::unix_us() + 1_000_000), ..all() }).is_empty());
    let at_hand: Vec<_> = journal.recent(&all());
    assert_eq!(messages(&at_hand), ["GET /users", "users-1@vm1 was left out for r-1"]);
    Ok(())
}

#[test]
fn what_was_compressed_is_read_like_the_rest_and_what_is_no_line_is_passed_over() -> io::Result<()> {
    use std::io::Write as _;
    let dir = tempfile::tempdir()?;
    let text = format!("half a line\n{}\n", line(1_700_000_000_000_000, Level::Info, Kind::Output, "a", "", "old"));
    let file = std::fs::File::create(dir.path().join("2023-11-14.info.log.gz"))?;
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed.write_all(text.as_bytes())?;
    packed.finish()?;
    let config =
        JournalConfig { keep: Duration::from_secs(100_000 * 86_400), ..JournalConfig::in_dir(Some(dir.path().into())) };
    let journal = Journal::open(config)?;
    assert_eq!(messages(&journal.search(&all(), &|| true)), ["old"]);
    Ok(())
}

#[test]
fn what_is_kept_at_hand_is_bounded_and_says_since_when() -> io::Result<()> {
    let journal = Journal::open(JournalConfig::in_dir(None))?;
    let begun = journal.recent_since_us();
    let long = "x".repeat(4_000);
    for _ in 0..1_000 {
        write(&journal, Level::Info, Kind::Access, "users-1@vm1", "", &long);
        journal.writer().flush(WITHIN);
    }
    let kept = journal.recent(&all());
    assert!(kept.len() * 4_000 <= KEPT_BYTES && kept.len() > 100, "{}", kept.len());
    assert!(journal.recent_since_us() > begun);
    Ok(())
}

#[test]
fn a_follower_gets_every_line_of_hops_and_of_the_mesh() -> io::Result<()> {
    let journal = Journal::open(JournalConfig::in_dir(None))?;
    let mut following = journal.follow();
    write(&journal, Level::Info, Kind::Output, "users-1@vm1", "", "printed");
    write(&journal, Level::Info, Kind::Mesh, "users-1@vm1", "", "said");
    journal.writer().flush(WITHIN);
    let told = following.try_recv().map_err(io::Error::other)?;
    assert!(told.text.contains("said"));
    assert!(following.try_recv().is_err());
    Ok(())
}

#[test]
fn the_files_never_take_more_than_they_may() -> io::Result<()> {
    let dir = tempfile::tempdir()?;
    let most = 400_000;
    let config = JournalConfig { max_size: most, ..JournalConfig::in_dir(Some(dir.path().into())) };
    let journal = Journal::open(config)?;
    for _ in 0..2_000 {
        write(&journal, Level::Info, Kind::Output, "users-1@vm1", "", &"x".repeat(900));
        journal.writer().flush(WITHIN);
    }
    // The files are looked after by another thread.
    let began = clock::now();
    loop {
        let total: u64 =
            std::fs::read_dir(dir.path())?.flatten().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        if (100_000..=most).contains(&total) {
            return Ok(());
        }
        assert!(clock::now().duration_since(began) < WITHIN, "{total} bytes");
        std::thread::sleep(Duration::from_millis(10));
    }
}
