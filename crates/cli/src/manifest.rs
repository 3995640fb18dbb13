//! The manifest as commands meet it: found, read, and its problems told.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use synego_manifest::{FileRole, Manifest, OsDisk, Outcome, Request};
use synego_model::{Diagnostic, Severity};
use synego_wire::pb;

use crate::context::Context;
use crate::failure::{FAILED, Failure};
use crate::output::Tone;
use crate::output::paint::Paint;

/// Which mesh the manifest of this folder names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// This one; and where its master on this machine serves people, as the manifest says.
    Mesh(String, SocketAddr),
    /// It has mistakes.
    Refused {
        /// Its main file.
        file: PathBuf,
        /// How many mistakes, in words.
        errors: String,
    },
    /// There is no manifest.
    None,
}

/// Reads the manifest that the flags or the folder name.
///
/// # Errors
/// When the current folder cannot be told. Problems of the manifest itself are in the outcome.
pub(crate) fn read(context: &Context) -> Result<Outcome, Failure> {
    read_file(context, None, false)
}

/// Reads `file`, or the manifest that the flags or the folder name; when `strict`, doubts count as mistakes.
///
/// # Errors
/// When the current folder cannot be told. Problems of the manifest itself are in the outcome.
pub(crate) fn read_file(context: &Context, file: Option<&Path>, strict: bool) -> Result<Outcome, Failure> {
    let folder = context.folder()?;
    Ok(synego_manifest::load(&Request {
        start: &folder,
        file: file.or(context.globals.file.as_deref()),
        profile: context.globals.profile.as_deref(),
        environment: &context.environment,
        cores: u32::try_from(synego_runtime::config::cores()).unwrap_or(u32::MAX),
        disk: &OsDisk,
        strict,
    }))
}

/// The main file of what was read.
pub(crate) fn main_file(outcome: &Outcome) -> Option<PathBuf> {
    outcome.files.iter().find(|file| file.role == FileRole::Base).map(|file| file.path.clone())
}

/// Which mesh the manifest of this folder names.
///
/// # Errors
/// When the current folder cannot be told.
pub(crate) fn mesh_of(context: &Context) -> Result<Named, Failure> {
    let outcome = read(context)?;
    Ok(match (&outcome.manifest, outcome.found) {
        (Some(manifest), _) => Named::Mesh(manifest.declaration.mesh.to_string(), manifest.masters.admin),
        (None, false) if outcome.diagnostics.is_empty() => Named::None,
        (None, _) => Named::Refused {
            file: main_file(&outcome).or_else(|| context.globals.file.clone()).unwrap_or_default(),
            errors: outcome.counts(),
        },
    })
}

/// Tells the problems of a manifest on stderr.
///
/// # Errors
/// When it has errors: then nothing goes on with it. `force` says what stays as it was.
pub(crate) fn told(context: &Context, outcome: Outcome, force: &str) -> Result<Outcome, Failure> {
    if !outcome.diagnostics.is_empty() {
        context.screen.complain(&draw(&outcome.diagnostics, context.screen.err));
    }
    if outcome.manifest.is_none() && outcome.found {
        return Err(refusal(&outcome, force));
    }
    Ok(outcome)
}

/// The failure of a command that met a refused manifest.
pub(crate) fn refusal(outcome: &Outcome, force: &str) -> Failure {
    let consequence = if force.is_empty() { String::new() } else { format!(", {force}") };
    let title = Some(outcome.title()).filter(|title| !title.is_empty()).unwrap_or_else(|| "the manifest".to_owned());
    Failure { code: FAILED, ..Failure::new(format!("{}; {title} is refused{consequence}", outcome.counts())) }
}

/// Problems as people see them, a newline after each.
pub(crate) fn draw(diagnostics: &[Diagnostic], paint: Paint) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        let drawn = diagnostic.render();
        let word = format!("{}[{}]", diagnostic.severity.word(), diagnostic.code);
        let tone = if diagnostic.severity == Severity::Error { Tone::Bad } else { Tone::Warn };
        text.push_str(&drawn.replacen(&word, &paint.tone(tone, &word), 1));
        text.push('\n');
    }
    text
}

/// The files of a manifest as the admin API takes them, with the variables that they name.
pub(crate) fn request(outcome: &Outcome, dry_run: bool, expected_revision: u64) -> pb::ApplyRequest {
    let file = outcome.files.iter().map(|file| pb::ManifestFile {
        path: file.path.display().to_string(),
        text: file.text.clone(),
        overlay: file.role == FileRole::Overlay,
    });
    pb::ApplyRequest {
        file: file.collect(),
        variables: outcome.variables.clone().into_iter().collect(),
        dry_run,
        expected_revision,
    }
}

/// The manifest of this folder, without mistakes: what `plan` and `apply` work with.
///
/// # Errors
/// When there is none, or it is refused; its problems have then been told.
pub(crate) fn wanted(context: &Context) -> Result<Outcome, Failure> {
    let outcome = read(context)?;
    if !outcome.found && outcome.diagnostics.is_empty() {
        return Err(Failure::new("no manifest in this folder or above it").help("name one with `--file FILE`"));
    }
    told(context, outcome, "nothing was changed")
}

/// The manifest of this folder, or the defaults where there is none.
///
/// # Errors
/// When it is refused; its problems have then been told.
pub(crate) fn or_defaults(context: &Context) -> Result<Manifest, Failure> {
    let folder = context.folder()?;
    let outcome = told(context, read(context)?, "")?;
    Ok(outcome.manifest.unwrap_or_else(|| Manifest::defaults(&folder)))
}
