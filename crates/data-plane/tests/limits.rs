//! Limits: each has a number, and each is kept.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use synego_model::{Policy, Protocol};
use synego_runtime::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MS: Duration = Duration::from_millis(1);

async fn stuck() -> Service {
    Service::http(|_| Box::pin(std::future::pending())).await
}

fn asked(path: &str) -> http::request::Builder {
    request(Method::POST, "a", path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_the_time_of_its_policy_or_less_when_its_caller_gives_less() {
    let mesh = Mesh::start();
    mesh.service("users", Protocol::Http, Policy { timeout: 400 * MS, try_timeout: 400 * MS, ..Policy::default() });
    let _users = mesh.instance("users", stuck().await).await;
    let outbound = mesh.outbound("orders").local_addr();
    let began = clock::now();
    let got = send(outbound, request(Method::POST, "users", "/").body(full("x")).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (504, "deadline_exceeded"));
    assert!((400..1500).contains(&clock::now().duration_since(began).as_millis()));
    let began = clock::now();
    let hurried = request(Method::POST, "users", "/").header("x-synego-timeout", "100");
    assert_eq!(send(outbound, hurried.body(full("x")).expect("a request")).await.status, 504);
    assert!((100..350).contains(&clock::now().duration_since(began).as_millis()));
    mesh.end().await;
}

/// A body whose parts come with pauses.
fn trickle(parts: u32, pause: Duration, size: usize) -> Body {
    let frames = futures_util::stream::unfold(0, move |number| async move {
        tokio::time::sleep(pause).await;
        let part = Frame::data(Bytes::from(vec![b'x'; size]));
        (number < parts).then_some((Ok::<_, std::convert::Infallible>(part), number + 1))
    });
    StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_may_take_longer_than_a_request_while_it_moves() {
    let mesh = Mesh::start();
    mesh.service("users", Protocol::Http, Policy { timeout: 300 * MS, try_timeout: 300 * MS, ..Policy::default() });
    mesh.limits(|limits| limits.body_idle = 400 * MS);
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let got = send(ingress, asked("/").body(trickle(10, 80 * MS, 1000)).expect("a request")).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.body.len() > 10_000);
    let got = send(ingress, asked("/").body(trickle(3, 900 * MS, 1000)).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (408, "client_too_slow"));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_stops_in_the_middle_is_cut() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.body_idle = 300 * MS);
    let service = Service::each(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        tokio::time::sleep(Duration::from_secs(20)).await;
    });
    let _users = mesh.instance("users", service.await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let mut client = Client1::to(ingress).await;
    let began = clock::now();
    assert!(client.get("a", "/").await.is_err());
    assert!(clock::now().duration_since(began) < Duration::from_secs(5));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_with_the_limit_named() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::says("users").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let got = get(ingress, "a", &format!("/{}", "x".repeat(9000))).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (414, "target_too_long"));
    assert!(got.body.contains("8192"), "{}", got.body);
    let many = (0..150).fold(asked("/"), |asked, number| asked.header(format!("x-{number}"), "1"));
    let got = send(ingress, many.body(full("")).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (431, "headers_too_large"));
    assert!(got.body.contains("100"), "{}", got.body);
    let large = asked("/").header("x-large", "v".repeat(17 * 1024)).body(full("")).expect("a request");
    assert_eq!(send(ingress, large).await.header("x-synego-reason"), "headers_too_large");
    let all = (0..8).fold(asked("/"), |asked, number| asked.header(format!("x-{number}"), "v".repeat(10 * 1024)));
    let got = send(ingress, all.body(full("")).expect("a request")).await;
    assert!(got.status == 431 && got.body.contains("65536"), "{}", got.body);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_takes_only_so_many_requests_at_once() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.in_flight = 3);
    mesh.service("users", Protocol::Http, Policy { retries: 0, ..Policy::default() });
    let users = mesh.instance("users", stuck().await).await;
    let inbound = users.inbound.local_addr();
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = Client1::to(inbound).await;
        held.push(synego_runtime::tasks::spawn("test-held", synego_runtime::tasks::Kind::Connection, async move {
            client.get("users", "/").await.is_ok()
        }));
    }
    until("all places are taken", || users.load.load().in_flight == 3).await;
    let got = get(inbound, "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, "overloaded"));
    assert!(!got.header("retry-after").is_empty());
    held.iter().for_each(tokio::task::JoinHandle::abort);
    until("all places are free", || users.load.load().in_flight == 0).await;
    mesh.end().await;
}

