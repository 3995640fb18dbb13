//! What happens to supervised processes when their supervisor is killed: a real parent, really killed.
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::common::{eventually, runs};
use synego_supervise::stat;

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

/// Writes its process id, forks a child that leaves group, session and parent, and goes on.
const DAEMON: &str = "
import os, sys, time
def note(): open('pids', 'a').write(str(os.getpid()) + '\\n')
note()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        note()
        if 'bare' in sys.argv: time.sleep(1); os.execve('/bin/sleep', ['sleep', '1000'], {})
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
";

fn daemon(more: &str) -> String {
    format!("cat > daemon.py <<'END'\n{DAEMON}\nEND\nexec python3 daemon.py {more}")
}

#[tokio::test]
async fn a_daemon_that_left_group_and_parent_ends_when_the_parent_is_killed() {
    let (mut parent, pids, _dir) = parent_of(&daemon(""), 2).await;
    assert_ne!(stat::of(pids[1]).expect("the daemon").group, pids[0], "it left the group");
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    eventually("all ended", || pids.iter().all(|pid| !runs(*pid))).await;
}

#[tokio::test]
async fn a_daemon_that_also_dropped_its_variables_ends_when_it_was_seen_before() {
    let (mut parent, pids, _dir) = parent_of(&daemon("bare"), 2).await;
    let is_bare = |pid: u32| std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|block| block.is_empty());
    eventually("it has dropped its variables", || is_bare(pids[1])).await;
    parent.kill().expect("kill");
    parent.wait().expect("wait");
    eventually("all ended", || pids.iter().all(|pid| !runs(*pid))).await;
}

#[tokio::test]
async fn a_daemon_ends_with_its_service_and_leaves_no_zombie() {
    let (mut parent, pids, _dir) = parent_of(&daemon(""), 2).await;
    eventually("the daemon became a child of the parent", || {
        stat::of(pids[1]).is_some_and(|found| found.parent == parent.id())
    })
    .await;
    let id = rustix::process::Pid::from_child(&parent);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("kill");
    parent.wait().expect("wait");
    assert!(pids.iter().all(|pid| !runs(*pid)), "{pids:?}");
}

#[tokio::test]
async fn a_dead_process_that_became_a_child_of_the_parent_is_collected() {
    let script = "echo $$ >> pids; (setsid sh -c 'echo $$ >> pids; sleep 0.2' &) ; sleep 1000";
    let (mut parent, pids, _dir) = parent_of(script, 2).await;
    eventually("it is gone, not only dead", || stat::of(pids[1]).is_none()).await;
    parent.kill().expect("kill");
    parent.wait().expect("wait");
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
