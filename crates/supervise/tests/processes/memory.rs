//! Processes that take more than they may, and those that merely crash.
//!
//! `SYNEGO_OOMS` is how often each is tried.

use std::time::Duration;

use crate::common::{command, runs, sh, spec, start};
use rustix::process::{Pid, Signal, kill_process};
use synego_model::{CapSpec, Reason};
use synego_supervise::Phase;

const MIB: u64 = 1 << 20;

/// Takes so many MiB and keeps them.
fn taker(mib: u64) -> String {
    format!(
        "import time\nkept = bytearray({mib} << 20)\nfor i in range(0, len(kept), 4096): kept[i] = 1\nprint('full', flush=True)\ntime.sleep(1000)"
    )
}

fn times() -> u32 {
    synego_runtime::config::env("SYNEGO_OOMS").and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[tokio::test]
async fn too_much_memory_is_told_from_every_other_end() {
    for round in 0..times() {
        let dir = tempfile::tempdir().expect("dir");
        let capped = |words: &[&str]| {
            let mut spec = spec(command(words), dir.path());
            spec.caps = CapSpec { memory: Some(64 * MIB), cpu_milli: None };
            spec
        };
        let ended = |state: &synego_supervise::ProcessState| matches!(state.phase, Phase::Backoff | Phase::CrashLoop);
        let mut run = start(capped(&["python3", "-c", &taker(120)]));
        let state = run.until("over its memory", ended).await;
        let cause = state.cause.expect("a cause");
        assert_eq!(cause.reason, Reason::OutOfMemory, "{round}: {cause:?}");
        assert!(cause.message.contains("may have 64MiB") || cause.message.contains("by the kernel"), "{cause:?}");
        run.until("started again", |state| state.restarts == 1 && state.pid != 0).await;
        run.supervisor.stop(Duration::ZERO).await;

        for script in ["exit 3", "kill -SEGV $$", "kill -KILL $$", "kill -ABRT $$"] {
            let mut run = start(capped(&["sh", "-c", script]));
            let cause = run.until("ended", ended).await.cause.expect("a cause");
            assert_eq!(cause.reason, Reason::ProcessExited, "{round}: {script}: {cause:?}");
            run.supervisor.stop(Duration::ZERO).await;
        }
        let mut run = start(capped(&["python3", "-c", &taker(8)]));
        let pid = run.ready().await.pid;
        run.line("full").await;
        kill_process(Pid::from_raw(pid as i32).expect("a pid"), Signal::KILL).expect("kill");
        let cause = run.until("killed", ended).await.cause.expect("a cause");
        assert_eq!(cause.reason, Reason::ProcessExited, "{round}: killed by hand: {cause:?}");
        run.supervisor.stop(Duration::ZERO).await;
    }
    println!("{0} of {0} told from 5 other ends each", times());
}

#[tokio::test]
async fn what_children_have_counts_also_of_those_that_left_the_group() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("taker.py"), taker(120)).expect("write");
    let mut spec = spec(sh("setsid python3 taker.py & sleep 1000"), dir.path());
    spec.caps = CapSpec { memory: Some(64 * MIB), cpu_milli: None };
    let mut run = start(spec);
    let first = run.ready().await.pid;
    let state = run.until("over its memory", |state| state.phase == Phase::Backoff).await;
    assert_eq!(state.cause.map(|cause| cause.reason), Some(Reason::OutOfMemory));
    assert!(!runs(first));
    run.supervisor.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_process_says_how_it_is_held_and_a_share_of_a_core_is_at_least_a_lower_priority() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("exec sleep 1000"), dir.path());
    spec.caps = CapSpec { memory: Some(64 * MIB), cpu_milli: Some(500) };
    let mut run = start(spec);
    let state = run.ready().await;
    assert!(state.caps.starts_with("memory 64MiB ") && state.caps.contains("cpu 0.5 by its "), "{}", state.caps);
    if state.caps.contains("by its priority") {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", state.pid)).expect("stat");
        let nice = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(16)).map(str::to_owned);
        assert_eq!(nice.as_deref(), Some("3"), "{stat}");
    }
    run.supervisor.stop(Duration::from_secs(5)).await;
}
