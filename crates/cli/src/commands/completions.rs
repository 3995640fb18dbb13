//! `synego completions`: what a shell needs to complete commands, flags and the names of the running mesh.

use clap_complete::env::{Bash, EnvCompleter, Fish, Powershell, Zsh};

use crate::context::Context;
use crate::failure::{DONE, Failure};

const EXAMPLES: &str = "\
Examples:
  source <(synego completions bash)                                  # in ~/.bashrc
  source <(synego completions zsh)                                   # in ~/.zshrc
  synego completions fish | source                                   # in config.fish
  synego completions powershell | Out-String | Invoke-Expression     # in $PROFILE";

/// Print what a shell needs to complete commands, flags and the mesh's own names
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    /// Bash
    Bash,
    /// Z shell
    Zsh,
    /// Fish
    Fish,
    /// `PowerShell`
    Powershell,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
    };
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "synego", "synego", "synego", &mut script)
        .map_err(|error| Failure::new("cannot write the script").cause(error.to_string()))?;
    context.screen.print(&String::from_utf8_lossy(&script));
    Ok(DONE)
}
