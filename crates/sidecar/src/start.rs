//! What the program needs between its command line and its sidecar.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use synego_control_plane::credential::{self, Keeper, KeeperConfig, Source};
use synego_control_plane::uplink::{MasterAddress, UplinkStatus};
use synego_data_plane::{WorkersConfig, WorkersHandle};
use synego_model::{InstanceId, Listens, Role, text};
use synego_runtime::config::Setting;
use synego_runtime::logs::{self, Format, Journal, JournalConfig, LineWriter, LogConfig, To};
use synego_runtime::telemetry;
use synego_runtime::{Host, keeper, tasks};
use synego_supervise::OutputSink;
use tokio::sync::watch;

use crate::args::Args;
use crate::config::{SidecarConfig, with_file};
use crate::instance::View;
use crate::sidecar::{Ended, Shared, Sidecar};

/// What a shell ends with that does not find its command.
const NEVER_STARTED: u8 = 127;

/// Time in which a part that takes over becomes as good as its predecessor.
const AS_WELL: Duration = Duration::from_secs(5);

/// The command line, with what `--config FILE` says before it.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn arguments() -> Result<Vec<OsString>, String> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let Some(file) = config_file(&line) else { return Ok(line) };
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(&file).map_err(|error| format!("--config {shown}: {error}"))?;
    with_file(line, &text).map_err(|problem| format!("--config {shown}: {problem}"))
}

fn config_file(line: &[OsString]) -> Option<PathBuf> {
    let mut own = line.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = own.next() {
        let text = argument.to_str().unwrap_or_default();
        match text.strip_prefix("--config=") {
            Some(file) => return Some(file.into()),
            None if text == "--config" => return own.next().map(PathBuf::from),
            None => {}
        }
    }
    None
}

/// Prints the version of the program.
pub fn print_version() -> ExitCode {
    println!("synego-sidecar {}", telemetry::build().line);
    ExitCode::SUCCESS
}

/// Makes a keeper of this process where it is to have one: without a process of the service there is little to keep, and
/// half the memory to save. Returns in the part; an exit code when it cannot be made.
#[must_use]
pub fn begin_keeper(config: &SidecarConfig) -> Option<ExitCode> {
    (config.process.is_some() || keeper::is_asked_for()).then(keeper::begin).flatten()
}

/// How the program logs.
#[must_use]
pub fn log(args: &Args) -> LogConfig {
    LogConfig {
        format: if args.log_format == "text" { Format::Text } else { Format::Json },
        level: args.log_level.clone(),
        ..LogConfig::default()
    }
}

/// What a sidecar that is a program of its own shares with nobody.
///
/// # Errors
/// When the folder of logs cannot be made.
pub fn shared(config: &SidecarConfig, workers: WorkersHandle, host: &Host) -> anyhow::Result<Shared> {
    let id = InstanceId::new(&config.instance, &config.node).to_string();
    let journal = journal(config)?;
    Ok(Shared { workers, metrics: host.metrics(), journal, program: Some((id, host.logs())) })
}

