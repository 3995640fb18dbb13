//! `synego check`: the manifest alone, offline; it changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use synego_model::Diagnostic;

use crate::client::Mesh;
use crate::commands::nginx;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::manifest;
use crate::mesh;
use crate::output::Answer;

/// Longest wait for the mesh, which only adds what stays in force.
const PATIENCE: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  synego check
  synego check --strict --profile prod
  synego check -o json | jq -r '.items[].code'";

/// Check the manifest: every mistake at once, nothing changed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Manifest [default: that of this folder or the nearest above]
    #[arg(value_hint = clap::ValueHint::FilePath)]
    manifest: Option<PathBuf>,
    /// Refuse what is only doubtful, too
    #[arg(long)]
    strict: bool,
    /// Let Nginx test the configuration that it would get
    #[arg(long)]
    nginx: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let outcome = manifest::read_file(context, args.manifest.as_deref(), args.strict)?;
    if !outcome.found && outcome.diagnostics.is_empty() {
        return Err(Failure::new("no manifest in this folder or above it")
            .cause("looked for synego.yaml, synego.json and synego.config.json")
            .help("`synego init` writes one"));
    }
    let items: Vec<Value> = outcome.diagnostics.iter().map(item).collect();
    let mesh = outcome.manifest.as_ref().map(|manifest| manifest.declaration.mesh.to_string());
    let answer = Answer::new("check", "code").with("ok", outcome.manifest.is_some().into()).items(items);
    let answer = match &mesh {
        Some(mesh) => answer.of_mesh(mesh, None),
        None => answer,
    };
    context.answer(answer, || {
        let drawn = manifest::draw(&outcome.diagnostics, context.screen.out);
        let last = match &outcome.manifest {
            Some(_) => outcome.summary(),
            None => format!("{}; {} is refused{}", outcome.counts(), outcome.title(), in_force(&outcome, context)),
        };
        format!("{drawn}{last}\n")
    });
    let Some(manifest) = &outcome.manifest else { return Ok(FAILED) };
    if args.nginx {
        nginx::test(manifest, context)?;
    }
    Ok(DONE)
}

/// What stays in force while this manifest is refused: the epoch of the mesh that runs it, if one does.
fn in_force(outcome: &synego_manifest::Outcome, context: &Context) -> String {
    let file = manifest::main_file(outcome);
    let runs =
        |note: &Option<mesh::Note>| note.as_ref().is_some_and(|note| note.manifest.is_some() && note.manifest == file);
    let Some((_, target)) = mesh::running().into_iter().find(|(note, _)| runs(note)) else { return String::new() };
    let asked = context.block_on(async {
        let view = async { Mesh::connect(context, target).await?.view(&[]).await };
        Ok(tokio::time::timeout(PATIENCE, view).await.ok().and_then(Result::ok))
    });
    match asked.ok().flatten() {
        Some(view) => format!(", epoch {} stays in force", view.epoch),
        None => ", what runs stays in force".to_owned(),
    }
}

fn item(diagnostic: &Diagnostic) -> Value {
    json!({
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "expected": (!diagnostic.expected.is_empty()).then_some(&diagnostic.expected),
        "nearest": diagnostic.nearest,
        "help": (!diagnostic.help.is_empty()).then_some(&diagnostic.help),
        "severity": diagnostic.severity.word(),
    })
}
