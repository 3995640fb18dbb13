//! The last snapshot and settings on the disk, so that a sidecar can start while no master answers, and knows whom to
//! let call it.
//!
//! The file: 8 bytes of magic, when it was written (unix ms), a checksum of what follows, then what is kept.
//! It is replaced as a whole or not at all, and readable by its owner alone.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use prost::Message as _;
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::table::Picture;
use synego_wire::pb;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"SYNSNAP2";
const HEAD: usize = 24;
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// What is kept, as it is written.
#[derive(Clone, PartialEq, prost::Message)]
struct Written {
    #[prost(message, optional, tag = "1")]
    snapshot: Option<pb::Snapshot>,
    #[prost(message, optional, tag = "2")]
    settings: Option<pb::SidecarSettings>,
}

/// What the disk had.
#[derive(Debug, PartialEq)]
pub(crate) struct Kept {
    /// The picture.
    pub(crate) picture: Picture,
    /// What the manifest said of the sidecar's own service.
    pub(crate) settings: SidecarSettings,
    /// When it was written: milliseconds since 1970-01-01 UTC.
    pub(crate) unix_ms: u64,
}

/// Writes `picture` and `settings` beside `file` and puts it in its place.
///
/// # Errors
/// When the folder cannot be written; the former file stays.
pub(crate) fn save(file: &Path, picture: &Picture, settings: &SidecarSettings, unix_ms: u64) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let written = Written { snapshot: Some(picture.into()), settings: Some(settings.into()) };
    let message = written.encode_to_vec();
    // Temporary files are made with mode 0600, and taken away again when something fails.
    let mut next = tempfile::Builder::new().prefix(".snapshot-").tempfile_in(folder)?;
    next.write_all(MAGIC)?;
    next.write_all(&unix_ms.to_le_bytes())?;
    next.write_all(&checksum(unix_ms, &message).to_le_bytes())?;
    next.write_all(&message)?;
    next.as_file().sync_all()?;
    next.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Over the time too: an old picture must not pass for a new one.
fn checksum(unix_ms: u64, message: &[u8]) -> u64 {
    xxh3_64(message) ^ xxh3_64(&unix_ms.to_le_bytes())
}

/// Reads what [`save`] wrote; `None` when there is no file.
///
/// # Errors
/// When the file cannot be read, or is not whole; it is not used then.
pub(crate) fn load(file: &Path) -> io::Result<Option<Kept>> {
    let broken = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let size = match fs::metadata(file) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if size > MAX_FILE {
        return Err(broken(format!("has {size} bytes, at most {MAX_FILE} are read")));
    }
    let bytes = fs::read(file)?;
    let (Some(head), Some(message)) = (bytes.get(..HEAD), bytes.get(HEAD..)) else {
        return Err(broken(format!("has {size} bytes, less than a head")));
    };
    let number = |at: usize| head.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
    let (Some(unix_ms), Some(sum)) = (number(8), number(16)) else {
        return Err(broken("has no head".into()));
    };
    if !head.starts_with(MAGIC) {
        return Err(broken("is no snapshot of this version".into()));
    }
    if checksum(unix_ms, message) != sum {
        return Err(broken("does not match its checksum".into()));
    }
    let written = Written::decode(message).map_err(|error| broken(error.to_string()))?;
    let picture = Picture::try_from(&written.snapshot.unwrap_or_default());
    let picture = picture.map_err(|invalid| broken(invalid.to_string()))?;
    let settings = SidecarSettings::try_from(&written.settings.unwrap_or_default());
    let settings = settings.map_err(|invalid| broken(invalid.to_string()))?;
    Ok(Some(Kept { picture, settings, unix_ms }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use synego_model::{Epoch, ServiceName};

    use super::*;

    fn picture() -> Picture {
        let services = [(ServiceName::new("users").expect("a name"), None)].into();
        Picture { epoch: Epoch(7), services }
    }

    fn settings() -> SidecarSettings {
        let callers = vec![ServiceName::new("orders").expect("a name")];
        SidecarSettings {
            declared: true,
            access: Some(synego_model::Access::default()),
            callers,
            ..SidecarSettings::default()
        }
    }

    #[test]
    fn what_was_kept_comes_back_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state/snapshot-users-1");
        assert_eq!(load(&file).expect("no file is no error"), None);
        save(&file, &picture(), &settings(), 42).expect("written");
        save(&file, &picture(), &settings(), 43).expect("written again");
        assert_eq!(load(&file).expect("whole"), Some(Kept { picture: picture(), settings: settings(), unix_ms: 43 }));
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().expect("a folder")).expect("readable").count(), 1, "nothing left behind");
    }

    #[test]
    fn a_file_that_is_not_whole_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("snapshot");
        save(&file, &picture(), &settings(), 42).expect("written");
        let whole = fs::read(&file).expect("readable");
        for cut in 0..whole.len() {
            fs::write(&file, &whole[..cut]).expect("written");
            assert!(load(&file).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(&file, &damaged).expect("written");
            assert!(load(&file).is_err(), "damaged at {at}");
        }
    }
}