/// Returns once the instance takes requests.
async fn ready(mut view: watch::Receiver<View>) {
    // When the sidecar is gone, its end has begun.
    if view.wait_for(|view| view.state.takes_requests()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// As many workers as there are cores.
#[must_use]
pub fn workers(host: &Host) -> WorkersConfig {
    let count = synego_runtime::config::cores();
    WorkersConfig { count, file_limit: host.file_limit(), metrics: host.metrics() }
}

/// Tells the parent and the keeper when the sidecar serves.
pub fn tell(host: &Host, sidecar: &Sidecar) {
    host.tell_parent(ready(sidecar.view()));
    tasks::spawn("keeper-ready", tasks::Kind::Connection, tell_keeper(sidecar.view(), sidecar.links()));
}

/// Tells the keeper that this part serves; one that takes over, not before it can do as well as the one that serves.
async fn tell_keeper(mut view: watch::Receiver<View>, mut links: watch::Receiver<UplinkStatus>) {
    if keeper::is_successor() {
        keeper::turn().await;
        let as_well = async {
            // When the sidecar is gone, its end has begun.
            let _gone = view.wait_for(|view| view.state.takes_requests()).await.is_err();
            let is_linked = |links: &UplinkStatus| links.masters.iter().any(|master| master.linked.is_some());
            let _gone = links.wait_for(is_linked).await.is_err();
        };
        // An instance that is not ready, or has no master, is none the better for waiting.
        let _late = tokio::time::timeout(AS_WELL, as_well).await;
    }
    keeper::ready();
}

/// Where lines are kept: `logs` beside the last snapshot, for all sidecars of this folder together; without a folder, in
/// memory alone. What the program says of itself goes there too.
///
/// # Errors
/// When the folder cannot be made.
fn journal(config: &SidecarConfig) -> anyhow::Result<Journal> {
    let dir = config.state_dir.as_ref().map(|dir| dir.join("logs"));
    let journal = Journal::open(JournalConfig::in_dir(dir.clone()));
    let journal = journal.with_context(|| format!("logs in {}", dir.unwrap_or_default().display()))?;
    let id = InstanceId::new(&config.instance, &config.node);
    logs::keep_in(&journal, config.service.as_str(), id.as_str());
    Ok(journal)
}

/// The output of the process: kept for those who ask, written to the journal, and passed on to our own stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn output(config: &SidecarConfig, journal: &Journal) -> anyhow::Result<OutputSink> {
    let stdout = LineWriter::open(To::Stdout).context("stdout")?.for_the_process();
    let id = InstanceId::new(&config.instance, &config.node);
    Ok(OutputSink::to_all(config.service.as_str(), id.as_str(), vec![stdout, journal.writer()]))
}

/// The certificate of the sidecar: kept from before, or enrolled for now; `None`: the mesh runs without. Masters that do
/// not answer are asked until the process ends.
///
/// # Errors
/// Above all without a token for the first time, or when the kept certificate has ended.
pub async fn credential(config: &SidecarConfig, host: &Host) -> anyhow::Result<Option<Keeper>> {
    if !config.mtls {
        return Ok(None);
    }
    let of = KeeperConfig {
        mesh: config.mesh.clone(),
        role: Role::Service(config.service.clone()),
        holder: InstanceId::new(&config.instance, &config.node).to_string(),
        source: Source::Masters(config.masters.clone()),
        file: config.state_dir.as_ref().map(|folder| folder.join(format!("identity-{}", config.instance))),
        token_file: config.token_file.clone(),
        metrics: host.metrics(),
    };
    Ok(credential::open(vec![of], None, &host.stop()).await?.into_iter().next())
}

/// The code of a sidecar that has ended: that of its process.
#[must_use]
pub fn exit_code(ended: &Ended) -> ExitCode {
    match ended.exit {
        _ if ended.gave_up => ExitCode::from(NEVER_STARTED),
        Some(exit) => ExitCode::from(exit.exit_code()),
        None => ExitCode::SUCCESS,
    }
}

/// Where the process listens, for people.
fn listens(listens: &Listens) -> String {
    match listens {
        Listens::FreePort => "a free port".to_owned(),
        Listens::OwnSocket => "a socket of its own".to_owned(),
        Listens::At(address) => address.to_string(),
    }
}

/// The settings in force, for `--check`.
#[must_use]
pub fn settings(config: &SidecarConfig) -> Vec<Setting> {
    let masters: Vec<&str> = config
        .masters
        .iter()
        .map(|master| match master {
            MasterAddress::Tcp(address) => address.as_str(),
            MasterAddress::InProcess(_) => "in this process",
        })
        .collect();
    let uses: Vec<&str> = config.uses.iter().map(synego_model::ServiceName::as_str).collect();
    let optional = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    [
        ("service", config.service.to_string()),
        ("instance", config.instance.to_string()),
        ("node", config.node.to_string()),
        ("mesh", config.mesh.as_ref().map_or_else(|| "the master's".to_owned(), ToString::to_string)),
        ("protocol", config.protocol.word().to_owned()),
        ("listens", listens(&config.listens)),
        ("command", optional(config.process.as_ref().map(|process| process.command.to_string()))),
        ("user", optional(config.process.as_ref().and_then(|process| process.run_as.user.clone()))),
        ("restart", config.process.as_ref().map_or("none", |process| process.restart.when.word()).to_owned()),
        ("routes", optional(config.routes.as_ref().map(|routes| routes.join(", ")))),
        ("uses", uses.join(", ")),
        ("masters", masters.join(", ")),
        ("mtls", if config.mtls { "required" } else { "off" }.to_owned()),
        ("inbound", config.inbound.to_string()),
        ("outbound", config.outbound.to_string()),
        ("admin", optional(config.admin.map(|address| address.to_string()))),
        ("state", optional(config.state_dir.as_ref().map(|folder| folder.display().to_string()))),
        ("stop", text::duration(config.stop)),
    ]
    .map(|(name, value)| Setting { name: name.into(), value, origin: "flags and defaults".into(), secret: false })
    .into()
}
