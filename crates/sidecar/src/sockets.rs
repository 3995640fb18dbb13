//! The folder of the sockets by which a process and its sidecar reach each other.
//!
//! It lies in our private folder, where only this user comes in. As root, the process may have another user's rights: then
//! it is a folder of its own beside ours, which only root changes and only the group of that user can pass.

use std::io;
use std::path::{Path, PathBuf};

use synego_model::process::ServiceAddress;
use synego_model::{InstanceName, Listens, RunAs};
use synego_runtime::config as machine;

/// The part of it in which the process makes its own.
const OWN: &str = "own";

/// Where the sockets of one instance are.
#[derive(Debug, Clone)]
pub(crate) struct Sockets {
    dir: PathBuf,
    instance: InstanceName,
    /// Whether processes of other users' rights may have to come in.
    is_opened: bool,
}

impl Sockets {
    /// - `runtime_dir`: our private folder.
    /// - `is_parent`: whether the sidecar starts the process.
    ///
    /// # Errors
    /// When a folder cannot be made, or belongs to another user.
    pub(crate) fn new(runtime_dir: &Path, instance: &InstanceName, is_parent: bool) -> io::Result<Self> {
        let is_opened = is_parent && machine::is_root();
        let dir =
            if is_opened { machine::passable_dir(runtime_dir, instance.as_str())? } else { runtime_dir.to_owned() };
        Ok(Self { dir, instance: instance.clone(), is_opened })
    }

    /// Where notify sockets are made.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The socket of the service protocol.
    pub(crate) fn protocol(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.instance))
    }

    /// Where a generation is to listen.
    ///
    /// # Errors
    /// When no port is free.
    pub(crate) fn place(&self, listens: &Listens, generation: u32) -> io::Result<ServiceAddress> {
        Ok(match listens {
            Listens::At(address) => address.clone(),
            Listens::FreePort => ServiceAddress::Tcp(([127, 0, 0, 1], synego_supervise::free_port()?).into()),
            Listens::OwnSocket => {
                let name = format!("{}.{generation}.sock", self.instance);
                ServiceAddress::Unix(if self.is_opened { self.dir.join(OWN).join(name) } else { self.dir.join(name) })
            }
        })
    }

    /// Lets a process of these rights in, and others out.
    ///
    /// # Errors
    /// As of [`synego_supervise::rights`], or when the machine refuses.
    pub(crate) fn open_to(&self, run_as: &RunAs) -> Result<(), String> {
        if !self.is_opened {
            return Ok(());
        }
        let owner = synego_supervise::rights(run_as)?.map(|rights| rights.owner());
        let open = || {
            machine::pass(&self.dir, owner)?;
            machine::give(&self.protocol(), owner)?;
            machine::private_dir_of(&self.dir.join(OWN), owner)
        };
        open().map_err(|error: io::Error| format!("cannot open {} to the process: {error}", self.dir.display()))
    }
}
