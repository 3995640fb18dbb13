//! What this machine must have: a sound manifest, its programs, room for files, folders and secrets of its own.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use synego_manifest::{Manifest, Outcome as Read};
use synego_model::gateway::Engine;
use synego_model::process::Target;
use synego_runtime::config;
use synego_wire::pb;

use super::Finding;
use crate::commands::nginx;
use crate::context::Context;
use crate::mesh::SOCKET;
use crate::output::amount;

/// Open files that a machine with all its connections wants: twice as many as connections, and some.
const FILES: u64 = 20_000;
/// Free space below which a disk is nearly full, in bytes.
const SPACE: u64 = 256 * 1024 * 1024;
/// Connections that wait to be accepted; the kernel cuts a listener's wish down to it.
const BACKLOG: u64 = 1024;
/// Longest path of a Unix socket, in bytes.
const LONGEST_SOCKET: usize = 107;
/// Files of secrets in the folder of state of a mesh begin so.
const SECRETS: [&str; 5] = ["ca.key", "identity", "store.redb", "token", "logins.json"];

pub(super) fn check(context: &Context, read: &Read) -> Vec<Finding> {
    let manifest = read.manifest.as_ref();
    let mut findings = vec![self::manifest(read)];
    findings.push(manifest.map_or_else(|| Finding::skipped("programs", "no manifest says which"), programs));
    findings.extend(manifest.and_then(users));
    findings.push(nginx(context, manifest));
    findings.extend([files(), backlog(), clock(context.now())]);
    let mesh = manifest.map_or("mesh", |manifest| manifest.declaration.mesh.as_str());
    findings.extend([state(mesh), runtime(mesh), secrets(), space()]);
    findings
}

fn manifest(read: &Read) -> Finding {
    match (&read.manifest, read.found) {
        (Some(manifest), _) if read.diagnostics.is_empty() => Finding::passed("manifest", manifest.title.clone()),
        (Some(_), _) => Finding::warning("manifest", read.counts(), "see `synego check`"),
        (None, false) if read.diagnostics.is_empty() => Finding::skipped("manifest", "none in this folder or above it"),
        (None, _) => Finding::failed("manifest", read.counts(), "see `synego check`"),
    }
}

/// How `memory` and `cpu` of services are held, where there are any: as a running mesh says, else as they would be here.
pub(super) fn caps(manifest: &Manifest, view: Option<&pb::MeshView>) -> Option<Finding> {
    const HELP: &str = "run it as a unit of systemd with `Delegate=cpu memory`; see docs/lifecycle.md";
    let instances = view.into_iter().flat_map(|view| &view.service).flat_map(|service| &service.instance);
    let ways: BTreeSet<&str> = instances.map(|one| one.caps.as_str()).filter(|caps| !caps.is_empty()).collect();
    if !ways.is_empty() {
        let is_held = |way: &&str| !way.contains("watched") && !way.contains("priority");
        let told = Vec::from_iter(ways.iter().copied()).join("; ");
        let all_held = ways.iter().all(is_held);
        return Some(if all_held { Finding::passed("caps", told) } else { Finding::warning("caps", told, HELP) });
    }
    let capped = manifest.local.iter().filter(|local| !local.caps.is_none()).count();
    if capped == 0 {
        return None;
    }
    Some(match synego_supervise::groups() {
        Ok(dir) => {
            let services = amount::count(capped, "service");
            Finding::passed("caps", format!("{services} held by cgroup v2 at {}", dir.display()))
        }
        Err(why) => Finding::warning("caps", format!("`memory` is watched and `cpu` a priority: {why}"), HELP),
    })
}

