//! Output of real processes, as awkward as they come.

use std::time::Duration;

use crate::common::{command, sh, spec, start};
use synego_supervise::{Level, RestartPolicy};

#[tokio::test]
async fn whatever_a_process_prints_becomes_bounded_lines() {
    let dir = tempfile::tempdir().expect("dir");
    let script = r#"
import sys, os
w = lambda b: os.write(1, b)
w(b'plain\n\n   \n')
w(b'{"level":"error","msg":"no stock","request_id":"r-1","trace_id":"t-1","sku":"A7"}\n')
w(b'\xff\xfe bad bytes\n')
w(b'y' * 300000 + b'\n')
w(b'\x1b[32mgreen\x1b[0m\r\n')
os.write(2, b'on stderr\n')
w(b'no end of line')
"#;
    let mut spec = spec(command(&["python3", "-c", script]), dir.path());
    spec.restart = RestartPolicy::never();
    let mut run = start(spec);
    run.supervisor.ended().await;
    let lines = run.output.last(100);
    let find = |begin: &str| {
        lines.iter().find(|line| line.message.starts_with(begin)).unwrap_or_else(|| panic!("no {begin}: {lines:?}"))
    };
    assert_eq!(lines.len(), 7);
    assert_eq!(find("plain").level, Level::Info);
    let structured = find("no stock");
    assert_eq!((structured.level, structured.request_id.as_str()), (Level::Error, "r-1"));
    assert_eq!((structured.trace_id.as_str(), structured.fields_json.as_str()), ("t-1", r#"{"sku":"A7"}"#));
    find("\u{fffd}\u{fffd} bad bytes");
    assert!(find("yyy").message.len() <= 4096);
    assert_eq!(find("green").message, "green");
    assert!(find("on stderr").stderr);
    find("no end of line");
    assert!(lines.iter().all(|line| line.pid == lines[0].pid && line.unix_us > 0));
}

#[tokio::test]
async fn a_flood_of_output_never_stops_the_process_nor_grows_without_bound() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("yes 0123456789012345678901234567890123456789 | head -n 200000; echo done"), dir.path());
    spec.restart = RestartPolicy::never();
    let mut run = start(spec);
    let exit = tokio::time::timeout(crate::common::LONG, run.supervisor.ended()).await.expect("ended");
    assert_eq!(exit.code, Some(0));
    let lines = run.output.last(usize::MAX);
    assert_eq!(lines.len(), 10_000);
    assert_eq!(lines.last().map(|line| line.message.as_str()), Some("done"));
}

#[tokio::test]
async fn a_child_that_keeps_the_pipes_open_does_not_hide_the_end() {
    let dir = tempfile::tempdir().expect("dir");
    let mut spec = spec(sh("setsid sleep 5 & echo child $!; exit 4"), dir.path());
    spec.restart = RestartPolicy::never();
    let mut run = start(spec);
    let exit = tokio::time::timeout(Duration::from_secs(4), run.supervisor.ended()).await.expect("ended");
    assert_eq!(exit.code, Some(4));
}
