//! Sealing: what a store keeps of secrets is worthless without a key in a file of its own.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_lc_rs::rand;
use synego_runtime::config;
use zeroize::Zeroizing;

use crate::keys::{from_hex, to_hex};

/// The first byte of what is sealed: how it was sealed.
const FORM: u8 = 1;
/// Bytes of a nonce and of the tag behind the text (AES-GCM).
const NONCE: usize = 12;
const TAG: usize = 16;

/// Why there is no key, or what was sealed stays so.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Others than its owner may read the file of the key.
    #[error(
        "{path}: others may read this key (its mode is {mode:04o}): make it your own with `chmod 600 {path}`, and if anyone may have read it, let the authority begin anew (`synego ca rotate`)"
    )]
    Readable {
        /// The file.
        path: String,
        /// Its mode.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path}: this is no sealing key: a file with 64 hexadecimal digits is expected")]
    NoKey {
        /// The file.
        path: String,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the machine says.
        source: io::Error,
    },
    /// The machine has no randomness.
    #[error("no key could be made on this machine")]
    NotMade,
    /// It was sealed by another key, for another purpose, or has been changed.
    #[error(
        "the sealed secret of {0} does not open: the key is not the one that it was sealed with, or it was changed"
    )]
    NotOpened(&'static str),
}

/// The key under which secrets are stored (AES-256-GCM).
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for SealingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SealingKey(..)")
    }
}

impl SealingKey {
    /// A new one, which no file holds.
    ///
    /// # Errors
    /// [`SealError::NotMade`].
    pub fn generate() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; 32]);
        rand::fill(&mut bytes[..]).map_err(|_| SealError::NotMade)?;
        Ok(Self(bytes))
    }

    /// The key of a file, which is made (0600, in a folder 0700) when it is not there.
    ///
    /// # Errors
    /// [`SealError`]; above all when others may read the file.
    pub fn load_or_create(path: &Path) -> Result<Self, SealError> {
        match Self::load(path) {
            Err(SealError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::create(path),
            loaded => loaded,
        }
    }

    /// The key of a file.
    ///
    /// # Errors
    /// [`SealError`]; above all when others may read the file.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        let shown = path.display().to_string();
        let failed = |source| SealError::File { path: shown.clone(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SealError::Readable { path: shown, mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(256));
        let no_key = || SealError::NoKey { path: path.display().to_string() };
        file.take(256).read_to_string(&mut text).map_err(|_| no_key())?;
        Self::parse(&text).ok_or_else(no_key)
    }

    /// The key out of a text of 64 hexadecimal digits, as whoever keeps keys elsewhere hands it over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(from_hex(text.trim())?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    fn create(path: &Path) -> Result<Self, SealError> {
        let failed = |source| SealError::File { path: path.display().to_string(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.exists() {
            config::private_dir(folder).map_err(failed)?;
        }
        let key = Self::generate()?;
        let text = Zeroizing::new(format!("{}\n", to_hex(&key.0[..])));
        let made = write_once(path, text.as_bytes());
        match made {
            Ok(()) => Ok(key),
            // Another was faster: its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(source) => Err(failed(source)),
        }
    }

    /// Seals `plain`; only `for_what` opens it again.
    ///
    /// # Errors
    /// [`SealError::NotMade`].
    pub fn seal(&self, plain: &[u8], for_what: &'static str) -> Result<Vec<u8>, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0[..]).map_err(|_| SealError::NotMade)?;
        let mut text = Zeroizing::new(Vec::with_capacity(plain.len() + TAG));
        text.extend_from_slice(plain);
        let nonce =
            key.seal_in_place_append_tag(Aad::from(for_what.as_bytes()), &mut *text).map_err(|_| SealError::NotMade)?;
        let mut sealed = Vec::with_capacity(1 + NONCE + text.len());
        sealed.push(FORM);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what [`Self::seal`] made for the same purpose.
    ///
    /// # Errors
    /// [`SealError::NotOpened`].
    pub fn open(&self, sealed: &[u8], for_what: &'static str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let open = || {
            let (form, rest) = sealed.split_first()?;
            let (nonce, text) = rest.split_first_chunk::<NONCE>().filter(|_| *form == FORM)?;
            let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0[..]).ok()?;
            let mut text = Zeroizing::new(text.to_vec());
            let plain = key.open_in_place(nonce.into(), Aad::from(for_what.as_bytes()), &mut text).ok()?.len();
            text.truncate(plain);
            Some(text)
        };
        open().ok_or(SealError::NotOpened(for_what))
    }
}

/// Writes a file that was not there before, whole or not at all, for its owner alone.
fn write_once(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(name);
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces what another process has just made.
        std::fs::hard_link(&draft, path)
    };
    let written = write();
    let _left = std::fs::remove_file(&draft);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_for_the_same_purpose_opens_what_was_sealed() {
        let key = SealingKey::generate().expect("a key");
        let sealed = key.seal(b"a secret", "the test").expect("sealed");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(key.open(&sealed, "the test").expect("opened").as_slice(), b"a secret");
        assert!(key.open(&sealed, "another purpose").is_err());
        assert!(SealingKey::generate().expect("a key").open(&sealed, "the test").is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed, "the test").is_err(), "byte {at}");
        }
        assert!(key.open(&[], "the test").is_err());
    }

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys/authority.key");
        let made = SealingKey::load_or_create(&path).expect("made");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700));
        let again = SealingKey::load_or_create(&path).expect("read");
        assert_eq!(made.0, again.0);
        assert_eq!(std::fs::read_dir(path.parent().expect("a folder")).expect("listed").count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("authority.key");
        SealingKey::load_or_create(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("changed");
        let refused = SealingKey::load_or_create(&path).expect_err("others may read it").to_string();
        assert!(refused.contains("0640") && refused.contains("chmod 600"), "{refused}");
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("authority.key");
        std::fs::write(&path, "not a key").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
        assert!(matches!(SealingKey::load_or_create(&path), Err(SealError::NoKey { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "not a key");
    }
}
