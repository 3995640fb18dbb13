//! Every mistake gives its exact message: `mistakes/NN-name.yaml` in, `mistakes/NN-name.txt` out.
//!
//! A line `# file: NAME` begins a further file; `# profile: NAME` lays its overlay over the rest; `# set: NAME=VALUE` sets
//! a variable. These lines are no part of the files, so that line numbers are those that people see. Built
//! with `SYNEGO_UPDATE_GOLDEN` set, the test writes the expected texts anew.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::Case;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes")
}

/// What is said of a case: all drawings, then the counts.
fn told(case: &Case) -> String {
    let outcome = case.load();
    let mut text: String = outcome.diagnostics.iter().map(|diagnostic| diagnostic.render() + "\n").collect();
    text.push_str(&outcome.counts());
    text.push('\n');
    text
}

fn cases() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    all.sort();
    all
}

#[test]
fn every_mistake_gives_its_exact_message() {
    let update = option_env!("SYNEGO_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let case = Case::read(&std::fs::read_to_string(&path).unwrap());
        let told = told(&case);
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- told\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_twenty_of_the_design_and_twenty_more_are_there() {
    assert!(cases().len() >= 40, "{}", cases().len());
}

#[test]
fn every_kind_of_mistake_has_a_case() {
    let mut told: BTreeSet<String> = BTreeSet::new();
    for path in cases() {
        let case = Case::read(&std::fs::read_to_string(&path).unwrap());
        told.extend(case.load().diagnostics.into_iter().map(|diagnostic| diagnostic.code));
    }
    let without: Vec<&str> = synego_manifest::diagnostic_codes().filter(|code| !told.contains(*code)).collect();
    // `internal` says that the checks themselves are wrong; `not_text` needs bytes that no text file holds.
    assert_eq!(without, ["internal", "not_text"]);
    for code in &told {
        assert!(synego_manifest::diagnostic_page(code).is_some(), "{code} has no page");
    }
}
