//! What is to be started, and how it is known to be well.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{CapSpec, CommandLine, HealthSpec, ReadySpec, RunAs};

use crate::restart::RestartPolicy;

/// A process to supervise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Its name, such as `users-1`: in logs, and in the names of its files.
    pub name: String,
    /// What is started; without a shell.
    pub command: CommandLine,
    /// What runs to its end before the first start; its failure leaves the process unstarted.
    pub build: Option<CommandLine>,
    /// Folder in which both run; absolute.
    pub cwd: PathBuf,
    /// Variables that win over all others: `PORT`, `SYNEGO_…`.
    pub env: BTreeMap<String, String>,
    /// Variables of the user, over those of the files and the inherited ones.
    pub user_env: BTreeMap<String, String>,
    /// Files of variables, read anew at each start; a later one wins. A missing one is an error.
    pub env_files: Vec<PathBuf>,
    /// When it counts as ready.
    pub ready: ReadySpec,
    /// Where it will listen; `None`: nowhere, so that it is ready once started unless `ready` says otherwise.
    pub address: Option<ServiceAddress>,
    /// How its health is probed: the proof of readiness where `ready` names none.
    pub health: Option<HealthSpec>,
    /// As whom it runs, its build and its probe by command; and what they inherit.
    pub run_as: RunAs,
    /// How much of the machine it may take, with all that it starts.
    pub caps: CapSpec,
    /// Time from TERM to KILL.
    pub grace: Duration,
    /// The signal that takes the part of TERM.
    pub stop_by: StopBy,
    /// What follows its end.
    pub restart: RestartPolicy,
    /// Whether it must prove itself first: until [`Supervisor::adopt`](crate::Supervisor::adopt) its first failure is its
    /// last, for whoever started it has something better to fall back on.
    pub trial: bool,
    /// Starts after the first that its predecessors had; they are counted on.
    pub restarts: u32,
    /// Private folder for its notify socket; its whole path stays below 100 bytes.
    pub run_dir: PathBuf,
    /// Under which name our keeper keeps it when we die or are replaced, where we have one; none other has it. `None`: it
    /// ends with us.
    pub keep: Option<String>,
}

impl ProcessSpec {
    /// A process with nothing but a command: no address, no build, ready once started (within 30 s), 5 s of grace, started
    /// again when it ends. Fill in the rest by struct update.
    #[must_use]
    pub fn new(name: &str, command: CommandLine, cwd: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            command,
            build: None,
            cwd,
            env: BTreeMap::new(),
            user_env: BTreeMap::new(),
            env_files: Vec::new(),
            ready: ReadySpec { by: None, within: Duration::from_secs(30) },
            address: None,
            health: None,
            run_as: RunAs::default(),
            caps: CapSpec::default(),
            grace: Duration::from_secs(5),
            stop_by: StopBy::Term,
            restart: RestartPolicy::default(),
            trial: false,
            restarts: 0,
            run_dir,
            keep: None,
        }
    }
}

/// The signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StopBy {
    /// TERM: what most programs take as "finish and end".
    #[default]
    Term,
    /// QUIT: Nginx finishes what it does on this one, and drops it on TERM.
    Quit,
    /// INT: what a terminal sends on Ctrl-C.
    Int,
    /// HUP.
    Hup,
    /// USR1.
    Usr1,
    /// USR2.
    Usr2,
}

impl StopBy {
    /// The signal of this name, with or without `SIG`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("SIG").unwrap_or(name) {
            "TERM" => Self::Term,
            "QUIT" => Self::Quit,
            "INT" => Self::Int,
            "HUP" => Self::Hup,
            "USR1" => Self::Usr1,
            "USR2" => Self::Usr2,
            _ => return None,
        })
    }
}
