//! A certificate with its key and roots in one file of its owner: replaced as a whole or not at all.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use synego_runtime::config;
use zeroize::Zeroizing;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 * 1024;
/// Largest token file, in bytes.
const MAX_TOKEN: u64 = 4096;

/// What the file holds.
#[derive(Default, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct Kept {
    /// Name of the mesh; empty: not known yet.
    pub(super) mesh: String,
    /// Who it is for, such as `svc/users`.
    pub(super) role: String,
    /// The key, PEM.
    pub(super) key: Zeroizing<String>,
    /// The certificate first, hexadecimal DER; empty: none was given for this key yet.
    pub(super) chain: Vec<String>,
    /// Roots, hexadecimal DER.
    pub(super) roots: Vec<String>,
    pub(super) since_unix_ms: u64,
    pub(super) not_after_unix_ms: u64,
}

/// Writes `kept` beside `file` and puts it in its place.
///
/// # Errors
/// When the folder cannot be written; the former file stays.
pub(super) fn save(file: &Path, kept: &Kept) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    config::private_dir(folder)?;
    let text = Zeroizing::new(serde_json::to_vec(kept)?);
    // Temporary files are made with mode 0600, and taken away again when something fails.
    let mut next = tempfile::Builder::new().prefix(".identity-").tempfile_in(folder)?;
    next.write_all(&text)?;
    next.as_file().sync_all()?;
    next.persist(file).map_err(|error| error.error)?;
    // The name is on the disk only once its folder is.
    fs::File::open(folder)?.sync_all()
}

/// Reads what [`save`] wrote; `None` when there is no file.
///
/// # Errors
/// When it cannot be read, is not whole, or others may read it.
pub(super) fn load(file: &Path) -> io::Result<Option<Kept>> {
    let Some(text) = read_private(file, MAX_FILE)? else { return Ok(None) };
    let kept = serde_json::from_slice(&text);
    // What serde says repeats no values of strings.
    kept.map(Some).map_err(|error| {
        let message = format!("is not whole: {error}; remove it, and enrol anew with a token");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// The text of a token file.
///
/// # Errors
/// When there is none, it cannot be read, or others may read it.
pub(super) fn token(file: &Path) -> io::Result<Zeroizing<String>> {
    let text = if file == Path::new("-") {
        let mut text = Zeroizing::new(Vec::new());
        io::stdin().lock().take(MAX_TOKEN).read_to_end(&mut text)?;
        text
    } else {
        read_private(file, MAX_TOKEN)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?
    };
    let text = std::str::from_utf8(&text).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn read_private(file: &Path, most: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let opened = match fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found = opened.metadata()?;
    let mode = found.permissions().mode() & 0o777;
    if found.is_file() && mode & 0o077 != 0 {
        let shown = file.display();
        let message = format!("others may read it (its mode is {mode:04o}): make it your own with `chmod 600 {shown}`");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let mut text = Zeroizing::new(Vec::new());
    opened.take(most + 1).read_to_end(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("has more than {most} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { mesh: "shop".into(), role: "svc/users".into(), key: Zeroizing::new("secret".into()), ..Kept::default() }
    }

    #[test]
    fn what_was_kept_comes_back_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state/identity-users-1");
        assert!(load(&file).expect("no file is no error").is_none());
        save(&file, &kept()).expect("written");
        save(&file, &kept()).expect("written again");
        assert!(load(&file).expect("whole") == Some(kept()));
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
        assert_eq!(fs::read_dir(file.parent().expect("a folder")).expect("readable").count(), 1, "nothing left behind");
    }

    #[test]
    fn key_file_readable_by_others_refuses_to_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("identity");
        save(&file, &kept()).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("changed");
        let refused = load(&file).err().expect("others may read it").to_string();
        assert!(refused.contains("0644") && refused.contains("chmod 600"), "{refused}");
        assert!(token(&file).is_err(), "a token neither");
    }

    #[test]
    fn a_file_that_is_not_whole_is_not_used_and_its_key_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("identity");
        save(&file, &kept()).expect("written");
        let whole = fs::read(&file).expect("readable");
        for cut in 1..whole.len() {
            fs::write(&file, &whole[..cut]).expect("written");
            let refused = load(&file).err().expect("not whole").to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }
}
