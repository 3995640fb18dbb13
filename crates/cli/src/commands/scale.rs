//! `synego scale`: another number of instances, until the file's is wanted again.

use serde_json::json;
use synego_wire::pb;

use crate::client::Mesh;
use crate::commands::{status, steps};
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

const EXAMPLES: &str = "\
Examples:
  synego scale users=4
  synego scale users@vm2=4 orders=2
  synego scale users=file        as many as the manifest says";

/// Run another number of instances of a service, on each of its machines or on one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// SERVICE=NUMBER, SERVICE@MACHINE=NUMBER, or SERVICE=file
    #[arg(required = true, value_name = "SERVICE=NUMBER")]
    what: Vec<String>,
}

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    service: String,
    node: Option<String>,
    /// `None`: as in the file.
    instances: Option<u32>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let wishes = args.what.iter().map(|text| wish(text)).collect::<Result<Vec<_>, _>>()?;
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&[]).await?;
        for wish in &wishes {
            status::known(&view, Some(&wish.service))?;
        }
        let ended: Vec<&str> =
            wishes.iter().filter(|wish| wish.instances == Some(0)).map(|wish| wish.service.as_str()).collect();
        if !ended.is_empty() {
            let names = ended.join(", ");
            context.ask(&format!("every instance of {names} ends"), &format!("scale {names} to 0"))?;
        }
        let mut all = Vec::new();
        for wish in wishes {
            let request = pb::ScaleRequest {
                service: wish.service,
                node: wish.node.into_iter().collect(),
                instances: wish.instances.unwrap_or_default(),
                as_in_file: wish.instances.is_none(),
            };
            let steps = mesh.scale(request).await?;
            all.extend(steps::follow(context, &mesh, steps).await?);
        }
        steps::complain(context, &all);
        let items = all.iter().map(|step| {
            let (service, node) = step.instance.split_once('@').unwrap_or((&step.instance, ""));
            json!({
                "service": service,
                "node": node,
                "before": step.before,
                "after": step.after,
                "outcome": step.outcome,
                "cause": (!step.message.is_empty()).then(|| step.message.clone()),
            })
        });
        let answer = Answer::new("scale", "service").of_mesh(&view.mesh, Some(view.epoch)).items(items.collect());
        context.answer(answer, || table(context, &all));
        Ok(if all.iter().all(|step| step.outcome == "done") { DONE } else { FAILED })
    })
}

/// Reads `users=4`, `users@vm2=4`, `users=file`.
fn wish(text: &str) -> Result<Wish, Failure> {
    let bad = |what: &str| {
        Failure::misuse(format!("`{text}`: {what}")).help("write `users=4`, `users@vm2=4` or `users=file`")
    };
    let (name, number) = text.split_once('=').ok_or_else(|| bad("expected SERVICE=NUMBER"))?;
    let (service, node) = match name.split_once('@') {
        Some((service, node)) => (service, Some(node.to_owned())),
        None => (name, None),
    };
    let instances = match number {
        "file" => None,
        number => match number.parse::<u32>() {
            Ok(number) if number <= 256 => Some(number),
            _ => return Err(bad("expected a number from 0 to 256, or `file`")),
        },
    };
    Ok(Wish { service: service.to_owned(), node, instances })
}

fn table(context: &Context, ended: &[pb::LifecycleStep]) -> String {
    let mut table = Table::new(&[
        Column::name("SERVICE"),
        Column::stays("OUTCOME"),
        Column::text("INSTANCES"),
        Column::sentence("CAUSE"),
    ]);
    for step in ended {
        let tone = if step.outcome == "done" { Tone::Good } else { Tone::Bad };
        table.row(vec![
            Cell::new(&step.instance),
            Cell::toned(&step.outcome, tone),
            Cell::new(format!("{} → {}", step.before, step.after)),
            Cell::new(amount::or_dash(&step.message)),
        ]);
    }
    context.table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_names_a_service_perhaps_a_machine_and_a_number_or_the_file() {
        let read = |text: &str| wish(text).map_err(|failure| failure.what);
        let of =
            |node: Option<&str>, instances| Wish { service: "users".into(), node: node.map(str::to_owned), instances };
        assert_eq!(read("users=4"), Ok(of(None, Some(4))));
        assert_eq!(read("users@vm2=0"), Ok(of(Some("vm2"), Some(0))));
        assert_eq!(read("users=file"), Ok(of(None, None)));
        assert_eq!(read("users"), Err("`users`: expected SERVICE=NUMBER".to_owned()));
        assert_eq!(read("users=many"), Err("`users=many`: expected a number from 0 to 256, or `file`".to_owned()));
        assert!(read("users=257").is_err());
    }
}
