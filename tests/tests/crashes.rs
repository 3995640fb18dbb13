//! Services that crash: once, under load, and again and again beside others.
//!
//! Sizes are small by default: `SYNEGO_KILLS` is how often a process is killed at `SYNEGO_RATE` requests a second,
//! `SYNEGO_CRASH_SECONDS` how long a crash loop is watched.

use std::time::{Duration, Instant};

use serde_json::Value;
use synego_testkit::http::HttpClient;
use synego_testkit::load::Load;
use synego_testkit::{Mesh, fault, program, size, stat, wait};

async fn mesh(services: &str) -> Mesh {
    Mesh::of(&manifest(services)).await
}

fn manifest(services: &str) -> String {
    format!(
        "mesh: crashes\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: \
         \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n{services}"
    )
}

fn server() -> String {
    program::root().join("tests/fixtures/reload/plain.py").display().to_string()
}

/// When the gateway first answers with the process `pid`, asked without a pause: a new process begins with a small share.
async fn answered_by(url: &str, pid: u32) -> Instant {
    let client = HttpClient::default();
    let asked = async {
        loop {
            let said: Option<Value> = client.get(url).await.ok().and_then(|got| serde_json::from_str(&got.text()).ok());
            if said.is_some_and(|said| said["pid"] == pid) {
                return Instant::now();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("an answer of the new process within 10 s")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_fails_no_get_and_is_back_in_rotation_within_a_second_of_its_readiness() {
    let (kills, rate) = (size::of("SYNEGO_KILLS", 2), size::of("SYNEGO_RATE", 150));
    // So many ends in a row are a crash loop, whose back-off would become longer than the test.
    let restart = "restart: { max: 1s }, instances: 2";
    let mesh = mesh(&format!("  subject: {{ run: [python3, {}], {restart}, routes: [/] }}\n", server())).await;
    let load = Load::gets(rate, &mesh.url("/work"));
    load.more(50).await;
    let mut slowest = Duration::ZERO;
    for round in 0..kills {
        let before = mesh.instances("subject");
        let victim = before.get(round as usize % 2).cloned().unwrap_or_default();
        let pid = victim["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a process");
        fault::kill(pid);
        wait::until("it is dead", Duration::from_secs(2), || async { wait::that(!fault::is_alive(pid), "alive") })
            .await;
        let (fresh, ready) = wait::until("its new process is ready", Duration::from_secs(20), || async {
            let all = mesh.instances("subject");
            let now = all.iter().find(|now| now["instance"] == victim["instance"] && now["state"] == "ready");
            let found = now.and_then(|now| now["pid"].as_u64()).and_then(|now| u32::try_from(now).ok());
            found.filter(|now| *now != pid).map(|now| (now, Instant::now())).ok_or_else(|| format!("{all:?}"))
        })
        .await;
        let back = answered_by(&mesh.url("/work"), fresh).await;
        slowest = slowest.max(back.duration_since(ready));
        assert!(back.duration_since(ready) <= Duration::from_secs(1), "{:?}", back.duration_since(ready));
        // Some of its past must be over, or it would be a crash loop.
        load.more(rate as usize).await;
    }
    let report = load.stop().await;
    println!(
        "{kills} kills, {} GETs at {rate}/s, {} failed, back within {slowest:?}",
        report.sent,
        report.failures.len()
    );
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

/// CPU that a program used until now, keeper and part, with what they waited for; seconds.
fn cpu(keeper: u32) -> f64 {
    let of = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = text.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>()
    };
    let ticks = of(keeper) + fault::parts(keeper).into_iter().map(of).sum::<u64>();
    ticks as f64 / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_costs_next_to_nothing_and_tells_its_cause_and_last_output() {
    let seconds = size::of("SYNEGO_CRASH_SECONDS", 6);
    let window = Duration::from_secs(seconds.into());
    let load = |mesh: &Mesh| Load::gets(100, &mesh.url("/calm"));
    // The same mesh without the one that crashes, for as long: what is left is what the crashes cost.
    let calm = format!("  calm: {{ run: [python3, {}], routes: [/calm] }}\n", server());
    let quiet = mesh(&calm).await;
    let (running, before) = (load(&quiet), cpu(quiet.up.pid()));
    tokio::time::sleep(window).await;
    let alone = cpu(quiet.up.pid()) - before;
    let alone_report = running.stop().await;
    drop(quiet);

    let script = "date +%s%N >> starts; echo warming up; echo Error: no database >&2; exit 3";
    let crashing = format!("{calm}  crash: {{ run: [sh, -c, \"{script}\"], routes: [/crash] }}\n");
    let noisy = Mesh::begin_with(&manifest(&crashing));
    wait::until("the neighbour is ready", Duration::from_secs(20), || async {
        let state = noisy.instances("calm").first().map(|one| one["state"].clone()).unwrap_or_default();
        wait::that(state == "ready", state.to_string())
    })
    .await;
    let (running, before) = (load(&noisy), cpu(noisy.up.pid()));
    tokio::time::sleep(window).await;
    let beside = cpu(noisy.up.pid()) - before;
    let report = running.stop().await;

    let file = noisy.home.path().join("manifest/starts");
    let starts = std::fs::read_to_string(file).unwrap_or_default().lines().count();
    let share = (beside - alone).max(0.0) / f64::from(seconds);
    println!(
        "{starts} starts in {seconds} s, {:.2} % of a core, neighbour's p99 {:?} alone, {:?} beside it",
        share * 100.0,
        alone_report.quantile(0.99),
        report.quantile(0.99)
    );
    assert!((5..=12).contains(&starts), "{starts} starts");
    assert_eq!(report.failures, [], "of {} requests to the neighbour", report.sent);
    // A share of a core tells something over a minute on a quiet machine, not over seconds of a whole run of tests.
    if seconds >= 60 {
        assert!(share < 0.01, "{share} of a core: {alone} s without, {beside} s with it");
    }

    let shown = String::from_utf8_lossy(&noisy.synego(&["status", "-o", "wide"]).stdout).into_owned();
    assert!(shown.contains("exited with code 3") && shown.contains("Error: no database"), "{shown}");
    let lines = String::from_utf8_lossy(&noisy.synego(&["logs", "crash", "-n", "20"]).stdout).into_owned();
    assert!(lines.contains("warming up") && lines.contains("Error: no database"), "{lines}");
    if seconds >= 10 {
        assert!(shown.contains("crash_loop"), "{shown}");
    }
    let dead = stat::all().filter(|one| one.parent == noisy.up.pid() && one.is_dead()).count();
    assert_eq!(dead, 0, "no zombie is left");
}
