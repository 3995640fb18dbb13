//! From files to a manifest: find, read, merge, fill, check, and only then believe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use synego_model::Severity;

use crate::disk::Disk;
use crate::find::{self, Found};
use crate::keys::mesh::{INCLUDED, MAX_ENTRIES, ROOT_SHAPE};
use crate::keys::{Shape, service};
use crate::long::{At, expand, said_twice, too_many};
use crate::manifest::{Manifest, mesh_of};
use crate::outcome::Outcome;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};
use crate::{check, cross, effective, merge, older, read, types, variables, yaml};

/// What is to be loaded.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The folder where the search begins; absolute.
    pub start: &'a Path,
    /// This file alone, relative to `start`, instead of a search.
    pub file: Option<&'a Path>,
    /// The overlay to lay over it.
    pub profile: Option<&'a str>,
    /// What `${NAME}` is filled from.
    pub environment: &'a BTreeMap<String, String>,
    /// What `instances: cores` means on this machine.
    pub cores: u32,
    /// Where files are read from.
    pub disk: &'a dyn Disk,
    /// Whether a warning refuses the manifest as an error does.
    pub strict: bool,
}

/// What a file is to the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileRole {
    /// The manifest itself.
    Base,
    /// Named by its `include`.
    Included,
    /// Laid over it.
    Overlay,
}

/// A file with its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedFile {
    /// As the user named it.
    pub name: String,
    /// Absolute.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// What it is to the manifest.
    pub role: FileRole,
}

/// Finds, reads and checks a manifest.
#[must_use]
pub fn load(request: &Request<'_>) -> Outcome {
    let mut problems = Problems::default();
    let base = match request.file {
        Some(file) => Some(Found { name: file.display().to_string(), path: read::clean(&request.start.join(file)) }),
        None => find::nearest_above(request.start, request.disk, &mut problems),
    };
    let Some(base) = base else {
        let found = problems.errors() > 0;
        return Outcome { found, diagnostics: problems.finish(), ..Outcome::default() };
    };
    let overlay = request.profile.and_then(|profile| find::overlay(&base, profile, request.disk, &mut problems));
    let mut files = Vec::new();
    files.extend(find::read(&base, FileRole::Base, request.disk, &mut problems));
    files.extend(overlay.and_then(|overlay| find::read(&overlay, FileRole::Overlay, request.disk, &mut problems)));
    let more = |list: &Node, problems: &mut Problems| {
        let found = find::included(list, &base, request.disk, problems);
        found.iter().filter_map(|one| find::read(one, FileRole::Included, request.disk, problems)).collect()
    };
    assemble(files, &more, request.environment, request.cores, request.strict, problems)
}

/// Checks a manifest whose files were read elsewhere; `include` means those of them that are included.
#[must_use]
pub fn load_files(files: &[LoadedFile], environment: &BTreeMap<String, String>, cores: u32) -> Outcome {
    let of = |role: FileRole| files.iter().filter(move |file| file.role == role).cloned();
    let included: Vec<LoadedFile> = of(FileRole::Included).collect();
    let first: Vec<LoadedFile> = of(FileRole::Base).take(1).chain(of(FileRole::Overlay).take(1)).collect();
    let more = |_: &Node, _: &mut Problems| included.clone();
    assemble(first, &more, environment, cores, false, Problems::default())
}

/// Everything after the first files were read.
fn assemble(
    mut files: Vec<LoadedFile>,
    more: &dyn Fn(&Node, &mut Problems) -> Vec<LoadedFile>,
    environment: &BTreeMap<String, String>,
    cores: u32,
    strict: bool,
    mut problems: Problems,
) -> Outcome {
    let mut base_name = String::new();
    let (mut base, mut overlay) = (None, None);
    for file in &files {
        let parsed = parse(file, &mut problems);
        match (file.role, parsed) {
            (FileRole::Base, Some((_, tree))) => {
                base_name.clone_from(&file.name);
                base = Some(tree);
            }
            (FileRole::Overlay, Some(parsed)) => overlay = Some(parsed),
            _ => {}
        }
    }
    let root = files
        .iter()
        .find(|file| file.role == FileRole::Base)
        .and_then(|file| file.path.parent())
        .map(Path::to_path_buf);
    let mut manifest = None;
    if let (Some(mut base), Some(root)) = (base, root) {
        let list = overlay.as_ref().and_then(|(_, tree)| tree.entry("include")).or_else(|| base.entry("include"));
        let included = list.map(|entry| entry.value.clone()).map(|list| more(&list, &mut problems)).unwrap_or_default();
        for file in &included {
            if let Some((_, tree)) = parse(file, &mut problems) {
                include(&mut base, tree, file, &mut problems);
            }
        }
        files.extend(included);
        let whole = Assembly { base, overlay, base_name, root, environment, cores };
        manifest = whole.finish(&files, &mut problems);
    }
    let mut diagnostics = problems.finish();
    if strict {
        diagnostics.iter_mut().for_each(|diagnostic| diagnostic.severity = Severity::Error);
    }
    let refused = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    let variables = named(&files, environment);
    Outcome { found: true, manifest: manifest.filter(|_| !refused), diagnostics, files, variables }
}

