//! Collects every mistake with its place, so that all are shown at once.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use synego_model::{Diagnostic, Severity};

use crate::mask;
use crate::tree::Span;

/// Most mistakes that are kept; a hostile file has more.
const MAX_PROBLEMS: usize = 1_000;
/// Longest line that is drawn, in bytes.
const MAX_LINE: usize = 1_000;
/// Longest text of a mistake, in characters.
const MAX_TEXT: usize = 400;

/// A file that mistakes can stand in.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// As the user named it.
    pub(crate) name: String,
    /// The folder that its paths are relative to; absolute.
    pub(crate) folder: PathBuf,
    lines: Vec<String>,
}

/// One mistake, before it has a place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Problem {
    code: &'static str,
    message: String,
    expected: String,
    nearest: Option<String>,
    told: bool,
    help: String,
}

impl Problem {
    /// A mistake of the kind `code`; `message` says what is wrong.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), ..Self::default() }
    }

    /// What was expected there.
    pub(crate) fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = text.into();
        self
    }

    /// The nearest valid word, added to what was expected.
    pub(crate) fn nearest(mut self, word: Option<impl Into<String>>) -> Self {
        self.nearest = word.map(Into::into);
        self
    }

    /// The nearest valid word, where what was expected names it already.
    pub(crate) fn told_nearest(mut self, word: &str) -> Self {
        self.nearest = Some(word.to_owned());
        self.told = true;
        self
    }

    /// What to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = text.into();
        self
    }
}

/// All mistakes found so far, and the files they stand in.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    sources: Vec<Source>,
    list: Vec<(u16, Diagnostic)>,
    seen: HashSet<(u16, u32, u32, &'static str)>,
    muted: bool,
}

impl Problems {
    /// Takes a file in; spans name it by the index that is returned.
    pub(crate) fn source(&mut self, name: &str, path: &Path, text: &str) -> u16 {
        let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
        // A carriage return alone ends a line too.
        let lines = text.replace("\r\n", "\n").split(['\n', '\r']).map(str::to_owned).collect();
        self.sources.push(Source { name: name.to_owned(), folder, lines });
        u16::try_from(self.sources.len() - 1).unwrap_or(u16::MAX)
    }

    /// The file of that index.
    pub(crate) fn file(&self, index: u16) -> Option<&Source> {
        self.sources.get(usize::from(index))
    }

    /// `NAME:LINE` of a span.
    pub(crate) fn place(&self, span: Span) -> String {
        let name = self.file(span.file).map_or("", |source| source.name.as_str());
        format!("{name}:{}", span.line)
    }

    /// A line of a file, from 1.
    pub(crate) fn line(&self, file: u16, line: u32) -> &str {
        let index = usize::try_from(line).unwrap_or(0).saturating_sub(1);
        self.file(file).and_then(|source| source.lines.get(index)).map_or("", String::as_str)
    }

    /// Whether what is added from now on is dropped.
    pub(crate) fn mute(&mut self, muted: bool) {
        self.muted = muted;
    }

    /// Drops what is added from now on if `more`, or if it is dropped already; returns what held before.
    pub(crate) fn mute_more(&mut self, more: bool) -> bool {
        let muted = self.muted || more;
        std::mem::replace(&mut self.muted, muted)
    }

    /// Reports an error at `span`.
    pub(crate) fn error(&mut self, span: Span, problem: Problem) {
        self.add(span, Severity::Error, problem);
    }

    /// Reports a warning at `span`.
    pub(crate) fn warn(&mut self, span: Span, problem: Problem) {
        self.add(span, Severity::Warning, problem);
    }

    fn add(&mut self, span: Span, severity: Severity, problem: Problem) {
        // An alias brings the same text twice; its mistake is one mistake.
        if self.muted || self.full() || !self.seen.insert((span.file, span.line, span.column, problem.code)) {
            return;
        }
        // A value that is wrong by itself is not at odds with others.
        let refused = |(file, other): &(u16, Diagnostic)| {
            (*file, other.line, other.column) == (span.file, span.line, span.column)
        };
        if problem.code == "contradiction" && self.list.iter().any(refused) {
            return;
        }
        let mut expected = problem.expected;
        if let (Some(word), false) = (&problem.nearest, problem.told) {
            expected.push_str(if expected.is_empty() { "nearest: `" } else { "; nearest: `" });
            expected.push_str(word);
            expected.push('`');
        }
        let diagnostic = Diagnostic {
            file: self.file(span.file).map(|source| source.name.clone()).unwrap_or_default(),
            line: span.line,
            column: span.column,
            width: span.width.max(1),
            severity,
            code: problem.code.to_owned(),
            message: shown(&problem.message),
            source: Some(self.line(span.file, span.line))
                .filter(|line| line.len() <= MAX_LINE)
                .map(mask::line)
                .unwrap_or_default(),
            expected: shown(&expected),
            nearest: problem.nearest.map(|word| shown(&word)),
            help: shown(&problem.help),
        };
        self.list.push((span.file, diagnostic));
    }

    /// Whether so many were found that no more are kept.
    pub(crate) fn full(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS
    }

    /// Whether so many were found that no effort is made for the next one.
    pub(crate) fn many(&self) -> bool {
        self.list.len() >= MAX_PROBLEMS / 20
    }

    /// How many errors there are.
    pub(crate) fn errors(&self) -> usize {
        self.list.iter().filter(|(_, diagnostic)| diagnostic.severity == Severity::Error).count()
    }

    /// All of them, sorted by file and place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|(file, diagnostic)| (*file, diagnostic.line, diagnostic.column));
        self.list.into_iter().map(|(_, diagnostic)| diagnostic).collect()
    }
}

/// A text without secrets, cut where it is too long to be read.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => mask::text(text.get(..end).unwrap_or_default()) + "…",
        None => mask::text(text),
    }
}
