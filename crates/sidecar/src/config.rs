//! What a sidecar runs on: complete and consistent once it exists.

mod problems;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use synego_control_plane::credential::CredentialHandle;
use synego_control_plane::order::Commanded;
use synego_control_plane::uplink::{LogLevel, MasterAddress};
use synego_model::process::{NO_LIMIT, ReadyBy, ServiceAddress};
use synego_model::{
    CapSpec, CommandLine, HealthSpec, InstanceName, Listens, MeshName, NodeName, Place, Probe, Protocol, ReadySpec,
    RestartWhen, RunAs, ServiceName, service,
};
use synego_runtime::config as machine;
use synego_supervise::{RestartPolicy, StopBy};

use self::problems::Problems;
use crate::args::Args;

/// What a sidecar runs on.
#[derive(Clone)]
pub struct SidecarConfig {
    /// Name of the mesh; `None`: whichever the masters serve.
    pub mesh: Option<MeshName>,
    /// Name of this machine.
    pub node: NodeName,
    /// Zone of this machine; may be empty.
    pub zone: String,
    /// Name of the service.
    pub service: ServiceName,
    /// Name of the instance.
    pub instance: InstanceName,
    /// What the service speaks.
    pub protocol: Protocol,
    /// Version of the service; may be empty.
    pub version: String,
    /// For metrics and selectors.
    pub labels: BTreeMap<String, String>,
    /// Places that the ingress shall route here; `None`: as the SDK says.
    pub routes: Option<Vec<String>>,
    /// Services it calls.
    pub uses: Vec<ServiceName>,
    /// Where the process listens.
    pub listens: Listens,
    /// The process, where this sidecar is its parent.
    pub process: Option<ProcessConfig>,
    /// How its health is probed; `None`: by its process and port alone.
    pub health: Option<HealthSpec>,
    /// The masters, in order of preference.
    pub masters: Vec<MasterAddress>,
    /// Whether every hop is mutual TLS.
    pub mtls: bool,
    /// File of the join token, for the first time.
    pub token_file: Option<PathBuf>,
    /// The certificate that it speaks with; without one, and with `mtls`, it cannot be bound.
    pub credential: Option<CredentialHandle>,
    /// Where peers reach the instance.
    pub inbound: SocketAddr,
    /// What peers are told instead of `inbound`; `None`: found out.
    pub advertise: Option<SocketAddr>,
    /// Where other machines reach the master of this very process; `None`: they do not, or there is none.
    pub host: Option<IpAddr>,
    /// Where the process reaches others.
    pub outbound: SocketAddr,
    /// Where metrics and health are served; `None`: by the process that holds this sidecar.
    pub admin: Option<SocketAddr>,
    /// Folder of the last snapshot; `None`: not kept.
    pub state_dir: Option<PathBuf>,
    /// Folder of the service protocol's socket.
    pub runtime_dir: PathBuf,
    /// Time for the drain.
    pub stop: Duration,
    /// The least important line of the service that is written down; `None`: what its SDK sends of itself, and all that it
    /// prints.
    pub log_level: Option<LogLevel>,
    /// Whether its process is built already: then only a reload builds it.
    pub is_built: bool,
    /// Whether it goes on to tell of a process that has ended for good; otherwise it ends with it.
    pub stays: bool,
    /// Who obeys what a person orders of this instance, in place of the sidecar itself.
    pub commanded: Option<Arc<dyn Commanded>>,
}

/// How the process beside the sidecar is run.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// What is started.
    pub command: CommandLine,
    /// What runs before.
    pub build: Option<CommandLine>,
    /// Its folder; absolute.
    pub cwd: PathBuf,
    /// Its variables, over the inherited ones and those of `env_files`.
    pub env: BTreeMap<String, String>,
    /// Files of variables.
    pub env_files: Vec<PathBuf>,
    /// When it counts as ready.
    pub ready: ReadySpec,
    /// The signal that asks it to end.
    pub stop_by: StopBy,
    /// What follows its end.
    pub restart: RestartPolicy,
    /// As whom it runs, and what it inherits.
    pub run_as: RunAs,
    /// How much of the machine it may take, with all that it starts.
    pub caps: CapSpec,
}

/// A duration that is long for people and short for machines: how long a process may take to be ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

