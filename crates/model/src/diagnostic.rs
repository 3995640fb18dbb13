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
    /// Line, from 1.
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
    /// The line of the file, secrets masked.
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
}
