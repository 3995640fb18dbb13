//! Certificates of real programs: joining by a token, restarts, short lives, a rotation, and masters that are killed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use synego_testkit::http::HttpClient;
use synego_testkit::mesh::Home;
use synego_testkit::program::binary;
use synego_testkit::{Program, fault, load, ports, wait};

/// Of the load over several lives.
const LENGTH: Duration = Duration::from_secs(45);

/// A master and sidecars as programs of their own.
struct Daemons {
    // In this order they end: the folder goes last, when nobody writes into it any more.
    sidecars: Vec<Program>,
    master: Option<Program>,
    ports: [u16; 3],
    life: &'static str,
    home: Home,
}

impl Daemons {
    fn start(life: &'static str) -> Self {
        let ports = [ports::free(), ports::free(), ports::free()];
        let mut daemons = Self { sidecars: Vec::new(), master: None, ports, life, home: Home::default() };
        daemons.start_master();
        daemons
    }

    fn start_master(&mut self) {
        let [ingress, mesh, admin] = self.ports.map(|port| port.to_string());
        let args = ["--ingress", &ingress, "--mesh", &mesh, "--admin", &admin];
        let mut variables = self.home.variables();
        variables.insert("SYNEGO_CERTIFICATE_LIFE".into(), self.life.into());
        let logs = self.home.path().join("logs");
        let program = binary("synego-master");
        self.master = Some(Program::start("master", &program, args, self.home.path(), &variables, &logs));
    }

    fn kill_master(&mut self) {
        let mut master = self.master.take().expect("a master");
        fault::kill(master.pid());
        assert!(!master.wait(Duration::from_secs(5)).success(), "the fault took place");
    }

    /// A sidecar with a service of Node.js; returns the port of its outbound.
    fn start_sidecar(&mut self, instance: &str, token: Option<&Path>) -> u16 {
        let outbound = ports::free();
        let (service, _) = instance.split_once('-').expect("name-number");
        let mut args: Vec<String> = ["--service", service, "--instance", instance, "--inbound", "0", "--admin", "0"]
            .map(str::to_owned)
            .to_vec();
        args.extend(["--outbound".into(), outbound.to_string(), "--route".into(), format!("/{service}")]);
        args.extend(["--uses".into(), "users".into()]);
        args.extend(["--master".into(), format!("127.0.0.1:{}", self.ports[1])]);
        if let Some(token) = token {
            args.extend(["--token-file".into(), token.display().to_string()]);
        }
        let server = synego_testkit::program::root().join("examples/hello/server.js");
        args.extend(["--".into(), "node".into(), server.display().to_string()]);
        let logs = self.home.path().join("logs");
        let variables = self.home.variables();
        let program = binary("synego-sidecar");
        self.sidecars.push(Program::start(instance, &program, &args, self.home.path(), &variables, &logs));
        outbound
    }

    fn token(&self) -> PathBuf {
        self.home.token()
    }

