//! How this machine runs a service (sections of the manifest that hold on one machine alone).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Probe;
use crate::service::ServiceSpec;

/// A program and its arguments, started without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLine {
    /// The program: a path, or a name looked up in `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.program)?;
        self.args.iter().try_for_each(|arg| if arg.contains(' ') { write!(f, " '{arg}'") } else { write!(f, " {arg}") })
    }
}

/// Where the instances of a service come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The mesh starts and supervises them.
    Run {
        /// What is started.
        command: CommandLine,
        /// What runs before each start, to its end; its failure changes nothing.
        build: Option<CommandLine>,
        /// Where each listens.
        listens: Listens,
    },
    /// They run already, at these addresses (`host:port` or `unix:/path`).
    Found(Vec<String>),
}

/// When a started process counts as ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadySpec {
    /// What proves it; `None`: its health probe, else its open port.
    pub by: Option<ReadyBy>,
    /// How long it may take; [`NO_LIMIT`]: as long as it takes.
    pub within: Duration,
}

/// What proves that a started process is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyBy {
    /// Its port takes connections.
    Port,
    /// `READY=1` on `NOTIFY_SOCKET`.
    Notify,
    /// A probe.
    Probe(Probe),
    /// A line of its output matches this pattern (anchors `^` and `$`, else a plain search).
    Log(String),
}

/// For a process that may take as long as it takes to be ready: a job, unless its manifest says otherwise.
pub const NO_LIMIT: Duration = Duration::MAX;

/// After which ends a process is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartWhen {
    /// After every one that nobody asked for.
    #[default]
    Always,
    /// Unless it ended with code 0.
    OnFailure,
    /// Never: it is a job.
    Never,
}

impl RestartWhen {
    /// The word of the manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on_failure",
            Self::Never => "never",
        }
    }

    /// The rule of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Always, Self::OnFailure, Self::Never].into_iter().find(|when| when.word() == word)
    }
}

/// What follows the end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartSpec {
    /// After which ends it is started again.
    pub when: RestartWhen,
    /// First wait; doubled with each end.
    pub backoff: Duration,
    /// Longest wait.
    pub max: Duration,
    /// So many ends within `window` make it unhealthy; it is still started again.
    pub tries: u32,
    /// See `tries`.
    pub window: Duration,
}

impl Default for RestartSpec {
    fn default() -> Self {
        Self {
            when: RestartWhen::Always,
            backoff: Duration::from_millis(100),
            max: Duration::from_secs(30),
            tries: 5,
            window: Duration::from_secs(60),
        }
    }
}

/// How much of the machine one instance may take, with all processes that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapSpec {
    /// Memory; bytes; `None`: what there is.
    pub memory: Option<u64>,
    /// Thousandths of a core; `None`: what there is.
    pub cpu_milli: Option<u32>,
}

impl CapSpec {
    /// Whether nothing is capped.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// As whom a process runs, and what it takes of whoever starts it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunAs {
    /// The user, by name or number; `None`: whoever starts it.
    pub user: Option<String>,
    /// The group, by name or number; `None`: the user's own.
    pub group: Option<String>,
    /// How many files it may have open; `None`: as many as whoever starts it.
    pub files: Option<u64>,
    /// Patterns of the variables that it inherits (`*` is any text); `None`: all of them.
    pub pass_env: Option<Vec<String>>,
}

/// How a process is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// The one deadline of its drain and its end.
    pub within: Duration,
    /// The signal that asks it to end: `TERM`, `INT`, `QUIT`, `HUP`, `USR1` or `USR2`.
    pub signal: String,
}

impl Default for StopSpec {
    fn default() -> Self {
        Self { within: Duration::from_secs(25), signal: "TERM".to_owned() }
    }
}

