//! One module for each command.

pub(crate) mod apply;
pub(crate) mod ca;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod drain;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod identity;
pub(crate) mod init;
pub(crate) mod log_level;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod nginx;
pub(crate) mod plan;
pub(crate) mod pm2;
pub(crate) mod reload;
pub(crate) mod scale;
pub(crate) mod schema;
pub(crate) mod show;
pub(crate) mod status;
mod steps;
pub(crate) mod systemd;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod version;
mod watching;

use crate::args::Command;
use crate::context::Context;
use crate::failure::Failure;

/// Runs a command; returns the exit code.
///
/// # Errors
/// What made it fail, with the exit code.
pub(crate) fn run(command: Command, context: &Context) -> Result<u8, Failure> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Doctor(args) => doctor::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Schema => schema::run(context),
        Command::Up(args) => up::run(args, context),
        Command::Down(args) => down::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Get(args) => get::run(&args, context),
        Command::Login(args) => login::run(&args, context),
        Command::Logs(args) => logs::run(&args, context),
        Command::LogLevel(args) => log_level::run(&args, context),
        Command::Explain(args) => explain::run(&args, context),
        Command::Plan(args) => plan::run(&args, context),
        Command::Apply(args) => apply::run(&args, context),
        Command::Reload(args) => reload::run(&args, context),
        Command::Drain(args) => drain::run(&args, context),
        Command::Scale(args) => scale::run(&args, context),
        Command::Identity(args) => identity::run(&args, context),
        Command::Token(args) => token::run(&args, context),
        Command::Ca(args) => ca::run(&args, context),
        Command::Nginx(args) => nginx::run(&args, context),
        Command::Pm2(args) => pm2::run(&args, context),
        Command::Systemd(args) => systemd::run(&args, context),
        Command::Upgrade(args) => upgrade::run(&args, context),
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => man::run(&args, context),
        Command::Version => version::run(context),
    }
}
