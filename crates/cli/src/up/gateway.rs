//! What faces the world from this machine: Nginx where it is found, else the master itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use synego_manifest::Manifest;
use synego_master::{GatewayStatus, Notice};
use synego_model::gateway::{Listen, ListenProtocol};
use synego_model::{AccessLines, Engine, InstanceState, NodeName};
use synego_nginx::{AccessTo, NginxBinary, NginxConfig};
use synego_runtime::keeper;
use synego_runtime::logs::LineWriter;
use synego_supervise::OutputSink;

use crate::failure::Failure;

/// What a connection through Nginx may be silent for beyond the mesh's own limit, so that the mesh answers first.
const SLACK: Duration = Duration::from_secs(30);
/// Word of the warning that Nginx is missing.
const MISSING: &str = "nginx_missing";

/// What the keeper knows the ports by that were found free.
const PORTS: &str = "ports";

/// Who serves the outside.
#[derive(Debug, Clone)]
pub(crate) enum Gateway {
    /// Nobody: a bare master that was told of no gateway.
    None,
    /// The master; `missing`: only because there is no Nginx.
    Master {
        /// Whether Nginx was wanted.
        missing: bool,
    },
    /// Nginx.
    Nginx(NginxBinary),
}

impl Gateway {
    /// Decides it, by the manifest and by what is installed.
    ///
    /// # Errors
    /// When Nginx is asked for by name and is not there, or a port is taken.
    pub(crate) async fn decide(manifest: &Manifest) -> Result<Self, Failure> {
        if !is_wanted(manifest) {
            return Ok(Self::None);
        }
        let gateway = match (manifest.gateway.engine, manifest.gateway.engine == Some(Engine::Master)) {
            (_, true) => Self::Master { missing: false },
            (engine, false) => match (synego_nginx::find().await, engine) {
                (Some(binary), _) => Self::Nginx(binary),
                (None, Some(_)) => {
                    return Err(Failure::new("there is no Nginx on this machine, and the manifest asks for it")
                        .cause("`gateway.engine` is `nginx`; looked in PATH and the usual folders")
                        .help("`apt install nginx`, or leave `engine` out: the master then serves dynamic routes"));
                }
                (None, None) => Self::Master { missing: true },
            },
        };
        // What listens there after a former part of this program is our own.
        let listens = manifest.gateway.listen.iter().filter(|_| !keeper::is_again());
        for listen in listens {
            is_free(listen.address, &listen.name)?;
        }
        Ok(gateway)
    }

    /// Decides it for a machine that joins masters elsewhere: Nginx, where the manifest says something of a gateway.
    ///
    /// # Errors
    /// When a gateway is said and there is no Nginx to be it, or a port is taken.
    pub(crate) async fn decide_joined(manifest: &Manifest) -> Result<Self, Failure> {
        // A gateway that is a master stands where a master is.
        let here = is_said(manifest) && manifest.gateway.engine != Some(Engine::Master);
        match if here { Self::decide(manifest).await? } else { Self::None } {
            Self::Master { .. } => {
                Err(Failure::new("this machine joins masters elsewhere and has no Nginx for its `gateway`")
                    .cause("only a machine that runs a master can do without")
                    .help("`apt install nginx`, or leave `gateway` out of this machine's file"))
            }
            decided => Ok(decided),
        }
    }

    /// Addresses at which the master faces the world itself.
    pub(crate) fn public(&self, manifest: &Manifest) -> Vec<Listen> {
        match self {
            Self::Master { .. } => manifest.gateway.listen.clone(),
            Self::None | Self::Nginx(_) => Vec::new(),
        }
    }

    /// What a person should know of it.
    pub(crate) fn notices(&self, manifest: &Manifest) -> Vec<Notice> {
        let files = manifest.gateway.static_places.len() + manifest.gateway.spa_places.len();
        match self {
            Self::Master { missing } if *missing || files > 0 => {
                let lost = if files > 0 { "; static files are not served" } else { "" };
                let why = if *missing {
                    "no Nginx is installed (`apt install nginx`)"
                } else {
                    "`gateway.engine` is `master`"
                };
                vec![Notice {
                    code: MISSING.to_owned(),
                    message: format!("{why}: the master itself serves dynamic routes{lost}"),
                    service: None,
                }]
            }
            _ => Vec::new(),
        }
    }

    /// How it is, as the board shows it. `listens`: where the master really listens.
    pub(crate) fn status(&self, manifest: &Manifest, listens: &[SocketAddr]) -> Option<GatewayStatus> {
        let spec = &manifest.gateway;
        let addresses: Vec<SocketAddr> = if listens.is_empty() {
            spec.listen.iter().map(|listen| listen.address).collect()
        } else {
            listens.to_vec()
        };
        let http = spec.listen.iter().zip(&addresses).find(|(listen, _)| listen.protocol == ListenProtocol::Http);
        let (engine, nginx_version, state) = match self {
            Self::None => return None,
            Self::Master { .. } => (Engine::Master, String::new(), InstanceState::Ready),
            Self::Nginx(binary) => (Engine::Nginx, binary.version.clone(), InstanceState::Starting),
        };
        let is_nginx = engine == Engine::Nginx;
        let places = |places: Vec<String>| if is_nginx { places } else { Vec::new() };
        Some(GatewayStatus {
            engine,
            nginx_version,
            listen: spec.listen.iter().zip(&addresses).map(|(listen, at)| format!("{} {at}", listen.name)).collect(),
            state,
            cause: None,
            static_places: places(spec.static_places.iter().map(|place| place.place.to_string()).collect()),
            spa_places: places(spec.spa_places.iter().map(|place| place.place.to_string()).collect()),
            url: http.map(|(_, address)| url(*address)).unwrap_or_default(),
        })
    }
}

