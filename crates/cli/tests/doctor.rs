//! `synego doctor` against a machine with faults, and against a mesh that runs.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use support::{Place, Up};

const SERVER: &str = "require('http').createServer((q, r) => r.end(process.env.SYNEGO_INSTANCE)).listen(process.env.PORT, '127.0.0.1')\n";

fn manifest(listen: &str, run: &str) -> String {
    format!(
        "mesh: shop\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\ngateway: {{ engine: master, listen: {listen} }}\n\
         services:\n  users:\n    run: {run}\n    routes: [/users]\n"
    )
}

/// The checks of this name.
fn checks(answer: &Value, name: &str) -> Vec<Value> {
    let items = answer["items"].as_array().expect("items");
    items.iter().filter(|item| item["check"] == name).cloned().collect()
}

fn outcome(answer: &Value, name: &str) -> String {
    checks(answer, name).first().and_then(|item| item["outcome"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn every_check_runs_whatever_the_others_find_and_nothing_is_changed() {
    let place = Place::new(&[("synego.yaml", &manifest("0", "no-such-program")), ("server.js", SERVER)]);
    let answer = place.run(&["doctor", "-o", "json"]).expect_code(1).json();
    assert_eq!((&answer["kind"], &answer["mesh"]), (&"doctor".into(), &"shop".into()));
    let programs = &checks(&answer, "programs")[0];
    assert_eq!(programs["outcome"], "failed");
    assert!(programs["cause"].as_str().is_some_and(|cause| cause.contains("`no-such-program` of users")), "{programs}");
    for name in ["manifest", "nginx", "open files", "clock", "state", "sockets", "secrets", "disk", "ports", "loopback"]
    {
        assert!(!checks(&answer, name).is_empty(), "{name} in {answer}");
    }
    for name in ["mesh", "services", "identity", "authority"] {
        assert_eq!(outcome(&answer, name), "skipped", "no mesh runs: {name}");
    }
    let home = place.path().parent().expect("a parent").to_path_buf();
    assert!(!home.join("state").exists() && !home.join("run").exists(), "nothing was made");
    let text = place.run(&["doctor", "--failed"]).expect_code(1).out;
    assert!(text.contains("failed") && text.contains("programs") && !text.contains("passed  "), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.contains("checks:") && line.contains("failed")), "{text}");
}

#[test]
fn a_port_that_is_taken_is_told_with_who_has_it_and_what_to_do() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let listen = format!("\"127.0.0.1:{port}\"");
    let place = Place::new(&[("synego.yaml", &manifest(&listen, "node server.js")), ("server.js", SERVER)]);
    let answer = place.run(&["doctor", "--failed", "-o", "json"]).expect_code(1).json();
    let taken = checks(&answer, "ports");
    let taken = taken.iter().find(|item| item["outcome"] == "failed").expect("it is taken");
    let cause = taken["cause"].as_str().expect("a cause");
    assert!(cause.starts_with(&format!("{port} is taken by pid {} (", std::process::id())), "{cause}");
    assert!(taken["help"].as_str().is_some_and(|help| help.contains("gateway: { listen: PORT }")), "{taken}");
    drop(listener);
    let answer = place.run(&["doctor", "-o", "json"]).json();
    assert!(checks(&answer, "ports").iter().all(|item| item["outcome"] != "failed"), "{answer}");
}

#[test]
fn a_secret_that_others_may_read_is_told() {
    let place = Place::new(&[("synego.yaml", &manifest("0", "node server.js")), ("server.js", SERVER)]);
    let state = place.path().parent().expect("a parent").join("state/shop");
    std::fs::create_dir_all(&state).expect("a folder");
    let key = state.join("ca.key");
    std::fs::write(&key, "00").expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
    let answer = place.run(&["doctor", "-o", "json"]).expect_code(1).json();
    let secrets = &checks(&answer, "secrets")[0];
    assert!(secrets["cause"].as_str().is_some_and(|cause| cause.contains("ca.key")), "{secrets}");
    assert!(secrets["help"].as_str().is_some_and(|help| help.starts_with("`chmod 600 ")), "{secrets}");
    assert_eq!(outcome(&answer, "state"), "warning", "its folder is open, too: {answer}");
}

#[test]
fn a_mesh_that_is_well_passes_and_what_is_doubtful_fails_when_strict() {
    let text = manifest("0", "node server.js") + "access: observe\n";
    let place = Place::new(&[("synego.yaml", &text), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let said = place.run(&["doctor", "-o", "json"]);
    let answer = said.json();
    for name in ["mesh", "masters", "services", "versions", "clocks", "identity", "handshakes", "authority", "programs"]
    {
        assert_eq!(outcome(&answer, name), "passed", "{name} in {answer}");
    }
    assert_eq!(outcome(&answer, "access"), "warning", "{answer}");
    let loopback = &checks(&answer, "loopback")[0];
    let exposed = loopback["cause"].as_str().expect("what is exposed");
    assert!(exposed.contains("http://127.0.0.1:"), "the outbound is named: {exposed}");
    let has_others = loopback["outcome"] == "warning";
    assert_eq!(exposed.contains("the ports of 1 instance, around their sidecars"), has_others, "{exposed}");
    let has_failed = answer["items"].as_array().expect("items").iter().any(|item| item["outcome"] == "failed");
    assert_eq!(said.code, Some(i32::from(has_failed)), "{answer}");
    place.run(&["doctor", "--strict", "-q"]).expect_code(1);
}
