//! From what the file says, checked, to the values of the model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use synego_model::declaration::{self, Liveness};
use synego_model::gateway::{Listen, ListenProtocol, SpaPlace, StaticPlace};
use synego_model::health::{HealthSpec, Probe};
use synego_model::process::{CommandLine, LocalService};
use synego_model::{
    AccessLines, AccessMode, AccessRule, AccessRules, Declaration, Engine, GatewaySpec, HostPattern, Limits,
    MasterSpec, MeshName, Policy, Protocol, RestartWhen, Route, ServiceName, ServiceSpec,
};

use crate::address::socket;
use crate::manifest::{ANY, IdentitySpec, LOOPBACK, Level, LogFormat, LogsSpec, masters, mesh_of};
use crate::policy;
use crate::problems::Problems;
use crate::tree::Node;
use crate::types;

mod local;

/// The values of the model.
pub(crate) struct Read {
    pub(crate) declaration: Declaration,
    pub(crate) local: Vec<LocalService>,
    pub(crate) gateway: GatewaySpec,
    pub(crate) masters: MasterSpec,
    pub(crate) logs: LogsSpec,
    pub(crate) identity: IdentitySpec,
}

/// What reading needs beside the types: where each value stood, for paths and origins.
pub(crate) struct Context<'a> {
    pub(crate) root: &'a Path,
    pub(crate) tree: &'a Node,
    pub(crate) problems: &'a Problems,
    pub(crate) cores: u32,
}

impl Context<'_> {
    /// `text` as a path, relative to the file in which the value at `path` stands.
    fn path(&self, text: &str, path: &[&str]) -> PathBuf {
        let folder = self.tree.at(path).and_then(|node| self.problems.file(node.span.file));
        clean(&folder.map_or(self.root, |source| source.folder.as_path()).join(text))
    }

    fn origin(&self, node: Option<&Node>) -> String {
        node.map_or_else(|| "default".to_owned(), |node| self.problems.place(node.span))
    }
}

/// A path without `.` and without what `..` takes back.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// Reads a file that passed every check; `None` when something in it is none of the model's after all.
pub(crate) fn read(file: &types::Manifest, context: &Context<'_>) -> Option<Read> {
    let empty = BTreeMap::new();
    let mut services = BTreeMap::new();
    let mut local = Vec::new();
    for (name, said) in file.services.as_ref().unwrap_or(&empty) {
        let name = ServiceName::new(name).ok()?;
        let spec = service(&name, said, context)?;
        local.push(local::run(&spec, said, context)?);
        services.insert(name, spec);
    }
    let said = file.masters.as_ref();
    let mesh = match &file.mesh {
        Some(name) => MeshName::new(name).ok()?,
        None => mesh_of(context.root),
    };
    let time = |said: Option<types::Time>, default| said.map_or(default, |time| time.0);
    let usual = Liveness::default();
    let liveness = Liveness {
        report: time(said.and_then(|said| said.report), usual.report),
        suspect: time(said.and_then(|said| said.suspect), usual.suspect),
        gone: time(said.and_then(|said| said.gone), usual.gone),
    };
    let limits = limits(file.limits.as_ref());
    let said_logs = file.telemetry.as_ref().and_then(|telemetry| telemetry.logs.as_ref());
    let access_lines = access_lines(said_logs);
    let access = file.access.as_deref().map_or(Some(AccessMode::default()), AccessMode::from_word)?;
    let life = time(file.identity.as_ref().and_then(|said| said.life), declaration::LIFE);
    Some(Read {
        declaration: Declaration { mesh, services, access, limits, liveness, access_lines, life },
        identity: identity(file, context),
        local,
        gateway: gateway(file.gateway.as_ref(), context)?,
        masters: master(said)?,
        logs: logs(said_logs, context),
    })
}

fn identity(file: &types::Manifest, context: &Context<'_>) -> IdentitySpec {
    let said = file.identity.as_ref();
    let ca = said.and_then(|said| said.ca.as_ref());
    let of_ca = |text: &Option<String>, key: &str| Some(context.path(text.as_deref()?, &["identity", "ca", key]));
    let token_file = file.masters.as_ref().and_then(|masters| masters.token_file.as_deref());
    IdentitySpec {
        mtls: said.and_then(|said| said.mtls.as_deref()) != Some("off"),
        ca: ca.and_then(|ca| of_ca(&ca.cert, "cert").zip(of_ca(&ca.key, "key"))),
        token_file: token_file.map(|text| context.path(text, &["masters", "token_file"])),
    }
}

fn master(said: Option<&types::Masters>) -> Option<MasterSpec> {
    let mut spec = masters();
    let Some(said) = said else { return Some(spec) };
    for (to, text) in [(&mut spec.ingress, &said.ingress), (&mut spec.mesh, &said.mesh), (&mut spec.admin, &said.admin)]
    {
        if let Some(text) = text {
            *to = socket(text, LOOPBACK)?;
        }
    }
    spec.join = said.join.clone().unwrap_or_default();
    Some(spec)
}

