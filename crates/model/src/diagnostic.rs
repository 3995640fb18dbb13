//! What is wrong with an input, where exactly, and what to do.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The input is refused.
    Error,
    /// The input is taken.
    Warning,
}

impl Severity {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1; 0: in no line, the file itself is meant.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters are marked; at least 1.
    pub width: u32,
    /// How bad.
    pub severity: Severity,
    /// A closed word, such as `unknown_key`; each has a page.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// The line of the file, secrets masked; empty: it is too long to be shown.
    pub source: String,
    /// What stands behind the marks, such as ``expected a key of a service; nearest: `instances` ``.
    pub expected: String,
    /// The nearest valid word, where there is one.
    pub nearest: Option<String>,
    /// What to do.
    pub help: String,
}

impl Diagnostic {
    /// The drawing that people see: place, line, marks and help, without a newline at the end.
    #[must_use]
    pub fn render(&self) -> String {
        if self.line == 0 || self.source.is_empty() {
            return self.render_undrawn();
        }
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let shown = self.source.replace('\t', "→");
        let mut text = format!(
            "{}:{}:{}: {}[{}]: {}\n  {number} | {shown}\n  {gutter} | {}{}",
            self.file,
            self.line,
            self.column,
            self.severity.word(),
            self.code,
            self.message,
            " ".repeat(self.column.saturating_sub(1) as usize),
            "^".repeat(self.width.max(1) as usize),
        );
        if !self.expected.is_empty() {
            let _ = write!(text, " {}", self.expected);
        }
        if !self.help.is_empty() {
            let _ = write!(text, "\n  {gutter} = help: {}", self.help);
        }
        text
    }

    /// The same where no line can be shown: the mistake stands in none, or the line is too long.
    fn render_undrawn(&self) -> String {
        let place = match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        };
        let mut text = format!("{place}: {}[{}]: {}", self.severity.word(), self.code, self.message);
        if !self.expected.is_empty() {
            let _ = write!(text, "\n  = {}", self.expected);
        }
        if !self.help.is_empty() {
            let _ = write!(text, "\n  = help: {}", self.help);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(line: u32) -> Diagnostic {
        Diagnostic {
            file: "synego.yaml".into(),
            line,
            column: 16,
            width: 2,
            severity: Severity::Error,
            code: "no_unit".into(),
            message: "a duration needs its unit".into(),
            source: "      timeout: 30".into(),
            expected: "expected a duration".into(),
            nearest: None,
            help: "write `30s`".into(),
        }
    }

    #[test]
    fn the_bars_stand_below_each_other_whatever_the_line() {
        let drawn = "synego.yaml:12:16: error[no_unit]: a duration needs its unit\n  12 |       timeout: 30\n     |                ^^ \
                     expected a duration\n     = help: write `30s`";
        assert_eq!(unit(12).render(), drawn);
        assert_eq!(unit(4).render().lines().nth(1), Some("  4 |       timeout: 30"));
        assert_eq!(unit(4).render().lines().nth(2), Some("    |                ^^ expected a duration"));
    }

    #[test]
    fn a_mistake_in_no_line_has_no_drawing() {
        assert_eq!(
            unit(0).render(),
            "synego.yaml: error[no_unit]: a duration needs its unit\n  = expected a duration\n  = help: write `30s`"
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_not_drawn() {
        let long = Diagnostic { source: String::new(), help: String::new(), ..unit(7) };
        assert_eq!(
            long.render(),
            "synego.yaml:7:16: error[no_unit]: a duration needs its unit\n  = expected a duration"
        );
    }

    #[test]
    fn a_tab_is_drawn_as_one_arrow() {
        let tab = Diagnostic { source: "\trun: a".into(), column: 1, width: 1, ..unit(3) };
        assert_eq!(tab.render().lines().nth(1), Some("  3 | →run: a"));
    }
}
