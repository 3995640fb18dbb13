//! Entry point of `synego`, the person's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    synego_cli::main()
}