impl SidecarConfig {
    /// The configuration that a command line says.
    ///
    /// # Errors
    /// Every problem at once, each naming its flag, the value and what was expected.
    pub fn from_args(args: &Args) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let service = problems.required(args.service.as_deref(), "--service", ServiceName::new);
        // PM2 counts the processes of one name from 0.
        let number = machine::env("NODE_APP_INSTANCE").and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
        let default_instance = args.service.as_ref().map(|service| format!("{service}-{}", number.saturating_add(1)));
        let instance = problems.required(
            args.instance.as_deref().or(default_instance.as_deref()),
            "--instance",
            InstanceName::new,
        );
        let host = machine::host_name();
        let node = problems.required(args.node.as_deref().or(Some(&host)), "--node", NodeName::new);
        let mesh = args.mesh.as_deref().and_then(|mesh| problems.required(Some(mesh), "--mesh", MeshName::new));
        let protocol = problems.required(Some(args.protocol.as_str()), "--protocol", str::parse::<Protocol>);
        let uses =
            args.uses.iter().filter_map(|name| problems.required(Some(name), "--uses", ServiceName::new)).collect();
        for route in &args.routes {
            problems.required(Some(route), "--route", str::parse::<Place>);
        }
        let labels = args.labels.iter().filter_map(|label| match label.split_once('=') {
            Some((key, value)) if !key.is_empty() && key.len() <= 63 && value.len() <= 63 => {
                Some((key.to_owned(), value.to_owned()))
            }
            _ => {
                problems.add("--label", label, "expected NAME=VALUE, each at most 63 bytes");
                None
            }
        });
        let labels: BTreeMap<String, String> = labels.collect();
        if labels.len() > service::MAX_LABELS {
            problems.add("--label", &labels.len().to_string(), "expected at most 16 labels");
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let listens = match (args.port, &args.socket, args.address.as_deref()) {
            (Some(port), _, _) => Listens::At(ServiceAddress::Tcp(SocketAddr::new(loopback, port))),
            (_, Some(path), _) if path.as_os_str() == "auto" => Listens::OwnSocket,
            (_, Some(path), _) => {
                let made = std::path::absolute(path).map_err(|error| error.to_string());
                let path = problems.required(path.to_str(), "--socket", |_| made.clone());
                path.map_or_else(Listens::default, |path| Listens::At(ServiceAddress::Unix(path)))
            }
            (_, _, Some(text)) => {
                problems.required(Some(text), "--address", str::parse).map_or_else(Listens::default, Listens::At)
            }
            _ => Listens::FreePort,
        };
        let is_address_given = args.port.is_some() || args.address.is_some() || args.socket.is_some();
        if args.command.is_empty() && listens == Listens::OwnSocket {
            problems.add(
                "--socket",
                "auto",
                "name the one on which it listens: only a command (-- COMMAND) is told one",
            );
        }
        if args.command.is_empty() && !is_address_given {
            problems.add(
                "--port",
                "",
                "say where the process listens (--port, --socket or --address), or how to start it (-- COMMAND)",
            );
        }
        if args.masters.is_empty() {
            problems.add("--master", "", "at least one is needed, such as 127.0.0.1:3001");
        }
        let far = args.masters.iter().any(|master| !is_loopback(master));
        let inbound = problems.bind("--inbound", &args.inbound, far);
        let outbound = problems.bind("--outbound", &args.outbound, false);
        if outbound.is_some_and(|address| !address.ip().is_loopback()) {
            problems.add(
                "--outbound",
                &args.outbound,
                "expected an address on loopback: whoever reaches it calls in the name of the service",
            );
        }
        let admin = problems.bind("--admin", &args.admin, false);
        if !["required", "off"].contains(&args.mtls.as_str()) {
            problems.add("--mtls", &args.mtls, "expected required or off");
        }
        let advertise =
            args.advertise.as_deref().and_then(|text| problems.required(Some(text), "--advertise", str::parse));
        let restart = RestartWhen::from_word(&args.restart).unwrap_or_else(|| {
            problems.add("--restart", &args.restart, "expected always, on_failure or never");
            RestartWhen::default()
        });
        let health = args.health.as_deref().map(|path| HealthSpec::of(Probe::Http(path.to_owned())));
        if let Some(path) = args.health.as_deref().filter(|path| !path.starts_with('/')) {
            problems.add("--health", path, "expected a path that begins with /");
        }
        let process = args.command.split_first().map(|(program, rest)| ProcessConfig {
            command: CommandLine { program: program.clone(), args: rest.to_vec() },
            build: None,
            cwd: std::env::current_dir().unwrap_or_default(),
            env: BTreeMap::new(),
            env_files: Vec::new(),
            ready: ReadySpec {
                by: health.as_ref().map(|spec| ReadyBy::Probe(spec.probe.clone())),
                within: if restart == RestartWhen::Never && health.is_none() { NO_LIMIT } else { READY_WITHIN },
            },
            stop_by: StopBy::Term,
            restart: RestartPolicy { when: restart, ..RestartPolicy::default() },
            run_as: RunAs {
                user: args.user.clone(),
                group: args.group.clone(),
                files: args.files,
                pass_env: args.pass_env.clone(),
            },
            caps: CapSpec { memory: args.memory, cpu_milli: args.cpu },
        });
        let mesh_folder = mesh.as_ref().map_or("mesh", MeshName::as_str);
        let runtime_dir = problems.folder("the folder of sockets", machine::runtime_dir(mesh_folder));
        let state_dir = match &args.state {
            Some(folder) => problems.folder("--state", machine::private_dir(folder)),
            None => problems.folder("the folder of state", machine::state_dir(mesh_folder)),
        };
        let masters = args.masters.iter().map(|address| MasterAddress::Tcp(address.clone())).collect();
        match (service, instance, node, protocol, inbound, outbound, runtime_dir) {
            (
                Some(service),
                Some(instance),
                Some(node),
                Some(protocol),
                Some(inbound),
                Some(outbound),
                Some(runtime_dir),
            ) if problems.0.is_empty() => Ok(Self {
                token_file: args.token_file.as_deref().map(|file| of_instance(file, &instance)),
                runtime_dir,
                state_dir,
                mesh,
                node,
                zone: args.zone.clone(),
                service,
                instance,
                protocol,
                version: args.version.clone().unwrap_or_default(),
                labels,
                routes: (!args.routes.is_empty()).then(|| args.routes.clone()),
                uses,
                listens,
                process,
                health,
                masters,
                mtls: args.mtls != "off",
                credential: None,
                inbound,
                advertise,
                host: None,
                outbound,
                admin,
                stop: args.stop,
                log_level: None,
                is_built: false,
                stays: false,
                commanded: None,
            }),
            _ => Err(problems.0),
        }
    }
}

