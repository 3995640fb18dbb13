//! What every command works with: the flags that hold everywhere, the streams, the clock and the environment.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::BufRead as _;
use std::path::PathBuf;

use crate::args::Globals;
use crate::failure::{Failure, INTERRUPTED};
use crate::output::table::{Drawing, Layout};
use crate::output::time::Clock;
use crate::output::{Answer, Screen, Table};

/// Rows of a table when `--limit` says nothing.
const LIMIT: usize = 50;

/// What every command works with.
#[derive(Debug)]
pub(crate) struct Context {
    /// The flags that hold everywhere.
    pub(crate) globals: Globals,
    /// stdout and stderr.
    pub(crate) screen: Screen,
    /// How times are shown.
    pub(crate) clock: Clock,
    /// The environment of this process.
    pub(crate) environment: BTreeMap<String, String>,
}

impl Context {
    /// Of this process.
    pub(crate) fn new(globals: Globals) -> Self {
        let environment = synego_runtime::config::environment();
        let screen = Screen::new(globals.color, globals.quiet, &environment);
        let clock = Clock::new(globals.utc, globals.rfc3339);
        Self { globals, screen, clock, environment }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) fn now(&self) -> u64 {
        synego_runtime::clock::unix_ms()
    }

    /// The folder in which the command was given.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        std::env::current_dir().map_err(|error| Failure::new("cannot tell the current folder").cause(error.to_string()))
    }

    /// How tables are drawn on stdout.
    pub(crate) fn drawing(&self) -> Drawing {
        Drawing {
            paint: self.screen.out,
            width: self.screen.width(),
            wide: self.globals.output == crate::output::answer::Format::Wide,
        }
    }

    /// Longest list for people; 0: no limit.
    pub(crate) fn limit(&self) -> usize {
        self.globals.limit.unwrap_or(LIMIT)
    }

    /// Draws a table, cut to the limit, with a last line that says so.
    pub(crate) fn table(&self, table: Table) -> String {
        self.table_with(table, &mut Layout::default())
    }

    /// Draws a table with all its rows, unless `--limit` was said.
    pub(crate) fn table_whole(&self, table: Table) -> String {
        if self.globals.limit.is_some() { self.table(table) } else { table.draw(self.drawing()) }
    }

    /// The same with the columns of the drawing before.
    pub(crate) fn table_with(&self, mut table: Table, layout: &mut Layout) -> String {
        let cut = table.limit(self.limit());
        let mut text = table.draw_with(self.drawing(), layout);
        if let Some(total) = cut {
            let line = format!("{} of {total}: --limit 0\n", self.limit());
            if self.screen.out_is_terminal {
                text.push_str(&line);
            } else {
                self.screen.note(&line);
            }
        }
        text
    }

    /// Prints a result: `answer` for programs, `human` for people.
    pub(crate) fn answer(&self, answer: Answer, human: impl FnOnce() -> String) {
        match answer.limit(self.globals.limit.unwrap_or(0)).render(self.globals.output) {
            Some(text) => self.screen.print(&text),
            None => self.screen.print(&human()),
        }
    }

    /// Runs `future` to its end, or to Ctrl-C.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("cannot start").cause(error.to_string()))?;
        runtime.block_on(async {
            tokio::select! {
                result = future => result,
                _ = tokio::signal::ctrl_c() => Err(Failure { code: INTERRUPTED, ..Failure::new("interrupted") }),
            }
        })
    }

    /// Asks before a dangerous act; the default is no.
    ///
    /// # Errors
    /// A refusal of code 2 when nobody can be asked, and when the answer is no.
    pub(crate) fn ask(&self, touches: &str, question: &str) -> Result<(), Failure> {
        if self.globals.yes {
            return Ok(());
        }
        if self.globals.no_input || !self.screen.can_ask {
            return Err(Failure::misuse(format!("refused to {question} unasked"))
                .cause(touches.to_owned())
                .help("agree beforehand with `--yes`"));
        }
        self.screen.complain(&format!("! {touches}"));
        eprint!("{}? [y/N] ", self.screen.err.text(question));
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        match (read, line.trim().to_ascii_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(Failure::misuse(format!("did not {question}: the answer was no"))),
        }
    }
}
