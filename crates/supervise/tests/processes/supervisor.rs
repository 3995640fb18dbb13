//! Supervision of real processes: restart, end, readiness, builds.

use std::time::Duration;

use crate::common::{Run, command, eventually, runs, sh, spec, start, with_port};
use rustix::process::{Pid, Signal, kill_process};
use synego_model::process::ReadyBy;
use synego_model::{HealthSpec, Probe, ReadySpec, Reason};
use synego_supervise::{Phase, ProcessEvent, RestartPolicy};

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a pid"), signal).expect("kill");
}

fn ready_by(by: ReadyBy) -> ReadySpec {
    ReadySpec { by: Some(by), within: crate::common::LONG }
}

#[tokio::test]
async fn a_killed_process_is_started_again_and_says_why_it_was_not_there() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(sh("exec sleep 1000"), dir.path()));
    let first = run.ready().await;
    kill(first.pid, Signal::KILL);
    let between = run.until("in back-off", |state| state.phase == Phase::Backoff).await;
    let cause = between.cause.expect("a cause");
    assert_eq!((cause.reason, cause.message.as_str()), (Reason::ProcessExited, "ended by signal KILL"));
    let second = run.until("ready again", |state| state.phase == Phase::Ready && state.restarts == 1).await;
    assert!(second.pid != first.pid && runs(second.pid));
    let notes = run.messages();
    assert!(notes[0].starts_with("ended by signal KILL; starts again in "), "{notes:?}");
    let exit = run.supervisor.stop(Duration::from_secs(5)).await;
    assert_eq!((exit.signal, exit.killed), (Some(15), false));
    assert!(!runs(second.pid));
}

#[tokio::test]
async fn the_fifth_crash_is_a_crash_loop_with_the_line_that_says_why_and_it_goes_on() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("echo warming up; echo 'Error: no database' >&2; exit 3"), dir.path());
    spec.restart = RestartPolicy { first: Duration::from_millis(5), ..RestartPolicy::default() };
    let mut run = start(spec);
    let mut events = run.supervisor.events();
    let state = run.until("in a crash loop", |state| state.phase == Phase::CrashLoop).await;
    let cause = state.cause.expect("a cause");
    assert_eq!(cause.reason, Reason::CrashLoop);
    assert_eq!(cause.message, "exited with code 3, 5 times: \"Error: no database\"");
    run.until("started again", |state| state.restarts > 5).await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert!(seen.contains(&ProcessEvent::CrashLoop));
    assert!(seen.iter().any(|event| matches!(event, ProcessEvent::Exited { exit, last_lines, .. }
        if exit.code == Some(3) && last_lines.contains(&"warming up".to_owned()))));
    run.supervisor.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_process_that_ignores_term_is_killed_once_its_grace_is_over() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(sh("trap 'echo heard' TERM; echo up; while :; do sleep 0.05; done"), dir.path()));
    let pid = run.ready().await.pid;
    run.line("up").await;
    let output = run.output.clone();
    let began = synego_runtime::clock::now();
    let exit = run.supervisor.stop(Duration::from_millis(400)).await;
    let took = synego_runtime::clock::now().duration_since(began);
    assert!(exit.killed && exit.signal == Some(9), "{exit:?}");
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(4), "{took:?}");
    assert!(output.last(10).iter().any(|line| line.message == "heard"));
    assert!(!runs(pid));
}

#[tokio::test]
async fn grandchildren_end_with_the_group_also_those_that_ignore_term() {
    let dir = tempfile::tempdir().expect("dir");
    let script =
        "sh -c 'trap \"\" TERM; echo child $$; while :; do sleep 0.05; done' & sleep 1000 & echo child $!; wait";
    let mut run = start(spec(sh(script), dir.path()));
    run.ready().await;
    eventually("two children", || run.messages().iter().filter(|line| line.starts_with("child ")).count() == 2).await;
    let children: Vec<u32> =
        run.messages().iter().filter_map(|line| line.strip_prefix("child ")?.parse().ok()).collect();
    assert!(children.iter().all(|pid| runs(*pid)));
    let exit = run.supervisor.stop(Duration::from_millis(300)).await;
    assert!(exit.killed);
    assert!(children.iter().all(|pid| !runs(*pid)), "{children:?}");
}

