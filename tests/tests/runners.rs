//! The mesh under runners that are not ours: PM2 by its command line, systemd by its checks and its notify socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use synego_testkit::mesh::Home;
use synego_testkit::{Program, fault, http, ports, program, wait};

const SHORT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(90);

/// A service that says which variables of its grandparent it got, and lives on while requests are open.
const SERVER: &str = r#"
const http = require("http");
const server = http.createServer((q, r) => setTimeout(() => r.end(JSON.stringify({
  instance: process.env.SYNEGO_INSTANCE,
  inherited: ["NOTIFY_SOCKET", "WATCHDOG_USEC", "NODE_CHANNEL_FD"].filter((name) => process.env[name]),
})), 20));
server.listen(process.env.PORT, "127.0.0.1");
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"#;

struct Place {
    home: Home,
    folder: PathBuf,
    variables: BTreeMap<String, String>,
    ingress: u16,
}

impl Place {
    fn new() -> Self {
        let home = Home::default();
        let folder = home.path().join("shop");
        fs::create_dir(&folder).expect("a folder");
        let [ingress, mesh, admin] = [(); 3].map(|()| ports::free());
        let manifest = format!(
            "mesh: shop\nidentity: {{ mtls: off }}\nmasters: {{ ingress: {ingress}, mesh: {mesh}, admin: {admin} }}\n\
             services:\n  web: {{ run: node server.js, instances: 2, routes: [/] }}\n"
        );
        fs::write(folder.join("synego.yaml"), manifest).expect("the manifest");
        fs::write(folder.join("server.js"), SERVER).expect("the service");
        let mut variables = home.variables();
        variables.insert("PM2_HOME".into(), home.path().join("pm2").display().to_string());
        Self { home, folder, variables, ingress }
    }

    fn run(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(&self.folder).envs(&self.variables).stdin(Stdio::null());
        command.output().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
    }

    fn synego(&self, args: &[&str]) -> Output {
        self.run(&program::binary("synego"), args)
    }

    async fn both_are_ready(&self) {
        wait::until("both instances are ready", LONG, || async {
            let said = self.synego(&["status", "web", "-o", "json"]);
            let status: Value =
                serde_json::from_slice(&said.stdout).map_err(|_| String::from_utf8_lossy(&said.stderr).into_owned())?;
            wait::that(status["items"][0]["ready"] == 2, status.to_string())
        })
        .await;
    }
}

/// PM2, ended with the test whatever happens.
struct Pm2<'a> {
    place: &'a Place,
    binary: PathBuf,
}

