//! What happens to supervised processes when their supervisor is killed: a real parent, really killed.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::common::{eventually, runs};

/// A parent that supervises `script`, and the process ids that the script wrote to `pids`.
async fn parent_of(script: &str, count: usize) -> (Child, Vec<u32>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("dir");
    let parent = Command::new(env!("CARGO_BIN_EXE_synego-supervise-one"))
        .args(["sh", "-c", script])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let file = dir.path().join("pids");
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    eventually("all processes", || read().len() == count).await;
    let pids = read();
    assert!(pids.iter().all(|pid| runs(*pid)));
    (parent, pids, dir)
}

#[tokio::test]
async fn nothing_is_left_when_the_parent_is_killed_also_no_grandchild() {
    let script = "echo $$ >> pids; sh -c 'echo $$ >> pids; trap \"\" TERM HUP; while :; do sleep 0.05; done' & wait";
    let (mut parent, pids, _dir) = parent_of(script, 2).await;
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    eventually("all ended", || pids.iter().all(|pid| !runs(*pid))).await;
}

#[tokio::test]
async fn term_to_the_parent_ends_the_process_and_the_parent_ends_with_its_code() {
    let script = "echo $$ >> pids; trap 'exit 9' TERM; while :; do sleep 0.05; done";
    let (mut parent, pids, _dir) = parent_of(script, 1).await;
    let pid = rustix::process::Pid::from_child(&parent);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    let status = parent.wait().expect("wait");
    assert_eq!(status.code(), Some(9));
    assert!(!runs(pids[0]));
    let log = BufReader::new(parent.stderr.take().expect("stderr")).lines().map_while(Result::ok).collect::<Vec<_>>();
    assert!(log.iter().any(|line| line.contains(r#""message":"process started""#)), "{log:?}");
}

#[tokio::test]
async fn a_second_term_ends_the_parent_at_once_and_its_process_with_it() {
    let script = "echo $$ >> pids; trap '' TERM; while :; do sleep 0.05; done";
    let (mut parent, pids, _dir) = parent_of(script, 1).await;
    let pid = rustix::process::Pid::from_child(&parent);
    let term = || rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
    term();
    let stderr = BufReader::new(parent.stderr.take().expect("stderr"));
    let told = stderr.lines().map_while(Result::ok).any(|line| line.contains(r#""message":"stopping""#));
    assert!(told, "the first TERM was not heard");
    term();
    assert_eq!(parent.wait().expect("wait").code(), Some(143));
    eventually("ended", || !runs(pids[0])).await;
}