fn gateway(said: Option<&types::Gateway>, context: &Context<'_>) -> Option<GatewaySpec> {
    let empty = types::Gateway::default();
    let said = said.unwrap_or(&empty);
    let mut listen = Vec::new();
    match &said.listen {
        None => {
            let (name, protocol, address) = ("http".into(), ListenProtocol::Http, socket("8080", ANY)?);
            listen.push(Listen { name, protocol, address, proxy_protocol: Vec::new() });
        }
        Some(all) => {
            for (name, one) in all {
                let protocol = match one.protocol.as_deref().unwrap_or(name) {
                    "grpc" => ListenProtocol::Grpc,
                    _ => ListenProtocol::Http,
                };
                let proxies = one.proxy_protocol.iter().flatten().map(|range| range.parse());
                listen.push(Listen {
                    name: name.clone(),
                    protocol,
                    address: socket(one.address.as_deref()?, ANY)?,
                    proxy_protocol: proxies.collect::<Result<_, _>>().ok()?,
                });
            }
        }
    }
    // The one that people open comes first.
    listen.sort_by_key(|one| (one.name != "http", one.protocol == ListenProtocol::Grpc, one.name.clone()));
    let mut static_places = Vec::new();
    for (place, one) in said.static_places.iter().flatten() {
        static_places.push(StaticPlace {
            place: place.parse().ok()?,
            dir: context.path(one.dir.as_deref()?, &["gateway", "static", place, "dir"]),
            index: one.index.clone().unwrap_or_else(|| "index.html".into()),
            cache: one.cache.map_or(std::time::Duration::from_secs(3_600), |time| time.0),
            list: one.list.unwrap_or(false),
        });
    }
    let mut spa_places = Vec::new();
    for (place, one) in said.spa.iter().flatten() {
        spa_places.push(SpaPlace {
            place: place.parse().ok()?,
            dir: context.path(one.dir.as_deref()?, &["gateway", "spa", place, "dir"]),
            index: one.index.clone().unwrap_or_else(|| "index.html".into()),
        });
    }
    let hosts: Result<Vec<HostPattern>, _> = said.hosts.iter().flatten().map(|host| host.parse()).collect();
    Some(GatewaySpec {
        engine: said.engine.as_deref().map(|engine| if engine == "master" { Engine::Master } else { Engine::Nginx }),
        listen,
        hosts: hosts.ok()?,
        static_places,
        spa_places,
    })
}

fn logs(said: Option<&types::Logs>, context: &Context<'_>) -> LogsSpec {
    let mut spec = LogsSpec::under(context.root);
    let Some(said) = said else { return spec };
    if let Some(dir) = &said.dir {
        spec.dir = context.path(dir, &["telemetry", "logs", "dir"]);
    }
    spec.level = said.level.as_deref().map_or(spec.level, Level::of);
    spec.format = said
        .format
        .as_deref()
        .map_or(spec.format, |format| if format == "text" { LogFormat::Text } else { LogFormat::Json });
    spec.keep = said.keep.map_or(spec.keep, |time| time.0);
    spec.max_size = said.max_size.map_or(spec.max_size, |size| size.0);
    spec
}

fn access_lines(said: Option<&types::Logs>) -> AccessLines {
    match said.and_then(|said| said.access.as_deref()) {
        None | Some("all") => AccessLines::All,
        Some("errors") => AccessLines::Errors,
        Some("off") => AccessLines::Off,
        Some(share) => {
            let percent = crate::value::percent(share).and_then(|percent| u8::try_from(percent).ok());
            percent.map_or(AccessLines::All, AccessLines::Share)
        }
    }
}

fn limits(said: Option<&types::Limits>) -> Limits {
    let mut limits = Limits::default();
    let Some(said) = said else { return limits };
    macro_rules! take {
        ($($key:ident: $part:tt),* $(,)?) => {
            $(if let Some(value) = said.$key { limits.$key = take!(@ value $part); })*
        };
        (@ $value:ident whole) => { $value };
        (@ $value:ident inner) => { $value.0 };
    }
    take!(
        headers: inner, header: inner, header_count: whole, target: inner, streams: whole, window: inner,
        connection_window: inner, resets: whole, header_read: inner, body_idle: inner, body_rate: inner,
        write_stall: inner, client_idle: inner, pool_idle: inner, connection_age: inner, in_flight: whole, ping: inner,
        replay: inner,
    );
    limits.connections = said.connections.as_ref().and_then(types::NumberOr::number);
    limits
}