/// Whether what the services run is there.
fn programs(manifest: &Manifest) -> Finding {
    let mut missing = Vec::new();
    let mut count = 0;
    for service in &manifest.local {
        let Target::Run { command, build, .. } = &service.target else { continue };
        // What a build makes is not there before it ran.
        let command = build.as_ref().unwrap_or(command);
        count += 1;
        if find(&command.program, &service.cwd).is_none() {
            missing.push(format!("`{}` of {}", command.program, service.spec.name));
        }
    }
    if missing.is_empty() {
        return Finding::passed("programs", format!("all {count} are there"));
    }
    let help = "install them, or write `run` with the whole path";
    Finding::failed("programs", format!("not found: {}", missing.join(", ")), help)
}

/// Whether the users whose rights services have are there, and can be given; `None`: none has another's.
fn users(manifest: &Manifest) -> Option<Finding> {
    let named = manifest.local.iter().filter(|local| local.run_as.user.is_some() || local.run_as.group.is_some());
    let found: Vec<Result<(), String>> = named
        .map(|local| {
            let rights = synego_supervise::rights(&local.run_as);
            rights.map(drop).map_err(|problem| format!("{}: {problem}", local.spec.name))
        })
        .collect();
    let problems: Vec<String> = found.iter().filter_map(|found| found.clone().err()).collect();
    if found.is_empty() {
        None
    } else if problems.is_empty() {
        Some(Finding::passed("users", format!("{} with rights of their own", amount::count(found.len(), "service"))))
    } else {
        Some(Finding::failed("users", problems.join("; "), "see `user` and `group` in docs/lifecycle.md"))
    }
}

fn find(program: &str, cwd: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(cwd.join(program)).filter(runs);
    }
    let path = config::env("PATH").unwrap_or_default();
    path.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(program)).find(runs)
}

fn nginx(context: &Context, manifest: Option<&Manifest>) -> Finding {
    let wanted = manifest.and_then(|manifest| manifest.gateway.engine);
    if wanted == Some(Engine::Master) {
        return Finding::skipped("nginx", "the manifest does without (`engine: master`)");
    }
    let found = context.block_on(async { Ok(synego_nginx::find().await) }).ok().flatten();
    match (found, manifest) {
        (None, _) if wanted.is_some() => {
            Finding::failed("nginx", "there is none, and the manifest wants it", "`apt install nginx`")
        }
        (None, _) => Finding::warning(
            "nginx",
            "there is none: the master serves the routes itself, without static files and uploads",
            "`apt install nginx`",
        ),
        (Some(binary), None) => Finding::passed("nginx", binary.to_string()),
        (Some(binary), Some(manifest)) => match nginx::test(manifest, context) {
            Ok(_) => Finding::passed("nginx", format!("{binary} takes the configuration")),
            Err(failure) => Finding::failed("nginx", failure.cause.join("; "), "see `synego nginx check`"),
        },
    }
}

fn files() -> Finding {
    let allowed = config::file_limit();
    if allowed >= FILES {
        return Finding::passed("open files", format!("{allowed} allowed"));
    }
    let cause = format!("{allowed} allowed, {FILES} wanted: fewer connections are taken");
    Finding::warning("open files", cause, "`LimitNOFILE=65536` in the unit, or `ulimit -Hn 65536` before the start")
}

fn backlog() -> Finding {
    let file = "/proc/sys/net/core/somaxconn";
    let Some(allowed) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return Finding::skipped("backlog", format!("{file} says nothing"));
    };
    if allowed >= BACKLOG {
        return Finding::passed("backlog", format!("{allowed} connections may wait"));
    }
    let cause = format!("{allowed} connections may wait to be accepted, {BACKLOG} wanted");
    Finding::warning("backlog", cause, format!("`sysctl net.core.somaxconn={BACKLOG}`"))
}

/// Certificates live by the wall clock. Whether it agrees with the masters' is a check of the mesh.
fn clock(now_unix_ms: u64) -> Finding {
    // When this was written, and no machine lives in the year 2100 yet.
    let (earliest, latest) = (1_763_000_000_000, 4_102_444_800_000);
    match (earliest..latest).contains(&now_unix_ms) {
        true => Finding::passed("clock", "the wall clock is set"),
        false => Finding::failed(
            "clock",
            "the wall clock is not set: every certificate looks expired, or not begun",
            "let it be set: `timedatectl set-ntp true`",
        ),
    }
}

