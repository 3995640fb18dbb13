//! Comparing and taking a manifest: refused whole, or in force.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use synego_model::{Declaration, Diagnostic, Reason, Severity};
use synego_runtime::tasks;
use synego_wire::{pb, status};
use tonic::Status;

use super::gate::{self, Asker};
use crate::master::Shared;

/// Most files of a manifest, and most bytes of one.
const MAX_FILES: usize = 64;
const MAX_TEXT: usize = 1024 * 1024;

/// Understands manifests; implemented by the program that holds the master.
pub trait Planner: Send + Sync + 'static {
    /// What the asked manifest would change against the one in force, or what is wrong with it. Called on a thread that
    /// may block, for one question at a time.
    fn plan(&self, asked: &ApplyAsked) -> Planned;

    /// The declaration of `planned` is in force from now on: the next plan is against it.
    fn taken(&self, planned: &Planned);
}

/// A planner for a master to which nothing can be applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPlanner;

impl Planner for NoPlanner {
    fn plan(&self, _asked: &ApplyAsked) -> Planned {
        let message = "this master was started without a manifest that could be changed".to_owned();
        Planned { refusal: Some(Refusal { reason: Reason::NotLive, message }), ..Planned::default() }
    }

    fn taken(&self, _planned: &Planned) {}
}

/// A manifest to compare or take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplyAsked {
    /// The main file, then overlays, then included files.
    pub files: Vec<ManifestText>,
    /// Variables of the asker's environment that the files name.
    pub variables: BTreeMap<String, String>,
    /// Only compare.
    pub dry_run: bool,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestText {
    /// Its path as the asker names it.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Whether it is an overlay.
    pub overlay: bool,
}

/// What a manifest would change, or what is wrong with it.
#[derive(Clone, Default)]
pub struct Planned {
    /// What changes.
    pub changes: Vec<PlannedChange>,
    /// What is wrong or doubtful; one error refuses the whole.
    pub diagnostics: Vec<Diagnostic>,
    /// What would be in force; `None` with errors.
    pub declaration: Option<Declaration>,
    /// Why it cannot be taken although nothing is wrong with it.
    pub refusal: Option<Refusal>,
    /// The planner's own, given back to it when the plan is taken.
    pub token: Option<Arc<dyn Any + Send + Sync>>,
}

/// One changed key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlannedChange {
    /// Path such as `services.users.policy.timeout`.
    pub path: String,
    /// `add`, `change` or `remove`.
    pub action: String,
    /// Value before in one line, secrets masked; empty: none.
    pub before: String,
    /// Value after, likewise.
    pub after: String,
    /// How far it reaches: `live`, `edge`, `socket`, `scale`, `roll`, `self` or `never`.
    pub effect: String,
    /// What it touches, for people.
    pub touches: String,
    /// Whether `apply` takes it.
    pub applies: bool,
}

/// Why a sound manifest is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As a closed word.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

pub(super) async fn apply(
    shared: &Arc<Shared>,
    asker: Option<&Asker>,
    request: pb::ApplyRequest,
) -> Result<pb::ApplyResult, Status> {
    if request.dry_run {
        return decide(shared, request).await;
    }
    let who = gate::may_change(asker, "Apply")?;
    let before = shared.digest();
    let result = decide(shared, request).await;
    let outcome = match &result {
        Ok(_) => "done".to_owned(),
        Err(status) => format!("refused: {}", status.message()),
    };
    shared.audit.change(&who, "Apply", &outcome, &before, &shared.digest());
    result
}

async fn decide(shared: &Arc<Shared>, request: pb::ApplyRequest) -> Result<pb::ApplyResult, Status> {
    let asked = Arc::new(checked(&request)?);
    // Between the look at the revision and the change of it no other apply comes in.
    let _alone = shared.applying.lock().await;
    let revision = shared.declared.borrow().revision;
    if request.expected_revision != 0 && request.expected_revision != revision {
        let message = format!("planned against revision {}, but {revision} is in force", request.expected_revision);
        return Err(status::refusal(Reason::EpochConflict, message));
    }
    let (planner, question) = (Arc::clone(&shared.planner), Arc::clone(&asked));
    let planned = tasks::spawn_blocking("admin-plan", move || planner.plan(&question)).await;
    let planned = planned.map_err(|_| status::refusal(Reason::Internal, "the manifest could not be planned"))?;
    let mut result = result(revision, &planned);
    let errors = planned.diagnostics.iter().filter(|found| found.severity == Severity::Error).count();
    if errors > 0 {
        let message = format!("{errors} {} in the manifest", if errors == 1 { "mistake" } else { "mistakes" });
        return Err(status::with_detail(&status::fault(Reason::ManifestRefused, message), Some(&result)));
    }
    if asked.dry_run {
        return Ok(result);
    }
    if let Some(refusal) = &planned.refusal {
        return Err(status::with_detail(&status::fault(refusal.reason, refusal.message.clone()), Some(&result)));
    }
    let Some(declaration) = planned.declaration.clone() else {
        return Err(status::refusal(Reason::Internal, "the plan has no declaration"));
    };
    if !planned.changes.is_empty() {
        planned_in_force(shared, declaration, &planned);
    }
    result.applied = true;
    result.revision = shared.declared.borrow().revision;
    // The registry takes declarations up before questions, so that whoever looks next sees the change.
    super::look(shared, Vec::new()).await?;
    Ok(result)
}

fn planned_in_force(shared: &Shared, declaration: Declaration, planned: &Planned) {
    shared.planner.taken(planned);
    let declaration = Arc::new(declaration);
    shared.declared.send_modify(|declared| {
        declared.revision += 1;
        declared.declaration = declaration;
    });
    tracing::info!(changes = planned.changes.len(), "manifest applied");
}

fn checked(request: &pb::ApplyRequest) -> Result<ApplyAsked, Status> {
    if request.file.is_empty() || request.file.len() > MAX_FILES {
        let message = format!("file: has {} entries, expected 1 to {MAX_FILES}", request.file.len());
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    if let Some(large) = request.file.iter().find(|file| file.text.len() > MAX_TEXT) {
        let message = format!("{}: has {} bytes, at most {MAX_TEXT}", large.path, large.text.len());
        return Err(status::refusal(Reason::InvalidMessage, message));
    }
    let file = |file: &pb::ManifestFile| ManifestText {
        path: file.path.clone(),
        text: file.text.clone(),
        overlay: file.overlay,
    };
    Ok(ApplyAsked {
        files: request.file.iter().map(file).collect(),
        variables: request.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        dry_run: request.dry_run,
    })
}

fn result(revision: u64, planned: &Planned) -> pb::ApplyResult {
    let change = |change: &PlannedChange| pb::Change {
        path: change.path.clone(),
        action: change.action.clone(),
        before: change.before.clone(),
        after: change.after.clone(),
        effect: change.effect.clone(),
        touches: change.touches.clone(),
        applies: change.applies,
    };
    let diagnostic = |found: &Diagnostic| pb::Diagnostic {
        file: found.file.clone(),
        line: found.line,
        column: found.column,
        severity: found.severity.word().to_owned(),
        code: found.code.clone(),
        message: found.message.clone(),
        expected: found.expected.clone(),
        help: found.help.clone(),
        rendered: found.render(),
    };
    pb::ApplyResult {
        revision,
        applied: false,
        change: planned.changes.iter().map(change).collect(),
        diagnostic: planned.diagnostics.iter().map(diagnostic).collect(),
    }
}
