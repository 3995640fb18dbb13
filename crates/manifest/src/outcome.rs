//! What came of reading a manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use synego_model::{Diagnostic, Protocol, Severity};

use crate::load::{FileRole, LoadedFile, load_files};
use crate::manifest::Manifest;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Whether there is a manifest at all. Without one nothing was read and nothing is wrong.
    pub found: bool,
    /// The manifest; there exactly when nothing refuses it.
    pub manifest: Option<Manifest>,
    /// All mistakes, sorted by place.
    pub diagnostics: Vec<Diagnostic>,
    /// All files that were read.
    pub files: Vec<LoadedFile>,
    /// The value of each variable that the files name, where it has one: with these, the same texts mean the same
    /// elsewhere.
    pub variables: BTreeMap<String, String>,
}

/// What a manifest was made of: enough to make it again, whatever became of its files since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Its files.
    pub files: Vec<LoadedFile>,
    /// The values of the variables that they name.
    pub variables: BTreeMap<String, String>,
}

impl Sources {
    /// As JSON.
    #[must_use]
    pub fn text(&self) -> String {
        // Text alone: nothing that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From what [`Self::text`] gave; `None`: it is no such text.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The manifest once more.
    #[must_use]
    pub fn load(&self, cores: u32) -> Outcome {
        load_files(&self.files, &self.variables, cores)
    }
}

impl Outcome {
    /// What it was made of; `None`: there is no manifest.
    #[must_use]
    pub fn sources(&self) -> Option<Sources> {
        self.manifest.as_ref()?;
        Some(Sources { files: self.files.clone(), variables: self.variables.clone() }).filter(|of| !of.files.is_empty())
    }

    /// How many errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// How many warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }

    /// Its files: `synego.yaml + synego.prod.yaml`; where none could be read, the one that was wanted.
    #[must_use]
    pub fn title(&self) -> String {
        if self.files.is_empty() {
            return self.diagnostics.first().map(|diagnostic| diagnostic.file.clone()).unwrap_or_default();
        }
        let shown = |role| self.files.iter().filter(move |file| file.role == role).map(|file| file.name.as_str());
        shown(FileRole::Base).chain(shown(FileRole::Overlay)).collect::<Vec<_>>().join(" + ")
    }

    /// `19 errors, 1 warning`; `no problem`.
    #[must_use]
    pub fn counts(&self) -> String {
        let count = |number: usize, word: &str| match number {
            0 => None,
            1 => Some(format!("1 {word}")),
            more => Some(format!("{more} {word}s")),
        };
        let all: Vec<String> =
            count(self.errors(), "error").into_iter().chain(count(self.warnings(), "warning")).collect();
        if all.is_empty() { "no problem".to_owned() } else { all.join(", ") }
    }

    /// `synego.yaml + synego.prod.yaml: 5 services, 7 routes, no problem`.
    #[must_use]
    pub fn summary(&self) -> String {
        let Some(manifest) = &self.manifest else { return format!("{}: {}", self.title(), self.counts()) };
        let many = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        let services = &manifest.declaration.services;
        // A lone service that says nothing of routes answers `/`.
        let lone = services.len() == 1 && services.values().all(|service| service.protocol != Protocol::Tcp);
        let unsaid = if lone { 1 } else { 0 };
        let routes = services.values().map(|service| service.routes.as_ref().map_or(unsaid, Vec::len)).sum();
        format!("{}: {}, {}, {}", self.title(), many(services.len(), "service"), many(routes, "route"), self.counts())
    }
}
