//! What a new manifest would change, for the admin API: the manifest crate decides, this file translates.

use std::path::PathBuf;
use std::sync::Arc;

use synego_control_plane::master::{ApplyAsked, Planned, PlannedChange, Planner, Refusal};
use synego_manifest::{Effect, FileRole, LoadedFile, Manifest, Sources};
use synego_model::Reason;
use synego_runtime::keeper;
use tokio::sync::watch;

/// Keys of a service by which a running `up` reloads or scales it.
const OF_A_PROCESS: [&str; 15] = [
    "run",
    "build",
    "cwd",
    "env",
    "env_file",
    "pass_env",
    "port",
    "socket",
    "user",
    "group",
    "files",
    "ready",
    "instances",
    "memory",
    "cpu",
];

/// What the keeper knows the manifest by that was put in force last.
const APPLIED: &str = "applied";

/// What `apply` put in force in a former part of this program, in place of what it began with; `None`: nothing.
pub(crate) fn applied(cores: u32) -> Option<Manifest> {
    Sources::of(&keeper::claim(APPLIED)?.note)?.load(cores).manifest
}

/// Compares manifests with the one in force.
#[derive(Debug)]
pub struct ManifestPlanner {
    current: watch::Sender<Manifest>,
    cores: u32,
    is_machine: bool,
}

/// What goes with a plan until it is taken.
struct Token {
    manifest: Manifest,
    sources: Sources,
}

impl ManifestPlanner {
    /// A planner that begins with `current`; `cores`: what `instances: cores` means on this machine.
    #[must_use]
    /// `is_machine`: whether the services of this machine run in the same process, and go by a changed file.
    pub fn new(current: Manifest, cores: u32, is_machine: bool) -> Self {
        Self { current: watch::Sender::new(current), cores, is_machine }
    }

    /// Whether a change is taken while the mesh runs.
    fn takes(&self, change: &synego_manifest::PlannedChange) -> bool {
        match change.effect {
            Effect::Live | Effect::Nothing => true,
            Effect::Scale | Effect::Roll | Effect::NextStart if self.is_machine => {
                let mut parts = change.path.split('.');
                parts.next() == Some("services") && parts.nth(1).is_some_and(|key| OF_A_PROCESS.contains(&key))
            }
            _ => false,
        }
    }

    /// The manifest in force, and every change of it.
    #[must_use]
    pub fn manifests(&self) -> watch::Receiver<Manifest> {
        self.current.subscribe()
    }
}

impl Planner for ManifestPlanner {
    fn plan(&self, asked: &ApplyAsked) -> Planned {
        let files: Vec<LoadedFile> = asked.files.iter().enumerate().map(|(index, file)| loaded(index, file)).collect();
        let outcome = synego_manifest::load_files(&files, &asked.variables, self.cores);
        let Some(after) = outcome.manifest else {
            return Planned {
                changes: Vec::new(),
                diagnostics: outcome.diagnostics,
                declaration: None,
                refusal: None,
                token: None,
            };
        };
        let changes = { synego_manifest::plan(&self.current.borrow(), &after) };
        let blocked: Vec<String> = changes
            .iter()
            .filter(|change| !self.takes(change))
            .map(|change| format!("`{}` ({})", change.path, change.effect.word()))
            .collect();
        let refusal = (!blocked.is_empty()).then(|| Refusal {
            reason: Reason::NotLive,
            message: format!("not live: {}; restart the mesh to take it up", blocked.join(", ")),
        });
        let changes = changes.into_iter().map(|change| PlannedChange {
            touches: touches(&after, &change.path),
            applies: self.takes(&change),
            path: change.path,
            action: change.action.word().to_owned(),
            before: change.before.unwrap_or_default(),
            after: change.after.unwrap_or_default(),
            effect: change.effect.word().to_owned(),
        });
        Planned {
            changes: changes.collect(),
            diagnostics: outcome.diagnostics,
            declaration: Some(after.declaration.clone()),
            refusal,
            token: Some(Arc::new(Token {
                manifest: after,
                sources: Sources { files, variables: asked.variables.clone() },
            })),
        }
    }

    fn taken(&self, planned: &Planned) {
        if let Some(token) = planned.token.as_ref().and_then(|token| token.downcast_ref::<Token>()) {
            // It is in force to the end of the program.
            std::mem::forget(keeper::hold(APPLIED, &token.sources.text(), &[]));
            self.current.send_replace(token.manifest.clone());
        }
    }
}

fn loaded(index: usize, file: &synego_control_plane::master::ManifestText) -> LoadedFile {
    let path = PathBuf::from(&file.path);
    let name = path.file_name().map_or_else(|| file.path.clone(), |name| name.to_string_lossy().into_owned());
    let role = match (index, file.overlay) {
        (_, true) => FileRole::Overlay,
        (0, false) => FileRole::Base,
        _ => FileRole::Included,
    };
    LoadedFile { name, path, text: file.text.clone(), role }
}

/// What a change of this key touches, for people.
fn touches(manifest: &Manifest, path: &str) -> String {
    let mut parts = path.split('.');
    match (parts.next(), parts.next()) {
        (Some("services"), Some(name)) => {
            let routes = manifest.declaration.services.get(name).and_then(|service| service.routes.as_ref());
            match routes.map_or(0, Vec::len) {
                0 => format!("service {name}"),
                1 => format!("service {name}, 1 route"),
                count => format!("service {name}, {count} routes"),
            }
        }
        (Some("defaults"), _) => format!("{} services", manifest.declaration.services.len()),
        _ => String::new(),
    }
}