/// The file of one instance, where one command line is of several: `{instance}` in its path is the name.
fn of_instance(file: &Path, instance: &InstanceName) -> PathBuf {
    file.to_str().map_or_else(|| file.to_owned(), |file| file.replace("{instance}", instance.as_str()).into())
}

/// The command line with what `--config FILE` says put before it: a flag that is given wins over the file.
///
/// # Errors
/// A sentence that names the file and what is wrong with it.
pub fn with_file(arguments: Vec<OsString>, text: &str) -> Result<Vec<OsString>, String> {
    let file: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("expected one JSON object: {error}"))?;
    let given = |key: &str| {
        let flag = format!("--{key}");
        let own = arguments.iter().take_while(|argument| *argument != "--");
        own.filter_map(|argument| argument.to_str()).any(|text| text == flag || text.starts_with(&format!("{flag}=")))
    };
    let mut merged: Vec<OsString> = arguments.first().cloned().into_iter().collect();
    let mut command: Vec<OsString> = Vec::new();
    for (key, value) in file {
        let values = match value {
            serde_json::Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                other => return Err(format!("`{key}` is {other}: expected text, a number, or a list of them")),
            };
            if key == "command" {
                command.push(text.into());
            } else if !given(&key) {
                merged.push(format!("--{key}={text}").into());
            }
        }
    }
    let has_command = arguments.iter().any(|argument| argument == "--");
    merged.extend(arguments.into_iter().skip(1));
    if !has_command && !command.is_empty() {
        merged.push("--".into());
        merged.append(&mut command);
    }
    Ok(merged)
}

fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn read(line: &str) -> Result<SidecarConfig, Vec<String>> {
        let words = std::iter::once("synego-sidecar").chain(line.split_whitespace());
        let args = Args::try_parse_from(words).map_err(|error| vec![error.to_string()])?;
        SidecarConfig::from_args(&args)
    }

    #[test]
    fn the_shortest_line_beside_a_running_process_is_enough() {
        let config = read("--service users --port 3001 --master 127.0.0.1:3001").expect("a configuration");
        assert_eq!(config.instance.as_str(), "users-1");
        assert_eq!(config.listens, Listens::At(ServiceAddress::Tcp("127.0.0.1:3001".parse().expect("an address"))));
        assert_eq!(config.inbound.to_string(), "127.0.0.1:4000");
        assert!(config.process.is_none());
    }

    #[test]
    fn a_socket_is_named_by_its_path_or_by_the_sidecar_for_its_own_command() {
        let config = read("--service users --socket /run/u.sock --master 127.0.0.1:3001").expect("a configuration");
        assert_eq!(config.listens, Listens::At(ServiceAddress::Unix("/run/u.sock".into())));
        let config = read("--service users --socket auto --master 127.0.0.1:3001 -- node x.js").expect("one");
        assert_eq!(config.listens, Listens::OwnSocket);
        let problems = read("--service users --socket auto --master 127.0.0.1:3001").err().expect("no command");
        assert!(problems[0].starts_with("--socket auto: name the one"), "{problems:?}");
    }

    #[test]
    fn a_far_master_opens_the_inbound_to_the_network_and_nothing_else() {
        let config = read("--service users --port 1 --master m1:3001 --inbound 0").expect("a configuration");
        assert_eq!(config.inbound.to_string(), "0.0.0.0:0");
        assert!(config.outbound.ip().is_loopback());
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let problems = read("--service User --protocol smtp --outbound 0.0.0.0:1 --label x").err().expect("problems");
        for flag in ["--service", "--protocol", "--outbound", "--label", "--port", "--master", "--instance"] {
            assert!(problems.iter().any(|problem| problem.starts_with(flag)), "{flag} in {problems:#?}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let line = ["synego-sidecar", "--service", "users"].map(OsString::from).to_vec();
        let merged = with_file(line, r#"{"service":"orders","port":7,"route":["/a","/b"],"command":["node","x.js"]}"#);
        let words: Vec<String> =
            merged.expect("a line").into_iter().filter_map(|word| word.into_string().ok()).collect();
        assert_eq!(
            words,
            ["synego-sidecar", "--port=7", "--route=/a", "--route=/b", "--service", "users", "--", "node", "x.js"]
        );
    }
}
