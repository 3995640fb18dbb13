//! What is written down, with real processes: floods, full disks, moved files, requests across services.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::start_shop;
use serde_json::Value;
use synego_testkit::http::HttpClient;
use synego_testkit::{Mesh, fault, http, wait};

const SHORT: Duration = Duration::from_secs(20);

/// Answers `GET /`; from its start on it prints as fast as it is told: binary garbage, a line without an end, lines. When
/// it is done it writes how long that took, and the longest that one write took, to a file.
const NOISY: &str = r#"
import http.server, os, random, sys, threading, time
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
def flood():
    while not os.path.exists("go"): time.sleep(0.01)
    random.seed(7)
    garbage = bytearray(random.randbytes(1 << 20))
    endless = b"x" * (1 << 20)
    lines = (b"a line of the usual length, as services print them, number %d\n" * 16384)[: 1 << 20]
    begun, longest, written = time.monotonic(), 0.0, 0
    for second in range(int(sys.argv[1])):
        for part in range(100):
            chunk = (garbage, endless, lines)[(second * 100 + part) % 3]
            before = time.monotonic()
            view = memoryview(chunk)
            while view:
                view = view[os.write(1, view):]
            longest = max(longest, time.monotonic() - before)
            written += len(chunk)
            time.sleep(max(0.0, begun + written / (100 << 20) - time.monotonic()))
    took = time.monotonic() - begun
    open("done.part", "w").write("%f %f %d" % (took, longest, written)); os.rename("done.part", "done")
threading.Thread(target=flood, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"#;

fn bytes_in(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

async fn metric(mesh: &Mesh, name: &str) -> f64 {
    let admin = mesh.variable("SHOP_ADMIN");
    let text = http::get(&format!("http://127.0.0.1:{admin}/metrics")).await.map(|answer| answer.text());
    let value =
        text.unwrap_or_default().lines().find_map(|line| line.strip_prefix(name)?.split(' ').nth(1)?.parse().ok());
    value.unwrap_or(0.0)
}

/// 100 MB a second, for `SYNEGO_FLOOD` seconds (else 3).
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_prints_garbage_waits_for_nobody_and_costs_little() {
    let seconds = std::env::var("SYNEGO_FLOOD").unwrap_or_else(|_| "3".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("noisy.py"), NOISY).expect("the service");
    let mesh = Mesh::of(&format!(
        "mesh: noise\ngateway: {{ engine: master, listen: \"${{SHOP_HTTP}}\" }}\n\
         masters: {{ ingress: 0, mesh: 0, admin: \"${{SHOP_ADMIN}}\" }}\n\
         telemetry: {{ logs: {{ max_size: 4MiB }} }}\n\
         services:\n  noisy:\n    run: python3 noisy.py {seconds}\n    cwd: {}\n    routes: [/]\n",
        folder.path().display()
    ))
    .await;
    // The part that reads the output; its keeper has only the ends of the pipes.
    let part = fault::parts(mesh.up.pid())[0];
    let before = fault::resident_bytes(part);
    fs::write(folder.path().join("go"), "").expect("the word");
    let done = folder.path().join("done");
    let (mut most, mut asked) = (before, 0);
    while !done.exists() {
        let answer = http::get(&mesh.url("/")).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), 200, "request {asked}: {}", answer.text());
        asked += 1;
        most = most.max(fault::resident_bytes(part));
    }
    let said = fs::read_to_string(&done).expect("how it went");
    let numbers: Vec<f64> = said.split(' ').map(|number| number.parse().expect("a number")).collect();
    let (took, longest, wanted) = (numbers[0], numbers[1], seconds.parse::<f64>().expect("seconds"));
    println!(
        "{asked} requests; {took:.2} s for {wanted} s of output, longest write {longest:.3} s, {} KiB more memory",
        most.saturating_sub(before) / 1024
    );
    // An unoptimised program beside other tests: it keeps up, give or take the machine.
    assert!(took < wanted * 4.0 + 4.0 && longest < 3.0, "it was held up: {said}");
    assert!(most.saturating_sub(before) < 32 << 20, "{before} → {most} bytes");

    let logs = mesh.home.path().join("manifest/logs");
    wait::until("the files fit", SHORT, || async {
        let size = bytes_in(&logs);
        wait::that(size <= 4 << 20, format!("{size} bytes"))
    })
    .await;
    wait::until("it is said what was dropped", SHORT, || async {
        let lines = mesh.try_json(&["logs", "noisy", "--grep", "were dropped", "--level", "warn"])?;
        let items = lines["items"].as_array().cloned().unwrap_or_default();
        wait::that(items.iter().any(|line| line["fields"]["by"] == "synego"), format!("{items:?}"))
    })
    .await;
    assert!(metric(&mesh, "synego_log_lines_dropped_total").await > 1000.0);
    assert_eq!(mesh.instances("noisy")[0]["state"], "ready", "the mesh noticed nothing of it");
}

