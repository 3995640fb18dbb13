//! What a changed manifest changes, and what that does to what runs.

mod common;

use common::Case;
use synego_manifest::{Action, Effect, Manifest, plan};

fn load(text: &str) -> Manifest {
    let outcome = Case::read(text).load();
    let told: String = outcome.diagnostics.iter().map(|diagnostic| diagnostic.render() + "\n").collect();
    outcome.manifest.unwrap_or_else(|| panic!("{told}"))
}

const BASE: &str = "mesh: shop\nservices:\n  users: { run: node users.js, routes: [/users], policy: { timeout: 5s } }\n  \
                    legacy: { address: 127.0.0.1:9000, routes: [old.example.com/] }\n";

fn changes(after: &str) -> Vec<String> {
    plan(&load(BASE), &load(after))
        .into_iter()
        .map(|change| {
            let value = |value: Option<String>| value.unwrap_or_else(|| "–".into());
            format!(
                "{} {} {} → {} {} {}",
                change.action.mark(),
                change.path,
                value(change.before),
                value(change.after),
                change.effect.word(),
                change.origin
            )
        })
        .collect()
}

#[test]
fn the_same_file_changes_nothing() {
    assert!(changes(BASE).is_empty());
    assert!(changes(&format!("# a remark\n\n{BASE}")).is_empty(), "where something stands does not matter");
}

#[test]
fn each_key_says_what_its_change_does() {
    for (from, to, expected) in [
        ("timeout: 5s", "timeout: 3s", "~ services.users.policy.timeout 5s → 3s live synego.yaml:3"),
        (
            "run: node users.js",
            "run: node app.js",
            "~ services.users.run [node, users.js] → [node, app.js] roll synego.yaml:3",
        ),
        (
            "run: node users.js",
            "run: node users.js, instances: 2",
            "~ services.users.instances 1 → 2 scale synego.yaml:3",
        ),
        (
            "run: node users.js",
            "run: node users.js, build: make",
            "+ services.users.build – → [make] next start synego.yaml:3",
        ),
        ("mesh: shop", "mesh: shop\naccess: observe", "~ access enforce → observe live synego.yaml:2"),
        (
            "[/users]",
            "[/users], allow: [ingress]",
            "+ services.users.allow – → [{ caller: ingress }] live synego.yaml:3",
        ),
        ("mesh: shop", "mesh: other", "~ mesh shop → other never synego.yaml:1"),
        (
            "mesh: shop",
            "mesh: shop\ngateway: { listen: 80 }",
            "~ gateway.listen.http.address 8080 → 80 socket synego.yaml:2",
        ),
        ("mesh: shop", "mesh: shop\ngateway: { hosts: [a.b] }", "~ gateway.hosts [] → [a.b] edge synego.yaml:2"),
        ("mesh: shop", "mesh: shop\ngateway: { engine: master }", "+ gateway.engine – → master self synego.yaml:2"),
        (
            "mesh: shop",
            "mesh: shop\ntelemetry: { logs: { level: debug } }",
            "~ telemetry.logs.level info → debug live synego.yaml:2",
        ),
        (
            "[/users]",
            "[/users, /u]",
            "~ services.users.routes [{ path: /users }] → [{ path: /users }, { path: /u }] live synego.yaml:3",
        ),
        (
            ", policy: { timeout: 5s }",
            ", policy: { timeout: 5s }, env: { A: b }",
            "+ services.users.env.A – → b roll synego.yaml:3",
        ),
    ] {
        assert_eq!(changes(&BASE.replace(from, to)), [expected], "{to}");
    }
}

#[test]
fn a_whole_service_is_one_change() {
    let without = BASE.lines().take(3).collect::<Vec<_>>().join("\n");
    assert_eq!(changes(&without), ["- services.legacy old.example.com/ → – live synego.yaml:4"]);
    let with = format!("{BASE}  more: {{ run: ./more, routes: [] }}\n");
    assert_eq!(changes(&with), ["+ services.more – → inside scale synego.yaml:5"]);
}

#[test]
fn a_try_that_follows_its_request_is_no_change_of_its_own() {
    let paths = changes(&BASE.replace("timeout: 5s", "timeout: 20s"));
    assert_eq!(paths, ["~ services.users.policy.timeout 5s → 20s live synego.yaml:3"]);
    let said = changes(&BASE.replace("timeout: 5s", "timeout: 5s, try_timeout: 1s"));
    assert_eq!(said, ["~ services.users.policy.try_timeout 5s → 1s live synego.yaml:3"]);
}

#[test]
fn words_are_those_of_every_output() {
    assert_eq!(Effect::Own.word(), "self");
    assert_eq!(serde_json::to_value(Effect::NextStart).ok(), Some("next_start".into()));
    assert_eq!(serde_json::to_value(Action::Add).ok(), Some("add".into()));
}