/// The variables of the environment that the texts name.
fn named(files: &[LoadedFile], environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let references = files.iter().flat_map(|file| file.text.split("${").skip(1));
    let name = |rest: &str| rest.split([':', '}']).next().map(str::to_owned);
    let names = references.filter_map(name);
    names.filter_map(|name| environment.get(&name).cloned().map(|value| (name, value))).collect()
}

/// The tree of a file in long form, and the index of the file.
fn parse(file: &LoadedFile, problems: &mut Problems) -> Option<(u16, Node)> {
    let index = problems.source(&file.name, &file.path, &file.text);
    if file.path.extension().is_some_and(|extension| extension == "json") {
        crate::json::check(&file.text, index, problems)?;
    }
    let mut tree = yaml::parse(&file.text, index, problems)?;
    if file.role == FileRole::Base {
        older::translate(&mut tree, problems);
    }
    if file.role == FileRole::Included {
        only_included(&mut tree, problems);
    }
    expand(&mut tree, &ROOT_SHAPE, &At::default(), problems);
    matches!(tree.kind, Kind::Map(_)).then_some((index, tree))
}

/// An included file holds services, resources and secrets alone.
fn only_included(tree: &mut Node, problems: &mut Problems) {
    let Some(entries) = tree.entries_mut() else { return };
    entries.retain(|entry| {
        let known = crate::keys::mesh::ROOT.key(&entry.key).is_some();
        if !known || INCLUDED.contains(&entry.key.as_str()) {
            return true;
        }
        let problem = Problem::new("misplaced_key", format!("`{}` is not a key of an included file", entry.key))
            .expected("expected `services`, `resources` or `secrets`")
            .help("move it to the manifest that includes this file");
        problems.error(entry.span, problem);
        false
    });
}

/// Takes the entries of an included file in.
fn include(base: &mut Node, tree: Node, file: &LoadedFile, problems: &mut Problems) {
    let Kind::Map(sections) = tree.kind else { return };
    for section in sections {
        let noun = section.key.strip_suffix('s').unwrap_or(&section.key).to_owned();
        let Kind::Map(entries) = section.value.kind else { continue };
        let Some(all) = base.entries_mut() else { continue };
        if !all.iter().any(|entry| entry.key == section.key) {
            all.push(Entry { key: section.key.clone(), span: section.span, value: Node::empty(section.span) });
        }
        let Some(target) = all.iter_mut().find(|entry| entry.key == section.key) else { continue };
        if target.value.is_null() {
            target.value = Node::empty(target.span);
        }
        let Some(have) = target.value.entries_mut() else { continue };
        for entry in entries {
            match have.iter().find(|before| before.key == entry.key) {
                Some(before) => {
                    let same = problems.file(before.span.file).is_some_and(|source| source.name == file.name);
                    let first = if same { format!("line {}", before.span.line) } else { problems.place(before.span) };
                    problems.error(entry.span, said_twice(&noun, &entry.key, &first));
                }
                None if have.len() >= MAX_ENTRIES => {
                    problems.error(entry.span, too_many(&section.key, have.len() + 1, MAX_ENTRIES));
                    break;
                }
                None => have.push(entry),
            }
        }
    }
}

/// All trees, before they become one.
struct Assembly<'a> {
    base: Node,
    overlay: Option<(u16, Node)>,
    base_name: String,
    root: PathBuf,
    environment: &'a BTreeMap<String, String>,
    cores: u32,
}

