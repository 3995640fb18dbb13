//! `synego upgrade`: the processes of this machine hand over to the newer program on its disk, one after another.
//!
//! It works on this machine alone, without a mesh: which program runs is the machine's own affair, and no order of a
//! master may say it.

mod processes;
mod program;
mod take_over;

use std::path::PathBuf;

use serde_json::json;

use self::processes::Process;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::{Answer, Cell, Column, Table, Tone, amount};

const EXAMPLES: &str = "\
Examples:
  synego upgrade                                  to the programs that were installed
  synego upgrade --binary ./synego-sidecar        install this one first; the former is kept
  synego upgrade 4711                             one process alone, to see how it goes
  synego upgrade --undo                           back to the programs that were kept";

/// Hand over to newer programs on this machine's disk, one process after another
///
/// No request is lost, streams live on, and services keep their processes. The first that fails stays what it was, and
/// those after it are not tried. Fetches nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Process ids of keepers; none: all of this user
    #[arg(value_name = "PID")]
    process: Vec<u32>,
    /// Program to install first where the processes were started from; what was there is kept beside it as FILE.former
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "undo")]
    binary: Option<PathBuf>,
    /// Put the programs back that `--binary` replaced
    #[arg(long)]
    undo: bool,
}

/// How it went with one process.
#[derive(Debug)]
struct Step {
    process: Process,
    from: String,
    to: String,
    outcome: Outcome,
    cause: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It runs what is on the disk.
    Current,
    /// It stays what it was.
    Failed,
    /// One before it failed.
    NotTried,
    /// It cannot hand over.
    NoKeeper,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Current => "current",
            Self::Failed => "failed",
            Self::NotTried => "not_tried",
            Self::NoKeeper => "no_keeper",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Done | Self::Current => Tone::Good,
            Self::NotTried | Self::NoKeeper => Tone::Warn,
            Self::Failed => Tone::Bad,
        }
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let all = processes::find(&args.process)?;
    if all.is_empty() {
        return Err(Failure::new("no process of Synego runs here")
            .cause("none of this user is a keeper of `synego up`, `synego-sidecar` or `synego-master`")
            .help(
                "`sudo -u USER synego upgrade` finds those of another user; where nothing runs a new program needs no upgrade",
            ));
    }
    if let Some(binary) = &args.binary {
        program::install(binary, &all)?;
    }
    if args.undo {
        program::put_back(&all)?;
    }
    let steps = context.block_on(async {
        let mut steps: Vec<Step> = Vec::new();
        for process in all {
            let has_failed = steps.iter().any(|step| step.outcome == Outcome::Failed);
            steps.push(step(context, process, has_failed).await);
        }
        Ok(steps)
    })?;
    let items = steps.iter().map(|step| {
        json!({
            "process": step.process.pid,
            "command": step.process.command,
            "from": step.from,
            "to": step.to,
            "outcome": step.outcome.word(),
            "cause": (!step.cause.is_empty()).then(|| step.cause.clone()),
        })
    });
    let stayed_old = steps.iter().any(|step| !matches!(step.outcome, Outcome::Done | Outcome::Current));
    context.answer(Answer::new("upgrade", "process").items(items.collect()), || table(context, &steps));
    Ok(if stayed_old { FAILED } else { DONE })
}

/// One process hands over, where there is something newer and nothing has failed.
async fn step(context: &Context, process: Process, has_failed: bool) -> Step {
    let from = process.version().unwrap_or_else(|_| "unknown".to_owned());
    let end =
        |process, to: &str, outcome, cause: String| Step { process, from: from.clone(), to: to.into(), outcome, cause };
    if process.is_current() {
        return end(process, &from, Outcome::Current, String::new());
    }
    let to = match process.next_version() {
        Ok(to) => to,
        Err(cause) => return end(process, &from, Outcome::Failed, cause),
    };
    if !process.has_keeper {
        return end(process, &to, Outcome::NoKeeper, "it has no keeper to hand over: restart it".into());
    }
    if has_failed {
        return end(process, &to, Outcome::NotTried, "one before it failed".into());
    }
    context.screen.note(&format!("{}: {from} → {to}", process.label()));
    match take_over::hand_over(&process).await {
        Ok(()) => end(process, &to, Outcome::Done, String::new()),
        Err(cause) => end(process, &to, Outcome::Failed, cause),
    }
}

fn table(context: &Context, steps: &[Step]) -> String {
    let mut table = Table::new(&[
        Column::name("PROCESS"),
        Column::stays("OUTCOME"),
        Column::text("FROM"),
        Column::text("TO"),
        Column::text("COMMAND"),
        Column::sentence("CAUSE"),
    ]);
    for step in steps {
        table.row(vec![
            Cell::new(step.process.label()),
            Cell::toned(step.outcome.word(), step.outcome.tone()),
            Cell::new(&step.from),
            Cell::new(&step.to),
            Cell::new(&step.process.command),
            Cell::new(amount::or_dash(&step.cause)),
        ]);
    }
    if steps.iter().any(|step| step.outcome == Outcome::Failed) {
        table.note("what failed stays what it was, and its log says why; `synego upgrade --undo` puts back what --binary replaced");
    }
    context.table(table)
}
