//! Reloads, restarts and ends under load, with the real programs: no request is lost. In each language: `languages.rs`.
//!
//! Sizes are small by default; `SYNEGO_RELOADS` and `SYNEGO_RATE` (requests a second) make them those of a soak.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use synego_testkit::load::{Ask, Load, Report};
use synego_testkit::mesh::Home;
use synego_testkit::socket::Socket;
use synego_testkit::{Mesh, fault, program, size, wait};

mod shop {
    //! Generated from the shop's `.proto` file.
    #![expect(unused_qualifications, clippy::allow_attributes, reason = "generated")]
    include!("../../examples/shop/inventory/src/gen/shop.v1.rs");
}

fn rate() -> u32 {
    size::of("SYNEGO_RATE", 150)
}

fn fixture(name: &str) -> String {
    program::root().join("tests/fixtures/reload").join(name).display().to_string()
}

/// The manifest of a mesh up to its services.
fn head() -> String {
    "mesh: reload\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: \"${SHOP_INGRESS}\", mesh: \"${SHOP_MESH}\", \
     admin: \"${SHOP_ADMIN}\" }\nservices:\n"
        .to_owned()
}

/// A mesh of one service, `subject`; `how` is what its entry says beside its routes, in the flow style.
async fn mesh(how: &str) -> Mesh {
    Mesh::of(&format!("{}  subject: {{ {how}, routes: [/], stop: 4s }}\n", head())).await
}

fn load(mesh: &Mesh, rate: u32) -> Load {
    let (get, post) = (mesh.url("/work"), mesh.url("/work"));
    let body = r#"{"text":"so much to be read"}"#;
    Load::start(rate, vec![Ask { method: "GET", url: get, body: "" }, Ask { method: "POST", url: post, body }])
}

/// What `synego reload subject` says of each instance.
fn reload(mesh: &Mesh) -> Vec<Value> {
    let said = mesh.try_json(&["reload", "subject"]).expect("the reload succeeds");
    said["items"].as_array().cloned().unwrap_or_default()
}

fn check(report: &Report, at_least: usize) {
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    assert!(report.sent >= at_least, "only {} requests were sent", report.sent);
}

