//! The request path through real Nginx, master, sidecars and services in four languages.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{shop, start_shop};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use synego_testkit::http::HttpClient;
use synego_testkit::socket::Socket;
use synego_testkit::{Mesh, wait};
use tonic::transport::Endpoint;

async fn place_order(mesh: &Mesh, user: u64, headers: &[(&str, &str)]) -> synego_testkit::http::Answer {
    let body = json!({ "user_id": user, "sku": "tea-green", "quantity": 2 }).to_string();
    let mut all = vec![("content-type", "application/json")];
    all.extend_from_slice(headers);
    HttpClient::default().request("POST", &mesh.url("/api/orders"), &all, body).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_of_the_shop_answers_through_nginx() {
    let mesh = start_shop().await;
    let client = HttpClient::default();
    let get = async |path: &str| client.get(&mesh.url(path)).await.expect("an answer");

    let page = get("/").await;
    assert_eq!((page.status.as_u16(), page.text().contains("<html")), (200, true), "the page of the shop");
    assert_eq!(get("/orders/7").await.text(), page.text(), "an unknown path gets the index of the application");

    let user = get("/api/users/1").await;
    assert_eq!((user.status.as_u16(), user.json()["id"].as_u64()), (200, Some(1)));
    assert!(get("/api/users").await.json().to_string().contains("\"id\":1"));
    assert!(get("/legacy/").await.text().contains("<html"), "Python's files");
    let stock = get("/api/stock/tea-green").await.json();
    assert!(stock["left"].is_number() && stock["instance"].is_string(), "{stock}");

    let order = place_order(&mesh, 1, &[]).await;
    assert_eq!(order.status.as_u16(), 201, "{}", order.text());
    let id = order.json()["id"].as_u64().expect("the id of the order");
    let left = get("/api/stock/tea-green").await.json()["left"].as_u64();
    assert!(left.is_some(), "the stock is still told");
    for _ in 0..4 {
        // Both instances of the service know it.
        let again = get(&format!("/api/orders/{id}")).await;
        assert_eq!((again.status.as_u16(), again.json()["sku"].clone()), (200, json!("tea-green")));
    }

    let mut socket = Socket::connect(&mesh.socket_url("/ws/chat")).await.expect("a WebSocket");
    socket.send("hello from a test").await.expect("sent");
    loop {
        if socket.receive().await.expect("an echo").contains("hello from a test") {
            break;
        }
    }

    let missing = get("/api/nothing").await;
    assert_eq!(missing.status.as_u16(), 200, "below the application, an unrouted path is the application's");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_and_not_at_the_end() {
    let mesh = start_shop().await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let request =
        hyper::Request::get(mesh.url("/api/ticker")).body(Full::<bytes::Bytes>::default()).expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert!(answer.headers()["content-type"].as_bytes().starts_with(b"text/event-stream"));
    let mut body = answer.into_body();
    for _ in 0..2 {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("an event in time");
        let data = frame.expect("no end").expect("no failure").into_data().expect("data");
        assert!(!data.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_has_one_trace_and_one_request_id_in_all_services_and_hops() {
    let mesh = start_shop().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let order = place_order(&mesh, 2, &[("traceparent", &parent), ("x-request-id", "order-of-the-test")]).await;
    assert_eq!(order.status.as_u16(), 201, "{}", order.text());
    assert_eq!(order.header("x-request-id"), "order-of-the-test");

    wait::until("all three services logged it", Duration::from_secs(10), || async {
        let lines = mesh.try_json(&["logs", "-n", "200"])?;
        let of = |line: &&Value| line["request_id"] == "order-of-the-test" && line["trace_id"] == trace;
        let items = lines["items"].as_array().cloned().unwrap_or_default();
        let services: BTreeSet<&str> = items.iter().filter(of).filter_map(|line| line["service"].as_str()).collect();
        let all = ["inventory", "orders", "users"].into_iter().collect();
        wait::that(services == all, format!("only {services:?}"))
    })
    .await;
    wait::until("every hop logged it", Duration::from_secs(10), || async {
        let lines = mesh.access_lines();
        let of = |line: &&Value| line["request_id"] == "order-of-the-test" && line["trace_id"] == trace;
        let hops: BTreeSet<(String, String)> =
            lines.iter().filter(of).map(|line| (text(&line["hop"]), text(&line["service"]))).collect();
        let wanted = [
            ("ingress", "orders"),
            ("inbound", "orders"),
            ("outbound", "users"),
            ("inbound", "users"),
            ("outbound", "inventory"),
            ("inbound", "inventory"),
        ];
        let wanted: BTreeSet<(String, String)> = wanted.map(|(hop, of)| (hop.to_owned(), of.to_owned())).into();
        wait::that(hops.is_superset(&wanted), format!("only {hops:?}"))
    })
    .await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_the_answer_of_orders_and_not_of_the_mesh() {
    let mesh = start_shop().await;
    let order = place_order(&mesh, 999_999, &[]).await;
    assert_eq!(order.status.as_u16(), 422, "{}", order.text());
    assert_eq!(order.json()["reason"], "unknown_user");
    assert_eq!(order.header("x-synego-reason"), "", "the mesh did not make this answer");
}

/// All four kinds of call, by way of `uri`, with `authority` as the name of the service where one is needed.
async fn call_all_kinds(uri: String, authority: [Option<&str>; 2]) {
    let connect = async |authority: Option<&str>| {
        let mut endpoint = Endpoint::from_shared(uri.clone()).expect("an address");
        if let Some(name) = authority {
            endpoint = endpoint.origin(format!("http://{name}").parse().expect("an origin"));
        }
        endpoint.connect().await.expect("a connection")
    };
    let mut orders = shop::orders_client::OrdersClient::new(connect(authority[0]).await);
    let mut inventory = shop::inventory_client::InventoryClient::new(connect(authority[1]).await);

    // Server streaming: opened first, so that it sees the order.
    let watched = orders.watch(shop::WatchOrders { user_id: 3 }).await.expect("a stream");
    let mut watched = watched.into_inner();

    // Unary, with metadata.
    let mut create = tonic::Request::new(shop::CreateOrder { user_id: 3, sku: "tea-black".into(), quantity: 1 });
    create.metadata_mut().insert("x-request-id", "grpc-of-the-test".parse().expect("a value"));
    let created = orders.create(create).await.expect("an order");
    assert_eq!(created.metadata().get("x-request-id").map(|id| id.as_bytes()), Some(&b"grpc-of-the-test"[..]));
    let order = created.into_inner();
    assert!(!order.reserved_by.is_empty() && !order.user_name.is_empty());
    let seen =
        tokio::time::timeout(Duration::from_secs(10), watched.message()).await.expect("in time").expect("no failure");
    assert_eq!(seen.map(|seen| seen.id), Some(order.id));

    // Client streaming.
    let deliveries = [1_u32, 2, 3].map(|quantity| shop::Delivery { sku: "tea-black".into(), quantity });
    let sum = inventory.restock(tokio_stream::iter(deliveries)).await.expect("a sum").into_inner();
    assert_eq!((sum.deliveries, sum.pieces), (3, 6));

    // Bidirectional: each answer is read before the next question is asked.
    let (ask, questions) = tokio::sync::mpsc::channel(1);
    let question = || shop::StockQuestion { sku: "tea-black".into() };
    ask.send(question()).await.expect("asked");
    let stream = tokio_stream::wrappers::ReceiverStream::new(questions);
    let mut answers = inventory.sync(stream).await.expect("a stream").into_inner();
    for _ in 0..3 {
        let stock = answers.message().await.expect("no failure").expect("an answer");
        assert_eq!(stock.sku, "tea-black");
        ask.send(question()).await.expect("asked");
    }
    drop(ask);
    while answers.message().await.expect("a clean end").is_some() {}

    // Status and details as the service said them, also when there is no message at all.
    let missing = orders.get(shop::GetOrder { id: 999_999_999 }).await.expect_err("there is no such order");
    assert_eq!(missing.code(), tonic::Code::NotFound, "{missing}");
    let mut late = tonic::Request::new(shop::WatchOrders { user_id: 12_345 });
    late.set_timeout(Duration::from_millis(300));
    let over = match orders.watch(late).await {
        Ok(stream) => stream.into_inner().message().await.expect_err("its time is over"),
        Err(status) => status,
    };
    assert!(matches!(over.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_of_all_four_kinds_passes_nginx_with_metadata_and_status() {
    let mesh = start_shop().await;
    call_all_kinds(format!("http://127.0.0.1:{}", mesh.variable("SHOP_GRPC")), [None, None]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_of_all_four_kinds_passes_a_sidecars_outbound_by_authority() {
    let mesh = start_shop().await;
    // No service of the shop calls orders: one that its manifest does not name, and whose sidecar says what it uses.
    let outbound = synego_testkit::ports::free();
    let (master, port) = (format!("127.0.0.1:{}", mesh.variable("SHOP_MESH")), outbound.to_string());
    let hello = synego_testkit::program::root().join("examples/hello/server.js").display().to_string();
    let args = ["--service", "shopper", "--uses", "orders", "--uses", "inventory", "--master", &master];
    let token = mesh.home.token().display().to_string();
    let more = ["--token-file", &token, "--outbound", &port, "--inbound", "0", "--admin", "0", "--", "node", &hello];
    let _shopper = mesh.home.start("synego-sidecar", &[&args[..], &more[..]].concat());
    let url = format!("http://127.0.0.1:{outbound}");
    let client = HttpClient::default();
    wait::until("the shopper may call", Duration::from_secs(20), || async {
        let answer = client.request("GET", &format!("{url}/api/stock"), &[("host", "inventory")], "").await?;
        wait::that(answer.header("x-synego-reason").is_empty(), answer.text())
    })
    .await;
    call_all_kinds(url, [Some("orders"), Some("inventory")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_called_by_host_by_absolute_form_and_by_its_own_port() {
    let mesh = start_shop().await;
    let (_, pid) = mesh.pids("orders").into_iter().next().expect("an instance");
    let variable = |name: &str| synego_testkit::program::variable_of(pid, name).expect("a variable");
    let client = HttpClient::default();
    let outbound = variable("SYNEGO_OUTBOUND");

    let by_host = client.request("GET", &format!("{outbound}/api/users/1"), &[("host", "users")], "").await;
    assert_eq!(by_host.expect("an answer").json()["id"].as_u64(), Some(1));

    let by_port = client.get(&format!("{}/api/users/1", variable("SYNEGO_URL_USERS"))).await;
    assert_eq!(by_port.expect("an answer").json()["id"].as_u64(), Some(1));

    let address = outbound.trim_start_matches("http://").to_owned();
    let absolute = synego_testkit::http::raw(
        &address,
        "GET http://users/api/users/1 HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n",
    );
    let answer = absolute.await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let unknown = client.request("GET", &format!("{outbound}/"), &[("host", "nobody")], "").await.expect("an answer");
    assert_eq!((unknown.status.as_u16(), unknown.header("x-synego-reason")), (404, "unknown_service"));
    assert_eq!(unknown.json()["reason"], "unknown_service");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_tcp_service_pass_by_the_port_that_its_caller_is_told() {
    let root = synego_testkit::program::root();
    let head =
        "mesh: bytes\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: 0, mesh: 0, admin: 0 }\nservices:\n";
    let echo = root.join("tests/fixtures/echo.js");
    let hello = root.join("examples/hello/server.js");
    let mesh = Mesh::of(&format!(
        "{head}  echo: {{ run: [node, {}], protocol: tcp, instances: 2 }}\n  hello: {{ run: [node, {}], routes: [/], uses: [echo] }}\n",
        echo.display(),
        hello.display()
    ))
    .await;
    let (_, pid) = mesh.pids("hello").into_iter().next().expect("an instance");
    let url = synego_testkit::program::variable_of(pid, "SYNEGO_URL_ECHO").expect("a port of its own");
    let address = url.rsplit('/').next().expect("an address").to_owned();
    for number in 0..4 {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("a connection");
        let sent = format!("{number}: not HTTP at all\0\r\n\r\n");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        stream.shutdown().await.expect("the end is told");
        let mut back = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut back))
            .await
            .expect("in time")
            .expect("read");
        assert_eq!(String::from_utf8_lossy(&back), sent);
    }
}
