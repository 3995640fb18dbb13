//! Where files are read from: the machine's disk, or texts in memory.

use std::io;
use std::path::Path;

/// A disk, as far as a manifest needs one.
pub trait Disk {
    /// The bytes of a file.
    ///
    /// # Errors
    /// What the disk says: not found, not permitted.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Names of the files in a folder, in no order.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Whether a file is there.
    fn is_file(&self, path: &Path) -> bool;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        // One byte more than a manifest may have is enough to know that it is too large.
        let most = u64::try_from(crate::yaml::MAX_BYTES).unwrap_or(u64::MAX) + 1;
        std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if let (false, Some(name)) = (entry.path().is_dir(), entry.file_name().to_str()) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }
}
