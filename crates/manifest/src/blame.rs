//! What was meant where a file is no YAML: tabs, text that needs quotes, brackets that do not close.

use granit_parser::{ErrorKind, ScanError};

use crate::problems::{Problem, Problems};
use crate::tree::Span;

/// Reports why `text` could not be read; `span` is where reading ended.
pub(crate) fn syntax(span: Span, error: &ScanError, text: &str, problems: &mut Problems) {
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        problems.error(span, crate::yaml::too_big("more than 64 levels lie within one another"));
        return;
    }
    if let Some(line) = tab_line(text, span.line) {
        problems.error(Span { line, column: tab_column(problems.line(span.file, line)), width: 1, ..span }, tab());
        return;
    }
    // A tree is refused some lines below its mistake when a bracket stays open: look there first.
    for line in [span.line, span.line.saturating_sub(1)] {
        if let Some((column, first)) = unquoted(problems.line(span.file, line)) {
            needs_quotes(Span { line, column, ..span }, first, problems);
            return;
        }
    }
    let shown = problems.line(span.file, span.line).chars().count();
    let column = span.column.min(u32::try_from(shown + 1).unwrap_or(u32::MAX));
    problems.error(Span { column, ..span }, told(error.kind()));
}

/// The parser's own finding, in our words.
fn told(kind: &ErrorKind) -> Problem {
    use ErrorKind as E;
    let (message, expected, help) = match kind {
        E::UnclosedFlowCollection { open } => (
            format!("`{open}` is not closed"),
            format!("expected `{}`", if *open == '[' { ']' } else { '}' }),
            "close it, or write one entry a line without brackets",
        ),
        E::MismatchedFlowCollectionEnd { open, close } => (
            format!("`{open}` is closed by `{close}`"),
            format!("expected `{}`", if *open == '[' { ']' } else { '}' }),
            "a list is `[a, b]`, a mapping `{ key: value }`",
        ),
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            ("a quote is not closed".into(), "expected the closing quote".into(), "close it on the same line")
        }
        E::UnknownQuotedScalarEscape | E::InvalidQuotedScalarHexEscape | E::InvalidUnicodeEscape => (
            "this is no escape inside double quotes".into(),
            "expected such as `\\n`, `\\t`, `\\\\`, `\\u00e9`".into(),
            "in single quotes a backslash is a backslash",
        ),
        E::MappingValueNotAllowed | E::InvalidColonPlacement => (
            "a second `: ` stands in this value".into(),
            "expected the end of the line, or quotes".into(),
            "put text with `: ` into quotes; a mapping begins on a line of its own",
        ),
        E::InvalidIndentation
        | E::ExpectedBlockMappingKey
        | E::SimpleKeyExpected
        | E::MappingKeyNotAllowed
        | E::BlockSequenceEntryNotAllowed => (
            "this line does not fit the ones above".into(),
            "expected `key: value`, as far indented as its neighbours".into(),
            "indent all keys of a mapping alike; behind a key stand a colon and a blank",
        ),
        E::ExpectedFlowMappingSeparator => {
            ("this mapping does not go on".into(), "expected `,` or `}`".into(), "write `{ key: value, key: value }`")
        }
        E::ExpectedFlowSequenceSeparator => {
            ("this list does not go on".into(), "expected `,` or `]`".into(), "write `[a, b]`")
        }
        other => {
            (format!("this is not YAML: {other}"), String::new(), "`synego explain bad_syntax` lists what trips most")
        }
    };
    Problem::new("bad_syntax", message).expected(expected).help(help)
}

fn tab() -> Problem {
    Problem::new("tab_indent", "a tab cannot indent YAML")
        .expected("expected spaces")
        .help("indent with spaces, two a level; in most editors the setting is named `expandtab`")
}

/// The first line up to just behind `failed` that a tab indents.
fn tab_line(text: &str, failed: u32) -> Option<u32> {
    text.lines().zip(1..=failed.saturating_add(1)).find_map(|(line, number)| {
        let indent: &str = line.split(|c: char| c != ' ' && c != '\t').next().unwrap_or_default();
        (indent.contains('\t') && indent.len() < line.len()).then_some(number)
    })
}

