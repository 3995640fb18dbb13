//! What the parent process told this one in its environment.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Longest path of a Unix socket, in bytes: what the kernel takes.
const MAX_SOCKET: usize = 107;

/// Where the sidecar is.
#[derive(Debug, Clone, Default)]
pub(crate) enum SidecarAddress {
    /// There is none: the program runs alone.
    #[default]
    Off,
    /// A Unix socket.
    Unix(PathBuf),
    /// A sidecar in this process: each connection is a pipe, sent to it.
    Pipe(mpsc::Sender<DuplexStream>),
}

/// All of it, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) service: Option<String>,
    pub(crate) instance: String,
    pub(crate) sidecar: SidecarAddress,
    /// Base URL of the outbound, such as `http://127.0.0.1:4001`.
    pub(crate) outbound: Option<String>,
    /// Base URLs of services, by the upper-case name in `SYNEGO_URL_<SERVICE>`.
    pub(crate) urls: HashMap<String, String>,
    pub(crate) port: u16,
    /// Path of the Unix socket to listen on instead of a port.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) generation: u32,
    /// What could not be understood.
    pub(crate) problems: Vec<String>,
}

impl Environment {
    pub(crate) fn from_process() -> Self {
        Self::from_variables(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    pub(crate) fn from_variables(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            // An empty variable is as good as none, but for the path: who sets it wants no port.
            if value.is_empty() && name != "SOCKET" {
                continue;
            }
            match name.as_str() {
                "SYNEGO_SERVICE" => environment.service = Some(value),
                "SYNEGO_INSTANCE" => environment.instance = value,
                "SYNEGO_OUTBOUND" => environment.outbound = Some(value.trim_end_matches('/').to_owned()),
                "SYNEGO_SIDECAR" => match value.strip_prefix("unix:") {
                    Some(path) => environment.sidecar = SidecarAddress::Unix(path.into()),
                    None if value == "off" => environment.sidecar = SidecarAddress::Off,
                    None => environment.problem("SYNEGO_SIDECAR", &value, "`unix:PATH` or `off`"),
                },
                "PORT" => match value.parse() {
                    Ok(port) => environment.port = port,
                    Err(_) => environment.problem("PORT", &value, "0 to 65535"),
                },
                "SOCKET" if Path::new(&value).is_absolute() && value.len() <= MAX_SOCKET => {
                    environment.socket = Some(value.into());
                }
                "SOCKET" => environment.problem("SOCKET", &value, "an absolute path of at most 107 bytes"),
                "SYNEGO_GENERATION" => match value.parse() {
                    Ok(generation) => environment.generation = generation,
                    Err(_) => environment.problem("SYNEGO_GENERATION", &value, "a whole number"),
                },
                _ => {
                    if let Some(service) = name.strip_prefix("SYNEGO_URL_") {
                        environment.urls.insert(service.to_owned(), value.trim_end_matches('/').to_owned());
                    }
                }
            }
        }
        environment
    }

    fn problem(&mut self, name: &str, value: &str, expected: &str) {
        self.problems.push(format!("{name}: `{value}`: expected {expected}"));
    }

    /// The base URL that `SYNEGO_URL_<SERVICE>` gives.
    pub(crate) fn url(&self, service: &str) -> Option<&str> {
        self.urls.get(&service.to_ascii_uppercase().replace('-', "_")).map(String::as_str)
    }
}