/// A service that can be told to be broken from its next start on.
async fn breakable(home: &Home, more: &str) -> (Mesh, std::path::PathBuf) {
    let mode = home.path().join("mode");
    std::fs::write(&mode, "well").expect("written");
    let script = fixture("plain.mjs");
    let how = format!("run: [node, {script}], env: {{ MODE: {} }}, health: /healthz, {more}", mode.display());
    (mesh(&how).await, mode)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_not_prove_itself_is_ended_and_the_former_one_serves_on() {
    let home = Home::default();
    let (mesh, mode) = breakable(&home, "ready: { port: true, within: 1s }").await;
    let load = load(&mesh, rate());
    load.more(20).await;
    let before = mesh.pids("subject");
    for (broken, words) in [
        ("exit", &["reload_failed", "exited with code 7", "the configuration lacks a key"][..]),
        ("never", &["reload_failed", "not ready after 1s", "nothing listens"][..]),
        ("sick", &["reload_failed", "/healthz", "500"][..]),
    ] {
        std::fs::write(&mode, broken).expect("written");
        let output = mesh.synego(&["reload", "subject"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{broken}: {said}");
        let answered = Instant::now();
        wait::until("the cause is in status", Duration::from_secs(2), || async {
            let output = mesh.synego(&["status"]);
            let status = String::from_utf8_lossy(&output.stdout).into_owned();
            wait::that(words.iter().all(|word| status.contains(word)), status)
        })
        .await;
        assert!(answered.elapsed() < Duration::from_secs(2));
        assert_eq!(mesh.pids("subject"), before, "{broken}: the former process serves on");
    }
    std::fs::write(&mode, "well").expect("written");
    assert_eq!(reload(&mesh)[0]["outcome"], "done");
    wait::until("status has no cause any more", Duration::from_secs(3), || async {
        let status = String::from_utf8_lossy(&mesh.synego(&["status"]).stdout).into_owned();
        wait::that(!status.contains("reload_failed"), status)
    })
    .await;
    check(&load.stop().await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_changes_nothing() {
    let home = Home::default();
    let (mesh, mode) = breakable(&home, "build: [sh, -c, \"! grep broken $MODE\"]").await;
    let before = mesh.pids("subject");
    std::fs::write(&mode, "broken").expect("written");
    let output = mesh.synego(&["reload", "subject"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && said.contains("build_failed"), "{said}");
    assert_eq!(mesh.pids("subject"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_a_fixed_port_is_restarted_while_its_requests_wait() {
    let port = synego_testkit::ports::free();
    let mesh = mesh(&format!("run: [python3, {}], port: {port}", fixture("plain.py"))).await;
    let load = load(&mesh, rate());
    load.more(20).await;
    for _ in 0..size::of("SYNEGO_RELOADS", 3) {
        let before = mesh.pids("subject");
        let began = Instant::now();
        assert_eq!(reload(&mesh)[0]["outcome"], "done");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        load.more(20).await;
        assert!(before.iter().all(|(_, pid)| !fault::is_alive(*pid)), "it has another process");
    }
    let report = load.stop().await;
    println!("fixed port: {} requests, slowest {:?}", report.sent, report.quantile(1.0));
    check(&report, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_only_process_of_a_service_comes_back_from_a_crash_its_requests_wait() {
    let mesh = mesh(&format!("run: [python3, {}]", fixture("plain.py"))).await;
    let (_, pid) = mesh.pids("subject").into_iter().next().expect("a process");
    fault::kill(pid);
    // The gateway knows of nothing yet: these wait at the inbound until the process is back.
    let load = load(&mesh, 100);
    load.more(50).await;
    let report = load.stop().await;
    assert!(!fault::is_alive(pid), "the fault took place");
    check(&report, 50);
    assert_ne!(mesh.pids("subject").first().map(|(_, pid)| *pid), Some(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_a_process_fails_no_get_where_there_is_another_one() {
    let mesh = mesh(&format!("run: [python3, {}], instances: 2", fixture("plain.py"))).await;
    let load = Load::start(rate(), vec![Ask { method: "GET", url: mesh.url("/work"), body: "" }]);
    load.more(50).await;
    let (instance, pid) = mesh.pids("subject").into_iter().next().expect("a process");
    fault::kill(pid);
    wait::until("it is back in service", Duration::from_secs(10), || async {
        let back = mesh.pids("subject").iter().any(|(id, now)| *id == instance && *now != pid);
        wait::that(back, format!("{:?}", mesh.pids("subject")))
    })
    .await;
    load.more(50).await;
    check(&load.stop().await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_of_a_reloaded_process_end_with_a_close_that_says_so() {
    let home = Home::default();
    let (mesh, _) = breakable(&home, "instances: 2").await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = Socket::connect(&mesh.socket_url("/chat")).await.expect("a socket");
        socket.send("hello").await.expect("sent");
        assert!(socket.receive().await.expect("an echo").ends_with("hello"));
        sockets.push(socket);
    }
    let load = load(&mesh, rate());
    load.more(20).await;
    let began = Instant::now();
    assert!(reload(&mesh).iter().all(|item| item["outcome"] == "done"));
    println!("reload with 20 sockets: {:?}", began.elapsed());
    for mut socket in sockets {
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.closed()).await;
        assert_eq!(closed, Ok(Some(1001)));
    }
    let mut again = Socket::connect(&mesh.socket_url("/chat")).await.expect("a socket");
    again.send("hello").await.expect("sent");
    let now: Vec<String> = mesh.pids("subject").iter().map(|(_, pid)| pid.to_string()).collect();
    let echo = again.receive().await.expect("an echo");
    assert!(now.iter().any(|pid| echo.starts_with(pid.as_str())), "{echo} is of one of {now:?}");
    check(&load.stop().await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_grpc_that_are_open_at_a_reload_end_with_a_status_within_the_deadline() {
    let manifest = format!(
        "mesh: reload\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: \
         \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  inventory: {{ run: [{}], routes: [/], stop: 4s }}\n",
        program::binary("shop-inventory").display()
    );
    let mesh = Mesh::of(&manifest).await;
    let ingress = format!("http://127.0.0.1:{}", mesh.variable("SHOP_INGRESS"));
    let channel = tonic::transport::Endpoint::from_shared(ingress).expect("an address").connect_lazy();
    let client = shop::inventory_client::InventoryClient::new(channel);
    let question = || shop::StockQuestion { sku: "tea-black".into() };
    let open = || {
        let mut client = client.clone();
        async move {
            let (ask, questions) = tokio::sync::mpsc::channel(1);
            ask.send(question()).await.expect("asked");
            let asked = client.sync(tokio_stream::wrappers::ReceiverStream::new(questions)).await.expect("a stream");
            let mut answers = asked.into_inner();
            assert_eq!(answers.message().await.expect("no failure").map(|stock| stock.sku), Some("tea-black".into()));
            (ask, answers)
        }
    };
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(open().await);
    }
    // Those of a moment are not told from those that last.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let begun = Instant::now();
    let said = mesh.try_json(&["reload", "inventory"]).expect("the reload succeeds");
    assert_eq!(said["items"][0]["outcome"], "done", "{said}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for (_ask, mut answers) in streams {
        let end = tokio::time::timeout(Duration::from_secs(2), answers.message()).await.expect("it has ended");
        let polite = match &end {
            Ok(last) => last.is_none(),
            Err(status) => status.code() == tonic::Code::Unavailable,
        };
        assert!(polite, "{end:?}");
    }
    let (_ask, _answers) = open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_instance_finishes_what_it_has_and_takes_requests_again_when_asked() {
    let home = Home::default();
    let (mesh, _) = breakable(&home, "instances: 2").await;
    let load = load(&mesh, rate());
    load.more(20).await;
    let slow = tokio::spawn({
        let url = mesh.url("/slow");
        async move { synego_testkit::http::HttpClient::default().get(&url).await }
    });
    let said = mesh.try_json(&["drain", "subject-1"]).expect("the drain succeeds");
    assert_eq!(said["items"][0]["state"], "drained", "{said}");
    let state = |mesh: &Mesh, name: &str| {
        let all = mesh.instances("subject");
        let found = all.iter().find(|one| one["instance"].as_str().is_some_and(|id| id.starts_with(name)));
        found.map(|one| one["state"].clone()).unwrap_or_default()
    };
    wait::until("it is shown", Duration::from_secs(2), || async {
        wait::that(state(&mesh, "subject-1") == "draining", state(&mesh, "subject-1").to_string())
    })
    .await;
    load.more(50).await;
    // The last one is not taken out of service unasked.
    assert_eq!(mesh.synego(&["drain", "subject-2"]).status.code(), Some(2));
    let said = mesh.try_json(&["drain", "subject-1", "--undo"]).expect("it is taken back");
    assert_eq!(said["items"][0]["state"], "serving", "{said}");
    wait::until("it is ready again", Duration::from_secs(2), || async {
        wait::that(state(&mesh, "subject-1") == "ready", state(&mesh, "subject-1").to_string())
    })
    .await;
    assert!(slow.await.expect("the task").is_ok_and(|answer| answer.status.is_success()));
    check(&load.stop().await, 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_scaled_up_and_down_without_losing_a_request() {
    let home = Home::default();
    let (mesh, _) = breakable(&home, "instances: 2").await;
    let load = load(&mesh, rate());
    load.more(20).await;
    for (wish, count) in [("subject=3", 3), ("subject=1", 1), ("subject=file", 2)] {
        let said = mesh.try_json(&["scale", wish]).expect("it is scaled");
        assert_eq!(
            (&said["items"][0]["after"], &said["items"][0]["outcome"]),
            (&count.into(), &"done".into()),
            "{said}"
        );
        wait::until("so many are ready", Duration::from_secs(5), || async {
            let ready = mesh.instances("subject").iter().filter(|one| one["state"] == "ready").count();
            let status = String::from_utf8_lossy(&mesh.synego(&["status"]).stdout).into_owned();
            let shown = if count == 2 { "2/2 ".to_owned() } else { format!("{count}/{count} (file: 2)") };
            wait::that(ready == count && status.contains(&shown), status)
        })
        .await;
        let plan = String::from_utf8_lossy(&mesh.synego(&["plan"]).stdout).into_owned();
        let kept = format!("scaled to {count} (file: 2): `apply` keeps it until `synego scale subject=file`");
        assert_eq!(plan.contains(&kept), count != 2, "{plan}");
        load.more(20).await;
    }
    check(&load.stop().await, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_mesh_under_load_loses_nothing_that_it_accepted() {
    for _ in 0..size::of("SYNEGO_DOWNS", 1) {
        ends_well().await;
    }
}

/// Two services, of which one calls the other, ended while requests come to both.
async fn ends_well() {
    let home = Home::default();
    let mode = home.path().join("mode");
    std::fs::write(&mode, "well").expect("written");
    let how = format!("run: [node, {}], env: {{ MODE: {} }}, stop: 4s", fixture("plain.mjs"), mode.display());
    let mut mesh = Mesh::of(&format!(
        "{}  subject: {{ {how}, instances: 2, routes: [/] }}\n  front: {{ {how}, uses: [subject], routes: [/front] }}\n",
        head()
    ))
    .await;
    let kinds = ["/work", "/front"].map(|path| Ask { method: "GET", url: mesh.url(path), body: "" });
    let load = Load::start(rate(), kinds.to_vec());
    load.more(50).await;
    let pids = [mesh.pids("subject"), mesh.pids("front")].concat();
    let begun = Instant::now();
    let down = mesh.try_json(&["down"]).expect("it ends");
    let took = begun.elapsed();
    let report = load.stop().await;
    mesh.up.wait(Duration::from_secs(10));
    // Whoever comes after the listener is closed is refused, and a connection that rests may be closed just as its client
    // writes. Of all that came to the mesh itself nothing was answered with a failure, cut short, or not heard.
    let lines = mesh.access_lines();
    let accepted: Vec<&Value> = lines.iter().filter(|line| line["hop"] == "ingress").collect();
    let bad: Vec<_> = accepted.iter().filter(|line| line["status"] != 200).collect();
    println!("down in {took:.1?}: {} requests accepted, {} failed", accepted.len(), bad.len());
    assert!(bad.is_empty(), "{bad:?} of {}", report.sent);
    assert_eq!(accepted.len(), report.latencies.len(), "{:?}", report.failures);
    assert!(pids.iter().all(|(_, pid)| !fault::is_alive(*pid)), "no process is left behind");
    assert!(took < Duration::from_secs(25), "{took:?}");
    // What faces the world, then callers, then those they call, the master last.
    let ended: Vec<String> = down["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|item| item["outcome"] == "ended")
        .filter_map(|item| Some(item["instance"].as_str()?.split(['@', '-']).next()?.to_owned()))
        .collect();
    assert_eq!(ended, ["gateway", "front", "subject", "subject", "master"], "{down}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_manifest_is_applied_by_a_reload_and_by_further_instances() {
    let home = Home::default();
    let (mesh, _) = breakable(&home, "instances: 2").await;
    let load = load(&mesh, rate());
    load.more(20).await;
    let before = mesh.pids("subject");
    let file = mesh.home.path().join("manifest/synego.yaml");
    let text = std::fs::read_to_string(&file).expect("the manifest");
    let changed = text.replace("instances: 2", "instances: 3").replace("env: {", "env: { COLOUR: blue,");
    assert_ne!(changed, text);
    write(&file, &changed);
    let plan = mesh.try_json(&["plan"]).expect("a plan");
    let effects: Vec<&str> =
        plan["items"].as_array().into_iter().flatten().filter_map(|item| item["effect"].as_str()).collect();
    assert!(effects.contains(&"roll") && effects.contains(&"scale"), "{plan}");
    let applied = mesh.synego(&["apply", "-y"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    wait::until("three other processes serve", Duration::from_secs(20), || async {
        let now = mesh.pids("subject");
        wait::that(now.len() == 3 && now.iter().all(|one| !before.contains(one)), format!("{before:?} {now:?}"))
    })
    .await;
    load.more(20).await;
    check(&load.stop().await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_file_that_changes_reloads_the_service() {
    let home = Home::default();
    let mode = home.path().join("mode");
    std::fs::write(&mode, "well").expect("written");
    let watched = home.path().join("src");
    std::fs::create_dir(&watched).expect("a folder");
    write(&watched.join("one.js"), "1");
    let how = format!(
        "run: [node, {}], env: {{ MODE: {} }}, watch: {{ files: [\"{}/**/*.js\"], ignore: [\"**/*.test.js\"] }}",
        fixture("plain.mjs"),
        mode.display(),
        watched.display()
    );
    let mesh = mesh(&how).await;
    let before = mesh.pids("subject");
    write(&watched.join("one.test.js"), "2");
    write(&watched.join("one.js"), "2");
    wait::until("another process serves", Duration::from_secs(10), || async {
        let now = mesh.pids("subject");
        wait::that(!now.is_empty() && now != before, format!("{now:?}"))
    })
    .await;
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("written");
}
