//! `synego plan`: what the manifest would change in the running mesh.

use std::fmt::Write as _;

use serde_json::{Value, json};
use synego_manifest::Outcome;
use synego_wire::pb;

use crate::client::{Applied, Mesh};
use crate::context::Context;
use crate::failure::{CHANGES, DONE, Failure};
use crate::manifest;
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

const EXAMPLES: &str = "\
Examples:
  synego plan
  synego plan --profile prod
  synego plan --exit-code -q || echo there are changes";

/// Show what the manifest would change in the running mesh
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Exit with 3 when there are changes
    #[arg(long)]
    exit_code: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let outcome = manifest::wanted(context)?;
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let plan = Plan::ask(context, &mut mesh, &outcome).await?;
        context.answer(plan.answer("plan"), || plan.drawn(context));
        Ok(if args.exit_code && !plan.changes.is_empty() { CHANGES } else { DONE })
    })
}

/// What would change.
pub(crate) struct Plan {
    /// The mesh.
    pub(crate) mesh: String,
    /// Version of its routing state.
    pub(crate) epoch: u64,
    /// Version of what it declares.
    pub(crate) revision: u64,
    /// What would change.
    pub(crate) changes: Vec<pb::Change>,
    /// Where another number of instances runs than the file says, in words.
    pub(crate) scaled: Vec<String>,
}

impl Plan {
    /// Asks the mesh what `outcome` would change.
    ///
    /// # Errors
    /// When the mesh is another one, or refuses the manifest.
    pub(crate) async fn ask(context: &Context, mesh: &mut Mesh<'_>, outcome: &Outcome) -> Result<Self, Failure> {
        let view = mesh.view(&[]).await?;
        let name = outcome.manifest.as_ref().map(|manifest| manifest.declaration.mesh.to_string()).unwrap_or_default();
        if view.mesh != name {
            return Err(Failure::misuse(format!("{} is of the mesh `{name}`", outcome.title()))
                .cause(format!("at {} the mesh `{}` answers", mesh.target().address, view.mesh))
                .help("go to the folder of that mesh, or name the right one with `--admin`"));
        }
        match mesh.apply(manifest::request(outcome, true, 0)).await? {
            Applied::Answered(result) => {
                warn(context, &result);
                let scaled = view.warning.iter().filter(|warning| warning.code == "scaled");
                let scaled = scaled.map(|warning| warning.message.clone()).collect();
                let (mesh, epoch, revision) = (view.mesh, view.epoch, result.revision);
                Ok(Self { mesh, epoch, revision, changes: result.change, scaled })
            }
            Applied::Refused { reason, message, result } => {
                Err(refused(context, &reason, &message, &result, view.epoch))
            }
        }
    }

    /// Whether something goes away by it.
    pub(crate) fn removes(&self) -> usize {
        self.changes.iter().filter(|change| change.action == "remove").count()
    }

    /// For programs.
    pub(crate) fn answer(&self, kind: &'static str) -> Answer {
        let items: Vec<Value> = self.changes.iter().map(item).collect();
        Answer::new(kind, "path")
            .of_mesh(&self.mesh, Some(self.epoch))
            .with("revision", self.revision.into())
            .with("scaled", self.scaled.clone().into())
            .items(items)
    }

    /// For people.
    pub(crate) fn drawn(&self, context: &Context) -> String {
        let mut text = if self.changes.is_empty() {
            format!("no change: mesh {} runs what the manifest says\n", self.mesh)
        } else {
            format!("{}{}\n", self.table(context), self.sentence())
        };
        for scaled in &self.scaled {
            let service = scaled.split(['@', ' ']).next().unwrap_or_default();
            let _ = writeln!(text, "{scaled}: `apply` keeps it until `synego scale {service}=file`");
        }
        if let Some(hint) = self.hint() {
            let _ = writeln!(text, "{hint}");
        }
        text
    }

