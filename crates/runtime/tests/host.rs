//! The frame of a program, in a process of its own: this test program starts itself again as that program.
#![expect(clippy::expect_used, reason = "a failed test panics")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use synego_runtime::logs::{self, Journal, JournalConfig, To};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Host, HostConfig, config};

/// What the started program does.
const PART: &str = "SYNEGO_TEST_PART";

/// The program itself; as a test of this process it does nothing.
#[test]
fn program() {
    let Some(part) = config::env(PART) else { return };
    let mut host = HostConfig::new("synego-test");
    if let Some(dir) = part.strip_prefix("log ") {
        let journal = Journal::open(JournalConfig::in_dir(Some(dir.into()))).expect("a journal");
        logs::keep_in(&journal, "mesh", "test");
        host.logs.to = To::Discard;
    }
    let code = synego_runtime::run(host, |host| async move { act(&part, host).await });
    eprintln!("code {code:?}");
}

async fn act(part: &str, host: Host) -> ExitCode {
    let mut hangups = host.hangups();
    tracing::info!(port = 7, "up");
    match part {
        "critical" => {
            tasks::spawn("heart", Kind::Critical, async { panic!("broken heart") });
        }
        "connection" => {
            let one = tasks::spawn("one", Kind::Connection, async { panic!("one of many") });
            assert!(one.await.is_err());
            host.stopper().stop();
        }
        "hangup" => {
            hangups.changed().await.expect("the host");
            tracing::info!("read again");
        }
        "level" => {
            tracing::debug!("unheard");
            host.logs().set_level("debug").expect("a level");
            assert!(host.logs().set_level("loud").is_err());
            tracing::debug!("heard");
            host.stopper().stop();
        }
        "panic" => panic!("in the assembly"),
        _ => {}
    }
    host.stop().stopped().await;
    ExitCode::SUCCESS
}

fn start(part: &str) -> (Child, BufReader<ChildStderr>) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "program", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let log = BufReader::new(child.stderr.take().expect("stderr"));
    (child, log)
}

fn until(log: &mut BufReader<ChildStderr>, part: &str) -> String {
    let mut line = String::new();
    while !line.contains(part) {
        line.clear();
        assert!(log.read_line(&mut line).expect("read") > 0, "the program ended without `{part}`");
    }
    line
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("kill");
}

fn rest(mut child: Child, mut log: BufReader<ChildStderr>) -> String {
    let mut rest = String::new();
    log.read_to_string(&mut rest).expect("read");
    child.wait().expect("an end");
    rest
}

#[test]
fn term_stops_and_the_program_ends_with_its_own_code() {
    let (child, mut log) = start("wait");
    let line = until(&mut log, r#""message":"up""#);
    assert!(line.contains(r#""level":"info","kind":"mesh","pid":"#), "{line}");
    assert!(line.contains(r#""message":"up","fields":{"target":"host","port":7}}"#), "{line}");
    signal(&child, Signal::TERM);
    let rest = rest(child, log);
    assert!(
        rest.contains(r#""message":"stopping","fields":{"target":"synego_runtime::host","signal":"TERM"}"#)
            && rest.contains("status(0)"),
        "{rest}"
    );
}

#[test]
fn a_critical_task_that_panics_stops_the_program_with_70() {
    let (child, log) = start("critical");
    let rest = rest(child, log);
    assert!(
        rest.contains(r#""message":"task panicked""#)
            && rest.contains(r#""task":"heart","kind":"Critical","cause":"broken heart""#),
        "{rest}"
    );
    assert!(rest.contains(r#""message":"panicked","fields":"#) && rest.contains("status(70)"), "{rest}");
}

#[test]
fn a_panic_of_the_assembly_is_written_down_before_the_end() {
    let (child, log) = start("panic");
    let rest = rest(child, log);
    assert!(rest.contains(r#""cause":"in the assembly""#) && rest.contains("status(70)"), "{rest}");
}

#[test]
fn a_connection_that_panics_harms_nobody_else() {
    let (child, log) = start("connection");
    let rest = rest(child, log);
    assert!(rest.contains("one of many") && rest.contains("status(0)"), "{rest}");
}

#[test]
fn a_hangup_is_told_and_ends_nothing() {
    let (child, mut log) = start("hangup");
    until(&mut log, r#""message":"up""#);
    signal(&child, Signal::HUP);
    until(&mut log, r#""message":"read again""#);
    signal(&child, Signal::INT);
    assert!(rest(child, log).contains("status(0)"));
}

#[test]
fn the_level_changes_while_the_program_runs() {
    let (child, log) = start("level");
    let rest = rest(child, log);
    assert!(rest.contains("\"heard\"") && !rest.contains("unheard"), "{rest}");
}

#[test]
fn a_limit_on_the_size_of_files_costs_lines_and_not_the_program() {
    let dir = tempfile::tempdir().expect("dir");
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -f 0; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "program", "--nocapture", "--test-threads=1"])
        .env(PART, format!("log {}", dir.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let file = || std::fs::read_dir(dir.path()).expect("dir").flatten().next().is_some();
    wait_for("the file that takes nothing", file);
    signal(&child, Signal::TERM);
    let log = BufReader::new(child.stderr.take().expect("stderr"));
    assert!(rest(child, log).contains("status(0)"));
}

#[test]
fn usr1_opens_the_log_anew_where_another_program_moved_it() {
    let dir = tempfile::tempdir().expect("dir");
    let (child, log) = start(&format!("log {}", dir.path().display()));
    let files =
        || -> Vec<_> { std::fs::read_dir(dir.path()).expect("dir").flatten().map(|entry| entry.path()).collect() };
    let text = || files().first().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    wait_for("the first line", || text().contains(r#""message":"up""#));
    let file = files().remove(0);
    std::fs::remove_file(&file).expect("remove");
    signal(&child, Signal::USR1);
    wait_for("a new file", || text().contains("logs opened anew"));
    signal(&child, Signal::TERM);
    assert!(rest(child, log).contains("status(0)"));
    assert!(text().contains(r#""message":"stopping""#), "the last lines are lost");
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never {what}");
}
