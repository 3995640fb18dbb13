//! `synego man`: manual pages, and the reference page of the documentation, all from the tree of commands itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};

use crate::context::Context;
use crate::failure::{DONE, Failure};

const EXAMPLES: &str = "\
Examples:
  synego man | man -l -
  synego man --out ~/.local/share/man/man1
  synego man --markdown > docs/cli.md";

/// Print the manual, or write a page for each command
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folder to write a page for each command to
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// One Markdown page of all commands instead
    #[arg(long, conflicts_with = "out")]
    markdown: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let mut command = crate::command();
    if args.markdown {
        context.screen.print(&markdown(command));
        return Ok(DONE);
    }
    command.build();
    match &args.out {
        None => {
            let page =
                page(&command).map_err(|error| Failure::new("cannot write the page").cause(error.to_string()))?;
            context.screen.print(&String::from_utf8_lossy(&page));
        }
        Some(dir) => {
            for path in write_all(&command, dir)
                .map_err(|error| Failure::new(format!("cannot write to {}", dir.display())).cause(error.to_string()))?
            {
                context.screen.note(&format!("wrote {}", path.display()));
            }
        }
    }
    Ok(DONE)
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).manual("Synego").render(&mut page)?;
    Ok(page)
}

fn write_all(command: &Command, dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(dir)?;
    let mut written = Vec::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        let man = clap_mangen::Man::new(command.clone()).manual("Synego");
        let path = dir.join(man.get_filename());
        man.render(&mut std::fs::File::create(&path)?)?;
        written.push(path);
        waiting.extend(command.get_subcommands().filter(|sub| !sub.is_hide_set()));
    }
    written.sort();
    Ok(written)
}

/// All commands as one Markdown page.
pub(crate) fn markdown(mut command: Command) -> String {
    command.build();
    let mut text = String::from(
        "# The command line\n\nWritten by `synego man --markdown`; a test keeps it equal to the program.\n\n",
    );
    let _ = writeln!(text, "{}\n", command.get_about().map(ToString::to_string).unwrap_or_default());
    text.push_str("## Flags of every command\n\nEach can be set as `SYNEGO_<FLAG>` too; the flag wins.\n\n");
    arguments(&mut text, command.get_arguments().filter(|arg| arg.is_global_set()));
    text.push_str("\n## Exit codes\n\n`0` done, `1` failed or problems found, `2` wrong use or refused to act unasked, `3` `plan --exit-code` with changes, `130` interrupted.\n");
    text.push_str("\n## Commands\n");
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        section(&mut text, sub, "synego");
    }
    text
}

fn section(text: &mut String, command: &Command, parent: &str) {
    let name = format!("{parent} {}", command.get_name());
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    let _ = write!(text, "\n### `{name}`\n\n{}", command.get_about().map(ToString::to_string).unwrap_or_default());
    if !aliases.is_empty() {
        let _ = write!(text, " (also `synego {}`)", aliases.join("`, `"));
    }
    text.push_str("\n\n");
    arguments(text, command.get_arguments().filter(|arg| !arg.is_global_set()));
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines: Vec<&str> = examples.lines().skip(1).map(str::trim_start).collect();
        let _ = write!(text, "\n```sh\n{}\n```\n", lines.join("\n"));
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        section(text, sub, &name);
    }
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let shown = arguments.filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()));
    let rows: Vec<String> = shown.map(argument).collect();
    if !rows.is_empty() {
        let _ = write!(text, "| argument | what |\n| --- | --- |\n{}", rows.concat());
    }
}

fn argument(arg: &Arg) -> String {
    let value = arg.get_value_names().map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let value = value.unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let name = match (arg.get_short(), arg.get_long()) {
        (None, None) => value.clone(),
        (Some(short), None) => format!("-{short}"),
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
    };
    let optional = arg.is_require_equals_set();
    let name = match (arg.is_positional(), takes) {
        (true, _) | (_, false) => name,
        (false, true) if optional => format!("{name}[={value}]"),
        (false, true) => format!("{name} {value}"),
    };
    let mut what = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let words: Vec<String> =
        arg.get_possible_values().iter().filter(|_| takes).map(|value| format!("`{}`", value.get_name())).collect();
    if !words.is_empty() {
        what.push_str(&format!(": {}", words.join(", ")));
    }
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if takes && !defaults.is_empty() {
        what.push_str(&format!(" [default: {}]", defaults.join(" ")));
    }
    format!("| `{name}` | {} |\n", what.replace('|', "\\|").replace('\n', " "))
}