/// What the mesh knows of a service.
fn service(name: &ServiceName, said: &types::Service, context: &Context<'_>) -> Option<ServiceSpec> {
    let protocol: Protocol = said.protocol.as_deref().map_or(Some(Protocol::Http), |word| word.parse().ok())?;
    let mut own = Policy::default();
    if let Some(policy) = &said.policy {
        policy::apply(&mut own, policy);
    }
    let own = Arc::new(own);
    let routes = match &said.routes {
        // A job answers nobody.
        None if local::restart(said.restart.as_ref())?.when == RestartWhen::Never => Some(Vec::new()),
        None => None,
        Some(routes) => {
            let items = context.tree.at(&["services", name.as_str(), "routes"]).map(Node::items).unwrap_or_default();
            let all = routes
                .iter()
                .enumerate()
                .map(|(index, said)| route(name, said, &own, context.origin(items.get(index))));
            Some(all.collect::<Option<Vec<Route>>>()?)
        }
    };
    let known = context.tree.get("services");
    let uses = said.uses.iter().flat_map(BTreeMap::keys);
    let uses = uses.filter(|used| known.is_some_and(|known| known.get(used).is_some()));
    let instances = match (&said.address, &said.instances) {
        (Some(_), _) | (None, None) => 1,
        (None, Some(types::NumberOr::Number(number))) => *number,
        (None, Some(types::NumberOr::Word(_))) => context.cores.max(1),
    };
    Some(ServiceSpec {
        name: name.clone(),
        protocol,
        routes,
        uses: uses.map(|used| ServiceName::new(used).ok()).collect::<Option<_>>()?,
        rules: rules(said.allow.as_deref(), said.deny.as_deref())?,
        health: match &said.health {
            Some(health) => health_spec(health),
            None => None,
        },
        policy: own,
        instances,
        labels: said.labels.clone().unwrap_or_default(),
    })
}

fn route(service: &ServiceName, said: &types::Route, own: &Policy, origin: String) -> Option<Route> {
    let host = said.host.as_deref().unwrap_or_default();
    let path = said.path.as_deref().unwrap_or("/");
    let mut route = Route::new(format!("{host}{path}").parse().ok()?, service.clone(), origin);
    let pairs = |map: &Option<BTreeMap<String, String>>, lower: bool| -> Vec<(String, String)> {
        let name = |name: &String| if lower { name.to_ascii_lowercase() } else { name.clone() };
        map.iter().flatten().map(|(key, value)| (name(key), value.clone())).collect()
    };
    route.exact = said.exact.unwrap_or(false);
    route.methods = said.method.clone().unwrap_or_default();
    route.headers = pairs(&said.headers, true);
    route.query = pairs(&said.query, false);
    route.policy = said.policy.as_ref().map(|policy| {
        let mut whole = own.clone();
        policy::apply(&mut whole, policy);
        Arc::new(whole)
    });
    route.rules = rules(said.allow.as_deref(), said.deny.as_deref())?;
    Some(route)
}

fn rules(allow: Option<&[types::Caller]>, deny: Option<&[types::Caller]>) -> Option<AccessRules> {
    let rule = |said: &types::Caller| {
        Some(AccessRule {
            caller: said.caller.as_deref()?.parse().ok()?,
            methods: said.method.clone().unwrap_or_default(),
            path: said.path.as_deref().map_or(Some(None), |path| path.parse().ok().map(Some))?,
        })
    };
    let all = |list: &[types::Caller]| list.iter().map(rule).collect::<Option<Vec<AccessRule>>>();
    let allow = allow.map_or(Some(None), |list| all(list).map(Some))?;
    Some(AccessRules { allow, deny: all(deny.unwrap_or_default())? })
}

fn probe(
    http: Option<&String>,
    grpc: Option<&String>,
    tcp: Option<&String>,
    exec: Option<&Vec<String>>,
) -> Option<Probe> {
    if let Some(path) = http {
        return Some(Probe::Http(path.clone()));
    }
    if let Some(name) = grpc {
        return Some(Probe::Grpc(if name == "true" { String::new() } else { name.clone() }));
    }
    if tcp.is_some() {
        return Some(Probe::Tcp);
    }
    exec.and_then(|words| command(words)).map(Probe::Exec)
}

fn health_spec(said: &types::Health) -> Option<HealthSpec> {
    let probe = probe(said.http.as_ref(), said.grpc.as_ref(), said.tcp.as_ref(), said.exec.as_ref())?;
    let mut spec = HealthSpec::of(probe);
    spec.every = said.every.map_or(spec.every, |time| time.0);
    spec.timeout = said.timeout.map_or(spec.timeout, |time| time.0);
    spec.down = said.down.unwrap_or(spec.down);
    spec.up = said.up.unwrap_or(spec.up);
    Some(spec)
}

fn command(words: &[String]) -> Option<CommandLine> {
    let (program, args) = words.split_first()?;
    Some(CommandLine { program: program.clone(), args: args.to_vec() })
}
