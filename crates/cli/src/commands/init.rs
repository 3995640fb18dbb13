//! `synego init`: looks at a project and writes a commented manifest for it; it asks nothing and never overwrites.

mod compose;
mod languages;
mod older;
mod pm2;
mod port;
mod procfile;
mod project;
mod write;

use std::path::{Path, PathBuf};

use serde_json::json;
use synego_model::name::nearest_name;

use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::{Answer, Cell, Column, Table, amount};

const EXAMPLES: &str = "\
Examples:
  synego init
  synego init --stdout
  synego init --from synego.config.json      rewrite an older form
  synego init --from compose.yaml            look at this file alone";

/// Write a commented synego.yaml for the project in a folder
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder of the project [default: this one]
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// Only look at this file: package.json, go.mod, Cargo.toml, Procfile, a compose or PM2 file, or an older manifest
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    from: Option<PathBuf>,
    /// Print it instead of writing it
    #[arg(long)]
    stdout: bool,
}

/// A service that was found, as the manifest will say it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Found {
    name: String,
    /// What starts it; or `address`.
    run: Option<Start>,
    address: Option<String>,
    build: Option<String>,
    cwd: Option<String>,
    env: Vec<(String, String)>,
    env_file: Vec<String>,
    instances: Option<String>,
    port: Option<u16>,
    after: Vec<String>,
    /// Where it was read.
    because: Vec<String>,
    /// Whether it seems to serve requests.
    serves: bool,
}

/// A command as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Start {
    text: String,
}

impl Start {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into().trim().to_owned() }
    }

    /// Whether only a shell understands it.
    fn needs_shell(&self) -> bool {
        self.text.contains(['$', '&', '|', ';', '<', '>', '*', '`', '(', '~', '"', '\'', '\\'])
            || self.text.split_whitespace().next().is_some_and(|first| first.contains('='))
    }
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Sight {
    services: Vec<Found>,
    /// What has no place in the manifest, and why.
    notes: Vec<String>,
}

impl Sight {
    /// Adds a service; a name that is taken gets a number.
    fn add(&mut self, mut found: Found) {
        found.name = nearest_name(&found.name).unwrap_or_else(|| "app".to_owned());
        let wanted = found.name.clone();
        let mut number = 2;
        while self.services.iter().any(|other| other.name == found.name) {
            found.name = format!("{wanted}-{number}");
            number += 1;
        }
        self.services.push(found);
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let folder = context.folder()?.join(args.dir.as_deref().unwrap_or(Path::new("")));
    if !folder.is_dir() {
        return Err(Failure::new(format!("{} is no folder", folder.display())));
    }
    let target = folder.join("synego.yaml");
    for taken in ["synego.yaml", "synego.json"] {
        if !args.stdout && folder.join(taken).exists() {
            return Err(Failure::new(format!("{taken} exists, and `init` never overwrites"))
                .help("see what it would write: `synego init --stdout`"));
        }
    }
    if let Some(text) = older::rewritten(args.from.as_deref(), &folder, context)? {
        return finish(args, context, &target, &text, &Sight::default());
    }
    let mesh =
        folder.file_name().and_then(|name| nearest_name(&name.to_string_lossy())).unwrap_or_else(|| "mesh".into());
    let sight = match &args.from {
        Some(file) => project::file(&folder, file)?,
        None => project::look(&folder),
    };
    if sight.services.is_empty() {
        let failure = Failure::new("nothing found that could be started").cause(
            "looked for package.json, go.mod, Cargo.toml, Procfile, compose and PM2 files, here and one folder below",
        );
        let failure = sight.notes.iter().fold(failure, |failure, note| failure.cause(note.clone()));
        return Err(failure.help("three lines by hand are enough: `services:`, a name, `run: COMMAND`"));
    }
    let text = write::manifest(&mesh, &sight);
    finish(args, context, &target, &text, &sight)
}

fn finish(args: &Args, context: &Context, target: &Path, text: &str, sight: &Sight) -> Result<u8, Failure> {
    if args.stdout {
        context.screen.print(text);
    } else {
        write_new(target, text)?;
    }
    let items = sight.services.iter().map(|found| {
        json!({
            "service": found.name,
            "run": found.run.as_ref().map(|run| run.text.as_str()),
            "because": found.because.join("; "),
        })
    });
    let answer = Answer::new("init", "service").items(items.collect());
    let table = table(context, sight);
    if args.stdout {
        context.screen.note(&table);
    } else {
        context.answer(answer, || {
            let lines = text.lines().count();
            let comments = text.lines().filter(|line| line.contains('#')).count();
            let services = amount::count(sight.services.len(), "service");
            let what = if sight.services.is_empty() { String::new() } else { format!("{services} ") };
            format!("wrote synego.yaml: {what}({lines} lines, {comments} of them with comments)\n{table}")
        });
        context.screen.note("next: synego check, then synego up");
    }
    for note in &sight.notes {
        context.screen.note(&format!("left out: {note}"));
    }
    Ok(DONE)
}

fn table(context: &Context, sight: &Sight) -> String {
    if sight.services.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[Column::name(""), Column::sentence(""), Column::sentence("")]).headless();
    for found in &sight.services {
        let run = found.run.as_ref().map(|run| format!("run: {}", run.text));
        let address = found.address.as_ref().map(|address| format!("address: {address}"));
        let because = found.because.join("; ");
        table.row(vec![Cell::new(&found.name), Cell::new(run.or(address).unwrap_or_default()), Cell::new(because)]);
    }
    context.table(table)
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot write {}", path.display())).cause(error.to_string());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests;
