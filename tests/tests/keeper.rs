//! The keeper with the real programs: the part that proxies is killed and replaced under load, and processes, ports and
//! clients are none the worse.
//!
//! Sizes are small by default; `SYNEGO_KILLS`, `SYNEGO_RATE` (requests a second) and `SYNEGO_REQUESTS` make them those of
//! a soak.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use synego_testkit::http::HttpClient;
use synego_testkit::load::{Ask, Load, Report};
use synego_testkit::mesh::Home;
use synego_testkit::program::{self, Program};
use synego_testkit::{Daemons, Mesh, fault, ports, wait};

const SOON: Duration = Duration::from_secs(10);
/// Longest time in which nothing is answered while a part is started again.
const GAP: Duration = Duration::from_millis(500);

fn number(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn gets(rate: u32, url: &str) -> Load {
    Load::start(rate, vec![Ask { method: "GET", url: url.to_owned(), body: "" }])
}

/// The longest time in which no answer came.
fn gap(report: &Report) -> Duration {
    let mut ends: Vec<Duration> = report.latencies.iter().map(|(at, latency)| *at + *latency).collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// The one part that serves, which is another one than `former`.
async fn part(keeper: u32, former: u32) -> u32 {
    wait::until("a part", SOON, || async {
        match fault::parts(keeper)[..] {
            [only] if only != former => Ok(only),
            ref other => Err(format!("{other:?}, formerly {former}")),
        }
    })
    .await
}

/// Kills the part of a keeper again and again, each time once the next one has answered.
async fn kill_again_and_again(keeper: u32, load: &Load) {
    let mut former = 0;
    for _ in 0..number("SYNEGO_KILLS", 3) {
        let now = part(keeper, former).await;
        load.more(60).await;
        fault::kill(now);
        former = now;
        load.more(60).await;
    }
}

fn service_of(keeper: u32) -> Vec<(u32, String)> {
    fault::children(keeper).into_iter().filter(|(_, name)| !name.starts_with("synego")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_part_of_a_sidecar_comes_back_while_its_process_lives_and_nobody_is_refused() {
    let mesh = Daemons::start("3600s");
    let (sidecar, at) = mesh.sidecar("users-1", Some(&mesh.token()));
    mesh.answers("/users").await;
    let before = service_of(sidecar.pid());
    assert_eq!(before.len(), 1, "{before:?}");

    // The outbound of the sidecar itself: what its own service calls.
    let own = format!("http://127.0.0.1:{}/users", at.outbound);
    let (load, outer) = (gets(number("SYNEGO_RATE", 150), &mesh.ingress("/users")), gets(20, &own));
    kill_again_and_again(sidecar.pid(), &load).await;
    let (report, outer) = (load.stop().await, outer.stop().await);

    assert_eq!(service_of(sidecar.pid()), before, "the process is the same");
    println!("{} requests, {} failed, gap {:?}", report.sent, report.failures.len(), gap(&report));
    let refused = |report: &Report| {
        let is_refused = |(_, why): &&(Duration, String)| why.contains("refused") || why.contains("connect_failed");
        report.failures.iter().filter(is_refused).cloned().collect::<Vec<_>>()
    };
    assert_eq!((refused(&report), refused(&outer)), (Vec::new(), Vec::new()));
    assert!(gap(&report) <= GAP, "{:?}: {:?}", gap(&report), report.failures);
    let own = fault::own_bytes(sidecar.pid());
    println!("the keeper has {} KiB for itself", own / 1024);
    assert!((1..=3 << 20).contains(&own), "{own} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_second_instance_no_get_fails_when_a_part_is_killed() {
    let mesh = Daemons::start("3600s");
    let (one, _) = mesh.sidecar("users-1", Some(&mesh.token()));
    let (two, _) = mesh.sidecar("users-2", Some(&mesh.token()));
    mesh.answers("/users").await;
    both_answer(&mesh.ingress("/users"), &[&one, &two]).await;
    let load = gets(number("SYNEGO_RATE", 150), &mesh.ingress("/users"));
    kill_again_and_again(one.pid(), &load).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

/// Waits until answers came from the processes of all of these.
async fn both_answer(url: &str, of: &[&Program]) {
    let client = HttpClient::default();
    for program in of {
        wait::until("its answer", SOON, || async {
            let text = client.request("GET", url, &[], "").await?.text();
            let found = service_of(program.pid()).iter().any(|(pid, _)| text.contains(&pid.to_string()));
            wait::that(found, text)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_keeper_is_killed_nothing_of_its_program_is_left() {
    let mesh = Daemons::start("3600s");
    let (mut sidecar, _) = mesh.sidecar("users-1", Some(&mesh.token()));
    mesh.answers("/users").await;
    let all: Vec<u32> = fault::children(sidecar.pid()).into_iter().map(|(pid, _)| pid).collect();
    assert!(all.len() >= 2, "a part and a process: {all:?}");
    fault::kill(sidecar.pid());
    sidecar.wait(SOON);
    wait::until("nothing is left", SOON, || async {
        wait::that(!all.iter().any(|pid| fault::is_alive(*pid)), format!("{all:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_with_the_code_of_its_part_and_drains_before() {
    let mesh = Daemons::start("3600s");
    let (mut sidecar, _) = mesh.sidecar("users-1", Some(&mesh.token()));
    mesh.answers("/users").await;
    let service = service_of(sidecar.pid());
    let status = sidecar.stop(Duration::from_secs(20));
    // Node.js ends by the TERM that it was sent.
    assert_eq!(status.code(), Some(143), "{}", sidecar.output());
    assert!(service.iter().all(|(pid, _)| !fault::is_alive(*pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_part_of_up_comes_back_with_all_its_services_as_they_are() {
    let script = program::root().join("examples/hello/server.js").display().to_string();
    let manifest = format!(
        "mesh: kept\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\n\
         services:\n  front: {{ run: [node, {script}], instances: 2, routes: [/], uses: [back] }}\n  \
         back: {{ run: [node, {script}] }}\n"
    );
    let mesh = Mesh::of(&manifest).await;
    let scaled = mesh.synego(&["scale", "back=2"]);
    assert!(scaled.status.success(), "{}", String::from_utf8_lossy(&scaled.stderr));
    let pids = || {
        let mut all = mesh.pids("front");
        all.extend(mesh.pids("back"));
        all.sort();
        all
    };
    wait::until("four processes", SOON, || async { wait::that(pids().len() == 4, format!("{:?}", pids())) }).await;
    let (before, keeper) = (pids(), mesh.up.pid());
    let nginx = fault::children(keeper).into_iter().find(|(_, name)| name == "nginx");

    assert!(mesh.synego(&["drain", "back-2@vm1", "-y"]).status.success());
    let drained = || {
        let all = mesh.instances("back");
        all.iter().find(|one| one["instance"] == "back-2@vm1").map(|one| one["state"].clone()).unwrap_or_default()
    };
    assert_eq!(drained(), "draining");

    let load = gets(number("SYNEGO_RATE", 100), &mesh.url("/"));
    kill_again_and_again(keeper, &load).await;
    let report = load.stop().await;
    println!("{} requests, {} failed, gap {:?}", report.sent, report.failures.len(), gap(&report));

    wait::until("it is drained as before", SOON, || async {
        wait::that(drained() == "draining", drained().to_string())
    })
    .await;
    wait::until("the same processes", SOON, || async { wait::that(pids() == before, format!("{:?}", pids())) }).await;
    let refused: Vec<_> = report.failures.iter().filter(|(_, why)| why.contains("refused")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(fault::children(keeper).into_iter().find(|(_, name)| name == "nginx"), nginx);
    // The command line finds it as before.
    let status = mesh.try_json(&["status"]).expect("the status");
    assert_eq!(status["items"].as_array().map(Vec::len), Some(2), "{status}");
}

/// Our program in a file of its own, which can be replaced.
fn own_binary(home: &Home, name: &str) -> PathBuf {
    let folder = home.path().join("bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(name);
    replace(&file, name);
    file
}

/// Puts a fresh copy in its place, as an installer does.
fn replace(file: &Path, name: &str) {
    let fresh = file.with_extension("new");
    std::fs::copy(program::binary(name), &fresh).expect("a copy");
    std::fs::rename(&fresh, file).expect("in its place");
}

fn start(home: &Home, binary: &Path, args: &[String]) -> Program {
    let name = binary.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Program::start(name, binary, args, home.path(), &home.variables(), &home.path().join("logs"))
}

/// Replaces the file of a program and the program, and waits until keeper and part are the new one.
async fn upgrade(program: &Program, file: &Path, name: &str) {
    use std::os::unix::fs::MetadataExt as _;
    let former = fault::parts(program.pid());
    replace(file, name);
    let inode = std::fs::metadata(file).expect("the file").ino();
    program.signal(Signal::USR2);
    wait::until("the newer program", Duration::from_secs(20), || async {
        let of = |pid: u32| std::fs::metadata(format!("/proc/{pid}/exe")).map(|found| found.ino()).unwrap_or_default();
        let now = fault::parts(program.pid());
        let last = now.last().copied().unwrap_or_default();
        let is_new = of(program.pid()) == inode && of(last) == inode && !former.contains(&last);
        wait::that(is_new, format!("{former:?} {now:?}: {}", program.output()))
    })
    .await;
}

struct Rolling {
    // The folder goes last.
    sidecars: Vec<Program>,
    master: Program,
    files: [PathBuf; 2],
    ingress: u16,
    _home: Home,
}

/// A master and sidecars, each from a binary that can be replaced.
async fn rolling(instances: u32) -> Rolling {
    let home = Home::default();
    let files = ["synego-master", "synego-sidecar"].map(|name| own_binary(&home, name));
    let [ingress, mesh, admin] = [(); 3].map(|()| ports::free());
    let line = format!("--ingress {ingress} --mesh {mesh} --admin {admin}");
    let master = start(&home, &files[0], &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let script = program::root().join("tests/fixtures/reload/socket.mjs").display().to_string();
    let sidecars = (1..=instances).map(|number| {
        let token = home.token().display().to_string();
        let line = format!(
            "--service users --instance users-{number} --inbound 0 --outbound 0 --admin 0 --route /users --master \
             127.0.0.1:{mesh} --token-file {token} -- node {script}"
        );
        start(&home, &files[1], &line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    let sidecars: Vec<Program> = sidecars.collect();
    let url = format!("http://127.0.0.1:{ingress}/users");
    both_answer(&url, &sidecars.iter().collect::<Vec<_>>()).await;
    Rolling { sidecars, master, files, ingress, _home: home }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_upgrade_of_sidecars_and_master_fails_nothing_and_streams_live_on() {
    let mesh = rolling(2).await;
    let services: Vec<_> = mesh.sidecars.iter().map(|sidecar| service_of(sidecar.pid())).collect();
    let socket_url = format!("ws://127.0.0.1:{}/users", mesh.ingress);
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(synego_testkit::socket::Socket::connect(&socket_url).await.expect("a socket"));
    }
    let url = format!("http://127.0.0.1:{}/users", mesh.ingress);
    let kinds = vec![
        Ask { method: "GET", url: url.clone(), body: "" },
        Ask { method: "POST", url, body: r#"{"text":"so much"}"# },
    ];
    let load = Load::start(number("SYNEGO_RATE", 200), kinds);
    load.more(100).await;
    for sidecar in &mesh.sidecars {
        upgrade(sidecar, &mesh.files[1], "synego-sidecar").await;
        load.more(100).await;
    }
    upgrade(&mesh.master, &mesh.files[0], "synego-master").await;
    let wanted = number("SYNEGO_REQUESTS", 0) as usize;
    load.more(100).await;
    let begun = Instant::now();
    while load.answered() < wanted && begun.elapsed() < Duration::from_secs(300) {
        load.more(wanted.saturating_sub(load.answered()).min(1000)).await;
    }
    let report = load.stop().await;
    println!("{} requests, p99 {:?}, slowest {:?}", report.sent, report.quantile(0.99), report.quantile(1.0));
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    for socket in &mut sockets {
        socket.send("still").await.expect("it is open");
        assert_eq!(socket.receive().await.as_deref(), Ok("still"));
    }
    let now: Vec<_> = mesh.sidecars.iter().map(|sidecar| service_of(sidecar.pid())).collect();
    assert_eq!(now, services, "the processes are the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_program_that_does_not_come_up_changes_nothing() {
    let mesh = rolling(1).await;
    let sidecar = &mesh.sidecars[0];
    let url = format!("http://127.0.0.1:{}/users", mesh.ingress);
    let load = gets(50, &url);
    load.more(20).await;
    let (parts, services) = (fault::parts(sidecar.pid()), service_of(sidecar.pid()));
    let broken = mesh.files[1].with_extension("broken");
    std::fs::write(&broken, "#!/bin/sh\nexit 9\n").expect("a program");
    std::fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    std::fs::rename(&broken, &mesh.files[1]).expect("in its place");
    sidecar.signal(Signal::USR2);
    wait::until("the cause", SOON, || async {
        let said = sidecar.output();
        wait::that(said.contains("the former one serves on: it ended with code 9"), said)
    })
    .await;
    load.more(20).await;
    assert_eq!((fault::parts(sidecar.pid()), service_of(sidecar.pid())), (parts, services));
    assert_eq!(load.stop().await.failures, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_up_keeps_its_processes_its_streams_and_the_manifest_in_force() {
    let home = Home::default();
    let (file, port) = (own_binary(&home, "synego"), ports::free());
    let script = program::root().join("tests/fixtures/reload/socket.mjs").display().to_string();
    let write = |timeout: &str| {
        let text = format!(
            "mesh: kept\ngateway: {{ listen: {port} }}\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\nservices:\n  users: \
             {{ run: [node, {script}], instances: 2, routes: [/users], policy: {{ timeout: {timeout} }} }}\n"
        );
        std::fs::write(home.path().join("synego.yaml"), text).expect("the manifest");
    };
    let json = |args: &[&str]| -> Result<serde_json::Value, String> {
        let said = home.synego(&[&["-o", "json"], args].concat());
        serde_json::from_slice(&said.stdout).map_err(|_| String::from_utf8_lossy(&said.stderr).into_owned())
    };
    let ready = || async {
        wait::until("both are ready", SOON * 2, || async {
            let users = json(&["status", "users"])?["items"][0].clone();
            wait::that(users["ready"] == 2, users.to_string())?;
            let mut pids: Vec<u64> =
                users["instances"].as_array().into_iter().flatten().filter_map(|one| one["pid"].as_u64()).collect();
            pids.sort_unstable();
            wait::that(pids.len() == 2 && !pids.contains(&0), users.to_string())?;
            Ok(pids)
        })
        .await
    };
    write("8s");
    let up = start(&home, &file, &["up".to_owned()]);
    let before = ready().await;
    write("7s");
    assert!(home.synego(&["apply", "-y"]).status.success());
    // Nobody has applied this one.
    write("9s");
    let mut socket =
        synego_testkit::socket::Socket::connect(&format!("ws://127.0.0.1:{port}/users")).await.expect("one");
    let load = gets(number("SYNEGO_RATE", 100), &format!("http://127.0.0.1:{port}/users"));
    load.more(50).await;
    upgrade(&up, &file, "synego").await;
    load.more(50).await;
    assert_eq!(ready().await, before, "the processes are the same");
    let planned = json(&["plan"]).expect("a plan");
    let timeout =
        planned["items"].as_array().into_iter().flatten().find(|item| item["path"] == "services.users.policy.timeout");
    let timeout = timeout.unwrap_or_else(|| panic!("{planned}"));
    assert_eq!((&timeout["before"], &timeout["after"]), (&"7s".into(), &"9s".into()), "{planned}");
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    socket.send("still").await.expect("it is open");
    assert_eq!(socket.receive().await.as_deref(), Ok("still"));
}