#[tokio::test]
async fn what_a_crashed_leader_leaves_of_its_group_is_gone_before_the_next_start() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(sh("sleep 1000 & echo child $!; wait"), dir.path()));
    let first = run.ready().await;
    let child: u32 = run.line("child ").await.parse().expect("a pid");
    kill(first.pid, Signal::KILL);
    run.until("started again", |state| state.restarts == 1 && state.pid != 0).await;
    assert!(!runs(child));
    run.supervisor.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_process_stopped_by_a_signal_is_paused_until_it_goes_on_and_still_hears_term() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(command(&["sleep", "1000"]), dir.path()));
    let pid = run.ready().await.pid;
    kill(pid, Signal::STOP);
    let paused = run.until("paused", |state| state.phase == Phase::Paused).await;
    assert_eq!(paused.cause.map(|cause| cause.reason), Some(Reason::ProcessStopped));
    kill(pid, Signal::CONT);
    let state = run.until("ready again", |state| state.phase == Phase::Ready).await;
    assert_eq!(state.cause, None);
    kill(pid, Signal::STOP);
    run.until("paused again", |state| state.phase == Phase::Paused).await;
    let exit = run.supervisor.stop(Duration::from_secs(10)).await;
    assert_eq!((exit.signal, exit.killed), (Some(15), false));
}

#[tokio::test]
async fn ready_is_the_open_port() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "const s=require('net').createServer();setTimeout(()=>s.listen(process.env.PORT,'127.0.0.1'),150)";
    let mut run = start(with_port(spec(command(&["node", "-e", script]), dir.path())));
    let starting = run.until("started", |state| state.pid != 0).await;
    assert_eq!(starting.phase, Phase::Starting);
    run.ready().await;
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn ready_is_a_line_of_the_output() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("echo 'not listening yet'; sleep 0.2; echo 'listening on 1234'; sleep 1000"), dir.path());
    spec.ready = ready_by(ReadyBy::Log("^listening".to_owned()));
    let mut run = start(spec);
    run.ready().await;
    assert!(run.messages().contains(&"listening on 1234".to_owned()));
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn ready_is_what_the_process_says_on_its_notify_socket() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "import os,socket,time\n\
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\n\
        say=lambda t: s.sendto(t.encode(),os.environ['NOTIFY_SOCKET'])\n\
        say('STATUS=warming up')\n\
        time.sleep(0.2)\n\
        say('STATUS=serving\\nREADY=1')\n\
        time.sleep(0.2)\n\
        say('STOPPING=1')\n\
        time.sleep(1000)";
    let mut spec = spec(command(&["python3", "-c", script]), dir.path());
    spec.ready = ready_by(ReadyBy::Notify);
    let mut run = start(spec);
    let warming = run.until("warming up", |state| state.status == "warming up").await;
    assert_eq!(warming.phase, Phase::Starting);
    run.ready().await;
    run.until("serving", |state| state.status == "serving").await;
    let ending = run.until("ending by itself", |state| state.phase == Phase::Stopping).await;
    assert_eq!(ending.cause.map(|cause| cause.reason), Some(Reason::SaidByService));
    run.supervisor.stop(Duration::from_secs(5)).await;
    assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0, "the notify socket is left");
}

