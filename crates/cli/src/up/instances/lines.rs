//! The output of the instances on its way to the console and the admin API.

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
pub(crate) fn told(line: &synego_supervise::OutputLine) -> pb::OutputLine {
    use synego_supervise::Level;
    pb::OutputLine {
        unix_us: line.unix_us,
        level: match line.level {
            Level::Trace => pb::LogLevel::Trace,
            Level::Debug => pb::LogLevel::Debug,
            Level::Info => pb::LogLevel::Info,
            Level::Warn => pb::LogLevel::Warn,
            Level::Error => pb::LogLevel::Error,
        }
        .into(),
        message: line.message.clone(),
        stderr: line.stderr,
        pid: line.pid,
        request_id: line.request_id.clone(),
        trace_id: line.trace_id.clone(),
        fields_json: line.fields_json.clone(),
    }
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
        request_id: String::new(),
        trace_id: String::new(),
        fields_json: String::new(),
    }
}
