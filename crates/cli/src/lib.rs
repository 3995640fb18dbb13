//! `synego`, the person's tool: `up` assembles a mesh on this machine, all else speaks the admin API or works offline.
//!
//! A call's path: [`main`] reads the arguments, makes a `Context` (streams, clock, environment) and hands both to the
//! command's own module; the command returns an exit code or a `Failure`, which is shown as error, cause and help.
//!
//! **Invariants.** stdout is the result, stderr is all else; JSON is one object. No command reads the clock, the
//! environment or a stream but through the `Context`. Deliberately absent: knowledge of what a running master decides.

mod args;
mod client;
mod commands;
mod complete;
mod context;
mod credentials;
mod failure;
mod manifest;
mod mesh;
mod misuse;
mod output;
mod runner;
mod secret_file;
mod up;
mod version;
mod view;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::args::Args;
use crate::context::Context;

/// Runs the command of this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(code) = synego_supervise::exec::main().or_else(synego_runtime::keeper::main) {
        return code;
    }
    clap_complete::CompleteEnv::with_factory(command).complete();
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return misuse::tell(&error),
    };
    let args = match Args::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => return misuse::tell(&error),
    };
    let context = Context::new(args.globals);
    match commands::run(args.command, &context) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            // Whoever pressed Ctrl-C knows.
            if failure.code != failure::INTERRUPTED {
                context.screen.complain(&failure.render(context.screen.err));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The tree of commands, for completions, man pages and the reference page.
#[must_use]
pub fn command() -> clap::Command {
    Args::command()
}