/// The files of today, and of tomorrow in case the test runs over midnight.
fn files_of_these_days(folder: &Path) -> Vec<PathBuf> {
    let day = |when: &str| {
        let said = Command::new("date").args(["-d", when, "+%F"]).output().expect("a date");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    let days = [day("today"), day("tomorrow")];
    let levels = ["trace", "debug", "info", "warn", "error"];
    days.iter().flat_map(|day| levels.map(|level| folder.join(format!("{day}.{level}.log")))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_loses_lines_which_are_counted_and_no_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("a folder");
    for file in files_of_these_days(&logs) {
        // Whatever is written there finds no space left on the device.
        std::os::unix::fs::symlink("/dev/full", file).expect("a link");
    }
    let mesh = Mesh::of(&format!(
        "mesh: full\ngateway: {{ engine: master, listen: \"${{SHOP_HTTP}}\" }}\n\
         masters: {{ ingress: 0, mesh: 0, admin: \"${{SHOP_ADMIN}}\" }}\n\
         telemetry: {{ logs: {{ dir: {} }} }}\n\
         services:\n  hello:\n    run: [node, -e, \"require('http').createServer((q, r) => {{ console.log('asked'); r.end('ok') }}).listen(process.env.PORT, '127.0.0.1')\"]\n    routes: [/]\n",
        logs.display()
    ))
    .await;
    for number in 0..300 {
        let answer = http::get(&mesh.url("/")).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), 200, "request {number}");
    }
    wait::until("what was lost is counted", SHORT, || async {
        let lost = metric(&mesh, "synego_log_lines_dropped_total").await;
        wait::that(lost >= 600.0, format!("{lost} lines"))
    })
    .await;
    let kept = mesh.try_json(&["logs", "hello", "-n", "1000"]).expect("lines");
    let asked = kept["items"].as_array().expect("items").iter().filter(|line| line["message"] == "asked").count();
    assert_eq!(asked, 300, "what is in memory is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_followed_through_all_services_and_hops_in_order() {
    let mesh = start_shop().await;
    let url = mesh.url("/api/orders");
    let body = serde_json::json!({ "user_id": 1, "sku": "tea-green", "quantity": 1 }).to_string();
    let headers = [("content-type", "application/json"), ("x-request-id", "walk-of-the-test")];
    let answer = HttpClient::default().request("POST", &url, &headers, body).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    let lines = wait::until("all of it is written down", SHORT, || async {
        let lines = mesh.try_json(&["logs", "--request", "walk-of-the-test"])?;
        let items = lines["items"].as_array().cloned().unwrap_or_default();
        let of = |kind: &str, instance: &str| {
            items.iter().any(|line| {
                line["kind"] == kind && line["instance"].as_str().is_some_and(|id| id.starts_with(instance))
            })
        };
        wait::that(of("access", "master@") && of("access", "users-") && of("output", "users-"), format!("{items:#?}"))?;
        Ok(items)
    })
    .await;
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let at = |kind: &str, instance: &str, hop: &str| {
        let is = |line: &Value| {
            line["kind"] == kind
                && line["instance"].as_str().is_some_and(|id| id.starts_with(instance))
                && (hop.is_empty() || line["fields"]["hop"] == hop)
        };
        lines.iter().position(is).unwrap_or_else(|| panic!("no {kind} line of {instance} {hop} in {lines:#?}"))
    };
    let way = [
        at("access", "master@", "ingress"),
        at("access", "orders-", "inbound"),
        at("access", "orders-", "outbound"),
        at("access", "users-", "inbound"),
        at("output", "users-", ""),
    ];
    assert!(way.is_sorted(), "{way:?} in {lines:#?}");
    assert!(lines.iter().all(|line| line["request_id"] == "walk-of-the-test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_moved_away_are_opened_anew_on_usr1() {
    let mesh = Mesh::of(
        "mesh: moved\ngateway: { engine: master, listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: 0, mesh: 0, admin: 0 }\n\
         services:\n  hello:\n    run: [node, -e, \"require('http').createServer((q, r) => { console.log('asked for ' + q.url); r.end('ok') }).listen(process.env.PORT, '127.0.0.1')\"]\n    routes: [/]\n",
    )
    .await;
    let logs = mesh.home.path().join("manifest/logs");
    let moved = mesh.home.path().join("moved");
    fs::create_dir(&moved).expect("a folder");
    let asked = |path: &'static str| {
        let (mesh, logs) = (&mesh, logs.clone());
        async move {
            assert_eq!(http::get(&mesh.url(path)).await.expect("an answer").status.as_u16(), 200);
            wait::until("the line is in a file", SHORT, || async {
                wait::that(text_in(&logs).contains(&format!("asked for {path}")), path)
            })
            .await;
        }
    };
    asked("/before").await;
    for file in fs::read_dir(&logs).expect("the folder").flatten() {
        fs::rename(file.path(), moved.join(file.file_name())).expect("moved");
    }
    let told = Command::new("kill").args(["-USR1", &mesh.up.pid().to_string()]).status().expect("kill runs");
    assert!(told.success());
    wait::until("it is said", SHORT, || async { wait::that(text_in(&logs).contains("logs opened anew"), "not yet") })
        .await;
    asked("/after").await;
    assert!(!text_in(&moved).contains("/after") && text_in(&moved).contains("/before"));
}

fn text_in(folder: &Path) -> String {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

/// A service that prints a warning and an information by turns, with further keys.
fn ticks(keys: &str) -> String {
    format!(
        "mesh: level\ngateway: {{ engine: master, listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: 0, mesh: 0, admin: 0 \
         }}\nservices:\n  ticks:\n    run: [node, -e, \"let n = 0; setInterval(() => {{ console.log(JSON.stringify({{ \
         level: n % 2 ? 'info' : 'warn', msg: 'tick ' + n }})); n += 1 }}, 5); require('http').createServer((q, r) => \
         r.end('ok')).listen(process.env.PORT, '127.0.0.1')\"]\n    routes: [/]\n{keys}"
    )
}

/// The number of the last line of a level; 0: there is none.
fn last(mesh: &Mesh, level: &str) -> u64 {
    let lines = mesh.try_json(&["logs", "ticks", "-n", "1000"]).unwrap_or_default();
    let items = lines["items"].as_array().cloned().unwrap_or_default();
    let of = items.iter().filter(|line| line["level"] == level && line["kind"] == "output");
    of.filter_map(|line| line["message"].as_str()?.strip_prefix("tick ")?.parse::<u64>().ok()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_says_what_is_written_down_and_a_change_is_taken_up_live() {
    let mesh = Mesh::of(&ticks("    logs: { level: warn }\n")).await;
    let pids = mesh.pids("ticks");
    wait::until("it ticks", SHORT, || async { wait::that(last(&mesh, "warn") > 20, "not yet") }).await;
    assert_eq!(last(&mesh, "info"), 0);
    let apply = |keys: &str| {
        fs::write(mesh.home.path().join("manifest/synego.yaml"), ticks(keys)).expect("written");
        let output = mesh.synego(&["apply", "--yes"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    apply("    logs: { level: info }\n");
    wait::until("information is written down", SHORT, || async { wait::that(last(&mesh, "info") > 0, "not yet") })
        .await;
    assert_eq!(mesh.pids("ticks"), pids, "it is the same process");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_can_be_made_less_for_a_while() {
    let mesh = Mesh::of(&ticks("")).await;
    let last = |level: &'static str| last(&mesh, level);
    let told = mesh.try_json(&["log-level", "ticks", "warn", "--for", "3s"]).expect("told");
    assert_eq!((&told["items"][0]["level"], told["items"][0]["until"].is_string()), (&"warn".into(), true));
    let begun = Instant::now();
    wait::until("information is passed over", SHORT, || async {
        wait::that(last("warn") > last("info") + 20, format!("{} {}", last("warn"), last("info")))
    })
    .await;
    wait::until("and comes again", SHORT, || async {
        wait::that(last("warn") < last("info") + 5, format!("{} {}", last("warn"), last("info")))
    })
    .await;
    assert!(begun.elapsed() < SHORT);
    assert_eq!(mesh.synego(&["log-level", "nobody", "warn"]).status.code(), Some(1));
    assert_eq!(mesh.synego(&["log-level", "ticks", "loud"]).status.code(), Some(2));
    let mesh_told = mesh.try_json(&["log-level", "mesh", "debug", "--for", "1s"]).expect("told");
    assert!(mesh_told["items"].as_array().is_some_and(|items| items.len() == 2), "{mesh_told}");
}
