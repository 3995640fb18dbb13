//! Which files make up the manifest.

use std::path::{Path, PathBuf};

use synego_model::text::nearest;

use crate::disk::Disk;
use crate::load::{FileRole, LoadedFile};
use crate::problems::{Problem, Problems};
use crate::read::clean;
use crate::tree::{Node, Span};

/// Names of a manifest, the usual one first; the last is the older form.
const NAMES: [&str; 3] = ["synego.yaml", "synego.json", "synego.config.json"];
/// Most included files.
const MAX_INCLUDED: usize = 64;

/// A file that was found, not read yet.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// As the user named it.
    pub(crate) name: String,
    /// Absolute.
    pub(crate) path: PathBuf,
}

/// A place for problems that stand in no line of the file `name`.
pub(crate) fn nowhere(name: &str, path: &Path, problems: &mut Problems) -> Span {
    Span { file: problems.source(name, path, ""), line: 0, column: 0, width: 1 }
}

/// Looks in `start`, then above it; `None` with no problem when there is none.
pub(crate) fn nearest_above(start: &Path, disk: &dyn Disk, problems: &mut Problems) -> Option<Found> {
    let mut prefix = String::new();
    for folder in start.ancestors() {
        let there: Vec<&str> = NAMES.into_iter().filter(|name| disk.is_file(&folder.join(name))).collect();
        match there.as_slice() {
            [] => {}
            [name] => return Some(Found { name: format!("{prefix}{name}"), path: folder.join(name) }),
            [first, second, ..] => {
                let span = nowhere(&format!("{prefix}{second}"), &folder.join(second), problems);
                let problem = Problem::new("two_manifests", format!("`{first}` and `{second}` stand side by side"))
                    .expected("expected one manifest")
                    .help(format!("keep one; `--file {first}` reads that one alone"));
                problems.error(span, problem);
                return None;
            }
        }
        if let Some(other) =
            ["synego.yml", "synego.config.yaml"].into_iter().find(|name| disk.is_file(&folder.join(name)))
        {
            let span = nowhere(&format!("{prefix}{other}"), &folder.join(other), problems);
            let problem = Problem::new("no_file", format!("`{other}` is no name of a manifest"))
                .expected("expected `synego.yaml` or `synego.json`")
                .help(format!("rename it: `mv {other} synego.yaml`"));
            problems.error(span, problem);
            return None;
        }
        prefix.push_str("../");
    }
    None
}

