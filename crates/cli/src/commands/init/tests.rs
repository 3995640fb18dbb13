//! `init` on fixture folders.

use std::fs;

use super::*;

/// A folder with these files, removed at the end.
fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, text).expect("a file");
    }
    dir
}

fn manifest_of(files: &[(&str, &str)]) -> (Sight, String) {
    let dir = project(files);
    let sight = project::look(dir.path());
    let text = write::manifest("shop", &sight);
    let parsed: serde_yaml::Value = serde_yaml::from_str(&text).expect("what is written is YAML");
    assert_eq!(
        parsed.get("services").and_then(|found| found.as_mapping()).map_or(0, |map| map.len()),
        sight.services.len()
    );
    (sight, text)
}

#[test]
fn a_node_and_a_go_program_are_found_with_their_reasons() {
    let (sight, text) = manifest_of(&[
        ("package.json", r#"{"name":"@shop/api","scripts":{"start":"node src/server.js"}}"#),
        (
            "src/server.js",
            "const http = require('http');\n// process.env.PORT is ours\nhttp.createServer().listen(process.env.PORT);\n",
        ),
        ("worker/go.mod", "module example.com/worker\n"),
        ("worker/cmd/worker/main.go", "package main\nfunc main() {}\n"),
    ]);
    let [api, worker] = sight.services.as_slice() else { panic!("{sight:#?}") };
    assert_eq!(
        (api.name.as_str(), api.because.join("; ").as_str()),
        ("api", "package.json scripts.start; it reads PORT (src/server.js:3)")
    );
    assert_eq!(worker.build.as_deref(), Some("go build -o bin/worker ./cmd/worker"));
    assert_eq!(worker.cwd.as_deref(), Some("worker"));
    assert!(text.contains("    routes: [/]  #") && text.contains("    routes: []  #"), "{text}");
}

#[test]
fn a_script_that_is_no_plain_node_is_left_to_npm() {
    let (sight, _) =
        manifest_of(&[("package.json", r#"{"name":"web","scripts":{"start":"next start","build":"next build"}}"#)]);
    assert_eq!(sight.services[0].run, Some(Start::new("npm start --silent")));
    assert_eq!(sight.services[0].build.as_deref(), Some("npm run build --silent"));
}

#[test]
fn a_procfile_is_believed_before_the_languages_and_shell_lines_get_a_shell() {
    let (sight, text) = manifest_of(&[
        (
            "Procfile",
            "# the parts\nweb: gunicorn app:app -b 0.0.0.0:$PORT\nworker: python worker.py\nrelease: ./migrate\n",
        ),
        ("package.json", r#"{"scripts":{"start":"node x.js"}}"#),
    ]);
    let names: Vec<&str> = sight.services.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["web", "worker"]);
    assert!(text.contains(r#"run: [sh, -c, "exec gunicorn app:app -b 0.0.0.0:$PORT"]"#), "{text}");
    assert!(sight.notes[0].starts_with("`release` of Procfile"));
}

#[test]
fn compose_services_become_processes_and_stores_stay_in_their_containers() {
    let (sight, text) = manifest_of(&[
        (
            "compose.yaml",
            "services:\n  api:\n    build: ./api\n    ports: ['8080:3000']\n    depends_on: [db, jobs]\n    environment:\n      MODE: fast\n      DB_PASSWORD: hunter2\n    deploy: { replicas: 2 }\n  jobs:\n    build: { context: ./jobs }\n    command: [node, jobs.js]\n  db:\n    image: postgres:16\n  old:\n    image: example/old:1\n    ports: ['9000:80']\n",
        ),
        ("api/Dockerfile", "FROM node\nCMD [\"node\", \"server.js\"]\n"),
    ]);
    let api = &sight.services[0];
    assert_eq!(api.run, Some(Start::new("node server.js")));
    assert_eq!((api.after.as_slice(), api.instances.as_deref()), (["jobs".to_owned()].as_slice(), Some("2")));
    assert_eq!(sight.services[2].address.as_deref(), Some("127.0.0.1:9000"));
    assert!(sight.notes.iter().any(|note| note.contains("postgres:16")));
    assert!(!text.contains("hunter2") && text.contains("DB_PASSWORD: \"${DB_PASSWORD}\""), "{text}");
}

#[test]
fn a_pm2_file_in_javascript_is_read_without_running_it() {
    let (sight, _) = manifest_of(&[(
        "ecosystem.config.js",
        "// ours\nmodule.exports = {\n\tapps: [{\n\t\tname: 'api', // the front\n\t\tscript: './server.js',\n\t\targs: '--fast',\n\t\tinstances: 'max',\n\t\tenv: { NODE_ENV: 'production', PORT: process.env.PORT || 3000 },\n\t}, { script: 'bin/worker', max_memory_restart: '300M' }],\n};\n",
    )]);
    let [api, worker] = sight.services.as_slice() else { panic!("{sight:#?}") };
    assert_eq!(
        (api.name.as_str(), api.run.clone(), api.instances.as_deref()),
        ("api", Some(Start::new("node server.js --fast")), Some("cores"))
    );
    assert_eq!(api.env, [("NODE_ENV".to_owned(), "production".to_owned())]);
    assert_eq!(worker.run, Some(Start::new("bin/worker")));
    assert!(sight.notes.iter().any(|note| note.contains("max_memory_restart")));
}

#[test]
fn members_of_a_cargo_workspace_run_from_its_target_folder() {
    let (sight, _) = manifest_of(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
        ("crates/api/Cargo.toml", "[package]\nname = \"api\"\n"),
        ("crates/api/src/main.rs", "fn main() { let _ = std::env::var(\"PORT\"); }\n"),
        ("crates/lib/Cargo.toml", "[package]\nname = \"lib\"\n"),
    ]);
    assert_eq!(sight.services.len(), 1);
    assert_eq!(sight.services[0].run, Some(Start::new("../../target/release/api")));
    assert!(sight.services[0].because[1].contains("crates/api/src/main.rs:1"));
}

#[test]
fn a_fixed_port_is_written_unless_several_instances_would_share_it() {
    let (_, text) = manifest_of(&[
        ("package.json", r#"{"name":"a","scripts":{"start":"node a.js"}}"#),
        ("a.js", "require('http').createServer().listen(3000)\n"),
    ]);
    assert!(text.contains("    port: 3000  #"), "{text}");
}

#[test]
fn a_file_that_exists_is_never_overwritten() {
    let dir = project(&[("synego.yaml", "mesh: mine\n")]);
    let path = dir.path().join("synego.yaml");
    assert!(write_new(&path, "mesh: other\n").is_err());
    assert_eq!(fs::read_to_string(path).ok().as_deref(), Some("mesh: mine\n"));
}
