//! The tree of commands and the flags that hold everywhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::builder::styling::{AnsiColor, Styles};

use crate::commands::{
    apply, ca, check, completions, doctor, down, drain, explain, get, identity, init, log_level, login, logs, man,
    nginx, plan, pm2, reload, scale, show, status, systemd, token, up, upgrade,
};
use crate::output::answer::Format;
use crate::output::screen::ColorChoice;
use crate::output::time::parse_duration;
use crate::version;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXAMPLES: &str = "\
Examples:
  synego init                 write a synego.yaml for the project in this folder
  synego check                find its mistakes, change nothing
  synego up                   run it; Ctrl-C drains and ends it
  synego status --watch       see how it is
  synego explain 503          see why the mesh answered so

Exit codes: 0 done · 1 failed, or problems found · 2 wrong use, or refused to act unasked ·
3 `plan --exit-code` with changes · 130 interrupted";

/// Runs and looks after a mesh of services: one file says what runs, every failure explains itself.
#[derive(Debug, clap::Parser)]
#[command(
    name = "synego",
    version = version::LINE,
    after_help = EXAMPLES,
    styles = STYLES,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes; each also as `SYNEGO_<FLAG>`, which the flag overrides.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Everywhere (also as SYNEGO_<FLAG>)")]
pub(crate) struct Globals {
    /// Manifest to read [default: synego.yaml or synego.json, here or in the nearest folder above]
    #[arg(long, global = true, env = "SYNEGO_FILE", hide_env = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    /// Overlay to lay over the manifest: NAME for synego.NAME.yaml
    #[arg(long, global = true, env = "SYNEGO_PROFILE", hide_env = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Name of this machine in the mesh [default: its host name]
    #[arg(long, global = true, env = "SYNEGO_NODE", hide_env = true, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Admin API of a running master: unix:PATH, HOST:PORT or PORT
    #[arg(long, global = true, env = "SYNEGO_ADMIN", hide_env = true, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// Form of the result
    #[arg(
        short,
        long,
        global = true,
        env = "SYNEGO_OUTPUT",
        hide_env = true,
        value_name = "FORM",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// Show it again after each change, at most once in this time [default: 1s]
    #[arg(
        long, global = true, env = "SYNEGO_WATCH", hide_env = true, value_name = "TIME",
        num_args = 0..=1, require_equals = true, default_missing_value = "1s", value_parser = parse_duration
    )]
    pub(crate) watch: Option<Duration>,
    /// Longest list; 0 is no limit [default: 50 for tables, none for programs]
    #[arg(long, global = true, env = "SYNEGO_LIMIT", hide_env = true, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Longest time for one call of the mesh
    #[arg(
        long, global = true, env = "SYNEGO_TIMEOUT", hide_env = true, value_name = "TIME", default_value = "30s",
        value_parser = parse_duration
    )]
    pub(crate) timeout: Duration,
    /// Agree beforehand to what would be asked
    #[arg(short, long, global = true, env = "SYNEGO_YES", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) yes: bool,
    /// Only errors and results
    #[arg(short, long, global = true, env = "SYNEGO_QUIET", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Tell each call with its time; twice: what was said
    #[arg(short, long, global = true, env = "SYNEGO_VERBOSE", hide_env = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colour
    #[arg(long, global = true, env = "SYNEGO_COLOR", hide_env = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// Never ask: refuse instead
    #[arg(long, global = true, env = "SYNEGO_NO_INPUT", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_input: bool,
    /// Times in UTC instead of local time
    #[arg(long, global = true, env = "SYNEGO_UTC", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) utc: bool,
    /// Times as RFC 3339
    #[arg(long, global = true, env = "SYNEGO_RFC3339", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) rfc3339: bool,
}

/// One module of `commands` for each.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Init(init::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Show(show::Args),
    /// Print the JSON Schema of the manifest, for editors
    Schema,
    #[command(visible_alias = "start")]
    Up(up::Args),
    Down(down::Args),
    Status(status::Args),
    Get(get::Args),
    Logs(logs::Args),
    LogLevel(log_level::Args),
    Explain(explain::Args),
    Login(login::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Reload(reload::Args),
    Drain(drain::Args),
    Scale(scale::Args),
    Identity(identity::Args),
    Token(token::Args),
    Ca(ca::Args),
    Nginx(nginx::Args),
    Pm2(pm2::Args),
    Systemd(systemd::Args),
    Upgrade(upgrade::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// Print version, commit and date of this program, and of each process of the mesh
    Version,
}