/// The overlay of a profile beside the base file; reports when there is none.
pub(crate) fn overlay(base: &Found, profile: &str, disk: &dyn Disk, problems: &mut Problems) -> Option<Found> {
    let folder = base.path.parent().unwrap_or(Path::new("/"));
    let file = base.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (stem, extension) = file.rsplit_once('.').unwrap_or((file, "yaml"));
    let other = if extension == "json" { "yaml" } else { "json" };
    let prefix = base.name.strip_suffix(file).unwrap_or_default();
    let valid = synego_model::name::is_name(profile);
    for extension in [extension, other] {
        let name = format!("{stem}.{profile}.{extension}");
        if valid && disk.is_file(&folder.join(&name)) {
            return Some(Found { name: format!("{prefix}{name}"), path: folder.join(name) });
        }
    }
    let mut profiles: Vec<String> = disk
        .list(folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| {
            let rest = name.strip_prefix(stem)?.strip_prefix('.')?;
            let profile = rest.strip_suffix(".yaml").or_else(|| rest.strip_suffix(".json"))?;
            synego_model::name::is_name(profile).then(|| profile.to_owned())
        })
        .filter(|profile| stem != "synego" || profile != "config")
        .collect();
    profiles.sort();
    profiles.dedup();
    let span = nowhere(&base.name, &base.path, problems);
    let expected = match profiles.as_slice() {
        [] => "there is none yet".to_owned(),
        all => format!("expected {}", all.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    let close = nearest(profile, profiles.iter().map(String::as_str)).map(str::to_owned);
    let problem =
        Problem::new("no_profile", format!("there is no profile `{profile}`: no file {stem}.{profile}.{extension}"))
            .expected(expected)
            .nearest(close)
            .help("a profile is one file beside the manifest, laid over it; without `--profile` none is");
    problems.error(span, problem);
    None
}

/// The files that `include` names, in the order of its entries, each one's in that of their names.
pub(crate) fn included(list: &Node, base: &Found, disk: &dyn Disk, problems: &mut Problems) -> Vec<Found> {
    let file = base.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let prefix = base.name.strip_suffix(file).unwrap_or_default().to_owned();
    let mut all: Vec<Found> = Vec::new();
    for item in list.items() {
        let Some(text) = item.text() else { continue };
        let folder = problems.file(item.span.file).map(|source| source.folder.clone()).unwrap_or_default();
        match expand(text, &folder, disk) {
            Ok(names) => {
                for name in names {
                    let path = clean(&folder.join(&name));
                    if path != base.path && !all.iter().any(|found| found.path == path) {
                        all.push(Found { name: format!("{prefix}{name}"), path });
                    }
                }
            }
            Err(problem) => problems.error(item.span, problem),
        }
        if all.len() > MAX_INCLUDED {
            let problem = Problem::new("out_of_range", format!("`include` names {} files", all.len()))
                .expected(format!("expected at most {MAX_INCLUDED}"))
                .help("put more services into one file");
            problems.error(item.span, problem);
            all.truncate(MAX_INCLUDED);
            break;
        }
    }
    all
}

fn expand(text: &str, folder: &Path, disk: &dyn Disk) -> Result<Vec<String>, Problem> {
    let missing = |what: String| {
        Problem::new("no_file", what)
            .expected("expected a file beside the manifest or below it")
            .help("write `include: [teams/*.yaml]`")
    };
    if text.contains("${") {
        return Err(Problem::new("bad_variable", "`include` is read before variables are filled")
            .expected("expected a path without variables")
            .help("what differs for one environment goes into an overlay, synego.NAME.yaml"));
    }
    let (dir, pattern) = text.rsplit_once('/').map_or(("", text), |(dir, pattern)| (dir, pattern));
    if dir.contains(['*', '?']) {
        return Err(missing(format!("`{text}`: only the last part of a path can hold `*`")));
    }
    let join = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    if !pattern.contains('*') {
        let there = disk.is_file(&folder.join(text));
        return if there { Ok(vec![text.to_owned()]) } else { Err(missing(format!("`{text}` is not there"))) };
    }
    let mut names = disk.list(&folder.join(dir)).unwrap_or_default();
    names.retain(|name| !name.starts_with('.') && matches(pattern, name));
    names.sort();
    if names.is_empty() {
        return Err(missing(format!("`{text}` matches no file")));
    }
    Ok(names.iter().map(|name| join(name)).collect())
}

/// Whether `name` matches a pattern with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    rest.char_indices()
        .map(|(at, _)| at)
        .chain([rest.len()])
        .any(|at| matches(tail, rest.get(at..).unwrap_or_default()))
}

/// Reads a file as text; reports what keeps it from being one.
pub(crate) fn read(found: &Found, role: FileRole, disk: &dyn Disk, problems: &mut Problems) -> Option<LoadedFile> {
    let problem = match disk.read(&found.path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => {
                return Some(LoadedFile { name: found.name.clone(), path: found.path.clone(), text, role });
            }
            Err(bad) => {
                let at = bad.utf8_error().valid_up_to();
                Problem::new("not_text", format!("`{}` is not text: byte {} is no UTF-8", found.name, at + 1))
                    .expected("expected a file in UTF-8")
                    .help("save it as UTF-8")
            }
        },
        Err(error) => Problem::new("no_file", format!("`{}` cannot be read: {}", found.name, error.kind()))
            .expected("expected a readable file")
            .help("`synego init` writes a first manifest"),
    };
    let span = nowhere(&found.name, &found.path, problems);
    problems.error(span, problem);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_takes_any_part_of_a_name() {
        assert!(matches("*.yaml", "a.yaml") && matches("a*b*c", "aXbYbZc") && matches("*", "x"));
        assert!(!matches("*.yaml", "a.yml") && !matches("a*", "ba"));
    }
}
