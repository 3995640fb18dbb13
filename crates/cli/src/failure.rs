//! How a command fails: what, cause and help, all at once, and the exit code.

use std::fmt::Write as _;

use crate::output::Tone;
use crate::output::paint::Paint;

/// Exit code: done.
pub(crate) const DONE: u8 = 0;
/// Exit code: failed, or problems found.
pub(crate) const FAILED: u8 = 1;
/// Exit code: wrong use, or refused to act unasked.
pub(crate) const MISUSED: u8 = 2;
/// Exit code of `plan --exit-code`: there are changes.
pub(crate) const CHANGES: u8 = 3;
/// Exit code: interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) what: String,
    /// Why; one line each.
    pub(crate) cause: Vec<String>,
    /// What to do; one line each.
    pub(crate) help: Vec<String>,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    /// A failure of code 1.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: Vec::new(), help: Vec::new(), code: FAILED }
    }

    /// Wrong use: code 2.
    pub(crate) fn misuse(what: impl Into<String>) -> Self {
        Self { code: MISUSED, ..Self::new(what) }
    }

    /// With a line of cause; an empty one is left out.
    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        if !cause.is_empty() {
            self.cause.push(cause);
        }
        self
    }

    /// With a line of help.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// As it is shown, with a newline at the end.
    pub(crate) fn render(&self, paint: Paint) -> String {
        let mut text = format!("{} {}\n", paint.tone(Tone::Bad, "error:"), self.what);
        for (label, lines) in [("cause:", &self.cause), ("help: ", &self.help)] {
            for (index, line) in lines.iter().enumerate() {
                let label = if index == 0 { paint.tone(Tone::Strong, label) } else { "      ".to_owned() };
                let _ = writeln!(text, "{label} {line}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_shown_as_error_cause_and_help() {
        let failure = Failure::new("cannot reach the mesh `shop`")
            .cause("nothing listens at unix:/run/synego/shop/admin.sock")
            .cause("")
            .help("start it with `synego up`")
            .help("or name another: `--admin HOST:3002`");
        assert_eq!(
            failure.render(Paint::plain()),
            "error: cannot reach the mesh `shop`\n\
             cause: nothing listens at unix:/run/synego/shop/admin.sock\n\
             help:  start it with `synego up`\n       or name another: `--admin HOST:3002`\n"
        );
    }
}