impl Assembly<'_> {
    /// Merges, fills and checks; the manifest when nothing is wrong.
    fn finish(self, files: &[LoadedFile], problems: &mut Problems) -> Option<Manifest> {
        let defined: Vec<String> = self
            .base
            .get("services")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.key.clone())
            .collect();
        let mut tree = self.base;
        let overlay = self.overlay.as_ref().map(|(index, _)| *index);
        if let Some((_, over)) = self.overlay {
            merge::lay(&mut tree, over, &ROOT_SHAPE);
        }
        // What is gone needs neither variables nor values.
        gone(&mut tree);
        let mesh = tree.get("mesh").and_then(Node::text).map_or_else(|| mesh_of(&self.root).to_string(), str::to_owned);
        cross::inline(&tree, &mesh, problems);
        variables::fill(&mut tree, self.environment, problems);
        inherit(&mut tree, problems);
        merge::prune(&mut tree);
        let value = check::value(&tree, &ROOT_SHAPE, &At::default(), None, problems)?;
        let whole = cross::Whole { tree: &tree, overlay, defined: &defined, base: &self.base_name };
        cross::check(&whole, problems);
        if problems.errors() > 0 {
            return None;
        }
        let context = read::Context { root: &self.root, tree: &tree, problems, cores: self.cores };
        let read = serde_json::from_value::<types::Manifest>(value.clone())
            .map_err(|error| error.to_string())
            .and_then(|file| read::read(&file, &context).ok_or_else(|| "a value is none of the model's".to_owned()));
        match read {
            Ok(read) => {
                let effective = effective::of(&tree, &value, &read, &context);
                let outcome = Outcome { files: files.to_vec(), ..Outcome::default() };
                Some(Manifest {
                    title: outcome.title(),
                    declaration: read.declaration,
                    local: read.local,
                    gateway: read.gateway,
                    masters: read.masters,
                    logs: read.logs,
                    identity: read.identity,
                    effective,
                    root: self.root,
                })
            }
            Err(why) => {
                let problem = Problem::new(
                    "internal",
                    format!("this manifest passed every check and still cannot be read: {why}"),
                )
                .expected("")
                .help("this is a mistake of Synego: please report it with the manifest");
                problems.error(Span { line: 0, ..tree.span }, problem);
                None
            }
        }
    }
}

/// Takes out the services, resources and the like that an overlay removed.
fn gone(tree: &mut Node) {
    let Some(sections) = tree.entries_mut() else { return };
    for section in sections.iter_mut().filter(|section| INCLUDED.contains(&section.key.as_str())) {
        if let Some(entries) = section.value.entries_mut() {
            entries.retain(|entry| !entry.value.is_null());
        }
    }
}

/// Most values that all services together take from `defaults`.
const MAX_INHERITED: usize = 200_000;

/// Lays every service over `defaults`.
fn inherit(tree: &mut Node, problems: &mut Problems) {
    let Some(defaults) = tree.get("defaults").cloned().filter(|node| matches!(node.kind, Kind::Map(_))) else { return };
    let services = tree.get("services").map_or(0, |services| services.entries().len());
    let (values, _) = defaults.extent();
    if values * services > MAX_INHERITED || defaults.weight() * services > yaml::MAX_TEXT {
        let message = format!("`defaults` is too large to hold for {services} services");
        problems.error(defaults.span, yaml::too_big(message));
        return;
    }
    let Some(services) = tree.entries_mut().and_then(|all| all.iter_mut().find(|entry| entry.key == "services")) else {
        return;
    };
    for service in services.value.entries_mut().into_iter().flatten() {
        if !matches!(service.value.kind, Kind::Map(_)) {
            continue;
        }
        let mut under = defaults.clone();
        under.inherit();
        // What has no process of ours takes nothing that only a process has.
        if service.value.get("address").is_some() && service.value.get("run").is_none() {
            let keys = under.entries_mut();
            keys.into_iter().for_each(|keys| keys.retain(|entry| !cross::OF_A_PROCESS.contains(&entry.key.as_str())));
        }
        let own = std::mem::replace(&mut service.value, under);
        merge::lay(&mut service.value, own, &SERVICE_SHAPE);
    }
}

static SERVICE_SHAPE: Shape = Shape::Map(&service::SERVICE);