#[tokio::test]
async fn ready_is_the_health_probe_where_nothing_else_is_said() {
    let dir = tempfile::tempdir().expect("dir");
    let script = "const began=Date.now();require('http').createServer((q,r)=>{\
        r.statusCode=q.url==='/healthz'&&Date.now()-began>300?204:503;r.end()}).listen(process.env.PORT,'127.0.0.1')";
    let mut spec = with_port(spec(command(&["node", "-e", script]), dir.path()));
    spec.health = Some(HealthSpec::of(Probe::Http("/healthz".to_owned())));
    let mut run = start(spec);
    let mut events = run.supervisor.events();
    run.ready().await;
    let after = loop {
        if let ProcessEvent::Ready { after } = events.recv().await.expect("event") {
            break after;
        }
    };
    assert!(after >= Duration::from_millis(300), "{after:?}");
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_process_that_is_not_ready_in_time_is_ended_and_the_cause_says_what_is_missing() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = with_port(spec(sh("exec sleep 1000"), dir.path()));
    spec.ready.within = Duration::from_millis(300);
    let address = spec.address.clone().expect("an address");
    let mut run = start(spec);
    let pid = run.until("started", |state| state.pid != 0).await.pid;
    let state = run.until("given up", |state| state.phase == Phase::Backoff).await;
    let cause = state.cause.expect("a cause");
    assert_eq!(cause.reason, Reason::NotReadyInTime);
    assert_eq!(cause.message, format!("not ready after 300ms: nothing listens on {address}"));
    assert!(!runs(pid));
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_process_that_listens_elsewhere_than_it_was_told_is_told_where() {
    let dir = tempfile::tempdir().expect("dir");
    let other = synego_supervise::free_port().expect("a port");
    let script = format!("require('net').createServer().listen({other},'127.0.0.1',()=>console.log('up'))");
    // A child of the shell listens: the whole group counts.
    let mut spec = with_port(spec(sh(&format!("node -e \"{script}\"; true")), dir.path()));
    spec.ready.within = Duration::from_secs(2);
    let mut run = start(spec);
    let state = run.until("given up", |state| state.phase == Phase::Backoff).await;
    let message = state.cause.expect("a cause").message;
    assert!(message.ends_with(&format!("; the process listens on 127.0.0.1:{other}")), "{message}");
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_failed_build_starts_nothing_and_its_cause_shows_why() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("echo started; sleep 1000"), dir.path());
    spec.build = Some(sh("echo compiling; echo 'main.go:7: syntax error' >&2; exit 2"));
    let mut run = start(spec);
    let state = run.until("failed", |state| state.phase == Phase::Backoff).await;
    let cause = state.cause.expect("a cause");
    assert_eq!(cause.reason, Reason::BuildFailed);
    assert!(cause.message.ends_with("exited with code 2: \"main.go:7: syntax error\""), "{}", cause.message);
    assert_eq!(state.pid, 0);
    assert_eq!(run.output.last(10).iter().filter(|line| line.build).count(), 2);
    assert!(!run.messages().contains(&"started".to_owned()));
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn two_instances_share_one_build_and_a_crash_builds_nothing_anew() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("test -f built && exec sleep 1000"), dir.path());
    spec.build = Some(sh("echo x >> builds; sleep 0.2; touch built"));
    let (mut one, mut two) = (start(spec.clone()), start(spec));
    one.ready().await;
    two.ready().await;
    let builds = || std::fs::read_to_string(dir.path().join("builds")).map(|text| text.lines().count()).unwrap_or(0);
    assert_eq!(builds(), 1);
    let pid = one.state.borrow().pid;
    kill(pid, Signal::KILL);
    one.until("started again", |state| state.restarts == 1 && state.phase == Phase::Ready).await;
    assert_eq!(builds(), 1);
    one.supervisor.stop(Duration::from_secs(5)).await;
    two.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_restart_is_gentle_needs_no_wait_and_starts_what_is_wanted_now() {
    let dir = tempfile::tempdir().expect("dir");
    let of = |words: &str| {
        spec(sh(&format!("trap 'echo bye; exit 0' TERM; echo {words}; while :; do sleep 0.02; done")), dir.path())
    };
    let mut run = start(of("up"));
    let first = run.ready().await.pid;
    run.line("up").await;
    run.supervisor.restart(Duration::from_secs(5), of("another"));
    let second = run.until("restarted", |state| state.phase == Phase::Ready && state.pid != first).await;
    run.line("another").await;
    assert_eq!((second.starts, second.restarts), (2, 0));
    assert!(run.messages().contains(&"bye".to_owned()));
    assert!(!runs(first));
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_process_on_trial_ends_with_its_first_failure_and_one_that_was_adopted_does_not() {
    let dir = tempfile::tempdir().expect("dir");
    let mut broken = spec(sh("echo 'Error: no' >&2; exit 3"), dir.path());
    broken.trial = true;
    let Run { mut supervisor, state, .. } = start(broken);
    assert_eq!(supervisor.ended().await.code, Some(3));
    let last = state.borrow().clone();
    assert_eq!((last.phase, last.starts, last.restarts), (Phase::Stopped, 1, 0));
    assert_eq!(last.last_lines, ["Error: no"]);
    assert!(last.cause.is_some_and(|cause| cause.message == "exited with code 3: \"Error: no\""));

    let mut well = spec(sh("exec sleep 1000"), dir.path());
    (well.trial, well.restarts) = (true, 7);
    let mut run = start(well);
    let first = run.ready().await;
    run.supervisor.adopt();
    kill(first.pid, Signal::KILL);
    run.until("started again", |state| state.restarts == 8 && state.phase == Phase::Ready).await;
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_start_that_failed() {
    let dir = tempfile::tempdir().expect("dir");
    let mut run = start(spec(command(&["frobnicate", "--now"]), dir.path()));
    let state = run.until("failed", |state| state.phase == Phase::Backoff).await;
    let cause = state.cause.expect("a cause");
    assert_eq!(cause.reason, Reason::StartFailed);
    assert_eq!(cause.message, "cannot start `frobnicate`: no such program in PATH");
    run.supervisor.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_port_that_another_process_holds_is_named_instead_of_taken_for_ours() {
    let dir = tempfile::tempdir().expect("dir");
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = other.local_addr().expect("address");
    let mut spec = spec(sh("exec sleep 1000"), dir.path());
    spec.address = Some(synego_model::process::ServiceAddress::Tcp(address));
    let mut run = start(spec);
    let state = run.until("failed", |state| state.phase == Phase::Backoff).await;
    let cause = state.cause.expect("a cause");
    assert_eq!(cause.message, format!("another process listens on {address} already"));
    run.supervisor.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn without_restarts_the_end_of_the_process_is_the_end() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("exit 7"), dir.path());
    spec.restart = RestartPolicy::never();
    let Run { mut supervisor, state, .. } = start(spec);
    let exit = supervisor.ended().await;
    assert_eq!(exit.exit_code(), 7);
    assert_eq!(state.borrow().phase, Phase::Stopped);
}

#[tokio::test]
async fn the_cut_kills_at_once_and_a_dropped_supervisor_ends_its_process() {
    let dir = tempfile::tempdir().expect("dir");
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut run = start(spec(sh(deaf), dir.path()));
    let pid = run.ready().await.pid;
    run.line("up").await;
    run.stopper.cut();
    assert!(run.supervisor.ended().await.killed);
    assert!(!runs(pid));
    let mut run = start(spec(sh("exec sleep 1000"), dir.path()));
    let pid = run.ready().await.pid;
    drop(run.supervisor);
    eventually("ended", || !runs(pid)).await;
}

#[tokio::test]
async fn ours_win_over_the_users_variables_and_those_over_files_and_the_inherited() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join(".env"), "A=file\nB=file\nC=file\n").expect("write");
    let mut spec = spec(sh("echo \"is $A $B $C $HOME_OF_TEST ${NOTIFY_SOCKET:-none}\"; exec sleep 1000"), dir.path());
    spec.env_files = vec![dir.path().join(".env")];
    spec.user_env = [("B", "user"), ("C", "user")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    spec.env = [("C".to_owned(), "ours".to_owned())].into();
    let run = start(spec);
    assert_eq!(run.line("is ").await, "file user ours  none");
    run.supervisor.stop(Duration::from_secs(5)).await;
}
