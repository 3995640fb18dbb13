//! A probe by a command: code 0 is well.

use std::time::Duration;

use synego_model::CommandLine;
use synego_runtime::logs::LineWriter;

use super::ProbeContext;
use crate::capture::Capture;
use crate::launch::{Start, launch};
use crate::output::OutputSink;

/// Runs it to its end; when the future is dropped (its time is over) the whole group is killed.
pub(super) async fn run(command: &CommandLine, context: &ProbeContext) -> Result<(), String> {
    let start = Start { command, cwd: &context.cwd, env: &context.env, run_as: &context.run_as };
    let (mut leader, pipes) = launch(start).await?;
    // Its output explains a failure and belongs to nobody's log.
    let output = OutputSink::new(context.service.as_str(), "probe", LineWriter::discard());
    let capture = Capture::begin(pipes, leader.pid(), false, &output, None);
    let exit = leader.exited().await;
    leader.sweep(Duration::ZERO).await;
    let last = capture.finish(Duration::from_millis(100)).await;
    if exit.code == Some(0) { Ok(()) } else { Err(format!("`{command}` {exit}{}", last.reason())) }
}
