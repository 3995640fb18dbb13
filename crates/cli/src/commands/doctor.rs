//! `synego doctor`: is this machine fit for its mesh, and is the mesh well? Every check runs, whatever the others find; none
//! changes anything or needs the internet.

mod loopback;
mod machine;
mod mesh;
mod ports;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr as _;

use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::manifest;
use crate::output::paint::Paint;
use crate::output::{Answer, Cell, Column, Table, Tone, amount, harmless};

/// Columns of a check's name, and of its cause where the help stands behind it.
const CHECK: usize = 11;
const CAUSE: usize = 40;

const EXAMPLES: &str = "\
Examples:
  synego doctor
  synego doctor --failed      only what is wrong or doubtful
  synego doctor --strict      what is doubtful fails, too
  synego doctor -o json | jq -r '.items[] | select(.outcome == \"failed\") | .help'";

/// Check this machine and its mesh: ports, limits, files, clocks, certificates, services
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show only what failed or is doubtful
    #[arg(long)]
    failed: bool,
    /// Exit with 1 also when something is only doubtful
    #[arg(long)]
    strict: bool,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is as it should be.
    Passed,
    /// It works, and may not for long or not for everybody.
    Warning,
    /// Something will not work.
    Failed,
    /// There was nothing to look at.
    Skipped,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Passed => "✓",
            Self::Warning => "!",
            Self::Failed => "✗",
            Self::Skipped => "–",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Passed => Tone::Good,
            Self::Warning => Tone::Warn,
            Self::Failed => Tone::Bad,
            Self::Skipped => Tone::Dim,
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    check: &'static str,
    outcome: Outcome,
    cause: String,
    help: String,
}

impl Finding {
    pub(super) fn passed(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Passed, cause: what.into(), help: String::new() }
    }

    pub(super) fn warning(check: &'static str, cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check, outcome: Outcome::Warning, cause: cause.into(), help: help.into() }
    }

    pub(super) fn failed(check: &'static str, cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { outcome: Outcome::Failed, ..Self::warning(check, cause, help) }
    }

    pub(super) fn skipped(check: &'static str, why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Skipped, ..Self::passed(check, why) }
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let read = manifest::read(context)?;
    let manifest = read.manifest.as_ref();
    let seen = mesh::look(context);
    let mut findings = machine::check(context, &read);
    let view = seen.as_ref().ok().map(|seen| &seen.view);
    findings.extend(manifest.and_then(|manifest| machine::caps(manifest, view)));
    findings.extend(ports::check(manifest, &seen));
    findings.extend(mesh::check(context, &seen));
    findings.push(loopback::check(seen.as_ref().ok().map(|seen| &seen.view)));
    let name = seen.as_ref().ok().map(|seen| seen.view.mesh.clone());
    let name = name.or_else(|| manifest.map(|manifest| manifest.declaration.mesh.to_string()));
    tell(context, name.as_deref(), &findings, args.failed);
    let is_bad =
        |finding: &Finding| finding.outcome == Outcome::Failed || (args.strict && finding.outcome == Outcome::Warning);
    Ok(if findings.iter().any(is_bad) { FAILED } else { DONE })
}

fn tell(context: &Context, mesh: Option<&str>, findings: &[Finding], only_bad: bool) {
    let is_shown = |finding: &&Finding| !only_bad || matches!(finding.outcome, Outcome::Failed | Outcome::Warning);
    let shown: Vec<&Finding> = findings.iter().filter(is_shown).collect();
    let items: Vec<Value> = shown.iter().map(|finding| item(finding)).collect();
    let answer = Answer::new("doctor", "check").with("summary", summary(findings).into()).items(items);
    let answer = mesh.map_or(answer.clone(), |mesh| answer.of_mesh(mesh, None));
    context.answer(answer, || {
        let drawn = match context.screen.width() {
            Some(width) => shown.iter().map(|finding| line(finding, width, context.screen.out)).collect(),
            None => table(context, &shown),
        };
        format!("{drawn}{}\n", summary(findings))
    });
}

/// As `  ✗ ports        8080 is taken by pid 911 (apache2)    stop it`; what does not fit goes below. Nothing is cut off: it is
/// what a person came for.
fn line(finding: &Finding, width: usize, paint: Paint) -> String {
    let Finding { check, outcome, cause, help } = finding;
    let (cause, help) = (harmless(cause), harmless(help));
    let mark = paint.tone(outcome.tone(), outcome.mark());
    let front = 4 + CHECK + 2;
    if help.is_empty() || front + cause.width().max(CAUSE) + 2 + help.width() <= width {
        let text = if help.is_empty() { cause } else { format!("{cause:<CAUSE$}  {help}") };
        return format!("  {mark} {check:<CHECK$}  {text}\n");
    }
    format!("  {mark} {check:<CHECK$}  {cause}\n{:front$}{help}\n", "")
}

/// The same for programs and files: a word in the place of the mark, every column as wide as it is.
fn table(context: &Context, shown: &[&Finding]) -> String {
    let columns =
        [Column::stays("OUTCOME"), Column::name("CHECK"), Column::sentence("CAUSE"), Column::sentence("HELP")];
    let mut table = Table::new(&columns);
    for finding in shown {
        table.row(vec![
            Cell::toned(finding.outcome.word(), finding.outcome.tone()),
            Cell::new(finding.check),
            Cell::new(&finding.cause),
            Cell::new(&finding.help),
        ]);
    }
    if table.is_empty() { String::new() } else { context.table_whole(table.headless()) }
}

fn item(finding: &Finding) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    json!({
        "check": finding.check,
        "outcome": finding.outcome.word(),
        "cause": text(&finding.cause),
        "help": text(&finding.help),
    })
}

/// `22 checks: 20 passed, 1 warning, 1 failed`.
fn summary(findings: &[Finding]) -> String {
    let count = |outcome: Outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    let mut text = format!(
        "{}: {} passed, {}, {} failed",
        amount::count(findings.len(), "check"),
        count(Outcome::Passed),
        amount::count(count(Outcome::Warning), "warning"),
        count(Outcome::Failed)
    );
    match count(Outcome::Skipped) {
        0 => {}
        skipped => text.push_str(&format!(", {skipped} skipped")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_and_only_what_there_was_is_named() {
        let all = [
            Finding::passed("ports", "free"),
            Finding::warning("nginx", "none", "apt install nginx"),
            Finding::failed("clock", "an hour late", "set it"),
        ];
        assert_eq!(summary(&all), "3 checks: 1 passed, 1 warning, 1 failed");
        let more = [&all[..], &[Finding::skipped("mesh", "none runs")]].concat();
        assert_eq!(summary(&more), "4 checks: 1 passed, 1 warning, 1 failed, 1 skipped");
        assert_eq!(item(&more[3])["help"], Value::Null);
    }

    #[test]
    fn what_does_not_fit_beside_goes_below_and_nothing_is_cut() {
        let finding =
            Finding::failed("ports", "8080 is taken by pid 911 (apache2)", "stop it, or `gateway: { listen: PORT }`");
        let wide = line(&finding, 100, Paint::plain());
        let narrow = line(&finding, 60, Paint::plain());
        assert_eq!(wide.lines().count(), 1, "{wide}");
        assert_eq!(narrow.lines().count(), 2, "{narrow}");
        for text in [wide, narrow] {
            assert!(text.contains(&finding.cause) && text.contains(&finding.help), "{text}");
        }
    }
}
