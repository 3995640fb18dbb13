//! Jobs in a mesh of real programs: done, failed, waited for, run once more, and as a program with its own sidecar.
//!
//! `SYNEGO_JOBS` is the number of short jobs of the test on zombies.

use std::time::Duration;

use serde_json::Value;
use synego_testkit::daemons::Daemons;
use synego_testkit::program::{Program, binary};
use synego_testkit::{Mesh, fault, program, stat, wait};

fn head() -> String {
    "mesh: jobs\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: \"${SHOP_INGRESS}\", mesh: \"${SHOP_MESH}\", \
     admin: \"${SHOP_ADMIN}\" }\nservices:\n"
        .to_owned()
}

fn server() -> String {
    program::root().join("tests/fixtures/reload/plain.py").display().to_string()
}

fn item(mesh: &Mesh, service: &str) -> Value {
    mesh.try_json(&["status", service]).unwrap_or_default()["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_before_what_comes_after_it_starts_and_runs_once_more_when_asked() {
    let mesh = Mesh::of(&format!(
        "{}  migrate: {{ run: [sh, -c, \"sleep 0.3; date +%s%N >> ran\"], restart: never, version: 7.1 }}\n  \
         api: {{ run: [sh, -c, \"test -e ran && exec python3 {}\"], after: [migrate] }}\n",
        head(),
        server()
    ))
    .await;
    let job = item(&mesh, "migrate");
    assert_eq!(
        (&job["state"], &job["cause"]["code"], &job["restarts"]),
        (&"gone".into(), &"job_done".into(), &0.into()),
        "{job}"
    );
    // It came after the job: its first start found what the job wrote.
    let api = item(&mesh, "api");
    assert_eq!((&api["state"], &api["restarts"]), (&"ready".into(), &0.into()), "{api}");
    let shown = String::from_utf8_lossy(&mesh.synego(&["status"]).stdout).into_owned();
    let line = shown.lines().find(|line| line.contains("migrate")).unwrap_or_default();
    assert!(line.contains("gone") && line.contains("7.1") && line.contains("job done, exit 0"), "{shown}");
    assert!(mesh.synego(&["status", "--strict"]).status.success());
    let ran = mesh.home.path().join("manifest/ran");
    let times = || std::fs::read_to_string(&ran).unwrap_or_default().lines().count();
    assert_eq!(times(), 1);
    let said = mesh.try_json(&["reload", "migrate"]).expect("it runs once more");
    assert_eq!(said["items"][0]["outcome"], "done", "{said}");
    assert_eq!(times(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_done_or_runs_is_not_begun_again_when_the_part_that_proxies_is_killed() {
    let mesh = Mesh::begin_with(&format!(
        "{}  done: {{ run: [sh, -c, \"echo x >> done\"], restart: never }}\n  \
         long: {{ run: [sh, -c, \"echo x >> long; while ! test -e go; do sleep 0.05; done\"], restart: never }}\n  \
         api: {{ run: [python3, {}], after: [done] }}\n",
        head(),
        server()
    ));
    let state = |service: &str| item(&mesh, service)["state"].clone();
    let both = || async {
        let now = [state("done"), state("long"), state("api")];
        wait::that(now == ["gone", "starting", "ready"], format!("{now:?}"))
    };
    wait::until("one is done and one runs", Duration::from_secs(20), both).await;
    let (keeper, api) = (mesh.up.pid(), mesh.pids("api"));
    let killed = fault::parts(keeper)[0];
    fault::kill(killed);
    wait::until("the next part", Duration::from_secs(10), || async {
        wait::that(fault::parts(keeper).iter().any(|part| *part != killed), "none")
    })
    .await;
    wait::until("all is as it was", Duration::from_secs(20), both).await;
    assert_eq!(item(&mesh, "done")["cause"]["code"], "job_done");
    assert_eq!(mesh.pids("api"), api);
    std::fs::write(mesh.home.path().join("manifest/go"), "").expect("the word");
    wait::until("the other one is done", Duration::from_secs(10), || async {
        wait::that(state("long") == "gone", state("long").to_string())
    })
    .await;
    for job in ["done", "long"] {
        let ran = std::fs::read_to_string(mesh.home.path().join("manifest").join(job)).expect("it ran");
        assert_eq!(ran, "x\n", "{job} ran once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_is_told_with_its_last_lines_and_holds_back_what_comes_after_it() {
    let mesh = Mesh::begin_with(&format!(
        "{}  migrate: {{ run: [sh, -c, \"echo no such table >&2; exit 3\"], restart: never }}\n  \
         api: {{ run: [python3, {}], after: [migrate], routes: [/] }}\n  side: {{ run: [python3, {}], routes: [/side] }}\n",
        head(),
        server(),
        server()
    ));
    wait::until("the failure is shown", Duration::from_secs(20), || async {
        let shown = String::from_utf8_lossy(&mesh.synego(&["status"]).stdout).into_owned();
        wait::that(shown.contains("exited with code 3: \"no such table\""), shown)?;
        wait::that(item(&mesh, "side")["state"] == "ready", item(&mesh, "side").to_string())
    })
    .await;
    let job = item(&mesh, "migrate");
    assert_eq!((&job["state"], &job["cause"]["code"]), (&"unhealthy".into(), &"process_exited".into()), "{job}");
    assert_eq!(item(&mesh, "api")["state"], "starting", "it waits for the job");
    assert!(mesh.pids("api").is_empty());
    assert!(!mesh.synego(&["status", "--strict"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_its_own_ends_with_its_job_and_with_its_code() {
    let mut mesh = Daemons::start("600s");
    let run = |mesh: &Daemons, name: &str, words: &[&str], more: &[&str]| -> Program {
        let token = mesh.token().display().to_string();
        let service = name.split('-').next().unwrap_or(name);
        let address = mesh.mesh_address();
        let mut args = vec!["--service", service, "--instance", name, "--master", &address, "--token-file", &token];
        args.extend(["--inbound", "0", "--outbound", "0", "--admin", "0"]);
        args.extend(more);
        args.push("--");
        args.extend(words);
        let logs = mesh.home.path().join("logs");
        Program::start(name, &binary("synego-sidecar"), &args, mesh.home.path(), &mesh.home.variables(), &logs)
    };
    for (name, words, code) in [
        ("done-1", &["sh", "-c", "exit 0"][..], 0),
        ("failed-1", &["sh", "-c", "exit 3"][..], 3),
        ("killed-1", &["sh", "-c", "kill -9 $$"][..], 137),
        ("missing-1", &["no-such-program"][..], 127),
    ] {
        let mut job = run(&mesh, name, words, &["--restart", "never"]);
        assert_eq!(job.wait(Duration::from_secs(20)).code(), Some(code), "{name}: {}", job.output());
    }
    let tries = "echo x >> tries; test $(wc -l < tries) -ge 2";
    let mut job = run(&mesh, "stubborn-1", &["sh", "-c", tries], &["--restart", "on_failure"]);
    assert_eq!(job.wait(Duration::from_secs(20)).code(), Some(0), "{}", job.output());
    // The master has heard how they ended.
    let shown = mesh.json(&["status", "done"]).expect("status");
    assert_eq!(shown["items"][0]["cause"]["code"], "job_done", "{shown}");
    mesh.stop_master();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_jobs_of_a_mesh_leave_no_zombie() {
    let jobs: u32 = std::env::var("SYNEGO_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let (each, rounds) = if jobs > 100 { (100, jobs.div_ceil(100)) } else { (jobs, 1) };
    let mesh = Mesh::of(&format!(
        "{}  job: {{ run: [sh, -c, \"echo x >> ran; (exit 1) & exit 0\"], restart: never, instances: {each}, \
         reload: {{ max_surge: 20 }} }}\n",
        head()
    ))
    .await;
    for _ in 1..rounds {
        let said = mesh.try_json(&["reload", "job"]).expect("they run once more");
        assert!(
            said["items"].as_array().is_some_and(|items| items.iter().all(|item| item["outcome"] == "done")),
            "{said}"
        );
    }
    let ran = std::fs::read_to_string(mesh.home.path().join("manifest/ran")).unwrap_or_default().lines().count();
    assert_eq!(ran, (each * rounds) as usize);
    let up = mesh.up.pid();
    wait::until("no zombie", Duration::from_secs(10), || async {
        let dead: Vec<u32> = stat::all().filter(|one| one.parent == up && one.is_dead()).map(|one| one.pid).collect();
        wait::that(dead.is_empty(), format!("{dead:?}"))
    })
    .await;
    println!("{} jobs, no zombie", each * rounds);
}
