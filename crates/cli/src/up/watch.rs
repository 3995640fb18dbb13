//! `watch`: reloads a service once files of it have changed and then nothing has for a while.
//!
//! The files are looked at from time to time, which works on every file system; a look that takes long makes the next one
//! later, so that watching costs little whatever is watched.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use synego_model::{ServiceName, WatchSpec};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Stop, clock};

use super::instances::Fleet;

/// Longest time between two looks, as long as they are quick.
const LOOK: Duration = Duration::from_millis(500);
/// Of the time, one part in so many is spent looking.
const SHARE: u32 = 50;
/// Most files of one service that are looked at.
const MOST: usize = 20_000;
/// Folders in which nobody writes by hand; a pattern that names one looks into it all the same.
const PASSED_OVER: [&str; 4] = [".git", "node_modules", "target", "__pycache__"];

/// What was seen of one service.
#[derive(Default)]
struct Seen {
    print: u64,
    /// Since when nothing has changed any more that was not taken up; `None`: all is taken up.
    changed: Option<Instant>,
    is_reloading: Option<tokio::task::JoinHandle<()>>,
}

/// Watches until the mesh ends.
pub(crate) async fn run(fleet: Arc<Fleet>, stop: Stop) {
    let mut seen: BTreeMap<ServiceName, Seen> = BTreeMap::new();
    loop {
        let watched = fleet.watched();
        let began = clock::now();
        let mut pause = LOOK;
        for (service, spec) in &watched {
            pause = pause.min(spec.debounce);
            let looked = spec.clone();
            let Ok(print) = tasks::spawn_blocking("watch", move || fingerprint(&looked)).await else { continue };
            let now = clock::now();
            let Some(known) = seen.get_mut(service) else {
                // What is there when it begins is what runs.
                seen.insert(service.clone(), Seen { print, ..Seen::default() });
                continue;
            };
            if std::mem::replace(&mut known.print, print) != print {
                known.changed = Some(now);
            }
            let is_quiet = known.changed.is_some_and(|at| now.duration_since(at) >= spec.debounce);
            let is_free = known.is_reloading.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
            if is_quiet && is_free {
                known.changed = None;
                let reloading = fleet.reload(service.clone(), "a watched file changed");
                known.is_reloading = Some(tasks::spawn("watch-reload", Kind::Connection, reloading));
            }
        }
        seen.retain(|service, _| watched.contains_key(service));
        pause = pause.max(clock::now().duration_since(began) * SHARE);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.stopped() => return,
        }
    }
}

/// Turns when a file that is watched comes, goes, or is written.
fn fingerprint(spec: &WatchSpec) -> u64 {
    let patterns: Vec<Pattern> = spec.files.iter().map(|text| Pattern::new(&spec.root, text)).collect();
    let ignored: Vec<Pattern> = spec.ignore.iter().map(|text| Pattern::new(&spec.root, text)).collect();
    let mut files = BTreeSet::new();
    for pattern in &patterns {
        pattern.walk(&pattern.base(), &ignored, &mut files);
    }
    let mut hasher = DefaultHasher::new();
    for file in files {
        let Ok(found) = std::fs::metadata(&file) else { continue };
        (file, found.mtime(), found.mtime_nsec(), found.len(), found.ino()).hash(&mut hasher);
    }
    hasher.finish()
}

/// A pattern of whole paths: `*` and `?` within a segment, `**` over any number of them.
#[derive(Debug)]
struct Pattern(Vec<String>);

impl Pattern {
    fn new(root: &Path, text: &str) -> Self {
        let whole = root.join(text.strip_prefix("./").unwrap_or(text));
        Self(segments(&whole))
    }

    /// The folder (or file) before its first star.
    fn base(&self) -> PathBuf {
        let plain = self.0.iter().take_while(|segment| !segment.contains(['*', '?']));
        Path::new("/").join(plain.collect::<PathBuf>())
    }

    fn walk(&self, at: &Path, ignored: &[Self], files: &mut BTreeSet<PathBuf>) {
        if files.len() >= MOST || ignored.iter().any(|pattern| pattern.takes(at)) {
            return;
        }
        // A link is looked at as what it is, so that nothing is walked in a circle.
        let Ok(found) = std::fs::symlink_metadata(at) else { return };
        if found.is_dir() {
            let name = at.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if PASSED_OVER.contains(&name) && !self.0.iter().any(|segment| segment == name) {
                return;
            }
            for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
                self.walk(&entry.path(), ignored, files);
            }
        } else if self.takes(at) {
            files.insert(at.to_owned());
        }
    }

    fn takes(&self, path: &Path) -> bool {
        let path = segments(path);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let pattern: Vec<&str> = self.0.iter().map(String::as_str).collect();
        matches(&pattern, &path)
    }
}

fn segments(path: &Path) -> Vec<String> {
    path.iter().map(|part| part.to_string_lossy().into_owned()).filter(|part| part != "/" && part != ".").collect()
}

fn matches(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), None) => matches(rest, path),
        (Some((&"**", rest)), Some((_, below))) => matches(rest, path) || matches(pattern, below),
        (Some((segment, rest)), Some((name, below))) => {
            fits(segment.as_bytes(), name.as_bytes()) && matches(rest, below)
        }
        _ => false,
    }
}

/// `*` is any number of letters, `?` one.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if fits(rest, name) => true,
        (Some((b'*', _)), Some((_, more))) => fits(pattern, more),
        (Some((b'?', rest)), Some((_, more))) => fits(rest, more),
        (Some((letter, rest)), Some((other, more))) => letter == other && fits(rest, more),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_segment_and_two_of_them_go_over_many() {
        let takes = |pattern: &str, path: &str| Pattern::new(Path::new("/app"), pattern).takes(Path::new(path));
        for (pattern, path, expected) in [
            ("src/**", "/app/src/a.js", true),
            ("src/**", "/app/src/deep/er/a.js", true),
            ("src/**", "/app/other/a.js", false),
            ("src/*.js", "/app/src/a.js", true),
            ("src/*.js", "/app/src/deep/a.js", false),
            ("**/*.test.js", "/app/src/deep/a.test.js", true),
            ("./main.?o", "/app/main.go", true),
            ("main.?o", "/app/main.goo", false),
            ("/etc/app.conf", "/etc/app.conf", true),
        ] {
            assert_eq!(takes(pattern, path), expected, "{pattern} {path}");
        }
        assert_eq!(Pattern::new(Path::new("/app"), "src/**/*.js").base(), Path::new("/app/src"));
    }

    #[test]
    fn only_what_is_watched_turns_the_fingerprint() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let spec = WatchSpec {
            root: folder.path().to_owned(),
            files: vec!["src/**".into()],
            ignore: vec!["**/*.tmp".into()],
            debounce: Duration::from_millis(300),
        };
        let write = |name: &str| {
            let file = folder.path().join(name);
            file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(file, name)
        };
        write("src/a.js")?;
        let first = fingerprint(&spec);
        for passed_over in ["other.js", "src/a.tmp", "src/node_modules/x/index.js"] {
            write(passed_over)?;
            assert_eq!(fingerprint(&spec), first, "{passed_over}");
        }
        write("src/deep/b.js")?;
        let second = fingerprint(&spec);
        assert_ne!(second, first);
        std::fs::remove_file(folder.path().join("src/a.js"))?;
        assert_ne!(fingerprint(&spec), second);
        Ok(())
    }
}
