//! Starting, changing and ending a mesh, as a person does it.

use std::fs;
use std::time::{Duration, Instant};

use synego_testkit::http::{self, HttpClient};
use synego_testkit::mesh::Home;
use synego_testkit::{Mesh, Program, fault, ports, wait};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_mesh_starts_without_nginx_and_says_what_is_missing() {
    let home = Home::default();
    let folder = home.path().join("hello");
    fs::create_dir(&folder).expect("a folder");
    let example = synego_testkit::program::root().join("examples/hello");
    fs::copy(example.join("server.js"), folder.join("server.js")).expect("the service");
    let small = fs::read_to_string(example.join("synego.yaml")).expect("the manifest");
    assert_eq!(small.lines().count(), 3, "the smallest mesh has three lines");
    // Its own ports, so that it does not meet another mesh on this machine.
    let port = ports::free();
    let ports = format!("gateway: {{ listen: {port} }}\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\n");
    fs::write(folder.join("synego.yaml"), format!("{ports}{small}")).expect("the manifest");
    let mut variables = home.variables();
    variables.insert("SYNEGO_NGINX".into(), "/nowhere/nginx".into());
    let logs = home.path().join("logs");
    let mut up = Program::start("up", &synego_testkit::program::binary("synego"), ["up"], &folder, &variables, &logs);
    wait::until("the service answers through the master", Duration::from_secs(20), || async {
        let answer = http::get(&format!("http://127.0.0.1:{port}/")).await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;
    assert!(up.output().to_lowercase().contains("nginx"), "it says what is missing:\n{}", up.output());
    let missing = HttpClient::default().request("GET", &format!("http://127.0.0.1:{port}/x"), &[], "").await;
    assert!(missing.is_ok());
    assert!(up.stop(Duration::from_secs(30)).code().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_form_gives_a_master_that_answers_no_route() {
    let home = Home::default();
    let folder = home.path().join("seed");
    fs::create_dir(&folder).expect("a folder");
    let port = ports::free();
    let seed = format!(r#"{{"nodes":[{{"type":"master","host":"localhost","port":{port}}}]}}"#);
    fs::write(folder.join("synego.config.json"), seed).expect("the older form");
    // By the launcher of the npm package, as `npx synego start` runs it.
    let launcher = synego_testkit::program::root().join("sdk-node/bin/synego.js");
    let mut variables = home.variables();
    variables.insert("SYNEGO_BIN".into(), synego_testkit::program::binary("synego").display().to_string());
    let args = [launcher.display().to_string(), "start".to_owned()];
    let node = std::path::Path::new("node");
    let mut start = Program::start("npx", node, args, &folder, &variables, &home.path().join("logs"));
    let answer = wait::until("the master answers", Duration::from_secs(20), || async {
        http::get(&format!("http://127.0.0.1:{port}/anything")).await
    })
    .await;
    assert_eq!((answer.status.as_u16(), answer.header("x-synego-reason")), (404, "no_route"));
    let body = answer.json();
    assert_eq!((body["code"].as_u64(), body["reason"].as_str()), (Some(404), Some("no_route")));
    assert_eq!(body["request_id"].as_str(), Some(answer.header("x-request-id")));
    start.stop(Duration::from_secs(30));
}

const TWO: &str = "mesh: two\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: 0, mesh: 0, admin: 0 }\nservices:\n  hello:\n    run: \
                   [node, SERVER]\n    routes: [/hello]\n    policy: { timeout: 7s }\n";

fn two() -> String {
    let server = synego_testkit::program::root().join("examples/hello/server.js");
    TWO.replace("SERVER", &server.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_change_is_planned_and_applied_and_a_broken_one_changes_nothing() {
    let mesh = Mesh::of(&two()).await;
    let file = mesh.home.path().join("manifest/synego.yaml");
    let (_, pid) = mesh.pids("hello").into_iter().next().expect("an instance");
    let timeout = || {
        let policies = mesh.try_json(&["get", "policies", "hello"]).expect("the policy");
        policies["items"][0]["timeout_seconds"].to_string()
    };
    let before = timeout();

    fs::write(&file, two().replace("7s", "soon")).expect("a broken manifest");
    let broken = mesh.synego(&["apply", "-y"]);
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken.stderr));
    assert!(text(&broken.stderr).contains("synego.yaml:8:"), "{}", text(&broken.stderr));
    assert_eq!((timeout(), before.as_str()), (before.clone(), "7.0"));

    fs::write(&file, two().replace("7s", "3s").replace("/hello]", "/hello, /again]")).expect("a changed manifest");
    let plan = mesh.synego(&["plan", "--exit-code"]);
    assert_eq!(plan.status.code(), Some(3), "{}{}", text(&plan.stdout), text(&plan.stderr));
    assert!(text(&plan.stdout).contains("services.hello.policy.timeout"), "{}", text(&plan.stdout));
    assert_eq!(timeout(), before, "a plan changes nothing");
    let applied = mesh.synego(&["apply", "-y"]);
    assert_eq!(applied.status.code(), Some(0), "{}", text(&applied.stderr));
    wait::until("the new route answers", Duration::from_secs(5), || async {
        let answer = http::get(&mesh.url("/again")).await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;
    assert_eq!(timeout(), "3.0");
    assert_eq!(mesh.pids("hello")[0].1, pid, "no process was touched");

    fs::write(&file, two().replace("    routes:", "    version: 2.0.0\n    routes:"))
        .expect("a change that is not live");
    let refused = mesh.synego(&["apply", "-y"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("not live"), "{}", text(&refused.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_start_returns_when_all_is_ready_and_down_ends_everything() {
    let mut mesh = Mesh::begin(std::path::Path::new("/"), &[], &["--help"]);
    mesh.up.wait(Duration::from_secs(10));
    let folder = mesh.home.path().join("manifest");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("synego.yaml"), two()).expect("the manifest");
    let mut variables = mesh.home.variables();
    let port = ports::free();
    variables.insert("SHOP_HTTP".into(), port.to_string());
    let synego = |args: &[&str]| {
        let mut command = std::process::Command::new(synego_testkit::program::binary("synego"));
        command.args(args).current_dir(&folder).envs(&variables).output().expect("synego")
    };
    let up = synego(&["up", "-d"]);
    assert_eq!(up.status.code(), Some(0), "{}{}", text(&up.stdout), text(&up.stderr));
    let answer = http::get(&format!("http://127.0.0.1:{port}/hello")).await.expect("an answer");
    assert!(answer.status.is_success());
    let status = synego(&["status", "hello", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let pid = status["items"][0]["instances"][0]["pid"].as_u64().expect("a process") as u32;
    assert!(fault::is_alive(pid));
    let again = synego(&["up", "-d"]);
    assert_eq!(again.status.code(), Some(1), "a second start says that it runs: {}", text(&again.stderr));
    let down = synego(&["down", "-y"]);
    assert_eq!(down.status.code(), Some(0), "{}{}", text(&down.stdout), text(&down.stderr));
    assert!(!fault::is_alive(pid), "its process ended");
    assert!(http::get(&format!("http://127.0.0.1:{port}/hello")).await.is_err(), "nothing listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_start_that_fails_says_each_cause_with_the_last_lines() {
    let home = Home::default();
    let folder = home.path().join("manifest");
    fs::create_dir(&folder).expect("a folder");
    let port = ports::free();
    let manifest = format!(
        "mesh: broken\ngateway: {{ listen: {port} }}\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\nservices:\n  bad:\n    run: \
         [sh, -c, 'echo the reason stands here; exit 3']\n    routes: [/]\n    ready: {{ within: 3s }}\n"
    );
    fs::write(folder.join("synego.yaml"), manifest).expect("the manifest");
    let synego = |args: &[&str]| {
        let mut command = std::process::Command::new(synego_testkit::program::binary("synego"));
        command.args(args).current_dir(&folder).envs(home.variables()).output().expect("synego")
    };
    let start = Instant::now();
    let up = synego(&["up", "-d"]);
    let words = text(&up.stderr);
    assert_eq!(up.status.code(), Some(1), "{words}");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(words.contains("bad") && words.contains("code 3") && words.contains("the reason stands here"), "{words}");
    let down = synego(&["down", "-y"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down.stderr));
}
