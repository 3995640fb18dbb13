//! The command line of `synego-sidecar`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Runs beside one service's process: routes its calls, guards its port, probes it and reports to every master.
#[derive(Debug, Parser)]
#[command(
    name = "synego-sidecar",
    disable_version_flag = true,
    after_help = "Examples:\n  \
        beside a process that runs already:\n    \
        synego-sidecar --service users --port 9001 --master 127.0.0.1:3001 --token-file t\n  \
        as the parent of the process, which is told where to listen in PORT:\n    \
        synego-sidecar --service users --route /users --uses orders --master m1:3001 --token-file t -- node users.js\n  \
        a job, which is run once; the sidecar ends with its code:\n    \
        synego-sidecar --service migrate --restart never --uses users --master m1:3001 --token-file t -- ./migrate\n\n\
        A token (`synego token create` where a master runs) is needed the first time only."
)]
pub struct Args {
    /// Name of the service
    #[arg(long, env = "SYNEGO_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
    /// Name of the instance [default: the service's with -1, under PM2 with the number of its process]
    #[arg(long, env = "SYNEGO_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
    /// Name of this machine [default: its host name]
    #[arg(long, env = "SYNEGO_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Name of the mesh [default: whichever the master serves]
    #[arg(long, env = "SYNEGO_MESH", value_name = "NAME")]
    pub mesh: Option<String>,
    /// Port on 127.0.0.1 where the process listens [default with a command: a free one]
    #[arg(long, value_name = "N", conflicts_with_all = ["socket", "address"])]
    pub port: Option<u16>,
    /// Unix socket where the process listens
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    pub socket: Option<PathBuf>,
    /// Address where the process listens
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// What the service speaks: http, grpc or tcp
    #[arg(long, default_value = "http", value_name = "PROTOCOL")]
    pub protocol: String,
    /// A place that the ingress routes to the service, such as /users; may be repeated
    #[arg(long = "route", value_name = "PLACE")]
    pub routes: Vec<String>,
    /// A service that it calls; may be repeated
    #[arg(long = "uses", value_name = "NAME")]
    pub uses: Vec<String>,
    /// Path of a health check over HTTP [default: its open port]
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// Version of the service; without a value: print the version of this program and end
    #[arg(long, value_name = "V", num_args = 0..=1, default_missing_value = "")]
    pub version: Option<String>,
    /// Zone of this machine
    #[arg(long, default_value = "", value_name = "ZONE", hide_default_value = true)]
    pub zone: String,
    /// A label, for metrics and selectors; may be repeated
    #[arg(long = "label", value_name = "K=V")]
    pub labels: Vec<String>,
    /// Mesh address of a master; may be repeated
    #[arg(long = "master", env = "SYNEGO_MASTER", value_name = "ADDR", value_delimiter = ',')]
    pub masters: Vec<String>,
    /// File of the join token, for the first time; - reads it from stdin, `{instance}` in it is the instance's name
    #[arg(long, env = "SYNEGO_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Whether every hop is mutual TLS: required or off; as in the manifest of the masters
    #[arg(long, env = "SYNEGO_MTLS", default_value = "required", value_name = "MODE")]
    pub mtls: String,
    /// Where peers reach the instance
    #[arg(long, default_value = "4000", value_name = "ADDR")]
    pub inbound: String,
    /// Where the process reaches others; on loopback only
    #[arg(long, default_value = "4001", value_name = "ADDR")]
    pub outbound: String,
    /// Where /metrics, /livez and /readyz are served
    #[arg(long, default_value = "4002", value_name = "ADDR")]
    pub admin: String,
    /// Address that peers are told [default: found out by the way to the master]
    #[arg(long, value_name = "IP:PORT")]
    pub advertise: Option<String>,
    /// Folder of the last snapshot
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Time for the drain
    #[arg(long, default_value = "25s", value_name = "DURATION", value_parser = duration)]
    pub stop: Duration,
    /// After which ends the command is started again: always, on_failure, or never: it is a job
    #[arg(long, default_value = "always", value_name = "WHEN")]
    pub restart: String,
    /// Memory that the command may have with all it starts, such as 512MiB; over it, it is started again
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub memory: Option<u64>,
    /// User whose rights it has, by name or number; another than your own only as root
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Group whose rights it has [default: the user's own]
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// How many files it may have open [default: as many as the sidecar]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(16..=10_000_000))]
    pub files: Option<u64>,
    /// A variable that it inherits, `*` is any text; may be repeated [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub pass_env: Option<Vec<String>>,
    /// Cores that it may use, such as 0.5
    #[arg(long, value_name = "CORES", value_parser = milli_cores)]
    pub cpu: Option<u32>,
    /// File with the same names as these flags, as JSON; a flag wins
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings in force and end
    #[arg(long)]
    pub check: bool,
    /// How much to log: trace, debug, info, warn or error
    #[arg(long, env = "SYNEGO_LOG_LEVEL", default_value = "info", value_name = "L")]
    pub log_level: String,
    /// How to log: json or text
    #[arg(long, env = "SYNEGO_LOG_FORMAT", default_value = "json", value_name = "F")]
    pub log_format: String,
    /// The command that is run as a child
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// A size with its unit: `64KiB`, `512MiB`, `1GiB`.
fn size(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as `512MiB` or `1GiB`".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(expected()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(expected)?;
    if bytes < 1 << 20 { Err("expected at least 1MiB".to_owned()) } else { Ok(bytes) }
}

/// A number of cores, in thousandths.
fn milli_cores(text: &str) -> Result<u32, String> {
    let cores = text.parse::<f64>().ok().filter(|cores| *cores > 0.0 && *cores <= 1_024.0);
    let cores = cores.ok_or("expected a number of cores such as `0.5`")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and 1,024,000")]
    let milli = (cores * 1_000.0).round() as u32;
    Ok(milli.max(1))
}

/// A duration with its unit: `250ms`, `30s`, `5m`, `24h`.
///
/// # Errors
/// A sentence that names what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a duration such as `250ms`, `30s`, `5m`".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number and a unit such as `30s`".to_owned())?;
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(|| "the duration is too long".into())
}
