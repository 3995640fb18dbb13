//! The output of the process, as the control plane carries it to those who ask.

use std::sync::Arc;

use synego_control_plane::uplink::{LogLevel, OutputLine, OutputSource};
use synego_runtime::tasks::{self, Kind};
use synego_supervise::output::{self, OutputSink};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// Lines that may wait for one who follows; more are dropped, as the output itself counts.
const FOLLOWER_QUEUE: usize = 1024;

/// Kept and new lines of one instance.
pub(crate) struct Output(pub(crate) OutputSink);

impl OutputSource for Output {
    fn recent(&self, lines: usize) -> Vec<OutputLine> {
        self.0.last(lines).iter().map(|line| told(line)).collect()
    }

    fn follow(&self) -> mpsc::Receiver<OutputLine> {
        let (_, mut lines) = self.0.follow(0);
        let (sender, receiver) = mpsc::channel(FOLLOWER_QUEUE);
        tasks::spawn("output-follower", Kind::Connection, async move {
            loop {
                let line = tokio::select! {
                    line = lines.recv() => line,
                    () = sender.closed() => return,
                };
                match line {
                    Ok(line) if sender.send(told(&line)).await.is_err() => return,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        receiver
    }
}

/// A sink for the lines that a service sends over its link instead of printing them.
pub(crate) fn link_sink(sink: OutputSink) -> Arc<dyn Fn(OutputLine) -> bool + Send + Sync> {
    Arc::new(move |line| {
        sink.push(output::OutputLine {
            unix_us: line.unix_us,
            level: match line.level {
                LogLevel::Trace => output::Level::Trace,
                LogLevel::Debug => output::Level::Debug,
                LogLevel::Info => output::Level::Info,
                LogLevel::Warn => output::Level::Warn,
                LogLevel::Error => output::Level::Error,
            },
            message: line.message,
            stderr: line.stderr,
            build: false,
            pid: line.pid,
            request_id: line.request_id,
            trace_id: line.trace_id,
            fields_json: line.fields_json,
        });
        true
    })
}

fn told(line: &output::OutputLine) -> OutputLine {
    OutputLine {
        unix_us: line.unix_us,
        level: match line.level {
            output::Level::Trace => LogLevel::Trace,
            output::Level::Debug => LogLevel::Debug,
            output::Level::Info => LogLevel::Info,
            output::Level::Warn => LogLevel::Warn,
            output::Level::Error => LogLevel::Error,
        },
        message: line.message.clone(),
        stderr: line.stderr,
        pid: line.pid,
        request_id: line.request_id.clone(),
        trace_id: line.trace_id.clone(),
        fields_json: line.fields_json.clone(),
    }
}
