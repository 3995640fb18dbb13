//! One `up` for each mesh on a machine: a lock that ends with its process, and a note that says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use synego_runtime::keeper::{self, Holding};

use crate::context::Context;
use crate::failure::Failure;
use crate::mesh::{self, NOTE, Note};

/// Time for a part of a program whose keeper was just killed to be gone.
const LETS_GO: Duration = Duration::from_secs(1);

/// What the keeper knows the lock by.
const KEY: &str = "lock";

/// Held while this process runs the mesh; the note goes with it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    _held: Option<Holding>,
    note: PathBuf,
}

impl Lock {
    /// Takes the lock of the mesh whose runtime folder is `dir`.
    ///
    /// # Errors
    /// When another process holds it: which, and since when.
    pub(crate) fn take(dir: &Path, note: &Note, context: &Context) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(format!("cannot lock {}", dir.display())).cause(error.to_string());
        // A former part of this program left it locked: it is the keeper's as much as ours.
        let left = keeper::claim(KEY).and_then(|mut left| left.fds.pop()).map(File::from);
        let is_ours = left.is_some();
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(dir.join("up.lock"))
            .map_err(failed)?;
        let file = left.unwrap_or(opened);
        let mut locked = file.try_lock();
        let until = synego_runtime::clock::now() + LETS_GO;
        while matches!(locked, Err(TryLockError::WouldBlock)) && !is_ours && synego_runtime::clock::now() < until {
            // Its keeper was killed, and it is on its way out.
            if mesh::note(dir).is_some_and(|note| synego_supervise::stat::of(note.pid).is_some_and(|it| !it.is_dead()))
            {
                break;
            }
            std::thread::sleep(LETS_GO / 50);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if is_ours => {}
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
        let held = keeper::hold(KEY, "", &[file.as_fd()]);
        Ok(Self { _file: file, _held: held, note: path })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if keeper::is_anothers() {
            return;
        }
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
