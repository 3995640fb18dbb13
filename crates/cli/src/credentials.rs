//! What `synego login` keeps for admin APIs over TCP: tokens, certificates of operators, and by which roots the masters are
//! known. One file of this user, mode 0600.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use synego_identity::{Connector, Credential, Fingerprint, Own, Presented, PrivateKey, certificates_of_pem, to_pem};

use crate::failure::Failure;

/// Name of the file, in the folder of state.
const FILE: &str = "logins.json";
/// Longest token file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What is kept of one admin API.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Its mesh.
    pub(crate) mesh: String,
    /// The secret; empty: there is a certificate instead.
    pub(crate) token: String,
    /// The keys of the roots by which its masters are known; none: it speaks without TLS, on this machine.
    #[serde(default)]
    pub(crate) roots: Vec<String>,
    /// Certificate, key and roots of an operator, PEM; empty: there is a token instead.
    #[serde(default)]
    pub(crate) operator: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({}, under TLS: {})", self.mesh, self.is_under_tls())
    }
}

impl Kept {
    /// Whether it speaks TLS.
    pub(crate) fn is_under_tls(&self) -> bool {
        !self.roots.is_empty() || !self.operator.is_empty()
    }

    /// How connections are made to it.
    ///
    /// # Errors
    /// When what is kept cannot be used any more.
    pub(crate) fn connector(&self) -> Result<Connector, Failure> {
        if !self.operator.is_empty() {
            return operator(&self.operator).map(Connector::mutual);
        }
        if self.roots.is_empty() {
            return Ok(Connector::plain());
        }
        let roots: Vec<Fingerprint> = self.roots.iter().filter_map(|root| Fingerprint::parse(root).ok()).collect();
        Ok(Connector::pinned_to(roots))
    }

    /// Takes up the roots (DER) that the mesh has now; returns whether they are others than before.
    pub(crate) fn learn(&mut self, roots: &[Vec<u8>]) -> bool {
        let before = self.clone();
        let known = roots.iter().filter_map(|root| Presented::read(root).ok());
        let fingerprints: Vec<String> = known.map(|read| Fingerprint::of(&read.public_key).to_string()).collect();
        if fingerprints.is_empty() {
            return false;
        }
        if self.operator.is_empty() {
            self.roots = fingerprints;
        } else if let (Some(own), Ok(key)) =
            (certificates_of_pem(&self.operator).first(), PrivateKey::from_pem(&self.operator))
        {
            self.operator = operator_pem(own, &key, roots);
        }
        *self != before
    }
}

/// Certificate, key and roots in one text, which other tools read as well.
pub(crate) fn operator_pem(certificate: &[u8], key: &PrivateKey, roots: &[Vec<u8>]) -> String {
    let roots: String = roots.iter().map(|root| to_pem(root)).collect();
    format!("{}{}{roots}", to_pem(certificate), *key.to_pem())
}

/// The operator of such a text.
fn operator(pem: &str) -> Result<Own, Failure> {
    let wrong = |cause: String| {
        Failure::new("the operator's certificate cannot be used")
            .cause(cause)
            .help("get another one where the master runs: `synego ca operator NAME --out FILE`")
    };
    let certificates = certificates_of_pem(pem);
    let Some((own, roots)) = certificates.split_first() else {
        return Err(wrong("there is no certificate in it (BEGIN CERTIFICATE)".into()));
    };
    let read = Presented::read(own).map_err(|error| wrong(error.to_string()))?;
    let identity = read.identity().map_err(|cause| wrong(cause.meaning().to_owned()))?;
    let key = PrivateKey::from_pem(pem).map_err(|error| wrong(error.to_string()))?;
    let operator = Own::new(identity);
    operator.trust(roots).map_err(|error| wrong(format!("its roots: {error}")))?;
    let credential = Credential { chain_der: vec![own.clone()], key };
    operator.install(&credential).map_err(|error| wrong(error.to_string()))?;
    Ok(operator)
}

/// The root that a token names: that of the mesh whose token it is; `None`: it is of a mesh without certificates.
pub(crate) fn root_of(token: &str) -> Option<String> {
    let (root, _) = token.strip_prefix("synego-login-1.")?.split_once('.')?;
    Fingerprint::parse(root).ok().map(|root| root.to_string())
}

/// All of them, by address as it is given to `--admin`.
type All = BTreeMap<String, Kept>;

/// What is kept for the admin API at `address`; `None`: nobody logged in there.
///
/// # Errors
/// When the file is open to others, or is none of ours.
pub(crate) fn of(address: &str) -> Result<Option<Kept>, Failure> {
    Ok(load()?.remove(address))
}

/// Keeps a login for the admin API at `address`, in the place of the one before.
///
/// # Errors
/// When the file cannot be read or written.
pub(crate) fn keep(address: &str, kept: Kept) -> Result<PathBuf, Failure> {
    let mut all = load()?;
    all.insert(address.to_owned(), kept);
    store(&all)
}

/// Forgets what is kept for the admin API at `address`; returns whether there was one.
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

/// Nothing is made for whoever only looks.
fn file() -> Result<PathBuf, Failure> {
    let base = synego_runtime::config::state_place();
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
    synego_runtime::config::state_base().map_err(|error| cannot("make the folder of state", &error))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_the_root_of_its_mesh_or_none() {
        let root = Fingerprint::of(b"a root").to_string();
        assert_eq!(root_of(&format!("synego-login-1.{root}.{}", "0".repeat(64))), Some(root));
        for token in ["", "synego-login-00ff", "synego-login-1.", "synego-login-1.zz.00"] {
            assert_eq!(root_of(token), None, "{token}");
        }
    }

    #[test]
    fn a_login_from_before_there_was_tls_is_still_read() {
        let kept: Kept = serde_json::from_str(r#"{"mesh":"shop","token":"synego-login-00"}"#).expect("read");
        assert!(!kept.is_under_tls());
        assert!(!kept.connector().expect("plain").is_mutual());
    }
}
