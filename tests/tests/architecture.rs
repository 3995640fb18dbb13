//! Holds the house: which crate may know which, who owns which outside part, and what every source file owes its reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Who may depend on whom, among ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("runtime", &[]),
    ("wire", &["model"]),
    ("balance", &["model"]),
    ("manifest", &["model"]),
    ("nginx", &["runtime", "model"]),
    ("identity", &["runtime", "model"]),
    ("supervise", &["runtime", "model"]),
    ("data-plane", &["balance", "identity", "runtime", "model"]),
    ("control-plane", &["wire", "identity", "runtime", "model"]),
    ("sidecar", &["data-plane", "control-plane", "supervise", "identity", "runtime", "model"]),
    ("master", &["data-plane", "control-plane", "manifest", "nginx", "identity", "runtime", "model"]),
    ("cli", &["sidecar", "master", "supervise", "manifest", "nginx", "wire", "identity", "runtime", "model"]),
    ("sdk", &["wire", "model"]),
];

/// Outside parts and the only crates that may name them.
const OWNERS: &[(&str, &[&str])] = &[
    ("rustls", &["identity"]),
    ("tokio-rustls", &["identity"]),
    ("tonic", &["wire", "control-plane", "cli", "sdk"]),
    ("prost", &["wire", "control-plane", "cli", "sdk"]),
    ("redb", &["control-plane"]),
    ("granit-parser", &["manifest"]),
    ("yaml_serde", &["manifest", "cli"]),
    ("opentelemetry", &["runtime"]),
    ("clap", &["sidecar", "master", "cli"]),
    ("anyhow", &["sidecar", "master", "cli"]),
];

/// Crates that decide and do not do.
const PURE: &[&str] = &["model", "manifest", "balance"];
const IMPURE_PARTS: &[&str] = &["tokio", "hyper", "hyper-util", "tonic", "h2", "axum"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the root of the project")
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().expect("cargo metadata")
}

/// The crates that are the product, by their short names: not tests, not examples, not the test kit.
fn product(metadata: &Metadata) -> BTreeMap<&str, &Package> {
    let ours = metadata.packages.iter().filter_map(|package| Some((package.name.strip_prefix("synego-")?, package)));
    ours.filter(|(name, _)| !["tests", "testkit"].contains(name)).collect()
}

fn dependencies(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.as_str()).collect()
}

#[test]
fn arrows_between_crates_point_one_way() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, package) in product(&metadata) {
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the list of crates"));
            continue;
        };
        for target in dependencies(package).iter().filter_map(|name| name.strip_prefix("synego-")) {
            if !allowed.contains(&target) {
                wrong.push(format!("{name} → {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that may not be: {wrong:#?}");
}

#[test]
fn every_crate_of_the_list_exists() {
    let metadata = metadata();
    let product = product(&metadata);
    let missing: Vec<_> = ARROWS.iter().map(|(name, _)| name).filter(|name| !product.contains_key(**name)).collect();
    assert!(missing.is_empty(), "crates that are gone: {missing:?}");
}

#[test]
fn outside_parts_stay_with_their_owners() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, package) in product(&metadata) {
        for dependency in dependencies(package) {
            let owners = OWNERS.iter().find(|(part, _)| *part == dependency).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&name)) {
                wrong.push(format!("{name} uses {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "parts that belong to others: {wrong:#?}");
}

#[test]
fn pure_crates_know_no_runtime_and_no_protocol() {
    let metadata = metadata();
    let product = product(&metadata);
    for name in PURE {
        let found: Vec<_> =
            dependencies(product[name]).into_iter().filter(|name| IMPURE_PARTS.contains(name)).collect();
        assert!(found.is_empty(), "{name} uses {found:?}");
    }
}

#[test]
fn the_registry_imports_nothing_async_and_no_clock() {
    let control_plane = root().join("crates/control-plane/src");
    let mut files = vec![control_plane.join("registry.rs")];
    files.extend(sources(&control_plane.join("registry")));
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for word in ["async ", ".await", "tokio", "tonic", "clock::now", "Instant::now", "rand::"] {
            let place = text.lines().position(|line| line.contains(word) && !line.trim_start().starts_with("//"));
            assert_eq!(place, None, "{} names `{word}` (line from 0)", file.display());
        }
    }
}

#[test]
fn only_tests_depend_on_the_test_kit() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|package| package.name.as_str() != "synego-testkit") {
        let wrong = package
            .dependencies
            .iter()
            .any(|dependency| dependency.name == "synego-testkit" && dependency.kind != DependencyKind::Development);
        assert!(!wrong, "{} depends on the test kit", package.name);
    }
}

#[test]
fn every_source_file_opens_with_a_sentence() {
    let root = root();
    let mut silent = Vec::new();
    for folder in ["crates", "sdk-rust", "tests", "examples"] {
        for file in sources(&root.join(folder)) {
            let path = file.strip_prefix(&root).expect("below the root").display().to_string();
            if ["/gen/", "/target/", "/node_modules/"].iter().any(|part| path.contains(part)) {
                continue;
            }
            let text = fs::read_to_string(&file).expect("a source file");
            // The tests of a module stand in a file of their own that the module itself introduces.
            if !text.starts_with("//!") && !path.ends_with("tests.rs") {
                silent.push(path);
            }
        }
    }
    assert!(silent.is_empty(), "files that do not say what they are: {silent:#?}");
}

#[test]
fn main_files_stay_short() {
    for binary in ["sidecar", "master", "cli"] {
        let file = root().join(format!("crates/{binary}/src/main.rs"));
        let lines = fs::read_to_string(&file).expect("a main file").lines().count();
        assert!(lines <= 60, "{} has {lines} lines", file.display());
    }
}

#[test]
fn reasons_of_model_and_protocol_are_the_same() {
    let text = fs::read_to_string(root().join("proto/synego/v1/reason.proto")).expect("reason.proto");
    let said: BTreeMap<String, i32> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("REASON_")?.strip_suffix(';')?.split_once(" = "))
        .map(|(word, number)| (word.to_lowercase(), number.parse().expect("a number")))
        .filter(|(word, _)| word != "unspecified")
        .collect();
    let ours: BTreeMap<String, i32> =
        synego_model::Reason::ALL.iter().map(|reason| (reason.word().to_owned(), *reason as i32)).collect();
    assert_eq!(said, ours);
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !["target", "node_modules", "gen"].contains(&name) {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}
