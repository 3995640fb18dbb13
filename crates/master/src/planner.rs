//! What a new manifest would change, for the admin API: the manifest crate decides, this file translates.

use std::path::PathBuf;

use synego_control_plane::master::{ApplyAsked, Planned, PlannedChange, Planner, Refusal};
use synego_manifest::{Effect, FileRole, LoadedFile, Manifest};
use synego_model::Reason;
use tokio::sync::watch;

/// Compares manifests with the one in force.
#[derive(Debug)]
pub struct ManifestPlanner {
    current: watch::Sender<Manifest>,
    cores: u32,
}

impl ManifestPlanner {
    /// A planner that begins with `current`; `cores`: what `instances: cores` means on this machine.
    #[must_use]
    pub fn new(current: Manifest, cores: u32) -> Self {
        Self { current: watch::Sender::new(current), cores }
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
            .filter(|change| !matches!(change.effect, Effect::Live | Effect::Nothing))
            .map(|change| format!("`{}` ({})", change.path, change.effect.word()))
            .collect();
        let refusal = (!blocked.is_empty()).then(|| Refusal {
            reason: Reason::NotLive,
            message: format!("not live: {}; restart the mesh to take it up", blocked.join(", ")),
        });
        let changes = changes.into_iter().map(|change| PlannedChange {
            touches: touches(&after, &change.path),
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
            token: Some(std::sync::Arc::new(after)),
        }
    }

    fn taken(&self, planned: &Planned) {
        if let Some(manifest) = planned.token.as_ref().and_then(|token| token.downcast_ref::<Manifest>()) {
            self.current.send_replace(manifest.clone());
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