/// Files whose change reloads a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchSpec {
    /// The folder to which the patterns are relative; absolute.
    pub root: PathBuf,
    /// Patterns such as `src/**`: `*` and `?` within a segment, `**` over any number of them.
    pub files: Vec<String>,
    /// Patterns of files that do not count.
    pub ignore: Vec<String>,
    /// How long nothing may change before it is reloaded.
    pub debounce: Duration,
}

/// How many instances of a service are replaced at once, on each machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSpec {
    /// Instances beyond the wanted number: new ones that start while their predecessors serve.
    pub max_surge: u32,
    /// Instances that may be missing from it: those that end before their successors start.
    pub max_unavailable: u32,
}

impl Default for ReloadSpec {
    fn default() -> Self {
        Self { max_surge: 1, max_unavailable: 0 }
    }
}

/// A service with how this machine runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalService {
    /// What the whole mesh knows of it.
    pub spec: ServiceSpec,
    /// Where its instances come from.
    pub target: Target,
    /// Folder in which it runs; absolute.
    pub cwd: PathBuf,
    /// Variables, over the inherited ones and those of `env_files`.
    pub env: BTreeMap<String, String>,
    /// Files of variables, absolute, read anew at each start.
    pub env_files: Vec<PathBuf>,
    /// Version; may be empty.
    pub version: String,
    /// As whom it runs, and what it inherits.
    pub run_as: RunAs,
    /// Services that must be ready before it starts.
    pub after: Vec<crate::name::ServiceName>,
    /// When it counts as ready.
    pub ready: ReadySpec,
    /// What follows its end.
    pub restart: RestartSpec,
    /// How much of the machine each instance may take.
    pub caps: CapSpec,
    /// How it is ended.
    pub stop: StopSpec,
    /// The least important of its lines that is written down: `error`, `warn`, `info`, `debug` or `trace`; `None`: what an
    /// SDK sends of itself, and all that it prints.
    pub log_level: Option<String>,
    /// How a sidecar of its own writes its lines to its standard output and error, `json` or `text`; `None`: as it does by
    /// itself. Files are always JSON.
    pub log_format: Option<String>,
    /// Files whose change reloads it; `None`: none.
    pub watch: Option<WatchSpec>,
    /// How many instances are replaced at once.
    pub reload: ReloadSpec,
}

impl LocalService {
    /// Whether it is a job: its end is what it is for.
    #[must_use]
    pub fn is_job(&self) -> bool {
        self.restart.when == RestartWhen::Never && matches!(self.target, Target::Run { .. })
    }

    /// How many instances this machine has of it: as many as wanted, or one for each address.
    #[must_use]
    pub fn instances(&self) -> usize {
        match &self.target {
            Target::Run { .. } => usize::try_from(self.spec.instances).unwrap_or(usize::MAX),
            Target::Found(addresses) => addresses.len(),
        }
    }
}

/// Where the processes of a service are told to listen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listens {
    /// Each at a free port of the loopback, told in `PORT`.
    #[default]
    FreePort,
    /// Each at a Unix socket of its own, which its sidecar names in `SOCKET`.
    OwnSocket,
    /// At this place: there is room for one process at a time.
    At(ServiceAddress),
}

impl Listens {
    /// The one place there is, where there is only one.
    #[must_use]
    pub fn fixed(&self) -> Option<&ServiceAddress> {
        match self {
            Self::At(address) => Some(address),
            Self::FreePort | Self::OwnSocket => None,
        }
    }
}

/// Where a process listens for its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl std::str::FromStr for ServiceAddress {
    type Err = String;
    /// `PORT` (on 127.0.0.1), `IP:PORT`, `localhost:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err("`unix:` needs a path".into()) } else { Ok(Self::Unix(path.into())) };
        }
        let full = match text.parse::<u16>() {
            Ok(port) => format!("127.0.0.1:{port}"),
            Err(_) => {
                text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"))
            }
        };
        full.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("`{text}` is not an address: expected PORT, IP:PORT, localhost:PORT or unix:PATH"))
    }
}
