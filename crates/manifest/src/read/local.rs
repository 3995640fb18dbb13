//! How this machine runs a service.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use synego_model::process::{
    LocalService, NO_LIMIT, ReadyBy, ReadySpec, ReloadSpec, ServiceAddress, StopSpec, Target, WatchSpec,
};
use synego_model::{CapSpec, Listens, RestartSpec, RestartWhen, RunAs, ServiceName, ServiceSpec};

use super::{Context, clean, command, probe};
use crate::tree::Node;
use crate::types;

/// Reads it; `None` when something in it is none of the model's after all.
pub(super) fn run(spec: &ServiceSpec, said: &types::Service, context: &Context<'_>) -> Option<LocalService> {
    let name = spec.name.as_str();
    let target = match (&said.run, &said.address) {
        (Some(words), _) => Target::Run {
            command: command(words)?,
            build: said.build.as_deref().and_then(command),
            listens: listens(name, said, context),
        },
        (None, Some(addresses)) => {
            let all = addresses.all().into_iter().map(|address| match address.strip_prefix("unix:") {
                Some(path) => format!("unix:{}", context.path(path, &["services", name, "address"]).display()),
                None => address,
            });
            Target::Found(all.collect())
        }
        (None, None) => return None,
    };
    // Where nothing is said, a service runs beside the file that defines it.
    let entry = context.tree.get("services").and_then(|services| services.entry(name));
    let beside =
        entry.and_then(|entry| context.problems.file(entry.span.file)).map_or(context.root, |source| &source.folder);
    let cwd = match &said.cwd {
        Some(cwd) => context.path(cwd, &["services", name, "cwd"]),
        None => clean(beside),
    };
    let files = context.tree.at(&["services", name, "env_file"]).map(Node::items).unwrap_or_default();
    let env_files = said.env_file.iter().flatten().enumerate().map(|(index, file)| {
        let folder = files.get(index).and_then(|node| context.problems.file(node.span.file));
        clean(&folder.map_or(context.root, |source| source.folder.as_path()).join(file))
    });
    let after: Option<Vec<ServiceName>> = said.after.iter().flatten().map(|name| ServiceName::new(name).ok()).collect();
    let restart = restart(said.restart.as_ref())?;
    let is_job = restart.when == RestartWhen::Never;
    Some(LocalService {
        spec: spec.clone(),
        target,
        cwd,
        env: said.env.clone().unwrap_or_default(),
        env_files: env_files.collect(),
        version: said.version.clone().unwrap_or_default(),
        run_as: RunAs {
            user: said.user.clone(),
            group: said.group.clone(),
            files: said.files,
            pass_env: said.pass_env.clone(),
        },
        after: after?,
        ready: ready(said.ready.as_ref(), is_job && spec.health.is_none()),
        restart,
        caps: CapSpec { memory: said.memory.map(|size| size.0), cpu_milli: said.cpu.map(|cores| cores.0) },
        stop: stop(said.stop.as_ref()),
        log_level: said.logs.as_ref().and_then(|logs| logs.level.clone()),
        log_format: said.logs.as_ref().and_then(|logs| logs.format.clone()),
        watch: said.watch.as_ref().and_then(|said| watch(said, clean(beside))),
        reload: reload(said.reload.as_ref()),
    })
}

/// Where the processes of a service listen.
fn listens(name: &str, said: &types::Service, context: &Context<'_>) -> Listens {
    let port = said.port.as_ref().and_then(types::NumberOr::number).and_then(|port| u16::try_from(port).ok());
    match (port, said.socket.as_deref()) {
        (Some(port), _) => Listens::At(ServiceAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))),
        (None, Some("auto")) => Listens::OwnSocket,
        (None, Some(path)) => Listens::At(ServiceAddress::Unix(context.path(path, &["services", name, "socket"]))),
        (None, None) => Listens::FreePort,
    }
}

pub(super) fn restart(said: Option<&types::Restart>) -> Option<RestartSpec> {
    let usual = RestartSpec::default();
    let Some(said) = said else { return Some(usual) };
    let time = |said: Option<types::Time>, usual| said.map_or(usual, |time| time.0);
    Some(RestartSpec {
        when: said.when.as_deref().map_or(Some(usual.when), RestartWhen::from_word)?,
        backoff: time(said.backoff, usual.backoff),
        max: time(said.max, usual.max),
        tries: said.tries.unwrap_or(usual.tries),
        window: time(said.window, usual.window),
    })
}

fn stop(said: Option<&types::Stop>) -> StopSpec {
    let mut spec = StopSpec::default();
    if let Some(said) = said {
        spec.within = said.within.map_or(spec.within, |time| time.0);
        spec.signal = said.signal.clone().unwrap_or(spec.signal);
    }
    spec
}

fn watch(said: &types::Watch, root: PathBuf) -> Option<WatchSpec> {
    let debounce = said.debounce.map_or(Duration::from_millis(300), |time| time.0);
    let (files, ignore) = (said.files.clone()?, said.ignore.clone().unwrap_or_default());
    (!files.is_empty()).then_some(WatchSpec { root, files, ignore, debounce })
}

fn reload(said: Option<&types::Reload>) -> ReloadSpec {
    let usual = ReloadSpec::default();
    said.map_or(usual, |said| ReloadSpec {
        max_surge: said.max_surge.unwrap_or(usual.max_surge),
        max_unavailable: said.max_unavailable.unwrap_or(usual.max_unavailable),
    })
}

/// - `is_job`: whether it is ready by its end, unless `said` knows better: that may take as long as it takes.
fn ready(said: Option<&types::Ready>, is_job: bool) -> ReadySpec {
    let by = said.and_then(|said| {
        if said.port.is_some() {
            return Some(ReadyBy::Port);
        }
        if said.notify.is_some() {
            return Some(ReadyBy::Notify);
        }
        if let Some(pattern) = &said.log {
            return Some(ReadyBy::Log(pattern.clone()));
        }
        probe(said.http.as_ref(), said.grpc.as_ref(), said.tcp.as_ref(), said.exec.as_ref()).map(ReadyBy::Probe)
    });
    let usual = if is_job && by.is_none() { NO_LIMIT } else { Duration::from_secs(30) };
    ReadySpec { by, within: said.and_then(|said| said.within).map_or(usual, |time| time.0) }
}
