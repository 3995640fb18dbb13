//! The prefix folder of an Nginx and the process in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use synego_model::CommandLine;
use synego_runtime::config;

use crate::check::{CheckError, check};
use crate::find::NginxBinary;
use crate::render::{AccessTo, NginxConfig, RenderError, render};

/// Name of the configuration in the prefix folder.
pub const CONFIG_FILE: &str = "nginx.conf";

/// Why a new configuration did not come into force; the old one stays.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// It cannot be written down.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Nginx refuses it.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The prefix folder, or the process, could not be reached.
    #[error("cannot bring the configuration of nginx into force: {0}")]
    Io(#[from] io::Error),
}

/// Makes the prefix folder (0700) and what Nginx expects in it.
///
/// # Errors
/// When a folder cannot be made.
pub fn prepare(prefix: &Path) -> io::Result<()> {
    config::private_dir(prefix)?;
    for dir in ["temp", "empty"] {
        config::private_dir(&prefix.join(dir))?;
    }
    Ok(())
}

/// Puts a tested configuration into place, at once or not at all.
///
/// # Errors
/// When it cannot be written; the one in place stays.
pub fn write(prefix: &Path, text: &str) -> io::Result<()> {
    let made = write_beside(prefix, text)?;
    std::fs::rename(made.path(), prefix.join(CONFIG_FILE))?;
    File::open(prefix)?.sync_all()
}

/// Renders, tests, writes and, with the id of a running Nginx, reloads. Whatever fails, what runs goes on as it is.
///
/// # Errors
/// The step that failed.
pub async fn update(
    binary: &NginxBinary,
    wanted: &NginxConfig,
    prefix: &Path,
    pid: Option<u32>,
) -> Result<String, UpdateError> {
    let text = render(wanted)?;
    prepare(prefix)?;
    if let AccessTo::Dir(dir) = &wanted.access {
        config::private_dir(dir)?;
    }
    check(binary, &text, prefix).await?;
    write(prefix, &text)?;
    if let Some(pid) = pid {
        reload(pid)?;
    }
    Ok(text)
}

/// What a supervisor starts: Nginx in the foreground, on the configuration in `prefix`.
#[must_use]
pub fn command(binary: &NginxBinary, prefix: &Path) -> CommandLine {
    let args = arguments(prefix, &prefix.join(CONFIG_FILE));
    CommandLine { program: binary.path.to_string_lossy().into_owned(), args: args.to_vec() }
}

/// Tells a running Nginx to take the configuration in place: new workers serve it, old ones finish what they do.
///
/// # Errors
/// When there is no such process.
pub fn reload(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(kill_process(pid, Signal::HUP)?)
}

/// Prefix, configuration, and errors on stderr from the first moment on.
pub(crate) fn arguments(prefix: &Path, file: &Path) -> [String; 6] {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    ["-p".to_owned(), text(prefix), "-c".to_owned(), text(file), "-e".to_owned(), "stderr".to_owned()]
}

/// A file that is gone when it is dropped, unless it was moved.
pub(crate) struct Beside {
    path: PathBuf,
}

impl Beside {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Moved into place, or gone with its folder.
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Writes a configuration under another name beside the one in force.
pub(crate) fn write_beside(prefix: &Path, text: &str) -> io::Result<Beside> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{CONFIG_FILE}.{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let made = Beside { path: prefix.join(name) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(made.path())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(made)
}
