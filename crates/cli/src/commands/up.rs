//! `synego up` (`synego start`): master, sidecars, services and Nginx of this machine, from one manifest.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::ArgValueCompleter;
use synego_manifest::Manifest;
use synego_runtime::HostConfig;
use synego_runtime::logs::{Format, LogConfig, To};

use crate::complete;
use crate::context::Context;
use crate::failure::{FAILED, Failure};
use crate::manifest;
use crate::up::{assembly, detach};

const EXAMPLES: &str = "\
Examples:
  synego up                       run all of it; Ctrl-C drains and ends
  synego up -d                    in the background; returns when all is ready
  synego up --only users          one service and what comes with it
  synego up --join vm1:3001 --token-file t
                                  this machine's services join the mesh of vm1";

/// Run this machine's part of the mesh: master, sidecars, services and Nginx
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// In the background; returns 0 when all is ready, 1 with each cause when something is not
    #[arg(short, long)]
    detach: bool,
    /// Join the mesh of this master (its mesh address) instead of running one
    #[arg(long, value_name = "ADDR")]
    join: Vec<String>,
    /// File of the join token, for the first time; - reads it from stdin
    #[arg(long, env = "SYNEGO_TOKEN_FILE", hide_env = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// Only these services
    #[arg(long, value_name = "SERVICE", add = ArgValueCompleter::new(complete::services))]
    only: Vec<String>,
    /// Leave out `build`
    #[arg(long)]
    no_build: bool,
    /// The background half of `--detach`
    #[arg(long, hide = true)]
    in_background: bool,
}

/// Runs it.
pub(crate) fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let outcome = manifest::told(context, manifest::read(context)?, "nothing was started")?;
    let files = outcome.files.iter().map(|file| file.path.clone()).collect();
    let folder = context.folder()?;
    let manifest = outcome.manifest.unwrap_or_else(|| Manifest::defaults(&folder));
    if args.in_background {
        // A session of its own: the terminal that started it may close.
        let _ = rustix::process::setsid();
    }
    let token_file = args.token_file.or_else(|| manifest.identity.token_file.clone());
    let join = if args.join.is_empty() { manifest.masters.join.clone() } else { args.join };
    if args.detach && !args.in_background {
        return detach::run(context, &manifest, &args.only, !join.is_empty());
    }
    let logs = logs(&manifest);
    let wanted = assembly::Wanted {
        manifest,
        files,
        only: args.only,
        no_build: args.no_build,
        join,
        token_file,
        background: args.in_background,
    };
    let host = HostConfig { logs, ..HostConfig::new("synego") };
    let code = synego_runtime::run(host, |host| assembly::run(context, wanted, host));
    Ok(number(code))
}

/// Our own log: a file, since the terminal belongs to the services and the board.
fn logs(manifest: &Manifest) -> LogConfig {
    let logs = &manifest.logs;
    LogConfig {
        format: match logs.format {
            synego_manifest::LogFormat::Json => Format::Json,
            synego_manifest::LogFormat::Text => Format::Text,
        },
        level: logs.level.word().to_owned(),
        to: To::Dir { dir: logs.dir.clone(), name: "synego".to_owned() },
        keep: logs.keep,
        max_size: logs.max_size,
    }
}

/// The number of an exit code, which the standard library keeps to itself.
fn number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(FAILED)
}
