//! The command line of `synego-master`.

use std::path::PathBuf;

use clap::Parser;

/// Gathers the reports of the sidecars, publishes snapshots to them and routes what comes from outside.
#[derive(Debug, Parser)]
#[command(
    name = "synego-master",
    version = synego_runtime::telemetry::build().line,
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
    /// Folder of what it keeps: the store, the key of the authority [default: that of the mesh]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// What it keeps in a store: redb:FILE, for one master [default: redb:store.redb in the folder of state]
    #[arg(long, env = "SYNEGO_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// File of the key that seals the authority's roots; made if it is not there [default: ca.key in the folder of state]
    #[arg(long, env = "SYNEGO_KEY_FILE", value_name = "FILE", conflicts_with = "key_command")]
    pub key_file: Option<PathBuf>,
    /// Command that prints that key instead: 64 hexadecimal digits
    #[arg(long, env = "SYNEGO_KEY_COMMAND", value_name = "COMMAND")]
    pub key_command: Option<String>,
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
