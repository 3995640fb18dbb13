//! JSON is YAML, but a `.json` file must also be JSON.

use crate::problems::{Problem, Problems};
use crate::tree::Span;

/// Reports text that is no JSON; `None` then.
pub(crate) fn check(text: &str, file: u16, problems: &mut Problems) -> Option<()> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) else { return Some(()) };
    let line = u32::try_from(error.line().max(1)).unwrap_or(u32::MAX);
    // The reader counts bytes; places are in characters.
    let shown = problems.line(file, line);
    let before = shown.get(..error.column().saturating_sub(1)).unwrap_or(shown);
    let column = u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX);
    let told = error.to_string();
    let why = told.split(" at line ").next().unwrap_or(&told);
    let problem = Problem::new("bad_syntax", format!("this is not JSON: {why}"))
        .expected("expected JSON, as the name of the file says")
        .help("for comments and fewer quotes name it synego.yaml");
    problems.error(Span { file, line, column, width: 1 }, problem);
    None
}
