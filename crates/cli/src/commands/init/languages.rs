//! What package.json, go.mod and Cargo.toml say of how a program is built and started.

use std::path::Path;

use super::project::{folder_of, join, text};
use super::{Found, Sight, Start, port};

/// Reads a package.json: `scripts.start`, else `main`.
pub(super) fn node(root: &Path, file: &str, sight: &mut Sight) {
    let folder = folder_of(file);
    let package = text(root, file).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let Some(package) = package else {
        sight.notes.push(format!("{file}: it is no JSON"));
        return;
    };
    let of = |pointer: &str| package.pointer(pointer).and_then(|value| value.as_str()).map(str::to_owned);
    let (run, because) = match (of("/scripts/start"), of("/main")) {
        (Some(script), _) if is_plain_node(&script) => (script, format!("{file} scripts.start")),
        (Some(_), _) => {
            ("npm start --silent".to_owned(), format!("{file} scripts.start, by npm since it is no plain `node`"))
        }
        (None, Some(main)) if package.get("bin").is_none() && starts_a_server(root, &join(folder, &main)) => {
            (format!("node {main}"), format!("{file} main"))
        }
        (None, _) if root.join(join(folder, "server.js")).is_file() => {
            ("node server.js".to_owned(), join(folder, "server.js"))
        }
        _ => {
            if package.get("workspaces").is_none() {
                sight.notes.push(format!("{file}: it has no scripts.start"));
            }
            return;
        }
    };
    let name = of("/name").map(|name| name.rsplit('/').next().unwrap_or_default().to_owned());
    let mut found = Found {
        name: name.filter(|name| !name.is_empty()).unwrap_or_else(|| name_of(root, folder)),
        run: Some(Start::new(run)),
        build: of("/scripts/build").map(|_| "npm run build --silent".to_owned()),
        cwd: (!folder.is_empty()).then(|| folder.to_owned()),
        because: vec![because],
        ..Found::default()
    };
    port::find(root, folder, &mut found);
    sight.add(found);
}

fn is_plain_node(script: &str) -> bool {
    script.split_whitespace().next() == Some("node") && !Start::new(script).needs_shell()
}

fn starts_a_server(root: &Path, main: &str) -> bool {
    let with = |end: &str| text(root, &format!("{main}{end}"));
    with("").or_else(|| with(".js")).is_some_and(|text| text.contains("listen("))
}

/// Reads a go.mod: each `cmd/NAME` with a main package, else the folder itself.
pub(super) fn go(root: &Path, file: &str, sight: &mut Sight) {
    let folder = folder_of(file);
    let module = text(root, file).and_then(|text| {
        text.lines().find_map(|line| line.trim().strip_prefix("module ").map(str::trim).map(str::to_owned))
    });
    let module = module.unwrap_or_default();
    let mut mains: Vec<(String, String)> = std::fs::read_dir(root.join(join(folder, "cmd")))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| (name.clone(), format!("cmd/{name}")))
        .filter(|(_, package)| is_go_main(root, &join(folder, package)))
        .collect();
    mains.sort();
    if mains.is_empty() && is_go_main(root, folder) {
        let last = module.rsplit('/').find(|part| !part.starts_with('v') || part.len() > 3).unwrap_or_default();
        mains.push((if last.is_empty() { name_of(root, folder) } else { last.to_owned() }, String::new()));
    }
    if mains.is_empty() {
        sight.notes.push(format!("{file}: no main package in its folder or in cmd/"));
    }
    for (name, package) in mains {
        let target = if package.is_empty() { ".".to_owned() } else { format!("./{package}") };
        let mut found = Found {
            run: Some(Start::new(format!("./bin/{name}"))),
            build: Some(format!("go build -o bin/{name} {target}")),
            cwd: (!folder.is_empty()).then(|| folder.to_owned()),
            because: vec![if package.is_empty() { file.to_owned() } else { format!("{file}, {package}") }],
            name,
            ..Found::default()
        };
        port::find(root, &join(folder, &package), &mut found);
        sight.add(found);
    }
}

fn is_go_main(root: &Path, folder: &str) -> bool {
    let files = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    files.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.ends_with(".go")).any(|name| {
        text(root, &join(folder, &name)).is_some_and(|text| text.lines().any(|line| line.trim() == "package main"))
    })
}

/// Reads a Cargo.toml: its binaries, those of its workspace's members too.
pub(super) fn cargo(root: &Path, file: &str, sight: &mut Sight) {
    let folder = folder_of(file);
    let text = text(root, file).unwrap_or_default();
    let package = value_in(&text, "[package]", "name");
    let mut names: Vec<String> = sections(&text, "[[bin]]").filter_map(|section| value(section, "name")).collect();
    if let Some(package) = package.filter(|_| names.is_empty() && root.join(join(folder, "src/main.rs")).is_file()) {
        names.push(package);
    }
    if names.is_empty() && !text.contains("[workspace]") {
        sight.notes.push(format!("{file}: it has no binary"));
    }
    let workspace = above(root, folder);
    for name in names {
        let up = "../".repeat(folder.matches('/').count() + usize::from(!folder.is_empty()));
        let (prefix, package) = match &workspace {
            Some(()) if !folder.is_empty() => (up, format!(" --bin {name}")),
            _ => (String::new(), format!(" --bin {name}")),
        };
        let program = if prefix.is_empty() {
            format!("./target/release/{name}")
        } else {
            format!("{prefix}target/release/{name}")
        };
        let mut found = Found {
            run: Some(Start::new(program)),
            build: Some(format!("cargo build --release{package}")),
            cwd: (!folder.is_empty()).then(|| folder.to_owned()),
            because: vec![file.to_owned()],
            name,
            ..Found::default()
        };
        port::find(root, folder, &mut found);
        sight.add(found);
    }
}

/// Whether the root's own Cargo.toml is a workspace, in whose target folder all is built.
fn above(root: &Path, folder: &str) -> Option<()> {
    let text = text(root, "Cargo.toml").filter(|_| !folder.is_empty())?;
    text.contains("[workspace]").then_some(())
}

fn sections<'a>(text: &'a str, head: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(head).skip(1).map(|rest| rest.split("\n[").next().unwrap_or(rest))
}

fn value_in(text: &str, head: &str, key: &str) -> Option<String> {
    sections(text, head).next().and_then(|section| value(section, key))
}

fn value(section: &str, key: &str) -> Option<String> {
    section.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

fn name_of(root: &Path, folder: &str) -> String {
    let last = folder.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned);
    last.or_else(|| root.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "app".to_owned())
}
