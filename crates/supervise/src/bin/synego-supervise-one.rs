//! The smallest parent: supervises the command it is given until TERM or its end. For the tests of this crate, which
//! kill it to see that nothing is left behind.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use synego_model::{CommandLine, ReadySpec};
use synego_runtime::logs::LineWriter;
use synego_runtime::{HostConfig, usage_error};
use synego_supervise::{OutputSink, ProcessSpec, RestartPolicy, Supervisor};

fn main() -> ExitCode {
    if let Some(code) = synego_supervise::exec::main() {
        return code;
    }
    let mut args = std::env::args().skip(1);
    let Some(program) = args.next() else { return usage_error(&["expected a command"]) };
    let spec = ProcessSpec {
        name: "one".to_owned(),
        command: CommandLine { program, args: args.collect() },
        build: None,
        cwd: std::env::current_dir().unwrap_or_default(),
        env: BTreeMap::new(),
        user_env: BTreeMap::new(),
        env_files: Vec::new(),
        ready: ReadySpec { by: None, within: Duration::from_secs(5) },
        address: None,
        health: None,
        grace: Duration::from_secs(5),
        restart: RestartPolicy::never(),
        run_dir: std::env::temp_dir(),
    };
    synego_runtime::run(HostConfig::new("synego-supervise-one"), |host| async move {
        let output = OutputSink::new("one", "one", LineWriter::discard());
        let (mut supervisor, _state) = Supervisor::start(spec, output, host.stop());
        ExitCode::from(supervisor.ended().await.exit_code())
    })
}
