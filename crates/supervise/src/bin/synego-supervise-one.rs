//! The smallest parent: supervises the command it is given until TERM or its end. For the tests of this crate, which
//! kill it to see that nothing is left behind.

use std::process::ExitCode;

use synego_model::CommandLine;
use synego_runtime::logs::LineWriter;
use synego_runtime::{HostConfig, usage_error};
use synego_supervise::{OutputSink, ProcessSpec, RestartPolicy, Supervisor};

fn main() -> ExitCode {
    if let Some(code) = synego_supervise::exec::main() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    let Some(program) = args.next() else { return usage_error(&["expected a command"]) };
    let command = CommandLine { program, args: args.collect() };
    let (cwd, run_dir) = (std::env::current_dir().unwrap_or_default(), std::env::temp_dir());
    let spec = ProcessSpec { restart: RestartPolicy::never(), ..ProcessSpec::new("one", command, cwd, run_dir) };
    synego_runtime::run(HostConfig::new("synego-supervise-one"), |host| async move {
        let output = OutputSink::new("one", "one", LineWriter::discard());
        let (mut supervisor, _state) = Supervisor::start(spec, output, host.stop());
        ExitCode::from(supervisor.ended().await.exit_code())
    })
}
