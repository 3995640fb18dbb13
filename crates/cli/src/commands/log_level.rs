//! `synego log-level`: how much a service, or the mesh itself, writes down, changed while it runs.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde_json::json;
use synego_wire::pb;

use crate::client::Mesh;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::Answer;
use crate::output::line::Level;
use crate::output::time::{age, parse_duration, rfc3339};

const EXAMPLES: &str = "\
Examples:
  synego log-level orders debug --for 10m   for ten minutes, then as before
  synego log-level orders warn              until its sidecar starts anew
  synego log-level mesh debug --for 1m      the mesh itself: masters and sidecars";

/// Change how much a service, or the mesh itself, writes down, until it starts anew
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The service; `mesh` is the mesh itself
    #[arg(add = ArgValueCompleter::new(complete::services))]
    service: String,
    /// Lines of this level or worse. A service with an SDK writes so many; of one without, finer lines that say their level
    /// are passed over
    level: Level,
    /// Only for so long, at most 24h
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    within: Option<Duration>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let for_ms = match args.within {
        None => 0,
        Some(within) => {
            u32::try_from(within.as_millis()).ok().filter(|ms| (1..=86_400_000).contains(ms)).ok_or_else(|| {
                Failure::misuse(format!("`--for` is {}, expected 1ms to 24h", age(within)))
                    .help("leave it out for ever")
            })?
        }
    };
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        if args.service != "mesh" {
            let view = mesh.view(&[]).await?;
            super::status::known(&view, Some(&args.service))?;
        }
        let level = args.level.told().into();
        let request = pb::SetLogLevelRequest { target: args.service.clone(), level, for_ms };
        let told = mesh.set_log_level(request).await?;
        let until = (told.until_unix_ms > 0).then(|| rfc3339(told.until_unix_ms));
        let item = |id: &String| json!({ "instance": id, "level": args.level.word(), "until": until });
        let answer = Answer::new("log_level", "instance").items(told.told.iter().map(item).collect());
        let within =
            args.within.map_or_else(|| "until it starts anew".to_owned(), |within| format!("for {}", age(within)));
        context.answer(answer, || {
            let lines = told.told.iter().map(|id| format!("{id} writes {} and worse, {within}\n", args.level.word()));
            lines.collect()
        });
        Ok(DONE)
    })
}
