//! The output of the instances on its way to the console.

use synego_runtime::tasks::{self, Kind};
use synego_supervise::OutputSink;
use synego_wire::pb;
use tokio::sync::mpsc;

use crate::up::console::Line;

/// Shows what an instance prints.
pub(super) fn show(sink: &OutputSink, instance: String, lines: mpsc::Sender<Line>) {
    let (_, mut following) = sink.follow(0);
    tasks::spawn("show-output", Kind::Connection, async move {
        loop {
            match following.recv().await {
                Ok(line) => {
                    let line = Line { instance: short(&instance).to_owned(), build: line.build, line: told(&line) };
                    if lines.send(line).await.is_err() {
                        return;
                    }
                }
                // The terminal is slower than the service: what was missed is in the file.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}

/// On one machine the part before the `@` says it all.
fn short(instance: &str) -> &str {
    instance.split('@').next().unwrap_or(instance)
}

/// A line as the admin API has it.
fn told(line: &synego_supervise::OutputLine) -> pb::OutputLine {
    synego_sidecar::told(line).into()
}

/// What we say ourselves among the lines of a process.
pub(super) fn own_line(message: String) -> synego_supervise::OutputLine {
    synego_supervise::OutputLine {
        unix_us: synego_runtime::clock::unix_us(),
        level: synego_supervise::Level::Error,
        message,
        stderr: true,
        build: false,
        pid: 0,
        thread: String::new(),
        request_id: String::new(),
        trace_id: String::new(),
        fields_json: String::new(),
    }
}
