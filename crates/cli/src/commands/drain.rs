//! `synego drain`: takes instances out of service until what runs in them is finished; the processes stay.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde_json::json;
use synego_wire::pb;

use crate::client::Mesh;
use crate::commands::steps::{self, Meant};
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::time::parse_duration;
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

const EXAMPLES: &str = "\
Examples:
  synego drain users-1@vm2
  synego drain users@vm2 --within 1m
  synego drain users@vm2 --undo";

/// Take instances out of service until what runs in them is finished
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An instance, a service, or a service on one machine: users-1@vm2, users, users@vm2
    #[arg(add = ArgValueCompleter::new(complete::anything), value_name = "WHAT", required = true)]
    what: Vec<String>,
    /// Time for it [default: each service's own `stop`]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "undo")]
    within: Option<Duration>,
    /// Take requests again
    #[arg(long)]
    undo: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&[]).await?;
        let meant = steps::meant(&view, &args.what, &[])?;
        if !args.undo
            && let Some(last) = last_ready(&view, &meant)
        {
            let names: Vec<&str> = meant.iter().map(|one| one.id.as_str()).collect();
            context.ask(&last, &format!("drain {}", names.join(", ")))?;
        }
        let within = args.within.unwrap_or_default().as_millis();
        let request = pb::DrainRequest {
            instance: meant.into_iter().map(|one| one.id).collect(),
            within_ms: u32::try_from(within).unwrap_or(u32::MAX),
            undo: args.undo,
            ..Default::default()
        };
        let steps = mesh.drain(request).await?;
        let ended = steps::follow(context, &mesh, steps).await?;
        let items = ended.iter().map(|step| {
            json!({
                "instance": step.instance,
                "state": state(args, step),
                "open_requests": step.open_requests,
                "open_streams": step.open_streams,
                "cause": (!step.message.is_empty()).then(|| step.message.clone()),
            })
        });
        let answer = Answer::new("drain", "instance").of_mesh(&view.mesh, Some(view.epoch)).items(items.collect());
        context.answer(answer, || table(context, args, &ended));
        Ok(if ended.iter().all(|step| step.outcome == "done") { DONE } else { FAILED })
    })
}

/// `drained` also says that nothing is open.
fn state(args: &Args, step: &pb::LifecycleStep) -> &'static str {
    match (step.outcome.as_str(), args.undo) {
        ("done", true) => "serving",
        ("done", false) => "drained",
        _ => "draining",
    }
}

/// What is lost where no other instance of a service is ready.
fn last_ready(view: &pb::MeshView, meant: &[Meant]) -> Option<String> {
    let takes = |instance: &&pb::InstanceView| {
        matches!(instance.state(), pb::InstanceState::Ready | pb::InstanceState::Degraded)
    };
    let is_meant = |instance: &pb::InstanceView| meant.iter().any(|one| one.id == instance.id);
    let services = view.service.iter().filter(|service| meant.iter().any(|one| one.service == service.name));
    let lost = services.filter(|service| {
        let mut ready = service.instance.iter().filter(takes).peekable();
        ready.peek().is_some() && ready.all(is_meant)
    });
    let names: Vec<&str> = lost.map(|service| service.name.as_str()).collect();
    let instances = amount::count(meant.len(), "instance");
    (!names.is_empty()).then(|| format!("no ready instance of {} is left beside {instances}", names.join(", ")))
}

fn table(context: &Context, args: &Args, ended: &[pb::LifecycleStep]) -> String {
    let mut table = Table::new(&[Column::name("INSTANCE"), Column::stays("STATE"), Column::sentence("OPEN")]);
    for step in ended {
        let tone = if step.outcome == "done" { Tone::Good } else { Tone::Bad };
        let open = steps::open(step);
        let open = if open.is_empty() { step.message.clone() } else { format!("{open}; {}", step.message) };
        table.row(vec![
            Cell::new(&step.instance),
            Cell::toned(state(args, step), tone),
            Cell::new(amount::or_dash(open.trim_end_matches("; "))),
        ]);
    }
    context.table(table)
}