    fn json(&self, args: &[&str]) -> Result<Value, String> {
        let all: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let output = self.home.synego(&all);
        serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What `synego identity` says of one instance.
    fn identity(&self, instance: &str) -> Result<Value, String> {
        let answer = self.json(&["identity", instance])?;
        wait::that(answer["items"][0]["id"].is_string(), format!("{answer}"))?;
        Ok(answer["items"][0].clone())
    }

    async fn enrolled(&self, instance: &str) -> Value {
        wait::until("its identity", Duration::from_secs(20), || async { self.identity(instance) }).await
    }

    async fn rotated(&self) -> Value {
        wait::until("the end of the rotation", Duration::from_secs(60), || async {
            let status = self.json(&["ca", "status"])?["items"][0].clone();
            wait::that(status["step"] == "idle", format!("{status}"))?;
            Ok(status)
        })
        .await
    }

    fn ingress(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    async fn answers(&self, path: &str) {
        let client = HttpClient::default();
        wait::until("an answer by way of the ingress", Duration::from_secs(20), || async {
            let answer = client.get(&self.ingress(path)).await?;
            wait::that(answer.status.is_success(), answer.text())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_joins_by_a_token_once_and_comes_back_without() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    mesh.start_sidecar("users-1", Some(&token));
    let first = mesh.enrolled("users-1").await;
    mesh.answers("/users").await;
    assert!(first["id"].as_str().is_some_and(|id| id.ends_with("/svc/users")), "{first}");
    fs::remove_file(&token).expect("removed");
    let kept: Vec<PathBuf> = kept(&mesh.home.path().join("state"));
    assert!(!kept.is_empty(), "something is kept");
    for file in &kept {
        assert_eq!(fs::metadata(file).expect("there").permissions().mode() & 0o077, 0, "{}", file.display());
    }
    let mut sidecar = mesh.sidecars.remove(0);
    fault::kill(sidecar.pid());
    let _killed = sidecar.wait(Duration::from_secs(5));
    mesh.start_sidecar("users-1", None);
    mesh.answers("/users").await;
    assert_eq!(mesh.enrolled("users-1").await["serial"], first["serial"]);
}

/// All files below a folder.
fn kept(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").filter_map(Result::ok);
    entries.flat_map(|entry| if entry.path().is_dir() { kept(&entry.path()) } else { vec![entry.path()] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn join_token_used_twice_is_refused_and_never_logged() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    let secret = fs::read_to_string(&token).expect("readable").trim().rsplit('.').next().expect("a secret").to_owned();
    mesh.start_sidecar("users-1", Some(&token));
    mesh.enrolled("users-1").await;
    mesh.start_sidecar("orders-1", Some(&token));
    let mut second = mesh.sidecars.remove(1);
    assert!(!second.wait(Duration::from_secs(20)).success());
    let said = second.output();
    assert!(said.contains("has been used already, by users-1@vm1") && said.contains("synego token create"), "{said}");
    mesh.start_sidecar("inventory-1", None);
    let mut third = mesh.sidecars.remove(1);
    assert!(!third.wait(Duration::from_secs(20)).success());
    assert!(third.output().contains("--token-file"), "{}", third.output());
    for file in kept(mesh.home.path()).iter().filter(|file| **file != token) {
        let text = fs::read(file).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains(&secret), "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_master_on_the_same_store_is_told_so() {
    let mesh = Daemons::start("3600s");
    let _up = mesh.token();
    let mut second = mesh.home.start("synego-master", &["--ingress", "0", "--mesh", "0", "--admin", "0"]);
    assert!(!second.wait(Duration::from_secs(20)).success());
    assert!(second.output().contains("in use by another process"), "{}", second.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn short_lives_a_rotation_and_a_killed_master_fail_no_request() {
    let mut mesh = Daemons::start("24s");
    let (one, two) = (mesh.token(), mesh.token());
    mesh.start_sidecar("users-1", Some(&one));
    let outbound = mesh.start_sidecar("orders-1", Some(&two));
    let first = mesh.enrolled("users-1").await;
    mesh.enrolled("orders-1").await;
    mesh.answers("/orders").await;
    let peer = format!("http://127.0.0.1:{outbound}/");
    let client = HttpClient::default();
    wait::until("a peer answers", Duration::from_secs(20), || async {
        let answer = client.request("GET", &peer, &[("host", "users")], "").await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;
    // By way of the sidecars alone: the master's own ingress ends with it.
    let load = tokio::spawn(async move { calls(&peer, LENGTH).await });
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _begun = mesh.json(&["ca", "rotate", "--fast", "-y"]).expect("a rotation");
    tokio::time::sleep(Duration::from_millis(700)).await;
    mesh.kill_master();
    // As long as a certificate lives on, at the least, when its renewal is due.
    tokio::time::sleep(Duration::from_secs(10)).await;
    mesh.start_master();
    let done = mesh.rotated().await;
    assert_eq!(done["roots"].as_array().map(Vec::len), Some(1), "{done}");
    let failures = load.await.expect("the load");
    assert!(begun.elapsed() >= LENGTH, "several renewals");
    assert_eq!(failures, Vec::<String>::new());
    for instance in ["users-1", "orders-1"] {
        let now = mesh.enrolled(instance).await;
        assert_ne!(now["serial"], first["serial"]);
        assert_eq!(now["issuer"], done["roots"][0]["fingerprint"], "{now}");
        let refused = now["refused"].as_array().expect("a list");
        assert!(refused.iter().all(|one| one["cause"] != "expired" && one["cause"] != "own_expired"), "{now}");
    }
}

/// Calls one after the other, as fast as they are answered; returns those that failed.
async fn calls(url: &str, length: Duration) -> Vec<String> {
    let client = HttpClient::default();
    let begun = Instant::now();
    let mut failures = Vec::new();
    while begun.elapsed() < length {
        // A connection of its own each time would only measure handshakes; the pool of the sidecar makes them as it needs.
        match client.request("GET", url, &[("host", "users")], "").await {
            Ok(answer) if answer.status.is_success() => {}
            other => failures.push(format!("after {:?}: {other:?}", begun.elapsed())),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_under_load_at_the_ingress_fails_no_request() {
    let mut mesh = Daemons::start("3600s");
    let token = mesh.token();
    mesh.start_sidecar("users-1", Some(&token));
    mesh.enrolled("users-1").await;
    mesh.answers("/users").await;
    let url = mesh.ingress("/users");
    let load = tokio::spawn(async move { load::gets(&url, 100, Duration::from_secs(12)).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _begun = mesh.json(&["ca", "rotate", "--fast", "-y"]).expect("a rotation");
    let done = mesh.rotated().await;
    let report = load.await.expect("the load");
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    assert_eq!(mesh.enrolled("users-1").await["issuer"], done["roots"][0]["fingerprint"]);
}
