//! `synego pm2`: the mesh under the user's own PM2.

use std::path::PathBuf;

use crate::context::Context;
use crate::failure::Failure;
use crate::runner::{self, pm2};

const EXAMPLES: &str = "\
Examples:
  synego pm2                         print it, and say what has no counterpart
  synego pm2 --out . && pm2 start ecosystem.config.js
  pm2 reload users                   one instance after the other, each drained first";

/// Print an ecosystem.config.js that runs the mesh's services under PM2, a sidecar as each one's parent
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write it into this folder instead
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let plan = runner::plan(context, pm2::CAN)?;
    let files = [(pm2::FILE.to_owned(), pm2::text(&plan))];
    runner::answer(context, "pm2", &plan, &files, args.out.as_deref())
}
