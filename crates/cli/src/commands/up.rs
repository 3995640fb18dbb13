//! `synego up` (`synego start`): master, sidecars, services and Nginx of this machine, from one manifest.

use std::path::PathBuf;
use std::process::ExitCode;

use clap_complete::ArgValueCompleter;
use synego_manifest::Manifest;
use synego_runtime::logs::{self, Journal, JournalConfig, LogConfig, To};
use synego_runtime::{HostConfig, keeper};

use crate::complete;
use crate::context::Context;
use crate::failure::{FAILED, Failure};
use crate::manifest;
use crate::up::{assembly, detach, handover};

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
    if args.in_background && !keeper::is_linked() {
        // A session of its own: the terminal that started it may close.
        let _ = rustix::process::setsid();
    }
    if !args.detach || args.in_background {
        // Before anything is read or said: its part does all of that.
        if let Some(code) = keeper::begin() {
            return Ok(number(code));
        }
    }
    let outcome = match handover::in_force() {
        Some(outcome) => outcome,
        None => manifest::told(context, manifest::read(context)?, "nothing was started")?,
    };
    handover::keep_in_force(&outcome);
    let files = outcome.files.iter().map(|file| file.path.clone()).collect();
    let folder = context.folder()?;
    let manifest = outcome.manifest.unwrap_or_else(|| Manifest::defaults(&folder));
    let token_file = args.token_file.or_else(|| manifest.identity.token_file.clone());
    let join = if args.join.is_empty() { manifest.masters.join.clone() } else { args.join };
    if args.detach && !args.in_background {
        return detach::run(context, &manifest, &args.only, !join.is_empty());
    }
    let journal = journal(&manifest)?;
    let node = assembly::node(context)?;
    logs::keep_in(&journal, "mesh", &format!("up@{node}"));
    // The terminal belongs to the services and the board: what is said of itself goes into the journal alone.
    let own = LogConfig { level: manifest.logs.level.word().to_owned(), to: To::Discard, ..LogConfig::default() };
    let wanted = assembly::Wanted {
        manifest,
        files,
        only: args.only,
        no_build: args.no_build,
        join,
        token_file,
        background: args.in_background,
        node,
        journal,
    };
    let host = HostConfig { logs: own, ..HostConfig::new("synego") };
    let code = synego_runtime::run(host, |host| assembly::run(context, wanted, host));
    Ok(number(code))
}

/// Where all lines of this machine go.
fn journal(manifest: &Manifest) -> Result<Journal, Failure> {
    let said = &manifest.logs;
    let config = JournalConfig { dir: Some(said.dir.clone()), keep: said.keep, max_size: said.max_size };
    Journal::open(config).map_err(|error| {
        Failure::new(format!("cannot write logs to {}", said.dir.display()))
            .cause(error.to_string())
            .help("name another folder: `telemetry: { logs: { dir: … } }`")
    })
}

/// The number of an exit code, which the standard library keeps to itself.
fn number(code: ExitCode) -> u8 {
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(FAILED)
}