fn tab_column(line: &str) -> u32 {
    u32::try_from(line.chars().take_while(|c| *c != '\t').count() + 1).unwrap_or(1)
}

/// Where in a line a value begins that YAML takes for something else: its column, and the sign.
fn unquoted(line: &str) -> Option<(u32, char)> {
    let chars: Vec<char> = line.chars().collect();
    let (mut quote, mut depth, mut begins) = (None, 0_u32, true);
    for (index, c) in chars.iter().copied().enumerate() {
        let column = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if let Some(open) = quote {
            quote = (c != open).then_some(open);
            continue;
        }
        match c {
            '"' | '\'' if begins => quote = Some(c),
            '#' if index == 0 || chars.get(index - 1) == Some(&' ') => return None,
            '$' if chars.get(index + 1) == Some(&'{') && depth > 0 => {
                let start = chars.get(..index)?.iter().rposition(|c| " [{,".contains(*c)).map_or(0, |found| found + 1);
                return Some((u32::try_from(start + 1).unwrap_or(column), '$'));
            }
            '*' | '@' | '%' | '!' | '`' if begins => return Some((column, c)),
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        begins = match c {
            ' ' => begins || (index > 0 && matches!(chars.get(index - 1), Some(':' | ',' | '-'))),
            '[' | '{' | ',' => true,
            ':' | '-' => false,
            _ => false,
        };
    }
    None
}

/// Reports the value at `span` (its width is found) as text that needs quotes for `first`.
pub(crate) fn needs_quotes(span: Span, first: char, problems: &mut Problems) {
    let line = problems.line(span.file, span.line).to_owned();
    let skip = usize::try_from(span.column).unwrap_or(1).saturating_sub(1);
    let rest: String = line.chars().skip(skip).collect();
    let before: String = line.chars().take(skip).collect();
    let value = value_at(&before, &rest, first);
    let after: String = rest.chars().skip(value.chars().count()).collect();
    let written = format!("{}\"{value}\"{}", before.trim_start().trim_start_matches("- "), after.trim_end());
    let (message, expected) = match first {
        '*' => ("text that begins with `*` needs quotes".to_owned(), "YAML reads `*` as an alias"),
        '!' => ("text that begins with `!` needs quotes".to_owned(), "YAML reads `!` as a tag"),
        '%' => ("text that begins with `%` needs quotes".to_owned(), "YAML reads `%` as a directive"),
        '$' => ("`${…}` inside `{ }` or `[ ]` needs quotes".to_owned(), "YAML reads `{` as a mapping"),
        other => (format!("text that begins with `{other}` needs quotes"), "YAML keeps this sign for itself"),
    };
    let problem = Problem::new("needs_quotes", message).expected(expected).help(format!(
        "write `{}`; so do `${{…}}` inside `{{ }}`, `@`, `%` and `!` at the start",
        without_comment(&written)
    ));
    let width = u32::try_from(value.chars().count().max(1)).unwrap_or(1);
    problems.error(Span { width, ..span }, problem);
}

fn without_comment(text: &str) -> &str {
    text.split(" #").next().unwrap_or(text).trim_end()
}

/// The value at the start of `rest`: up to what ends a plain scalar, inside brackets or on a line of its own.
fn value_at(before: &str, rest: &str, first: char) -> String {
    let count = |signs: &str| before.chars().filter(|c| signs.contains(*c)).count();
    let inside = count("[{") > count("]}");
    let mut depth = 0_u32;
    let mut value = String::new();
    for c in rest.chars() {
        match c {
            '{' if first == '$' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ']' | '}' | ',' if inside => break,
            '#' if value.ends_with(' ') => break,
            _ => {}
        }
        value.push(c);
    }
    value.trim_end().to_owned()
}

/// Reports an alias that no anchor stands before.
pub(crate) fn alias(span: Span, name: &str, problems: &mut Problems) {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        let problem = Problem::new("bad_alias", format!("no anchor `&{name}` stands before this"))
            .expected("expected the name of an anchor")
            .help(format!("if the text `*{name}` was meant, put it in quotes"));
        problems.error(span, problem);
    } else {
        needs_quotes(span, '*', problems);
    }
}