impl<'a> Pm2<'a> {
    fn new(place: &'a Place) -> Self {
        let binary = program::root().join("tests/pm2/node_modules/.bin/pm2");
        assert!(binary.exists(), "PM2 is not there: run `scripts/setup --test`");
        Self { place, binary }
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.place.run(&self.binary, args);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "pm2 {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    /// Process id, state and restarts of each process of this name.
    fn list(&self, name: &str) -> Vec<(u32, String, u64)> {
        let said = self.run(&["jlist"]);
        let all: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let of = |process: &&Value| process["name"] == name;
        let shown = |process: &Value| {
            let pid = u32::try_from(process["pid"].as_u64().unwrap_or(0)).unwrap_or(0);
            let state = process["pm2_env"]["status"].as_str().unwrap_or_default().to_owned();
            (pid, state, process["pm2_env"]["restart_time"].as_u64().unwrap_or(0))
        };
        all.as_array().into_iter().flatten().filter(of).map(shown).collect()
    }
}

impl Drop for Pm2<'_> {
    fn drop(&mut self) {
        let _ended = self.place.run(&self.binary, &["kill"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pm2_runs_the_mesh_and_a_reload_under_load_loses_nothing() {
    let place = Place::new();
    let pm2 = Pm2::new(&place);
    let written = place.synego(&["pm2", "--out", "."]);
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    let started = Instant::now();
    pm2.run(&["start", "ecosystem.config.js"]);
    place.both_are_ready().await;
    // A start ends when the services are ready, not when the time for it is over.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let before = pm2.list("web");
    assert!(before.len() == 2 && before.iter().all(|(_, state, _)| state == "online"), "{before:?}");
    let url = format!("http://127.0.0.1:{}/", place.ingress);
    let answer = http::get(&url).await.expect("an answer").json();
    assert_eq!(answer["inherited"], serde_json::json!([]), "what PM2 says to the sidecar is not for the service");

    let (goes_on, count) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (url, goes_on, count) = (url.clone(), goes_on.clone(), count.clone());
            tokio::spawn(async move {
                let mut failed = Vec::new();
                while goes_on.load(Ordering::Relaxed) {
                    match http::get(&url).await {
                        Ok(answer) if answer.status.as_u16() == 200 => {}
                        Ok(answer) => failed.push(format!("{}: {}", answer.status, answer.text())),
                        Err(error) => failed.push(error),
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
                failed
            })
        })
        .collect();
    let reloading = tokio::task::block_in_place(|| pm2.run(&["reload", "web"]));
    place.both_are_ready().await;
    goes_on.store(false, Ordering::Relaxed);
    let mut failed = Vec::new();
    for client in clients {
        failed.extend(client.await.expect("a client"));
    }
    let asked = count.load(Ordering::Relaxed);
    assert!(failed.is_empty(), "{} of {asked} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert!(asked > 50, "only {asked} requests while it was reloaded: {reloading}");
    let after = pm2.list("web");
    assert!(after.iter().all(|(_, state, restarts)| state == "online" && *restarts == 1), "{after:?}");
    assert!(before.iter().all(|(pid, ..)| after.iter().all(|(other, ..)| pid != other)), "{before:?} {after:?}");

    pm2.run(&["stop", "web"]);
    wait::until("its processes are gone", SHORT, || async {
        wait::that(after.iter().all(|(pid, ..)| !fault::is_alive(*pid)), format!("{after:?}"))
    })
    .await;
    let said = place.synego(&["pm2", "--out", "."]);
    assert_eq!(said.status.code(), Some(0), "its own file is written over");
    fs::write(place.folder.join("ecosystem.config.js"), "module.exports = {}").expect("somebody's file");
    let said = place.synego(&["pm2", "--out", "."]);
    assert_eq!(said.status.code(), Some(1), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn systemd_takes_the_units() {
    let place = Place::new();
    let units = place.home.path().join("units");
    let out = units.display().to_string();
    let written = place.synego(&["systemd", "--out", &out, "--user", "daemon"]);
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    let mut names: Vec<String> = fs::read_dir(&units)
        .expect("the units")
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    assert_eq!(names, ["shop-master.service", "shop-web@.service", "shop.target"]);
    let paths: Vec<String> = names.iter().map(|name| units.join(name).display().to_string()).collect();
    let checked = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&paths)
        .env("SYSTEMD_UNIT_PATH", format!("{out}:"))
        .output()
        .expect("systemd-analyze runs");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("shop")).collect();
    assert!(checked.status.success() && of_ours.is_empty(), "{said}");
}

#[test]
fn what_has_no_counterpart_is_said() {
    let place = Place::new();
    let manifest = fs::read_to_string(place.folder.join("synego.yaml")).expect("the manifest");
    let more = "  jobs: { run: node server.js, build: make, env_file: [jobs.env], after: [web], routes: [] }\ngateway: { listen: 8099 }\n";
    fs::write(place.folder.join("synego.yaml"), manifest + more).expect("the manifest");
    fs::write(place.folder.join("jobs.env"), "A=1\n").expect("variables");
    let pm2 = place.synego(&["pm2"]);
    let said = String::from_utf8_lossy(&pm2.stderr).into_owned();
    assert_eq!(pm2.status.code(), Some(1), "{said}");
    for key in ["services.jobs.build", "services.jobs.env_file", "services.jobs.after", "gateway"] {
        assert!(said.contains(&format!("no counterpart: {key}: ")), "{key}: {said}");
    }
    let systemd = place.synego(&["systemd"]);
    let said = String::from_utf8_lossy(&systemd.stderr).into_owned();
    assert!(said.contains("services.jobs.build") && !said.contains("services.jobs.after"), "{said}");
    let units = String::from_utf8_lossy(&systemd.stdout).into_owned();
    assert!(
        units.contains("After=network-online.target shop-master.service shop-web@1.service shop-web@2.service"),
        "{units}"
    );
    assert!(units.contains("EnvironmentFile="), "{units}");
}

#[test]
fn the_form_of_lines_and_what_may_be_open_are_handed_to_the_sidecars() {
    let place = Place::new();
    let manifest = fs::read_to_string(place.folder.join("synego.yaml")).expect("the manifest");
    let more = "  jobs: { run: node server.js, logs: { format: text }, files: 4096, pass_env: [LANG], routes: [] }\n";
    fs::write(place.folder.join("synego.yaml"), manifest + more).expect("the manifest");
    let text = |of: &[&str]| String::from_utf8_lossy(&place.synego(of).stdout).into_owned();
    let pm2 = text(&["pm2"]);
    assert!(pm2.contains("--log-format") && pm2.contains("--files"), "{pm2}");
    assert_eq!(pm2.matches("--log-format").count(), 1, "{pm2}");
    let units = text(&["systemd"]);
    assert!(units.contains("--log-format text") && units.contains("LimitNOFILE=4096"), "{units}");
    assert!(units.contains("--pass-env LANG"), "{units}");
}

/// What a program says to a notify socket.
struct Heard(UnixDatagram);

impl Heard {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(LONG)).expect("a limit");
        Self(socket)
    }

    /// The next word that is not of the watchdog, and how often that was heard before.
    fn next(&self) -> (String, usize) {
        let mut beats = 0;
        loop {
            let mut buffer = [0; 256];
            let length = self.0.recv(&mut buffer).expect("a word in time");
            match String::from_utf8_lossy(&buffer[..length]).into_owned() {
                word if word == "WATCHDOG=1" => beats += 1,
                word => return (word, beats),
            }
        }
    }

    fn beats(&self, count: usize) {
        let mut buffer = [0; 256];
        for _ in 0..count {
            let length = self.0.recv(&mut buffer).expect("a beat in time");
            assert_eq!(&buffer[..length], b"WATCHDOG=1");
        }
    }
}

/// The instances that have lines of exchanges in the files of `folder`.
fn instances_in(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let text: String = files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut all: Vec<String> = lines
        .filter(|line| line["kind"] == "access")
        .map(|line| line["instance"].as_str().unwrap_or_default().to_owned())
        .collect();
    all.sort();
    all.dedup();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_and_a_sidecar_share_a_folder_of_logs_and_open_its_files_anew_on_usr1() {
    let place = Place::new();
    let program = |name: &str, args: &[&str]| {
        let logs = place.home.path().join("logs");
        Program::start(name, &program::binary(name), args, &place.folder, &place.variables, &logs)
    };
    let manifest = fs::read_to_string(place.folder.join("synego.yaml")).expect("the manifest");
    let mesh = manifest.split("mesh: ").nth(2).and_then(|rest| rest.split(',').next()).expect("the mesh port");
    let master = program("synego-master", &[]);
    let address = format!("127.0.0.1:{mesh}");
    let args = ["--service", "web", "--mesh", "shop", "--master", &address, "--mtls", "off", "--inbound", "0"];
    let more = ["--outbound", "0", "--admin", "0", "--", "node", "server.js"];
    let sidecar = program("synego-sidecar", &[&args[..], &more[..]].concat());
    let url = format!("http://127.0.0.1:{}/", place.ingress);
    let logs = place.home.path().join("state/shop/logs");
    let both = ["master@vm1", "web-1@vm1"];
    let asked = |folder: PathBuf| {
        let url = &url;
        async move {
            wait::until("both have written their lines", LONG, || async {
                let answer = http::get(url).await?;
                wait::that(answer.status.as_u16() == 200, answer.text())?;
                let found = instances_in(&folder);
                wait::that(found == both, format!("{found:?}"))
            })
            .await;
        }
    };
    asked(logs.clone()).await;
    let moved = place.home.path().join("moved");
    fs::create_dir(&moved).expect("a folder");
    for file in fs::read_dir(&logs).expect("the folder").flatten() {
        fs::rename(file.path(), moved.join(file.file_name())).expect("moved");
    }
    for pid in [master.pid(), sidecar.pid()] {
        let told = Command::new("kill").args(["-USR1", &pid.to_string()]).status().expect("kill runs");
        assert!(told.success());
    }
    asked(logs).await;
    // What is at hand and what is in files is one to who asks.
    let said = place.synego(&["logs", "--access", "--since", "10m", "-o", "json"]);
    let lines: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let of =
        |name: &str| lines["items"].as_array().expect("items").iter().filter(|line| line["instance"] == name).count();
    assert!(of("master@vm1") >= 2 && of("web-1@vm1") >= 2, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_units_programs_tell_systemd_when_they_are_ready_and_that_they_live() {
    let place = Place::new();
    let said = place.synego(&["systemd", "-o", "json"]);
    let files: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let start = |file: &str, socket: &Path| {
        let items = files["items"].as_array().expect("files");
        let unit =
            items.iter().find(|item| item["file"] == file).expect("the unit")["text"].as_str().expect("its text");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
        let mut variables = place.variables.clone();
        variables.insert("NOTIFY_SOCKET".into(), socket.display().to_string());
        variables.insert("WATCHDOG_USEC".into(), "400000".into());
        variables.insert("SYNEGO_INSTANCE".into(), if file.contains("web") { "web-1".into() } else { String::new() });
        let words: Vec<&str> = line.split(' ').collect();
        let logs = place.home.path().join("logs");
        Program::start("unit", Path::new(words[0]), &words[1..], &place.folder, &variables, &logs)
    };
    let path = |name: &str| place.home.path().join(name);
    let (of_master, of_sidecar) = (Heard::at(&path("master.notify")), Heard::at(&path("sidecar.notify")));
    let mut master = start("shop-master.service", &path("master.notify"));
    let (word, _) = tokio::task::block_in_place(|| of_master.next());
    assert_eq!(word, "READY=1");
    let mut sidecar = start("shop-web@.service", &path("sidecar.notify"));
    let (word, _) = tokio::task::block_in_place(|| of_sidecar.next());
    assert_eq!(word, "READY=1");
    let url = format!("http://127.0.0.1:{}/", place.ingress);
    let answer = wait::until("what is ready answers", SHORT, || async {
        let answer = http::get(&url).await?;
        wait::that(answer.status.as_u16() == 200, answer.text())?;
        Ok(answer.json())
    })
    .await;
    assert_eq!((&answer["instance"], &answer["inherited"]), (&"web-1".into(), &serde_json::json!([])));
    tokio::task::block_in_place(|| {
        of_sidecar.beats(3);
        of_master.beats(3);
    });
    assert!(sidecar.stop(SHORT).code().is_some());
    assert_eq!(tokio::task::block_in_place(|| of_sidecar.next()).0, "STOPPING=1");
    assert!(master.stop(SHORT).success());
    assert_eq!(tokio::task::block_in_place(|| of_master.next()).0, "STOPPING=1");
}
