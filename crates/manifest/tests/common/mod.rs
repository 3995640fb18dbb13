//! Manifests in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use synego_manifest::{Disk, Outcome, Request, load};

/// Files by path.
#[derive(Debug, Default, Clone)]
pub(crate) struct MemoryDisk(pub(crate) BTreeMap<PathBuf, Vec<u8>>);

impl Disk for MemoryDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

/// Files, a profile and an environment.
#[derive(Debug, Default, Clone)]
pub(crate) struct Case {
    pub(crate) disk: MemoryDisk,
    pub(crate) profile: Option<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) strict: bool,
}

impl Case {
    /// The folder in which the files of a case lie.
    pub(crate) const FOLDER: &'static str = "/home/me/shop";

    /// One manifest, or several files parted by `# file: NAME` lines.
    #[must_use]
    pub(crate) fn read(text: &str) -> Self {
        let mut case = Self::default();
        let mut name = "synego.yaml".to_owned();
        let mut body = String::new();
        for line in text.split_inclusive('\n') {
            if let Some(profile) = line.strip_prefix("# profile: ") {
                case.profile = Some(profile.trim().to_owned());
            } else if let Some((name, value)) =
                line.strip_prefix("# set: ").and_then(|pair| pair.trim().split_once('='))
            {
                case.environment.insert(name.to_owned(), value.to_owned());
            } else if let Some(next) = line.strip_prefix("# file: ") {
                case = case.with(&name, &std::mem::take(&mut body));
                next.trim().clone_into(&mut name);
            } else {
                body.push_str(line);
            }
        }
        case.with(&name, &body)
    }

    /// One more file; an empty text adds none.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, text: &str) -> Self {
        if !text.is_empty() {
            self.disk.0.insert(Path::new(Self::FOLDER).join(name), text.as_bytes().to_vec());
        }
        self
    }

    /// Loads it with four cores.
    #[must_use]
    pub(crate) fn load(&self) -> Outcome {
        load(&Request {
            start: Path::new(Self::FOLDER),
            file: None,
            profile: self.profile.as_deref(),
            environment: &self.environment,
            cores: 4,
            disk: &self.disk,
            strict: self.strict,
        })
    }
}
