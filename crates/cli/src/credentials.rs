//! The tokens that `synego login` keeps for admin APIs over TCP: one file of this user, mode 0600.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// Name of the file, in the folder of state.
const FILE: &str = "logins.json";
/// Longest token file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What is kept of one admin API.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its mesh.
    pub(crate) mesh: String,
    /// The secret.
    pub(crate) token: String,
}

/// All of them, by address as it is given to `--admin`.
type All = BTreeMap<String, Kept>;

/// The token for the admin API at `address`; `None`: nobody logged in there.
///
/// # Errors
/// When the file is open to others, or is none of ours.
pub(crate) fn of(address: &str) -> Result<Option<String>, Failure> {
    Ok(load()?.remove(address).map(|kept| kept.token))
}

/// Keeps a token for the admin API at `address`, in the place of the one before.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn keep(address: &str, kept: Kept) -> Result<PathBuf, Failure> {
    let mut all = load()?;
    all.insert(address.to_owned(), kept);
    store(&all)
}

/// Forgets the token for the admin API at `address`; returns whether there was one.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn forget(address: &str) -> Result<bool, Failure> {
    let mut all = load()?;
    let had = all.remove(address).is_some();
    if had {
        store(&all)?;
    }
    Ok(had)
}

fn file() -> Result<PathBuf, Failure> {
    let base = synego_runtime::config::state_base();
    base.map(|base| base.join(FILE)).map_err(|error| cannot("find the folder of state", &error))
}

fn load() -> Result<All, Failure> {
    let path = file()?;
    match read_secret(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!("{} is no file of logins", path.display()))
                .cause(error.to_string())
                .help("remove it and log in again: `synego login`")
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(All::new()),
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn store(all: &All) -> Result<PathBuf, Failure> {
    let path = file()?;
    let text = serde_json::to_vec_pretty(all).map_err(|error| Failure::new(error.to_string()))?;
    let next = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = write_new(&next, &text).and_then(|()| std::fs::rename(&next, &path));
    if let Err(error) = written {
        let _gone = std::fs::remove_file(&next);
        return Err(cannot(&format!("write {}", path.display()), &error));
    }
    Ok(path)
}

/// Writes a secret into a file that is not there yet, mode 0600.
///
/// # Errors
/// When it is there, or cannot be written.
pub(crate) fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// A secret out of a file that no one else may read.
///
/// # Errors
/// When it cannot be read, or others may read it.
pub(crate) fn read_secret(path: &Path) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    // A pipe has no mode of its own that matters: `<(pass show token)`.
    if file.metadata()?.is_file() && mode & 0o077 != 0 {
        let message = format!("others may read it (mode {mode:03o}): `chmod 600 {}`", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// The failure to read a file of secrets.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}", path.display())).cause(error.to_string())
}

fn cannot(what: &str, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {what}")).cause(error.to_string())
}