/// Whether the other side closes this connection within `limit`.
async fn closes(stream: &mut TcpStream, limit: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(limit, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_send_nothing_or_half_a_head_are_closed() {
    let mesh = Mesh::start();
    mesh.limits(|limits| {
        limits.header_read = 200 * MS;
        limits.client_idle = 600 * MS;
    });
    let _users = mesh.instance("users", Service::says("users").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let connect = || async { TcpStream::connect(ingress).await.expect("a connection") };
    let mut silent = connect().await;
    assert!(closes(&mut silent, Duration::from_secs(2)).await);
    let mut half = connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n").await.expect("sent");
    assert!(closes(&mut half, Duration::from_secs(2)).await);
    let mut kept = connect().await;
    let began = clock::now();
    for _ in 0..3 {
        kept.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let mut answer = [0; 4096];
        assert!(kept.read(&mut answer).await.is_ok_and(|bytes| bytes > 0), "idle is longer than a head may take");
        tokio::time::sleep(300 * MS).await;
    }
    assert!(closes(&mut kept, Duration::from_secs(2)).await);
    assert!(clock::now().duration_since(began) > 1100 * MS);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_let_go() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.write_stall = 300 * MS);
    let service = Service::http(|_| Box::pin(async { Response::new(full(vec![7; 64 << 20])) }));
    let _users = mesh.instance("users", service.await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut client = TcpStream::connect(ingress.local_addr()).await.expect("a connection");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    until("it is served", || ingress.connections() == 1).await;
    until("it is let go", || ingress.connections() == 0 && ingress.in_flight() == 0).await;
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_only_so_many_connections_unless_it_is_a_listed_proxy() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::says("users").await).await;
    mesh.route("/", "users");
    let open = |address: SocketAddr| async move {
        let mut streams = Vec::new();
        for _ in 0..120 {
            streams.push(TcpStream::connect(address).await.expect("a connection"));
        }
        streams
    };
    let world = mesh.ingress_with(|config| config.trusted.clear());
    let _held = open(world.local_addr()).await;
    until("the rest is refused", || mesh.metrics.render().contains("synego_ingress_refused_connections_total 20\n"))
        .await;
    assert_eq!(world.connections(), 100);
    let proxied = mesh.ingress();
    let _more = open(proxied.local_addr()).await;
    until("all are taken", || proxied.connections() == 120).await;
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_has_only_so_many_connections() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.connections = Some(3));
    let users = mesh.instance("users", Service::says("users").await).await;
    let connect = || async { TcpStream::connect(users.inbound.local_addr()).await.expect("a connection") };
    let mut held = vec![connect().await, connect().await, connect().await];
    until("three are taken", || users.inbound.connections() == 3).await;
    assert!(closes(&mut connect().await, Duration::from_secs(2)).await);
    held.clear();
    until("they are gone", || users.inbound.connections() == 0).await;
    assert_eq!(get(users.inbound.local_addr(), "users", "/").await.status, 200);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_only_resets_streams_is_let_go_and_others_are_unharmed() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.resets = 20);
    let _users = mesh.instance("users", stuck().await).await;
    let _well = mesh.instance("well", Service::says("well").await).await;
    let outbound = mesh.outbound("orders");
    let stream = TcpStream::connect(outbound.local_addr()).await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let ended = synego_runtime::tasks::spawn("test-client", synego_runtime::tasks::Kind::Connection, connection);
    until("it is taken", || outbound.connections() == 1).await;
    let mut sent = 0;
    while let Ok(ready) = client.clone().ready().await {
        client = ready;
        let Ok((_, mut body)) = client.send_request(grpc("users", "/x").body(()).expect("a call"), false) else {
            break;
        };
        until("it is in flight", || outbound.in_flight() > 0 || outbound.connections() == 0).await;
        if outbound.connections() == 0 {
            break;
        }
        body.send_reset(h2::Reason::CANCEL);
        until("it is given up", || outbound.in_flight() == 0).await;
        sent += 1;
        assert!(sent < 100, "never let go");
    }
    assert!((20..30).contains(&sent), "{sent}");
    drop(ended);
    assert_eq!(get(outbound.local_addr(), "well", "/").await.status, 200);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_ended_gently() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.connection_age = 500 * MS);
    let _users = mesh.instance("users", Service::says("users").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let mut client = Client1::to(ingress).await;
    let began = clock::now();
    loop {
        let got = client.get("a", "/").await.expect("no request meets a closed connection");
        assert_eq!(got.status, 200);
        if got.header("connection") == "close" {
            break;
        }
        tokio::time::sleep(20 * MS).await;
        assert!(clock::now().duration_since(began) < Duration::from_secs(3));
    }
    assert!(clock::now().duration_since(began) > 400 * MS && client.is_closed().await);
    let http2 = Client2::to(ingress).await;
    let asked = || http::Request::get("http://a/").body(full("")).expect("a request");
    while let Ok(got) = http2.send(asked()).await {
        assert_eq!(got.status, 200);
        tokio::time::sleep(20 * MS).await;
        assert!(clock::now().duration_since(began) < Duration::from_secs(6));
    }
    until("it was told to go away", || http2.is_closed()).await;
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_of_http2_may_rest_as_long_as_any() {
    let mesh = Mesh::start();
    mesh.limits(|limits| {
        limits.header_read = 100 * MS;
        limits.ping = 50 * MS;
        limits.client_idle = 900 * MS;
    });
    let _users = mesh.instance("users", Service::says("users").await).await;
    let client = Client2::to(mesh.outbound("orders").local_addr()).await;
    let asked = || http::Request::get("http://users/").body(full("")).expect("a request");
    for _ in 0..3 {
        assert_eq!(client.send(asked()).await.expect("an answer").status, 200);
        tokio::time::sleep(400 * MS).await;
    }
    let began = clock::now();
    until("it is closed", || client.is_closed()).await;
    assert!(clock::now().duration_since(began) > 300 * MS);
    mesh.end().await;
}
