//! Processes that are started to end: jobs, and those that are started again on failure alone.
//!
//! `SYNEGO_JOBS` is the number of short jobs of the test on zombies.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{Run, eventually, sh, spec, start, with_port};
use synego_model::{Reason, RestartWhen};
use synego_supervise::{Phase, ProcessEvent, RestartPolicy, stat};

fn on_failure() -> RestartPolicy {
    let first = Duration::from_millis(5);
    RestartPolicy { when: RestartWhen::OnFailure, first, ..RestartPolicy::default() }
}

#[tokio::test]
async fn a_job_that_ends_with_0_is_done_and_was_never_ready() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = with_port(spec(sh("echo working; sleep 0.3"), dir.path()));
    spec.restart = RestartPolicy::never();
    let mut run = start(spec);
    let mut events = run.supervisor.events();
    let running = run.until("started", |state| state.pid != 0).await;
    assert_eq!(
        (running.phase, running.cause.map(|cause| cause.message)),
        (Phase::Starting, Some("the job runs".into()))
    );
    let exit = run.supervisor.ended().await;
    let state = run.state.borrow().clone();
    assert!(state.is_done() && exit.is_done() && state.restarts == 0, "{state:?}");
    let cause = state.cause.expect("a cause");
    assert_eq!((cause.reason, cause.message.as_str()), (Reason::JobDone, "exit 0"));
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event);
    }
    assert!(!told.iter().any(|event| matches!(event, ProcessEvent::Ready { .. })), "{told:?}");
    assert!(told.iter().any(|event| matches!(event, ProcessEvent::Exited { restart_in: None, .. })), "{told:?}");
}

#[tokio::test]
async fn a_job_that_fails_is_not_started_again_and_says_why() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("echo 'Error: no such table' >&2; exit 3"), dir.path());
    spec.restart = RestartPolicy::never();
    let Run { mut supervisor, state, .. } = start(spec);
    assert_eq!(supervisor.ended().await.exit_code(), 3);
    let state = state.borrow().clone();
    let cause = state.cause.clone().expect("a cause");
    assert_eq!(
        (cause.reason, cause.message.as_str()),
        (Reason::ProcessExited, "exited with code 3: \"Error: no such table\"")
    );
    assert_eq!((state.phase, state.starts, state.is_done()), (Phase::Stopped, 1, false));
    assert_eq!(state.last_lines, ["Error: no such table"]);
}

#[tokio::test]
async fn on_failure_starts_it_again_until_it_ends_with_0() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("echo x >> tries; test $(wc -l < tries) -ge 3"), dir.path());
    spec.restart = on_failure();
    let Run { mut supervisor, state, .. } = start(spec);
    assert!(supervisor.ended().await.is_done());
    let state = state.borrow().clone();
    assert_eq!((state.starts, state.restarts, state.is_done()), (3, 2, true), "{state:?}");
}

#[tokio::test]
async fn what_follows_an_end_can_be_changed_while_it_runs() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(sh("while ! test -e go; do sleep 0.02; done; exit 0"), dir.path()));
    run.ready().await;
    run.supervisor.set_policy(on_failure());
    std::fs::write(dir.path().join("go"), "").expect("write");
    let exit = tokio::time::timeout(crate::common::LONG, run.supervisor.ended()).await.expect("it ends for good");
    assert!(exit.is_done() && run.state.borrow().is_done());
}

#[tokio::test]
async fn many_short_jobs_leave_no_zombie() {
    let count: usize = synego_runtime::config::env("SYNEGO_JOBS").and_then(|text| text.parse().ok()).unwrap_or(40);
    let dir = tempfile::tempdir().expect("dir");
    let mut done = 0;
    while done < count {
        let wave = (count - done).min(20);
        let runs: Vec<Run> = (0..wave)
            .map(|_| {
                let mut spec = spec(sh("echo $$ >> pids; sh -c 'exit 0' & exit 0"), dir.path());
                spec.restart = RestartPolicy::never();
                start(spec)
            })
            .collect();
        for mut run in runs {
            assert!(run.supervisor.ended().await.is_done());
        }
        done += wave;
    }
    let pids = std::fs::read_to_string(dir.path().join("pids")).expect("pids");
    let pids: BTreeSet<u32> = pids.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(pids.len(), count, "each was a process of its own");
    // A number may belong to another process by now, which is not a child of ours.
    let own = std::process::id();
    eventually("no child is left, dead or alive", || {
        !stat::all().any(|found| found.parent == own && pids.contains(&found.pid))
    })
    .await;
    println!("{count} jobs, no zombie");
}
