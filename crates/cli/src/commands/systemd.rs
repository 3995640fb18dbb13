//! `synego systemd`: the mesh as units of systemd.

use std::path::PathBuf;

use crate::context::Context;
use crate::failure::Failure;
use crate::runner::{self, systemd};

const EXAMPLES: &str = "\
Examples:
  synego systemd                     print them, and say what has no counterpart
  synego systemd --out /etc/systemd/system --user shop
  systemctl daemon-reload && systemctl enable --now shop.target";

/// Print hardened units that run the mesh's services under systemd, a sidecar as each one's parent
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write them into this folder instead
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Who they run as [default: who asks, unless that is root]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let plan = runner::plan(context, systemd::CAN)?;
    let asker = context.environment.get("USER").filter(|name| *name != "root").cloned();
    let user = args.user.clone().or(asker);
    if user.is_none() {
        context.screen.note("the units name no user, so they run as root: `--user NAME` gives them one");
    }
    let files = systemd::files(&plan, user.as_deref());
    runner::answer(context, "systemd", &plan, &files, args.out.as_deref())
}