/// Whether the manifest says anything of a gateway.
fn is_said(manifest: &Manifest) -> bool {
    manifest.effective().iter().any(|value| value.key.starts_with("gateway.") && value.origin != "default")
}

/// Whether a machine with a master serves the outside: a bare master that was told of no gateway does not.
pub(crate) fn is_wanted(manifest: &Manifest) -> bool {
    !manifest.declaration.services.is_empty() || is_said(manifest)
}

/// Gives the master's ingress, and each address of the gateway, of port 0 a free port of its own: Nginx has to be told
/// the one, and cannot say which other it took.
///
/// # Errors
/// When no port is free.
pub(crate) fn settle_ports(manifest: &mut Manifest) -> Result<(), Failure> {
    let listens = manifest.gateway.listen.iter_mut().map(|listen| &mut listen.address);
    // Those of a former part of this program stay.
    let left = keeper::claim(PORTS).map(|left| left.note).unwrap_or_default();
    let mut left = left.split(' ').filter_map(|port| port.parse::<u16>().ok());
    let mut ports = Vec::new();
    for address in listens.chain([&mut manifest.masters.ingress]).filter(|address| address.port() == 0) {
        let port = match left.next() {
            Some(port) => port,
            None => {
                synego_supervise::free_port().map_err(|error| Failure::new("no free port").cause(error.to_string()))?
            }
        };
        address.set_port(port);
        ports.push(port.to_string());
    }
    // They are these to the end of the program.
    std::mem::forget(keeper::hold(PORTS, &ports.join(" "), &[]));
    Ok(())
}

/// # Errors
/// When another process listens there.
fn is_free(address: SocketAddr, name: &str) -> Result<(), Failure> {
    if address.port() == 0 {
        return Ok(());
    }
    match std::net::TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err(Failure::new(format!("cannot listen on {address} (`gateway.listen`, {name})"))
                .cause("ports below 1024 need a privilege")
                .help("choose another, such as 8080, or allow it: `sysctl net.ipv4.ip_unprivileged_port_start=80`"))
        }
        Err(error) => Err(Failure::new(format!("cannot listen on {address} (`gateway.listen`, {name})"))
            .cause(error.to_string())
            .help(format!("see who does: `ss -ltnp 'sport = :{}'`, or choose another port", address.port()))),
    }
}

/// The URL that a person on this machine opens.
fn url(address: SocketAddr) -> String {
    let ip = address.ip();
    let host = if ip.is_unspecified() || ip.is_loopback() { "localhost".to_owned() } else { ip.to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    if address.port() == 80 { format!("http://{host}") } else { format!("http://{host}:{}", address.port()) }
}

/// The configuration that Nginx gets.
///
/// # Errors
/// When no port is free for its own use.
pub(crate) fn config(manifest: &Manifest, masters: Vec<SocketAddr>, file_limit: u64) -> Result<NginxConfig, Failure> {
    let limits = manifest.declaration.services.values().map(|service| service.policy.idle.max(service.policy.timeout));
    let idle = limits.max().unwrap_or_default();
    let own = synego_supervise::free_port().map_err(|error| Failure::new("no free port").cause(error.to_string()))?;
    let config = NginxConfig::new(manifest.gateway.clone(), masters);
    Ok(NginxConfig {
        unreachable: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), own),
        access: if manifest.declaration.access_lines == AccessLines::Off {
            AccessTo::Off
        } else {
            AccessTo::Dir(manifest.logs.dir.clone())
        },
        idle: config.idle.max(idle + SLACK),
        file_limit: file_limit.min(65_536),
        workers: synego_runtime::config::cores(),
        ..config
    })
}

/// What Nginx, or our own rules, have against a configuration.
pub(crate) fn refused(error: &synego_nginx::UpdateError) -> Failure {
    let failure = Failure::new("the configuration for Nginx is refused");
    let text = error.to_string();
    text.lines().fold(failure, |failure, line| failure.cause(line.to_owned())).help("see it with `synego nginx show`")
}

/// Where Nginx's own files of a mesh lie.
pub(crate) fn prefix(state_dir: &Path) -> PathBuf {
    state_dir.join("nginx")
}

/// A sink for what Nginx says of itself.
pub(crate) fn sink(node: &NodeName, writer: LineWriter) -> OutputSink {
    OutputSink::new("gateway", format!("nginx@{node}"), writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_opens_localhost_unless_another_address_was_said() {
        let url = |text: &str| url(text.parse().expect("an address"));
        assert_eq!(url("0.0.0.0:8080"), "http://localhost:8080");
        assert_eq!(url("127.0.0.1:80"), "http://localhost");
        assert_eq!(url("10.0.0.7:8081"), "http://10.0.0.7:8081");
    }

    #[test]
    fn a_port_that_is_taken_is_named_with_its_key() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");
        let failure = is_free(address, "http").expect_err("it is taken");
        assert!(failure.what.contains(&address.to_string()) && failure.what.contains("gateway.listen"));
    }
}