    /// The changes alone.
    pub(crate) fn table(&self, context: &Context) -> String {
        let mut table = Table::new(&[
            Column::stays(""),
            Column::name("KEY"),
            Column::sentence("FROM → TO"),
            Column::stays("EFFECT"),
            Column::text("TOUCHES"),
        ]);
        for change in &self.changes {
            let (mark, tone, values) = match change.action.as_str() {
                "add" => ("+", Tone::Good, change.after.clone()),
                "remove" => ("-", Tone::Bad, change.before.clone()),
                _ => (
                    "~",
                    Tone::Warn,
                    format!("{} → {}", amount::or_dash(&change.before), amount::or_dash(&change.after)),
                ),
            };
            table.row(vec![
                Cell::toned(mark, tone),
                Cell::new(&change.path),
                Cell::new(values),
                Cell::new(&change.effect),
                Cell::new(amount::or_dash(&change.touches)),
            ]);
        }
        context.table(table)
    }

    /// What `apply` says to it, where it would refuse.
    fn hint(&self) -> Option<String> {
        let blocked = self.changes.iter().filter(|change| !change.applies).count();
        let which = if blocked == self.changes.len() { "these" } else { "the others" };
        (blocked > 0).then(|| {
            format!(
                "`apply` refuses what it cannot change in a running mesh: `synego down` and `synego up` take {which}."
            )
        })
    }

    /// `4 changes: 2 live, 1 scale, 1 edge, 1 of them removes. No process restarts, no stream ends.`
    pub(crate) fn sentence(&self) -> String {
        sentence(self.changes.iter().map(|change| (change.effect.as_str(), change.action.as_str())))
    }
}

/// The last line of a plan, of the effect and the action of each change.
pub(crate) fn sentence<'a>(changes: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let changes: Vec<(&str, &str)> = changes.collect();
    let mut effects: Vec<(&str, usize)> = Vec::new();
    for (effect, _) in &changes {
        match effects.iter_mut().find(|(word, _)| word == effect) {
            Some((_, number)) => *number += 1,
            None => effects.push((effect, 1)),
        }
    }
    let mut words: Vec<String> = effects.iter().map(|(effect, number)| format!("{number} {effect}")).collect();
    match changes.iter().filter(|(_, action)| *action == "remove").count() {
        0 => {}
        1 => words.push("1 of them removes".into()),
        number => words.push(format!("{number} of them remove")),
    }
    let has = |effect| changes.iter().any(|(word, _)| *word == effect);
    let consequence = match (has("roll") || has("self"), has("socket"), has("never")) {
        (_, _, true) => "What never changes needs a new mesh.",
        (true, _, _) => "Processes are replaced, new before old.",
        (_, true, _) => "No process restarts; streams on changed listeners end.",
        _ => "No process restarts, no stream ends.",
    };
    format!("{}: {}. {consequence}", amount::count(changes.len(), "change"), words.join(", "))
}

/// A change as programs get it.
pub(crate) fn item(change: &pb::Change) -> Value {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    json!({
        "path": change.path,
        "action": change.action,
        "before": text(&change.before),
        "after": text(&change.after),
        "effect": change.effect,
        "touches": text(&change.touches),
    })
}

fn warn(context: &Context, result: &pb::ApplyResult) {
    for diagnostic in result.diagnostic.iter().filter(|diagnostic| diagnostic.severity == "warning") {
        context.screen.note(&diagnostic.rendered);
    }
}

/// What a master refused, told in full.
pub(crate) fn refused(context: &Context, reason: &str, message: &str, result: &pb::ApplyResult, epoch: u64) -> Failure {
    for diagnostic in &result.diagnostic {
        context.screen.complain(&diagnostic.rendered);
    }
    Failure::new(format!("the mesh refused the manifest, epoch {epoch} stays in force"))
        .cause(format!("{reason}: {message}"))
        .help(format!("`synego explain {reason}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_effects_and_says_what_ends() {
        let changes = [("live", "change"), ("scale", "change"), ("edge", "change"), ("live", "remove")];
        assert_eq!(
            sentence(changes.into_iter()),
            "4 changes: 2 live, 1 scale, 1 edge, 1 of them removes. No process restarts, no stream ends."
        );
        assert_eq!(
            sentence([("roll", "change")].into_iter()),
            "1 change: 1 roll. Processes are replaced, new before old."
        );
    }
}