/// The nearest of `path` and the folders above it that is there.
fn nearest(path: &Path) -> Option<(&Path, std::fs::Metadata)> {
    path.ancestors().find_map(|folder| Some((folder, std::fs::metadata(folder).ok()?)))
}

/// A folder that is this user's alone, or can become so.
fn own_folder(check: &'static str, path: &Path) -> Finding {
    let uid = rustix::process::geteuid();
    let Some((found, metadata)) = nearest(path) else {
        return Finding::failed(check, format!("{} cannot be looked at", path.display()), "see who may enter it");
    };
    if found != path {
        let is_open = rustix::fs::access(found, rustix::fs::Access::WRITE_OK).is_ok();
        return match is_open {
            true => Finding::passed(check, format!("{} can be made", path.display())),
            false => Finding::failed(
                check,
                format!("{} cannot be made in {}", path.display(), found.display()),
                "run as a user who may, or name another: `SYNEGO_STATE_DIR`, `SYNEGO_RUNTIME_DIR`",
            ),
        };
    }
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.uid() != uid.as_raw() {
        let cause = format!("{} belongs to the user {}, not to {}", path.display(), metadata.uid(), uid.as_raw());
        return Finding::failed(check, cause, "run as that user, or name another folder");
    }
    if mode & 0o077 != 0 {
        let cause = format!("{} is open to others (mode {mode:03o})", path.display());
        return Finding::warning(check, cause, format!("`chmod 700 {}`", path.display()));
    }
    Finding::passed(check, path.display().to_string())
}

fn state(mesh: &str) -> Finding {
    match config::state_place() {
        Ok(base) => own_folder("state", &base.join(mesh)),
        Err(error) => Finding::failed("state", error.to_string(), "name a folder: `SYNEGO_STATE_DIR`"),
    }
}

fn runtime(mesh: &str) -> Finding {
    let folder = config::runtime_base().join(mesh);
    let socket = folder.join(SOCKET);
    if socket.as_os_str().len() > LONGEST_SOCKET {
        let cause = format!("{} is longer than the {LONGEST_SOCKET} bytes of a socket's path", socket.display());
        return Finding::failed("sockets", cause, "name a shorter folder: `SYNEGO_RUNTIME_DIR`");
    }
    own_folder("sockets", &folder)
}

/// Whether anybody else may read keys and tokens of this user.
fn secrets() -> Finding {
    let (mut count, mut open) = (0, Vec::new());
    let mut folders: Vec<PathBuf> = config::state_place().into_iter().collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_dir() && folders.len() < 64 {
                folders.push(entry.path());
            } else if metadata.is_file() && SECRETS.iter().any(|secret| name.starts_with(secret)) {
                count += 1;
                if metadata.permissions().mode() & 0o077 != 0 {
                    open.push(entry.path().display().to_string());
                }
            }
        }
    }
    if open.is_empty() {
        return Finding::passed("secrets", format!("{count} files of keys and tokens, all of this user alone"));
    }
    let cause = format!("others may read {}: a start refuses them", open.join(", "));
    Finding::failed(
        "secrets",
        cause,
        format!("`chmod 600 {}`; if somebody may have: `synego ca rotate --fast`", open[0]),
    )
}

fn space() -> Finding {
    let place = config::state_place().unwrap_or_else(|_| PathBuf::from("/"));
    let free = nearest(&place).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)).and_then(|(found, _)| {
        let disk = rustix::fs::statvfs(found)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    });
    match free {
        Ok(free) if free >= SPACE => Finding::passed("disk", format!("{} MiB free", free >> 20)),
        Ok(free) => Finding::warning(
            "disk",
            format!("{} MiB free where {} is", free >> 20, place.display()),
            "make room: certificates that cannot be kept are not renewed",
        ),
        Err(error) => Finding::skipped("disk", error.to_string()),
    }
}
