//! Reloads under load in each language: no request is lost, and what streams ends politely.
//!
//! Each mesh has the service of a language under load, one with 20 WebSockets and one with 5 streams of gRPC, and all
//! three are reloaded again and again. `SYNEGO_RELOADS`, `SYNEGO_RATE` (requests a second) and `SYNEGO_REQUESTS` make it a
//! soak: it goes on until there were as many of both.

use std::time::{Duration, Instant};

use synego_testkit::load::{Ask, Load};
use synego_testkit::mesh::Home;
use synego_testkit::socket::Socket;
use synego_testkit::{Mesh, fault, program, size, wait};

mod shop {
    //! Generated from the shop's `.proto` file.
    #![expect(unused_qualifications, clippy::allow_attributes, reason = "generated")]
    include!("../../examples/shop/inventory/src/gen/shop.v1.rs");
}

type Client = shop::inventory_client::InventoryClient<tonic::transport::Channel>;

const SOCKETS: usize = 20;
const STREAMS: usize = 5;
/// The deadline of each drain.
const STOP: Duration = Duration::from_secs(4);

fn fixture(name: &str) -> String {
    program::root().join("tests/fixtures/reload").join(name).display().to_string()
}

/// The three services; `how` is what the entry of `subject` says beside its routes, in the flow style.
async fn mesh(how: &str, home: &Home, instances: usize) -> Mesh {
    let mode = home.path().join("mode");
    std::fs::write(&mode, "well").expect("written");
    let common = format!("instances: {instances}, stop: {}s", STOP.as_secs());
    Mesh::of(&format!(
        "mesh: reload\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: \
         \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  subject: {{ {how}, routes: [/], {common} }}\n  \
         chat: {{ run: [node, {}], env: {{ MODE: {} }}, routes: [/chat], {common} }}\n  \
         inventory: {{ run: [{}], routes: [/shop.v1.Inventory], {common} }}\n",
        fixture("plain.mjs"),
        mode.display(),
        program::binary("shop-inventory").display()
    ))
    .await
}

/// What streams through one mesh.
struct Streaming {
    sockets: Vec<Socket>,
    calls: Vec<(tokio::sync::mpsc::Sender<shop::StockQuestion>, tonic::Streaming<shop::Stock>)>,
}

impl Streaming {
    async fn open(mesh: &Mesh, client: &Client) -> Self {
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let mut socket = Socket::connect(&mesh.socket_url("/chat")).await.expect("a socket");
            socket.send("hello").await.expect("sent");
            assert!(socket.receive().await.expect("an echo").ends_with("hello"));
            sockets.push(socket);
        }
        let mut calls = Vec::new();
        for _ in 0..STREAMS {
            let (ask, questions) = tokio::sync::mpsc::channel(1);
            ask.send(shop::StockQuestion { sku: "tea-black".into() }).await.expect("asked");
            let asked = client.clone().sync(tokio_stream::wrappers::ReceiverStream::new(questions)).await;
            let mut answers = asked.expect("a stream").into_inner();
            assert!(answers.message().await.expect("no failure").is_some());
            calls.push((ask, answers));
        }
        // Those of a moment are not told from those that last.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        Self { sockets, calls }
    }

    /// Whether all of it still streams.
    async fn goes_on(&mut self) {
        for socket in &mut self.sockets {
            socket.send("still").await.expect("sent");
            assert!(socket.receive().await.expect("an echo").ends_with("still"));
        }
        for (ask, answers) in &mut self.calls {
            ask.send(shop::StockQuestion { sku: "tea-green".into() }).await.expect("asked");
            assert!(answers.message().await.expect("no failure").is_some());
        }
    }

    /// Its services were reloaded: each has ended as it should. How many there were.
    async fn ended_politely(self) -> usize {
        let soon = Duration::from_secs(2);
        let count = self.sockets.len() + self.calls.len();
        for mut socket in self.sockets {
            assert_eq!(tokio::time::timeout(soon, socket.closed()).await, Ok(Some(1001)));
        }
        for (_ask, mut answers) in self.calls {
            let end = tokio::time::timeout(soon, answers.message()).await.expect("it has ended");
            let polite = match &end {
                Ok(last) => last.is_none(),
                Err(status) => status.code() == tonic::Code::Unavailable,
            };
            assert!(polite, "{end:?}");
        }
        count
    }
}

