//! A mesh as programs of their own, for a runner that is not ours: a master and a sidecar for each instance, each sidecar
//! the parent of its service. What the manifest says beyond that has no counterpart, and is told.

pub(crate) mod pm2;
pub(crate) mod systemd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use synego_manifest::Manifest;
use synego_model::process::{ReadyBy, ReloadSpec, ServiceAddress, StopSpec};
use synego_model::{Engine, Listens, LocalService, Probe, Protocol, RestartSpec, RestartWhen, RunAs, Target, text};

use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::manifest;
use crate::output::Answer;
use crate::up::DRAIN;

/// Besides its drain, so long a program may take to end.
const SLACK: Duration = Duration::from_secs(5);
/// Where the sidecars find their join tokens the first time, below the folder of the manifest.
const TOKENS: &str = ".synego/tokens";

/// A mesh as programs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Name of the mesh.
    pub(crate) mesh: String,
    /// The manifest, as it is named to people.
    pub(crate) title: String,
    /// The programs; those that others need come first.
    pub(crate) programs: Vec<Program>,
    /// What has no counterpart.
    pub(crate) notes: Vec<Note>,
}

/// One program, or several alike.
#[derive(Debug)]
pub(crate) struct Program {
    /// What people call it: `master`, or the name of the service.
    pub(crate) name: String,
    /// What is started; absolute, or found in `PATH`.
    pub(crate) program: String,
    /// Its arguments. `{number}` stands for the number of the instance, from 1.
    pub(crate) args: Vec<String>,
    /// What comes after the arguments of ours: the command of the service; empty: there is none.
    pub(crate) command: Vec<String>,
    /// Folder in which it runs; absolute.
    pub(crate) cwd: PathBuf,
    /// Variables.
    pub(crate) env: BTreeMap<String, String>,
    /// Files of variables; absolute.
    pub(crate) env_files: Vec<PathBuf>,
    /// As whom its service runs.
    pub(crate) run_as: RunAs,
    /// How many of them.
    pub(crate) instances: usize,
    /// Names of others that come first.
    pub(crate) after: Vec<String>,
    /// How long it may take to be ready.
    pub(crate) ready_within: Duration,
    /// What follows its end.
    pub(crate) restart: RestartSpec,
    /// Whether it caps what its service may take, by control groups below its own.
    pub(crate) caps: bool,
    /// How long it may take to end.
    pub(crate) stop_within: Duration,
}

/// A key that the runner cannot honour.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Its path.
    pub(crate) key: String,
    /// Why, and what to do instead.
    pub(crate) why: String,
}

/// What a runner can do by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Can {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether it reads files of variables.
    pub(crate) env_files: bool,
    /// Whether it starts in an order.
    pub(crate) order: bool,
    /// Whether it gives a program the rights of a user, and a number of open files.
    pub(crate) users: bool,
}

impl Plan {
    /// The mesh of `manifest` for a runner that can so much.
    pub(crate) fn new(manifest: &Manifest, file: Option<&Path>, can: Can) -> Self {
        let mut notes = Vec::new();
        let joins = !manifest.masters.join.is_empty();
        let mut programs: Vec<Program> = Vec::new();
        if !joins {
            programs.push(master(manifest, file));
        }
        for local in &manifest.local {
            said(local, can, &mut notes);
            if local.instances() > 0 {
                programs.extend(sidecars(manifest, local, joins, can));
            }
        }
        gateway(manifest, can, &mut notes);
        Self {
            mesh: manifest.declaration.mesh.to_string(),
            title: if manifest.title.is_empty() { "no manifest".to_owned() } else { manifest.title.clone() },
            programs,
            notes,
        }
    }

    /// The instances that need a join token, with their services.
    pub(crate) fn enrolling(&self) -> Vec<(String, String)> {
        let needs = self.programs.iter().filter(|program| program.args.iter().any(|arg| arg == "--token-file"));
        let of = |program: &Program| {
            let name = program.name.clone();
            (1..=program.instances).map(move |number| (name.clone(), format!("{name}-{number}"))).collect::<Vec<_>>()
        };
        needs.flat_map(of).collect()
    }
}

fn master(manifest: &Manifest, file: Option<&Path>) -> Program {
    let file = file.map(|file| file.display().to_string());
    Program {
        name: "master".to_owned(),
        program: beside("synego-master"),
        args: file.into_iter().flat_map(|file| ["--file".to_owned(), file]).collect(),
        command: Vec::new(),
        cwd: manifest.root.clone(),
        env: BTreeMap::new(),
        env_files: Vec::new(),
        run_as: RunAs::default(),
        instances: 1,
        after: Vec::new(),
        ready_within: Duration::from_secs(30),
        restart: RestartSpec::default(),
        caps: false,
        stop_within: DRAIN + SLACK,
    }
}

