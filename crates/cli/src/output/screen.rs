//! What the two output streams are: terminals or not, how wide, in colour or not, UTF-8 or not.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::process;

use super::paint::Paint;

/// Tables are drawn for at most this many columns, however wide the terminal is.
const WIDEST: usize = 100;
/// And for no fewer, however narrow it is.
const NARROWEST: usize = 40;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal that can.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Both output streams.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// Whether stdout is a terminal.
    pub(crate) out_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub(crate) err_is_terminal: bool,
    /// Whether somebody can answer a question: stdin and stderr are terminals.
    pub(crate) can_ask: bool,
    /// How stdout is drawn on.
    pub(crate) out: Paint,
    /// How stderr is drawn on.
    pub(crate) err: Paint,
    /// Only errors and results.
    pub(crate) quiet: bool,
}

impl Screen {
    /// What the streams of this process are, under `color` and the environment.
    pub(crate) fn new(color: ColorChoice, quiet: bool, environment: &BTreeMap<String, String>) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let unicode = is_utf8(environment);
        let paint = |terminal| Paint { colour: wants_colour(color, terminal, environment), unicode };
        Self {
            out_is_terminal: out,
            err_is_terminal: err,
            can_ask: err && io::stdin().is_terminal(),
            out: paint(out),
            err: paint(err),
            quiet,
        }
    }

    /// Columns that a table may take on stdout; `None`: as many as it likes, since stdout is no terminal.
    pub(crate) fn width(&self) -> Option<usize> {
        self.out_is_terminal.then(|| size().0.clamp(NARROWEST, WIDEST))
    }

    /// Rows of the terminal.
    pub(crate) fn rows(&self) -> usize {
        size().1.max(5)
    }

    /// Columns of the terminal, for what is drawn on stderr.
    pub(crate) fn columns(&self) -> usize {
        size().0.clamp(NARROWEST, WIDEST)
    }

    /// Writes a result to stdout. A reader that went away ends the program in silence: it has what it wanted.
    #[expect(clippy::disallowed_methods, reason = "deep inside a command there is nobody left to return to")]
    pub(crate) fn print(&self, text: &str) {
        if self.try_print(text).is_err() {
            process::exit(0);
        }
    }

    /// Writes to stdout.
    ///
    /// # Errors
    /// When nobody reads it any more.
    pub(crate) fn try_print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.out.text(text).as_bytes()).and_then(|()| out.flush())
    }

    /// Writes words to stderr, unless quiet; with a newline.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.complain(text);
        }
    }

    /// Writes words to stderr, even when quiet; with a newline.
    pub(crate) fn complain(&self, text: &str) {
        // Nobody is left to be told when stderr is gone.
        let _ = writeln!(io::stderr().lock(), "{}", self.err.text(text.trim_end_matches('\n')));
    }
}

/// Columns and rows of the terminal, now.
pub(crate) fn size() -> (usize, usize) {
    crossterm::terminal::size().map_or((80, 24), |(columns, rows)| (columns.into(), rows.into()))
}

/// Whether the locale is UTF-8: the first that is set of `LC_ALL`, `LC_CTYPE`, `LANG` says so.
fn is_utf8(environment: &BTreeMap<String, String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().filter_map(|name| environment.get(*name));
    locale.into_iter().find(|value| !value.is_empty()).is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        value.contains("utf-8") || value.contains("utf8")
    })
}

fn wants_colour(choice: ColorChoice, terminal: bool, environment: &BTreeMap<String, String>) -> bool {
    let set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty() && value != "0");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if environment.get("NO_COLOR").is_some_and(|value| !value.is_empty()) => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE") => true,
        ColorChoice::Auto => terminal && environment.get("TERM").is_none_or(|term| term != "dumb"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_locale_variable_that_is_set_decides() {
        assert!(is_utf8(&environment(&[("LANG", "en_GB.UTF-8")])));
        assert!(is_utf8(&environment(&[("LC_ALL", ""), ("LANG", "C.utf8")])));
        assert!(!is_utf8(&environment(&[("LC_ALL", "C"), ("LANG", "en_GB.UTF-8")])));
        assert!(!is_utf8(&environment(&[])));
    }

    #[test]
    fn colour_follows_the_flag_then_the_environment_then_the_terminal() {
        let none = environment(&[]);
        assert!(wants_colour(ColorChoice::Auto, true, &none));
        assert!(!wants_colour(ColorChoice::Auto, false, &none));
        assert!(!wants_colour(ColorChoice::Auto, true, &environment(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
        assert!(wants_colour(ColorChoice::Auto, false, &environment(&[("CLICOLOR_FORCE", "1")])));
        assert!(!wants_colour(ColorChoice::Auto, true, &environment(&[("TERM", "dumb")])));
        assert!(wants_colour(ColorChoice::Always, false, &environment(&[("NO_COLOR", "1")])));
        assert!(!wants_colour(ColorChoice::Never, true, &environment(&[("CLICOLOR_FORCE", "1")])));
    }
}
