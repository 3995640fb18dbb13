//! What is left when the programs of a mesh are killed: nothing, wherever the processes of a service went.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use synego_testkit::http::HttpClient;
use synego_testkit::mesh::Home;
use synego_testkit::program::{Program, binary, variable_of};
use synego_testkit::{Daemons, Mesh, fault, program, stat, wait};

fn fixture(name: &str) -> String {
    program::root().join("tests/fixtures/reload").join(name).display().to_string()
}

/// All processes that live and were started for this home, by us or by what we started.
fn left(home: &Home) -> Vec<String> {
    let folder = home.path().join("run").display().to_string();
    let ours = |pid: u32| variable_of(pid, "SYNEGO_RUNTIME_DIR").is_some_and(|own| own == folder);
    let name = |pid: u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid} {}", String::from_utf8_lossy(&words).replace('\0', " "))
    };
    stat::all().filter(|found| !found.is_dead() && ours(found.pid)).map(|found| name(found.pid)).collect()
}

async fn nothing_is_left(home: &Home) {
    wait::until("no process is left", Duration::from_secs(5), || async {
        let left = left(home);
        wait::that(left.is_empty(), left.join("\n"))
    })
    .await;
}

/// One that is killed has lost its variables a moment before it is gone.
async fn gone(pid: u32) {
    wait::until("it is gone", Duration::from_secs(5), || async { wait::that(!fault::is_alive(pid), "it lives") }).await;
}

fn daemons(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

async fn daemon_of(file: &Path, count: usize) -> u32 {
    wait::until("the daemon runs", Duration::from_secs(20), || async {
        let all = daemons(file);
        wait::that(all.len() >= count, format!("{all:?}"))?;
        all.last().copied().filter(|pid| fault::is_alive(*pid)).ok_or_else(|| format!("{all:?}"))
    })
    .await
}

/// A mesh of a service that starts a daemon, and of one in Node.js started by a shell; with the file of daemons.
async fn mesh() -> (Mesh, PathBuf) {
    let mesh = Mesh::of(&format!(
        "mesh: orphans\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: \
         \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  daemon: {{ run: [python3, {}], env: {{ DAEMONS: \
         daemons }}, routes: [/], stop: 4s }}\n  wrapped: {{ run: [sh, -c, \"node {}; true\"], routes: [/wrapped] }}\n",
        fixture("daemon.py"),
        program::root().join("examples/hello/server.js").display()
    ))
    .await;
    let file = mesh.home.path().join("manifest/daemons");
    (mesh, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_synego_up_leaves_no_process_and_the_next_one_starts_clean() {
    let (mut mesh, file) = mesh().await;
    let daemon = daemon_of(&file, 1).await;
    assert!(left(&mesh.home).len() >= 5, "{:#?}", left(&mesh.home));
    fault::kill(mesh.up.pid());
    assert!(!mesh.up.wait(Duration::from_secs(5)).success(), "the fault took place");
    nothing_is_left(&mesh.home).await;
    gone(daemon).await;

    let begun = Instant::now();
    mesh.begin_again();
    mesh.ready().await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(mesh.up.output().lines().all(|line| !line.starts_with("error")), "{}", mesh.up.output());
    let answer = HttpClient::default().get(&mesh.url("/work")).await.expect("an answer");
    assert!(answer.status.is_success(), "{}", answer.text());
    // Ended in order, the daemon is ended too.
    let daemon = daemon_of(&file, 2).await;
    assert!(mesh.synego(&["down", "-y"]).status.success());
    mesh.up.wait(Duration::from_secs(20));
    assert!(!fault::is_alive(daemon));
    assert_eq!(left(&mesh.home), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reloaded_service_takes_its_daemon_along_and_leaves_no_zombie() {
    let (mesh, file) = mesh().await;
    let former = daemon_of(&file, 1).await;
    assert!(mesh.try_json(&["reload", "daemon"]).is_ok());
    let daemon = daemon_of(&file, 2).await;
    assert!(!fault::is_alive(former) && fault::is_alive(daemon));
    let up = mesh.up.pid();
    wait::until("no zombie", Duration::from_secs(5), || async {
        let dead: Vec<u32> = stat::all().filter(|one| one.parent == up && one.is_dead()).map(|one| one.pid).collect();
        wait::that(dead.is_empty(), format!("{dead:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_lives_on_when_the_part_that_proxies_is_killed_and_ends_with_its_service_all_the_same() {
    let (mut mesh, file) = mesh().await;
    let first = daemon_of(&file, 1).await;
    let keeper = mesh.up.pid();
    let killed = fault::parts(keeper)[0];
    fault::kill(killed);
    wait::until("the next part serves", Duration::from_secs(10), || async {
        wait::that(fault::parts(keeper).iter().any(|part| *part != killed), "none")?;
        mesh.try_json(&["status", "daemon"]).map(|_| ())
    })
    .await;
    mesh.ready().await;
    assert_eq!(daemons(&file), [first], "nothing was started again");
    assert!(fault::is_alive(first));
    // The next part knows whose it is.
    assert!(mesh.try_json(&["reload", "daemon"]).is_ok());
    let second = daemon_of(&file, 2).await;
    assert!(!fault::is_alive(first));
    // And what the keeper inherited ends with it too.
    fault::kill(keeper);
    assert!(!mesh.up.wait(Duration::from_secs(5)).success(), "the fault took place");
    nothing_is_left(&mesh.home).await;
    gone(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_sidecar_leaves_nothing_of_its_service() {
    let mesh = Daemons::start("600s");
    let (token, address) = (mesh.token().display().to_string(), mesh.mesh_address());
    let file = mesh.home.path().join("daemons");
    let mut variables = mesh.home.variables();
    variables.insert("DAEMONS".into(), file.display().to_string());
    let script = fixture("daemon.py");
    let args =
        ["--service", "daemon", "--master", &address, "--token-file", &token, "--inbound", "0", "--outbound", "0"];
    let args = [&args[..], &["--admin", "0", "--", "python3", &script]].concat();
    let logs = mesh.home.path().join("logs");
    let mut sidecar = Program::start("daemon-1", &binary("synego-sidecar"), args, mesh.home.path(), &variables, &logs);
    let daemon = daemon_of(&file, 1).await;
    fault::kill(sidecar.pid());
    assert!(!sidecar.wait(Duration::from_secs(5)).success(), "the fault took place");
    gone(daemon).await;
    let left = left(&mesh.home);
    assert!(left.iter().all(|one| !one.contains("python3")), "{left:#?}");
}
