//! One `up` for each mesh on a machine: a lock that ends with its process, and a note that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::failure::Failure;
use crate::mesh::{self, NOTE, Note};

/// Held while this process runs the mesh; the note goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    note: PathBuf,
}

impl Lock {
    /// Takes the lock of the mesh whose runtime folder is `dir`.
    ///
    /// # Errors
    /// When another process holds it: which, and since when.
    pub(crate) fn take(dir: &Path, note: &Note, context: &Context) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot lock {}", dir.display())).cause(error.to_string());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("up.lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, &note.mesh, context)),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = dir.join(NOTE);
        let text = serde_json::to_vec(note).map_err(|error| failed(error.into()))?;
        // Readers must never see half a note.
        let fresh = dir.join(format!("{NOTE}.new"));
        let mut into =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh).map_err(failed)?;
        into.write_all(&text).and_then(|()| std::fs::rename(&fresh, &path)).map_err(failed)?;
        Ok(Self { _file: file, note: path })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The lock itself ends with the process, whatever becomes of the note.
        let _ = std::fs::remove_file(&self.note);
    }
}

fn held(dir: &Path, mesh: &str, context: &Context) -> Failure {
    let failure = Failure::new(format!("the mesh `{mesh}` runs already on this machine"));
    let failure = match mesh::note(dir) {
        Some(note) => failure.cause(format!(
            "process {} runs it since {}{}",
            note.pid,
            context.clock.at(note.started_unix_ms, context.now()),
            note.manifest.map(|file| format!(", from {}", file.display())).unwrap_or_default()
        )),
        None => failure,
    };
    failure.help("see it with `synego status`, change it with `synego apply`, end it with `synego down`")
}
