//! Which mesh a command is about: the flag, else the manifest, else the only one on this machine.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::failure::Failure;
use crate::manifest;

/// Name of the admin socket in the runtime folder of a mesh.
pub(crate) const SOCKET: &str = "admin.sock";
/// Name of that of a `synego-master` of its own.
pub(crate) use synego_master::SOCKET as MASTER_SOCKET;
/// Name of the note that a running `up` leaves beside it.
pub(crate) const NOTE: &str = "up.json";

/// Where an admin API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => f.write_str(host),
        }
    }
}

impl std::str::FromStr for Address {
    type Err = Failure;
    /// `unix:PATH`, `HOST:PORT`, or `PORT` of this machine.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::misuse(format!("`{text}` is not the address of an admin API"))
                .cause("expected unix:PATH, HOST:PORT or PORT")
                .help("for instance `--admin 127.0.0.1:3002`")
        };
        match (text.strip_prefix("unix:"), text.rsplit_once(':')) {
            (Some(""), _) => Err(wrong()),
            (Some(path), _) => Ok(Self::Unix(path.into())),
            (None, Some((host, port))) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            (None, None) if text.parse::<u16>().is_ok() => Ok(Self::Tcp(format!("127.0.0.1:{text}"))),
            _ => Err(wrong()),
        }
    }
}

/// A mesh and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its name; `None`: whichever answers.
    pub(crate) mesh: Option<String>,
    /// Its admin API.
    pub(crate) address: Address,
    /// Where it may be instead, if it answers there with this name; the first one first.
    pub(crate) others: Vec<Address>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mesh {
            Some(mesh) => write!(f, "the mesh `{mesh}`"),
            None => write!(f, "the mesh at {}", self.address),
        }
    }
}

/// What a running `up` says of itself, beside its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Its process.
    pub(crate) pid: u32,
    /// Its mesh.
    pub(crate) mesh: String,
    /// The manifest that it runs; `None`: none.
    pub(crate) manifest: Option<PathBuf>,
    /// When it started: milliseconds since 1970-01-01 UTC.
    pub(crate) started_unix_ms: u64,
}

/// Finds the mesh that a command is about.
///
/// # Errors
/// When there is none, or more than one and nothing says which.
pub(crate) fn find(context: &Context) -> Result<Target, Failure> {
    if let Some(text) = &context.globals.admin {
        return Ok(Target { mesh: None, address: text.parse()?, others: Vec::new() });
    }
    let here = running();
    match manifest::mesh_of(context)? {
        manifest::Named::Mesh(mesh, admin) => {
            let address = Address::Unix(base().join(&mesh).join(SOCKET));
            let master = Address::Unix(base().join(&mesh).join(MASTER_SOCKET));
            // Without a fixed port nobody can know where it is.
            let port = (admin.port() != 0).then(|| Address::Tcp(admin.to_string()));
            Ok(Target { address, mesh: Some(mesh), others: std::iter::once(master).chain(port).collect() })
        }
        manifest::Named::Refused { file, errors } => {
            // A manifest with a mistake still says which mesh it runs, if that mesh wrote it down.
            let running = here
                .into_iter()
                .find(|(note, _)| note.as_ref().is_some_and(|note| note.manifest.as_ref() == Some(&file)));
            running.map(|(_, target)| target).ok_or_else(|| {
                Failure::new("cannot tell which mesh is meant")
                    .cause(format!("{} is refused: {errors}", file.display()))
                    .help("see `synego check`, or name a running one: `--admin HOST:3002`")
            })
        }
        manifest::Named::None => only(here),
    }
}

fn only(mut here: Vec<(Option<Note>, Target)>) -> Result<Target, Failure> {
    match here.len() {
        1 => Ok(here.remove(0).1),
        0 => Err(Failure::new("no mesh runs here, and no manifest is in this folder or above it")
            .help("start one with `synego up`, or name a running one: `--admin HOST:3002`")),
        number => {
            let failure =
                Failure::misuse(format!("{number} meshes run on this machine, and nothing says which is meant"));
            let failure = here.iter().fold(failure, |failure, (note, target)| {
                let file =
                    note.as_ref().and_then(|note| note.manifest.as_ref()).map(|file| format!("  ({})", file.display()));
                failure.cause(format!(
                    "{}  --admin {}{}",
                    target.mesh.as_deref().unwrap_or_default(),
                    target.address,
                    file.unwrap_or_default()
                ))
            });
            Err(failure.help("go to its folder, or name it with `--admin`"))
        }
    }
}

/// The meshes that have a socket on this machine, by name.
pub(crate) fn running() -> Vec<(Option<Note>, Target)> {
    let mut found: Vec<_> = std::fs::read_dir(base())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some((entry.as_ref().ok()?.file_name().into_string().ok()?, entry.ok()?.path())))
        .filter_map(|(mesh, dir)| {
            let answers = |socket: &PathBuf| std::os::unix::net::UnixStream::connect(socket).is_ok();
            let socket = [SOCKET, MASTER_SOCKET].map(|name| dir.join(name)).into_iter().find(answers)?;
            Some((note(&dir), Target { mesh: Some(mesh), address: Address::Unix(socket), others: Vec::new() }))
        })
        .collect();
    found.sort_by(|a, b| a.1.mesh.cmp(&b.1.mesh));
    found
}

/// What the `up` of the mesh with this runtime folder says of itself.
pub(crate) fn note(dir: &Path) -> Option<Note> {
    serde_json::from_slice(&std::fs::read(dir.join(NOTE)).ok()?).ok()
}

/// Whether a process of this id lives.
pub(crate) fn lives(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // A process whose parent has not taken note of its end is a zombie: it has ended.
        !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
    })
}

fn base() -> PathBuf {
    synego_runtime::config::runtime_base()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_a_host_or_a_port() {
        assert_eq!("unix:/run/x".parse(), Ok(Address::Unix("/run/x".into())));
        assert_eq!("vm1:3002".parse(), Ok(Address::Tcp("vm1:3002".into())));
        assert_eq!("[::1]:3002".parse(), Ok(Address::Tcp("[::1]:3002".into())));
        assert_eq!("3002".parse(), Ok(Address::Tcp("127.0.0.1:3002".into())));
        for wrong in ["", "unix:", "vm1", ":3002", "vm1:http", "99999"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_several_meshes_all_are_listed_and_none_is_taken() {
        let target = |mesh: &str| Target {
            mesh: Some(mesh.into()),
            address: Address::Unix(format!("/r/{mesh}/admin.sock").into()),
            others: Vec::new(),
        };
        assert_eq!(only(vec![(None, target("shop"))]).map(|found| found.mesh), Ok(Some("shop".into())));
        let failure = only(vec![(None, target("blog")), (None, target("shop"))]).unwrap_err();
        assert_eq!(failure.code, 2);
        assert_eq!(failure.cause, ["blog  --admin unix:/r/blog/admin.sock", "shop  --admin unix:/r/shop/admin.sock"]);
        assert_eq!(only(Vec::new()).map_err(|failure| failure.code), Err(1));
    }
}
