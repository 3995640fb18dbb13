//! The keeper with the real programs: the part that proxies is killed under load, and processes, ports and clients are
//! none the worse.
//!
//! Sizes are small by default; `SYNEGO_KILLS` and `SYNEGO_RATE` (requests a second) make them those of a soak.

use std::time::Duration;

use synego_testkit::http::HttpClient;
use synego_testkit::load::{Load, Report};
use synego_testkit::{Daemons, Mesh, daemons, fault, program, size, wait};

const SOON: Duration = Duration::from_secs(10);
/// Longest time in which nothing is answered while a part is started again.
const GAP: Duration = Duration::from_millis(500);

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
    for _ in 0..size::of("SYNEGO_KILLS", 3) {
        let now = part(keeper, former).await;
        load.more(60).await;
        fault::kill(now);
        former = now;
        load.more(60).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_part_of_a_sidecar_comes_back_while_its_process_lives_and_nobody_is_refused() {
    let mesh = Daemons::start("3600s");
    let (sidecar, at) = mesh.sidecar("users-1", Some(&mesh.token()));
    mesh.answers("/users").await;
    let before = fault::services(sidecar.pid());
    assert_eq!(before.len(), 1, "{before:?}");

    // The outbound of the sidecar itself: what its own service calls.
    let own = format!("http://127.0.0.1:{}/users", at.outbound);
    let (load, outer) = (Load::gets(size::of("SYNEGO_RATE", 150), &mesh.ingress("/users")), Load::gets(20, &own));
    kill_again_and_again(sidecar.pid(), &load).await;
    let (report, outer) = (load.stop().await, outer.stop().await);

    assert_eq!(fault::services(sidecar.pid()), before, "the process is the same");
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
    daemons::all_answer(&mesh.ingress("/users"), &[&one, &two]).await;
    let load = Load::gets(size::of("SYNEGO_RATE", 150), &mesh.ingress("/users"));
    kill_again_and_again(one.pid(), &load).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
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
    let service = fault::services(sidecar.pid());
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

    let load = Load::gets(size::of("SYNEGO_RATE", 100), &mesh.url("/"));
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

/// Grows by 16 MiB with each request for `/more`, and tells its id.
const GROWS: &str = "\
import http.server, os
held = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/more':
            held.append(b'x' * (16 << 20))
        text = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_may_take_holds_on_after_its_part_was_killed() {
    let manifest = "mesh: kept\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: 0, mesh: 0, admin: 0 }\n\
                    services:\n  fat: { run: [python3, -c, \"${GROWS}\"], routes: [/], memory: 64MiB }\n";
    let mesh = Mesh::of(&manifest.replace("${GROWS}", &GROWS.replace('\n', "\\n"))).await;
    let keeper = mesh.up.pid();
    let before = mesh.pids("fat");
    fault::kill(part(keeper, 0).await);
    let client = HttpClient::default();
    wait::until("the next part answers", SOON, || async {
        let answer = client.get(&mesh.url("/")).await?;
        wait::that(before.iter().any(|(_, pid)| answer.text() == pid.to_string()), answer.text())
    })
    .await;
    wait::until("too much is not allowed", SOON * 2, || async {
        let _may_be_cut = client.get(&mesh.url("/more")).await;
        let now = mesh.pids("fat");
        wait::that(!now.is_empty() && now != before, format!("{now:?}"))
    })
    .await;
    let said = String::from_utf8_lossy(&mesh.synego(&["logs", "fat", "-n", "50"]).stdout).into_owned();
    assert!(said.contains("memory"), "{said}");
}
