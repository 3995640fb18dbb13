//! `synego apply`: puts the manifest in force, as a compare-and-swap against what it was planned on.

use crate::client::{Applied, Mesh};
use crate::commands::plan::{self, Plan};
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::manifest;
use crate::output::amount;

const EXAMPLES: &str = "\
Examples:
  synego apply
  synego apply --yes --profile prod";

/// Put the manifest in force: what can change live, changes; asks if something is removed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs it.
pub(crate) fn run(_args: &Args, context: &Context) -> Result<u8, Failure> {
    let outcome = manifest::wanted(context)?;
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let mut plan = Plan::ask(context, &mut mesh, &outcome).await?;
        if plan.changes.is_empty() {
            context.answer(plan.answer("apply"), || plan.drawn(context));
            return Ok(DONE);
        }
        let removes = plan.removes();
        let ends = plan.changes.iter().any(|change| ["socket", "roll", "self"].contains(&change.effect.as_str()));
        if removes > 0 || ends {
            context.screen.complain(&plan.table(context));
            let what =
                if removes > 0 { format!("{} removed", amount::count(removes, "key")) } else { "streams end".into() };
            context.ask(&format!("{what}: {}", plan.sentence()), &format!("apply it to the mesh `{}`", plan.mesh))?;
        }
        match mesh.apply(manifest::request(&outcome, false, plan.revision)).await? {
            Applied::Answered(result) => {
                plan.revision = result.revision;
                plan.changes = result.change;
                context.answer(plan.answer("apply"), || plan.drawn(context));
                context.screen.note(&format!("mesh {}: revision {} is in force", plan.mesh, plan.revision));
                Ok(DONE)
            }
            Applied::Refused { reason, message, result } => {
                Err(plan::refused(context, &reason, &message, &result, plan.epoch))
            }
        }
    })
}
