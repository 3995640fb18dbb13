//! The command line of `synego-master`.

use std::path::PathBuf;

use clap::Parser;

/// Gathers the reports of the sidecars, publishes snapshots to them and routes what comes from outside.
#[derive(Debug, Parser)]
#[command(
    name = "synego-master",
    version,
    after_help = "Examples:\n  \
        synego-master --file synego.yaml\n  \
        a second one on the same machine:\n    \
        synego-master --file synego.yaml --ingress 3100 --mesh 3101 --admin 3102"
)]
pub struct Args {
    /// The manifest [default: synego.yaml in this folder or above; none: a bare master]
    #[arg(long, env = "SYNEGO_FILE", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Lay synego.P.yaml over it
    #[arg(long, env = "SYNEGO_PROFILE", value_name = "P")]
    pub profile: Option<String>,
    /// Name of this machine [default: its host name]
    #[arg(long, env = "SYNEGO_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where Nginx reaches it [default: as the manifest says, else 3000]
    #[arg(long, value_name = "ADDR")]
    pub ingress: Option<String>,
    /// Where sidecars reach it [default: as the manifest says, else 3001]
    #[arg(long, value_name = "ADDR")]
    pub mesh: Option<String>,
    /// Where people reach it [default: as the manifest says, else 3002]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// Print the settings in force and end
    #[arg(long)]
    pub check: bool,
    /// How much to log: trace, debug, info, warn or error [default: as the manifest says, else info]
    #[arg(long, env = "SYNEGO_LOG_LEVEL", value_name = "L")]
    pub log_level: Option<String>,
    /// How to log: json or text [default: as the manifest says, else json]
    #[arg(long, env = "SYNEGO_LOG_FORMAT", value_name = "F")]
    pub log_format: Option<String>,
}
