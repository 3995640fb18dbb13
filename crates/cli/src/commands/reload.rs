//! `synego reload`: new generations of processes, which prove themselves before they take the traffic.

use clap_complete::ArgValueCompleter;
use serde_json::json;
use synego_wire::pb;

use crate::client::Mesh;
use crate::commands::steps;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

const EXAMPLES: &str = "\
Examples:
  synego reload users
  synego reload users-1@vm2
  synego reload --all";

/// Replace processes by new ones that prove themselves first; no request is lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Services, or single instances
    #[arg(add = ArgValueCompleter::new(complete::anything), required_unless_present = "all", conflicts_with = "all")]
    service: Vec<String>,
    /// Every service that the mesh starts
    #[arg(long)]
    all: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&[]).await?;
        let nodes: Vec<String> = Vec::new();
        let meant = steps::meant(&view, &args.service, &nodes)?;
        let request =
            pb::ReloadRequest { instance: meant.into_iter().map(|one| one.id).collect(), ..Default::default() };
        let steps = mesh.reload(request).await?;
        let ended = steps::follow(context, &mesh, steps).await?;
        steps::complain(context, &ended);
        let items = ended.iter().map(|step| {
            json!({
                "instance": step.instance,
                "from": step.from,
                "to": step.to,
                "outcome": step.outcome,
                "cause": (!step.message.is_empty()).then(|| step.message.clone()),
                "lines": step.line,
            })
        });
        let answer = Answer::new("reload", "instance").of_mesh(&view.mesh, Some(view.epoch)).items(items.collect());
        context.answer(answer, || table(context, &ended));
        let has_failed = ended.iter().any(|step| step.outcome == "failed");
        let did_nothing = !args.all && !ended.iter().any(|step| step.outcome == "done");
        Ok(if has_failed || did_nothing { FAILED } else { DONE })
    })
}

fn table(context: &Context, ended: &[pb::LifecycleStep]) -> String {
    let mut table = Table::new(&[
        Column::name("INSTANCE"),
        Column::stays("OUTCOME"),
        Column::text("GENERATION"),
        Column::sentence("CAUSE"),
    ]);
    for step in ended {
        let outcome = match step.outcome.as_str() {
            "done" => Cell::toned("done", Tone::Good),
            "failed" => Cell::toned("failed", Tone::Bad),
            other => Cell::toned(other, Tone::Warn),
        };
        let generation = match (step.from, step.to) {
            (from, to) if from == to => to.to_string(),
            (from, to) => format!("{from} → {to}"),
        };
        table.row(vec![
            Cell::new(&step.instance),
            outcome,
            Cell::new(generation),
            Cell::new(amount::or_dash(&step.message)),
        ]);
    }
    context.table(table)
}