/// The sidecars of a service: of one that runs already one for each of its addresses.
fn sidecars(manifest: &Manifest, local: &LocalService, joins: bool, can: Can) -> Vec<Program> {
    let name = local.spec.name.to_string();
    let masters = if joins { manifest.masters.join.clone() } else { vec![manifest.masters.mesh.to_string()] };
    let mut args = vec!["--service".to_owned(), name.clone()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("mesh", manifest.declaration.mesh.to_string());
    masters.into_iter().for_each(|master| flag("master", master));
    if local.spec.protocol != Protocol::default() {
        flag("protocol", local.spec.protocol.word().to_owned());
    }
    local.spec.uses.iter().for_each(|used| flag("uses", used.to_string()));
    if let Some(Probe::Http(path)) = local.spec.health.as_ref().map(|health| &health.probe) {
        flag("health", path.clone());
    }
    if !local.version.is_empty() {
        flag("version", local.version.clone());
    }
    local.spec.labels.iter().for_each(|(key, value)| flag("label", format!("{key}={value}")));
    // Ports that are free, since several of them run here.
    ["inbound", "outbound", "admin"].into_iter().for_each(|port| flag(port, "0".to_owned()));
    if manifest.identity.mtls {
        flag("token-file", manifest.root.join(TOKENS).join("{instance}").display().to_string());
    } else {
        flag("mtls", "off".to_owned());
    }
    flag("stop", text::duration(local.stop.within));
    if let Some(memory) = local.caps.memory {
        flag("memory", text::size(memory));
    }
    if let Some(milli) = local.caps.cpu_milli {
        flag("cpu", (f64::from(milli) / 1_000.0).to_string());
    }
    let RunAs { user, group, files, pass_env } = &local.run_as;
    if !can.users {
        user.iter().for_each(|user| flag("user", user.clone()));
        group.iter().for_each(|group| flag("group", group.clone()));
        files.iter().for_each(|files| flag("files", files.to_string()));
    }
    pass_env.iter().flatten().for_each(|pattern| flag("pass-env", pattern.clone()));
    local.log_format.iter().for_each(|format| flag("log-format", format.clone()));
    if local.restart.when != RestartWhen::default() {
        flag("restart", local.restart.when.word().to_owned());
    }
    let of = |name: String, args: Vec<String>, command: Vec<String>, instances| Program {
        name,
        program: beside("synego-sidecar"),
        args,
        command,
        cwd: local.cwd.clone(),
        env: local.env.clone(),
        env_files: local.env_files.clone(),
        run_as: local.run_as.clone(),
        instances,
        after: if joins { Vec::new() } else { vec!["master".to_owned()] }
            .into_iter()
            .chain(local.after.iter().map(ToString::to_string))
            .collect(),
        ready_within: local.ready.within.saturating_add(SLACK),
        restart: local.restart,
        caps: !local.caps.is_none(),
        stop_within: local.stop.within + SLACK,
    };
    match &local.target {
        Target::Run { command, listens, .. } => {
            let flag = match listens {
                Listens::FreePort => None,
                Listens::OwnSocket => Some(("--socket", "auto".to_owned())),
                Listens::At(ServiceAddress::Tcp(address)) => Some(("--port", address.port().to_string())),
                Listens::At(ServiceAddress::Unix(path)) => Some(("--socket", path.display().to_string())),
            };
            args.extend(flag.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
            let command = std::iter::once(command.program.clone()).chain(command.args.iter().cloned()).collect();
            vec![of(name, args, command, local.instances())]
        }
        Target::Found(addresses) => addresses
            .iter()
            .enumerate()
            .map(|(index, address)| {
                let number = index + 1;
                let own =
                    ["--instance".to_owned(), format!("{name}-{number}"), "--address".to_owned(), address.clone()];
                let args = args.iter().cloned().chain(own).collect();
                let name = if addresses.len() == 1 { name.clone() } else { format!("{name}-{number}") };
                of(name, args, Vec::new(), 1)
            })
            .collect(),
    }
}

/// What the manifest says of a service and a sidecar of its own does not do.
fn said(local: &LocalService, can: Can, notes: &mut Vec<Note>) {
    let mut note =
        |key: &str, why: String| notes.push(Note { key: format!("services.{}.{key}", local.spec.name), why });
    if let Target::Run { build: Some(build), .. } = &local.target {
        note("build", format!("{} starts what is there: run `{build}` before", can.name));
    }
    if !local.env_files.is_empty() && !can.env_files {
        note("env_file", format!("{} reads none: put its variables into the environment it is started from", can.name));
    }
    if !local.after.is_empty() && !can.order {
        note(
            "after",
            format!("{} starts all at once: a call waits, or gets 503, until its service is ready", can.name),
        );
    }
    if let Some(by) = &local.ready.by {
        let probe = local.spec.health.as_ref().map(|health| &health.probe);
        let of_health = matches!((by, probe), (ReadyBy::Probe(one), Some(other)) if one == other);
        if !of_health && *by != ReadyBy::Port {
            note(
                "ready",
                "such a sidecar takes a service for ready by its `health` over HTTP, else by its port".to_owned(),
            );
        }
    }
    if local.stop.signal != StopSpec::default().signal {
        note("stop.signal", format!("such a sidecar ends its service by TERM, not by {}", local.stop.signal));
    }
    let waits = RestartSpec { when: local.restart.when, ..RestartSpec::default() };
    if local.restart != waits {
        note("restart", "such a sidecar waits between restarts as it does by default".to_owned());
    }
    if let Some(level) = &local.log_level {
        let words = format!("such a sidecar writes all down: say `synego log-level {} {level}`", local.spec.name);
        note("logs.level", words);
    }
    if local.watch.is_some() {
        note("watch", "files are watched by `synego up` alone: say `synego reload` when they changed".to_owned());
    }
    if local.reload != ReloadSpec::default() {
        note(
            "reload",
            format!("each sidecar replaces its own process, new before old; of several {} decides", can.name),
        );
    }
    if let Some(Probe::Exec(_)) = local.spec.health.as_ref().map(|health| &health.probe) {
        note("health", "a probe by command runs under `synego up` alone: its process and port are watched".to_owned());
    }
}

/// What faces the world is no part of a master that is a program of its own.
fn gateway(manifest: &Manifest, can: Can, notes: &mut Vec<Note>) {
    let is_said =
        manifest.effective().iter().any(|value| value.key.starts_with("gateway.") && value.origin != "default");
    if !is_said {
        return;
    }
    let why = match manifest.gateway.engine {
        Some(Engine::Master) => format!(
            "under {} the master serves its ingress, {}, and nothing else: put a proxy before it",
            can.name, manifest.masters.ingress
        ),
        _ => format!(
            "{} does not run it: start Nginx with what `synego nginx show` prints; it passes on to the master's ingress, {}",
            can.name, manifest.masters.ingress
        ),
    };
    notes.push(Note { key: "gateway".to_owned(), why });
}

/// A program of ours: beside this one, where it is there, else as `PATH` knows it.
fn beside(name: &str) -> String {
    let own = std::env::current_exe().ok().and_then(|own| own.parent().map(|folder| folder.join(name)));
    own.filter(|path| path.is_file()).map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

/// Reads the manifest of this folder into a plan.
///
/// # Errors
/// When there is none, or it is refused.
pub(crate) fn plan(context: &Context, can: Can) -> Result<Plan, Failure> {
    let outcome = manifest::wanted(context)?;
    let file = manifest::main_file(&outcome);
    let manifest = outcome.manifest.ok_or_else(|| Failure::new("there is no manifest"))?;
    Ok(Plan::new(&manifest, file.as_deref(), can))
}

/// Prints `files`, or writes them into `out`; then says what has no counterpart. 1: something has none.
///
/// # Errors
/// When a file cannot be written, or is not one that this command wrote before.
pub(crate) fn answer(
    context: &Context,
    kind: &'static str,
    plan: &Plan,
    files: &[(String, String)],
    out: Option<&Path>,
) -> Result<u8, Failure> {
    if let Some(folder) = out {
        write(folder, files)?;
    }
    let items = files.iter().map(|(file, text)| json!({ "file": file, "text": text })).collect();
    let answer = Answer::new(kind, "file").of_mesh(&plan.mesh, None).items(items);
    context.answer(answer, || match out {
        Some(folder) => files.iter().map(|(file, _)| format!("{}\n", folder.join(file).display())).collect(),
        None if files.len() == 1 => files.iter().map(|(_, text)| text.clone()).collect(),
        None => files.iter().map(|(file, text)| format!("# ==> {file} <==\n{text}\n")).collect(),
    });
    let enrolling = plan.enrolling();
    if let Some((service, instance)) = enrolling.first() {
        let more =
            if enrolling.len() > 1 { format!(", and so for {} more", enrolling.len() - 1) } else { String::new() };
        context.screen.note(&format!(
            "each sidecar joins by a token the first time, once the master runs: \
             `synego token create --service {service} --out {TOKENS}/{instance}`{more}"
        ));
    }
    for note in &plan.notes {
        context.screen.note(&format!("no counterpart: {}: {}", note.key, note.why));
    }
    Ok(if plan.notes.is_empty() { DONE } else { FAILED })
}

/// What the first line of each file says; a file without it is somebody's own.
pub(crate) const MARK: &str = "Written by `synego";

fn write(folder: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::new(format!("cannot write {}", path.display())).cause(error.to_string())
    };
    std::fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    for (file, _) in files {
        let path = folder.join(file);
        let is_foreign = std::fs::read_to_string(&path).is_ok_and(|text| !text.contains(MARK));
        if is_foreign {
            return Err(Failure::new(format!("{} is there already, and not of this command", path.display()))
                .help("name another folder, or move it away"));
        }
    }
    for (file, text) in files {
        let path = folder.join(file);
        std::fs::write(&path, text).map_err(|error| cannot(&path, error))?;
    }
    Ok(())
}