/// With an SDK a service listens on whatever it is told.
const ON_SOCKETS: &str = ", socket: auto";

/// Reloads all again and again: each instance gets another process each time, and no request fails.
///
/// - `alone`: what its entry says besides where there is one instance of it.
async fn nothing_is_lost(language: &str, how: &str, alone: &str) {
    let (least, rate) = (size::of("SYNEGO_RELOADS", 2), size::of("SYNEGO_RATE", 150));
    let wanted = size::of("SYNEGO_REQUESTS", 0) as usize;
    for (instances, more) in [(2, ""), (1, alone)] {
        let home = Home::default();
        let mesh = mesh(&format!("{how}{more}"), &home, instances).await;
        let ingress = format!("http://127.0.0.1:{}", mesh.variable("SHOP_INGRESS"));
        let channel = tonic::transport::Endpoint::from_shared(ingress).expect("an address").connect_lazy();
        let client = Client::new(channel);
        let (url, body) = (mesh.url("/work"), r#"{"text":"so much to be read"}"#);
        let kinds = vec![Ask { method: "GET", url: url.clone(), body: "" }, Ask { method: "POST", url, body }];
        let load = Load::start(rate, kinds);
        load.more(20).await;
        let (began, mut ended, mut longest) = (Instant::now(), 0, Duration::ZERO);
        let mut pids = mesh.pids("subject");
        assert_eq!(pids.len(), instances, "{pids:?}");
        let mut reloads = 0;
        while reloads < least || load.answered() < wanted {
            reloads += 1;
            let mut streaming = Streaming::open(&mesh, &client).await;
            streaming.goes_on().await;
            let begun = Instant::now();
            let said = mesh.try_json(&["reload", "subject", "chat", "inventory"]).expect("the reload succeeds");
            let items = said["items"].as_array().cloned().unwrap_or_default();
            assert_eq!(items.len(), 3 * instances, "{said}");
            for item in &items {
                assert_eq!((&item["outcome"], &item["to"]), (&"done".into(), &reloads.into()), "{item}");
            }
            longest = longest.max(begun.elapsed());
            ended += streaming.ended_politely().await;
            // What the master shows follows by the next report.
            wait::until("other processes serve", Duration::from_secs(5), || async {
                let now = mesh.pids("subject");
                let fresh = now.len() == instances && now.iter().all(|one| !pids.contains(one));
                wait::that(fresh, format!("{pids:?} {now:?}"))
            })
            .await;
            for (_, pid) in std::mem::replace(&mut pids, mesh.pids("subject")) {
                assert!(!fault::is_alive(pid), "the former process {pid} of {language} is still there");
            }
        }
        load.more(20).await;
        let report = load.stop().await;
        println!(
            "{language} × {instances}: {reloads} reloads in {:.0?} (longest {longest:.1?}), {} requests at {rate}/s, {} failed, \
             p99 {:?}, slowest {:?}, {ended} streams ended politely",
            began.elapsed(),
            report.sent,
            report.failures.len(),
            report.quantile(0.99),
            report.quantile(1.0)
        );
        assert_eq!(report.failures, [], "of {} requests", report.sent);
        assert!(report.sent >= 40 && longest < STOP * 4, "{} requests, {longest:?}", report.sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reloading_a_node_service_loses_no_request_and_ends_streams_politely() {
    nothing_is_lost("node", &format!("run: [node, {}]", fixture("sdk.mjs")), ON_SOCKETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloading_a_go_service_loses_no_request_and_ends_streams_politely() {
    let home = Home::default();
    let binary = home.path().join("subject").display().to_string();
    let how = format!("cwd: {}, build: [go, build, -o, {binary}, .], run: [{binary}]", fixture("go"));
    nothing_is_lost("go", &how, ON_SOCKETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloading_a_rust_service_loses_no_request_and_ends_streams_politely() {
    let binary = program::binary("examples/subject").display().to_string();
    nothing_is_lost("rust", &format!("run: [{binary}]"), ON_SOCKETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloading_a_python_server_without_sdk_loses_no_request_and_ends_streams_politely() {
    nothing_is_lost("python", &format!("run: [python3, {}]", fixture("plain.py")), "").await;
}
