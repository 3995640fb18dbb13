//! `synego down`: drains and ends what a running `up` of this machine holds.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use synego_wire::pb;

use crate::client::Mesh;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::mesh::{self, Address};
use crate::output::time::parse_duration;
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

/// How long the process may take to go, once it has told that all has ended.
const GOING: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "\
Examples:
  synego down
  synego down --within 5s
  synego down --now";

/// Drain and end this machine's part of the mesh
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Time for all of it
    #[arg(long, value_name = "TIME", default_value = "25s", value_parser = parse_duration)]
    within: Duration,
    /// End at once, drain nothing
    #[arg(long)]
    now: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&[]).await?;
        if view.master.len() == 1 && view.node.len() > 1 {
            let nodes = amount::count(view.node.len(), "machine");
            context
                .ask(&format!("this is the last master of {nodes}"), &format!("end the mesh `{}` here", view.mesh))?;
        }
        let folder = match &mesh.target().address {
            Address::Unix(path) => path.parent().map(PathBuf::from),
            Address::Tcp(_) => None,
        };
        let pid = folder.as_deref().and_then(mesh::note).map(|note| note.pid);
        let within_ms = u32::try_from(args.within.as_millis()).unwrap_or(u32::MAX).min(600_000);
        let mut steps = mesh.down(pb::DownRequest { within_ms, now: args.now }).await?;
        let mut ended: Vec<pb::DownProgress> = Vec::new();
        while let Some(step) = steps.next().await {
            let step = step.map_err(|status| mesh.failed(&status))?;
            // What ended is listed in the result.
            if step.outcome == "draining" || !context.screen.out_is_terminal {
                tell(context, &step);
            }
            if step.outcome != "draining" {
                ended.retain(|earlier| earlier.instance != step.instance);
                ended.push(step);
            }
        }
        if let Some(pid) = pid {
            gone(pid).await?;
        }
        let cut = ended.iter().any(|step| step.outcome == "cut_off");
        let items = ended.iter().map(|step| {
            json!({
                "instance": step.instance,
                "outcome": step.outcome,
                "open_streams": step.open_streams,
                "open_requests": step.open_requests,
            })
        });
        let answer = Answer::new("down", "instance").of_mesh(&view.mesh, Some(view.epoch)).items(items.collect());
        context.answer(answer, || table(context, &ended));
        Ok(if cut { FAILED } else { DONE })
    })
}

fn tell(context: &Context, step: &pb::DownProgress) {
    let open = match (step.open_requests, step.open_streams) {
        (0, 0) => String::new(),
        (requests, streams) => {
            format!(": {}, {}", amount::count(requests as usize, "request"), amount::count(streams as usize, "stream"))
        }
    };
    context.screen.note(&format!("{} {}{open}", step.instance, step.outcome.replace('_', " ")));
}

fn table(context: &Context, ended: &[pb::DownProgress]) -> String {
    let mut table = Table::new(&[Column::name("INSTANCE"), Column::stays("OUTCOME"), Column::count("OPEN STREAMS")]);
    for step in ended {
        let outcome = match step.outcome.as_str() {
            "cut_off" => Cell::toned("cut off", Tone::Bad),
            other => Cell::toned(other.replace('_', " "), Tone::Good),
        };
        table.row(vec![Cell::new(&step.instance), outcome, Cell::new(step.open_streams.to_string())]);
    }
    context.table(table)
}

/// Waits until the process is gone.
async fn gone(pid: u32) -> Result<(), Failure> {
    let waited = tokio::time::timeout(GOING, async {
        while mesh::lives(pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.map_err(|_| {
        Failure::new(format!("all has ended, but the process {pid} is still there after {} s", GOING.as_secs()))
            .help(format!("look at it with `ps -p {pid}`; `kill {pid}` ends it"))
    })
}
