//! Files of secrets: made new, for their owner alone; read only when nobody else may.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use crate::failure::Failure;

/// Largest file that is read, in bytes.
const MOST: u64 = 64 * 1024;

/// # Errors
/// When there is a file of this name already, which nothing here replaces.
pub(crate) fn is_free(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(taken(path)),
        Err(_) => Ok(()),
    }
}

/// Writes a new file, mode 0600.
///
/// # Errors
/// When it is there already, or cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => taken(path),
        _ => Failure::new(format!("cannot write {}", path.display())).cause(error.to_string()),
    })
}

/// Reads a file that nobody else may read.
///
/// # Errors
/// When it cannot be read, is too large, or others may read it.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let failed = |cause: String| Failure::new(format!("cannot read {}", path.display())).cause(cause);
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let found = file.metadata().map_err(|error| failed(error.to_string()))?;
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() && mode & 0o077 != 0 {
        return Err(failed(format!("others may read it: its mode is {mode:04o}"))
            .help(format!("make it your own with `chmod 600 {}`", path.display())));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(|error| failed(error.to_string()))?;
    Ok(text)
}

fn taken(path: &Path) -> Failure {
    Failure::misuse(format!("{} exists already", path.display())).help("name another file: a secret replaces nothing")
}
