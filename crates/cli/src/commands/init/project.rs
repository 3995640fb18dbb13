//! Which files of a project say how its parts are started, and which of them are believed.

use std::path::Path;

use super::{Sight, compose, languages, pm2, procfile};
use crate::failure::Failure;

/// Folders that hold the parts of a project, besides those right below its root.
const HOLDERS: &[&str] = &["services", "apps", "packages", "cmd", "crates"];
/// Folders that never hold a part of their own.
const SKIPPED: &[&str] =
    &["node_modules", "target", "vendor", "dist", "build", "tests", "test", "docs", "bin", "examples"];

/// A kind of file and who reads it.
type Reader = (&'static [&'static str], fn(&Path, &str, &mut Sight));

/// Files that list processes: the first kind that is there is the word of the project's owner.
const LISTS: &[Reader] = &[
    (
        &[
            "ecosystem.config.js",
            "ecosystem.config.cjs",
            "ecosystem.config.json",
            "ecosystem.json",
            "pm2.json",
            "pm2.yaml",
            "pm2.yml",
        ],
        pm2::read,
    ),
    (&["Procfile"], procfile::read),
    (&["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"], compose::read),
];

/// Files of one language's project: each adds what it starts.
const PROJECTS: &[Reader] =
    &[(&["package.json"], languages::node), (&["go.mod"], languages::go), (&["Cargo.toml"], languages::cargo)];

/// Looks at the project in `root`: a list of processes if there is one, else each language's own files, here and in the
/// folders below.
pub(super) fn look(root: &Path) -> Sight {
    let mut sight = Sight::default();
    for (names, read) in LISTS {
        let Some(name) = names.iter().find(|name| root.join(name).is_file()) else { continue };
        read(root, name, &mut sight);
        if !sight.services.is_empty() {
            return sight;
        }
    }
    of_folder(root, "", &mut sight);
    for folder in folders(root) {
        of_folder(root, &folder, &mut sight);
    }
    sight
}

/// Looks at one file alone.
///
/// # Errors
/// When it is not there, or of a kind that says nothing.
pub(super) fn file(root: &Path, file: &Path) -> Result<Sight, Failure> {
    let path = root.join(file);
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !path.is_file() {
        return Err(Failure::new(format!("there is no file {}", path.display())));
    }
    let reader = LISTS.iter().chain(PROJECTS).find(|(names, _)| names.contains(&name.as_str()));
    let Some((_, read)) = reader else {
        let known: Vec<&str> = LISTS.iter().chain(PROJECTS).flat_map(|(names, _)| names.iter().copied()).collect();
        return Err(Failure::misuse(format!("nothing is known of files named {name}"))
            .cause(format!("expected one of {}, or an older manifest", known.join(", "))));
    };
    let mut sight = Sight::default();
    let shown = file.display().to_string();
    read(root, &shown, &mut sight);
    Ok(sight)
}

fn of_folder(root: &Path, folder: &str, sight: &mut Sight) {
    for (names, read) in PROJECTS {
        for name in *names {
            let shown = if folder.is_empty() { (*name).to_owned() } else { format!("{folder}/{name}") };
            if root.join(&shown).is_file() {
                read(root, &shown, sight);
            }
        }
    }
}

/// Folders right below the root, and right below those that hold parts; sorted.
fn folders(root: &Path) -> Vec<String> {
    let below = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.') && !SKIPPED.contains(&name.as_str()))
            .collect();
        names.sort();
        names.truncate(100);
        names
    };
    let mut all = Vec::new();
    for name in below(root) {
        if HOLDERS.contains(&name.as_str()) {
            all.extend(below(&root.join(&name)).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            all.push(name);
        }
    }
    all
}

/// The text of a file of at most 1 MiB.
pub(super) fn text(root: &Path, name: &str) -> Option<String> {
    let path = root.join(name);
    let small = std::fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= 1 << 20);
    small.then(|| std::fs::read_to_string(path).ok()).flatten()
}

/// The folder of `file`, empty for the root.
pub(super) fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// `path` inside `folder`, both from the root.
pub(super) fn join(folder: &str, path: &str) -> String {
    let path = path.strip_prefix("./").unwrap_or(path);
    match (folder, path) {
        ("", path) => path.to_owned(),
        (folder, "" | ".") => folder.to_owned(),
        (folder, path) => format!("{folder}/{path}"),
    }
}
