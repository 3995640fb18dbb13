//! Mutual TLS between the hops: all that passes without it passes with it, unreadable on the wire, and to nobody else.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use http::{Method, Response};
use http_body_util::BodyExt;
use support::*;
use synego_identity::Stream;
use synego_model::{Access, AccessMode, InstanceState, Policy, Protocol, Role};
use synego_runtime::tasks::{self, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// What went by a [`Wire`]: each direction of each connection.
type Heard = Arc<Mutex<Vec<(Vec<u8>, Vec<u8>)>>>;

/// Somebody between two hops who passes everything on and writes it all down.
struct Wire {
    address: SocketAddr,
    heard: Heard,
    /// Where it leads.
    to: Arc<Mutex<SocketAddr>>,
}

impl Wire {
    async fn to(place: SocketAddr) -> Self {
        let listener = TcpListener::bind(any()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (heard, to): (Heard, _) = (Heard::default(), Arc::new(Mutex::new(place)));
        let wire = Self { address, heard: heard.clone(), to: to.clone() };
        tasks::spawn("wire", Kind::Connection, async move {
            while let Ok((near, _)) = listener.accept().await {
                let place = *to.lock().expect("lock");
                let Ok(far) = TcpStream::connect(place).await else { continue };
                let number = {
                    let mut heard = heard.lock().expect("lock");
                    heard.push((Vec::new(), Vec::new()));
                    heard.len() - 1
                };
                let heard = heard.clone();
                tasks::spawn("wire-connection", Kind::Connection, pass(near, far, heard, number));
            }
        });
        wire
    }

    fn heard(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.heard.lock().expect("lock").clone()
    }
}

async fn pass(near: TcpStream, far: TcpStream, heard: Heard, number: usize) {
    let (mut from_near, mut to_near) = near.into_split();
    let (mut from_far, mut to_far) = far.into_split();
    let up = async {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from_near.read(&mut buffer).await {
            heard.lock().expect("lock")[number].0.extend_from_slice(&buffer[..read]);
            if to_far.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        let _ended = to_far.shutdown().await;
    };
    let down = async {
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
            heard.lock().expect("lock")[number].1.extend_from_slice(&buffer[..read]);
            if to_near.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        let _ended = to_near.shutdown().await;
    };
    tokio::join!(up, down);
}

/// Lets everyone of the mesh in: who may call whom is another test's.
fn open(instance: &Instance) {
    let access = Access { mode: AccessMode::Open, ..Access::default() };
    instance.admits(&access, &[]);
}

/// The types of the records of TLS in these bytes, with their contents; the last may be cut short.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let [kind, 3, 1..=3, high, low, rest @ ..] = bytes {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let (record, after) = rest.split_at(length.min(rest.len()));
        all.push((*kind, record));
        bytes = after;
    }
    assert!(
        bytes.len() < 5,
        "these are no records of TLS: {:?}",
        String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
    );
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_wire_there_is_tls_1_3_and_nothing_of_a_request() {
    let mesh = Mesh::mutual();
    let users = mesh
        .instance(
            "users",
            Service::http(|request| {
                Box::pin(async move {
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let text = format!("the-answer-of-users to {}", String::from_utf8_lossy(&body));
                    Response::builder().header("x-answer", "field-of-the-answer").body(full(text)).expect("an answer")
                })
            })
            .await,
        )
        .await;
    open(&users);
    let wire = Wire::to(users.inbound.local_addr()).await;
    mesh.endpoint("users", &users.id, wire.address, InstanceState::Ready);
    let outbound = mesh.outbound("orders").local_addr();
    let ingress = mesh.route("/", "users").ingress().local_addr();
    for address in [outbound, ingress] {
        let ask = || {
            request(Method::POST, "users", "/path-of-the-request?query=secret").header("x-ask", "field-of-the-request")
        };
        let body = "body-of-the-request";
        let mut one = Client1::to(address).await;
        let two = Client2::to(address).await;
        for got in [
            one.send(ask().body(full(body)).expect("a request")).await,
            two.send(ask().body(full(body)).expect("a request")).await,
        ] {
            let got = got.expect("an answer");
            assert_eq!((got.status, got.body.as_str()), (200, "the-answer-of-users to body-of-the-request"));
            assert_eq!(got.header("x-answer"), "field-of-the-answer");
        }
    }
    let heard = wire.heard();
    assert!(heard.len() >= 4, "{} connections: HTTP/1.1 and HTTP/2 of two callers", heard.len());
    for (up, down) in &heard {
        let (asked, answered) = (records(up), records(down));
        // A greeting each way (RFC 8446 §4.1), and from then on nothing that says what it is.
        assert_eq!((asked[0].0, asked[0].1[0], answered[0].0, answered[0].1[0]), (22, 1, 22, 2));
        // The extension supported_versions of the answer names 1.3, which is the version that counts (§4.2.1).
        assert!(answered[0].1.windows(6).any(|extension| extension == [0, 43, 0, 2, 3, 4]), "TLS 1.3");
        for (kind, _) in asked[1..].iter().chain(&answered[1..]) {
            assert!([20, 23].contains(kind), "a record of type {kind} after the greeting");
        }
        let words = [
            "path-of-the-request",
            "secret",
            "field-of-the-request",
            "body-of-the-request",
            "the-answer-of-users",
            "x-answer",
            "field-of-the-answer",
            "HTTP/1.1 200",
            "PRI *",
            "content-length",
            "spiffe",
            "users",
            "orders",
        ];
        for word in words {
            assert!(!holds(up, word) && !holds(down, word), "`{word}` is on the wire");
        }
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_1_http_2_websockets_and_bytes_pass_under_mutual_tls() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let chat = Service::each(|stream, _| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let chat = mesh.instance("chat", chat.await).await;
    let shout = Service::each(|mut stream, _| async move {
        let mut text = String::new();
        let _broken = stream.read_to_string(&mut text).await;
        let _gone = stream.write_all(text.to_uppercase().as_bytes()).await;
    });
    mesh.service("store", Protocol::Tcp, Policy::default());
    let store = mesh.instance("store", shout.await).await;
    [&users, &chat, &store].into_iter().for_each(open);
    let outbound = mesh.outbound("orders").local_addr();
    let ingress = mesh.route("/", "users").route("/ws", "chat").ingress().local_addr();
    for address in [outbound, ingress] {
        for _ in 0..20 {
            assert_eq!(get(address, "users", "/").await.status, 200);
        }
        let two = Client2::to(address).await;
        for _ in 0..20 {
            let ask = request(Method::GET, "users", "/").body(full("")).expect("a request");
            assert_eq!(two.send(ask).await.expect("an answer").status, 200);
        }
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (mut socket, _) = tokio_tungstenite::client_async("ws://chat/ws/chat", stream).await.expect("a WebSocket");
        for text in ["hello", "again"] {
            socket.send(Message::text(text)).await.expect("sent");
            assert_eq!(socket.next().await.expect("an answer").expect("sound").to_string(), text);
        }
        socket.close(None).await.expect("closed");
    }
    assert!(users.service.requests() >= 80);
    let bytes = mesh.outbound_of("orders", Some("store"));
    let mut stream = TcpStream::connect(bytes.local_addr()).await.expect("a connection");
    stream.write_all(b"hello").await.expect("sent");
    stream.shutdown().await.expect("ended");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert_eq!(answer, "HELLO", "the end of one direction is passed on, too");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_tls_gets_nothing_of_a_request() {
    let mesh = Mesh::mutual();
    mesh.service("users", Protocol::Http, Policy::default());
    let plain = Service::echo().await;
    mesh.endpoint("users", &"users-1@here".parse().expect("an id"), plain.address, InstanceState::Ready);
    let outbound = mesh.outbound("orders").local_addr();
    let got = get(outbound, "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (502, "connect_failed"));
    assert!(got.body.contains("handshake"), "it says why: {}", got.body);
    assert_eq!(plain.requests(), 0);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_service_at_the_address_gets_nothing_of_a_request() {
    let mesh = Mesh::mutual();
    let billing = mesh.instance("billing", Service::echo().await).await;
    let users = mesh.instance("users", Service::echo().await).await;
    open(&users);
    open(&billing);
    // The table says that one of `users` is where `billing` is.
    mesh.endpoint("users", &"users-2@here".parse().expect("an id"), billing.inbound.local_addr(), InstanceState::Ready);
    let outbound = mesh.outbound("orders").local_addr();
    for _ in 0..20 {
        let got = get(outbound, "users", "/").await;
        assert_eq!(got.status, 200, "the right one is tried next: {}", got.body);
    }
    assert_eq!((billing.service.requests(), users.service.requests()), (0, 20));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_one_service_is_never_used_for_another_that_took_its_address() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::says("users").await).await;
    let orders = mesh.instance("orders", Service::says("orders").await).await;
    open(&orders);
    open(&users);
    let wire = Wire::to(users.inbound.local_addr()).await;
    mesh.endpoint("users", &users.id, wire.address, InstanceState::Ready);
    let outbound = mesh.outbound("web").local_addr();
    assert_eq!(get(outbound, "users", "/").await.body, "users");
    // The address changes hands while a connection to the former holder stays open.
    *wire.to.lock().expect("lock") = orders.inbound.local_addr();
    mesh.endpoint("orders", &orders.id, wire.address, InstanceState::Ready);
    for _ in 0..10 {
        assert_eq!(get(outbound, "orders", "/").await.body, "orders");
    }
    assert_eq!(users.service.requests(), 1);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_certificate_is_refused_is_told_so_and_by_whom() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    open(&users);
    mesh.route("/", "users");
    // Somebody of the mesh, who has no business at an inbound.
    let connector = mesh.connector(Role::Operator(name("eve")));
    let ingress = mesh.ingress_with(|config| config.connector = connector).local_addr();
    for is_http2 in [false, true] {
        let ask = request(Method::GET, "users", "/").body(full("")).expect("a request");
        let got = match is_http2 {
            false => send(ingress, ask).await,
            true => Client2::to(ingress).await.send(ask).await.expect("an answer"),
        };
        assert_eq!((got.status, got.header("x-synego-reason")), (502, "connect_failed"), "{}", got.body);
        for part in ["handshake to", "refused_by_peer", "svc/users"] {
            assert!(got.body.contains(part), "`{part}` in {}", got.body);
        }
    }
    assert_eq!(users.service.requests(), 0);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inbound_answers_no_one_who_does_not_prove_who_it_is() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let inbound = users.inbound.local_addr();
    for bytes in ["GET / HTTP/1.1\r\nhost: users\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let answer = raw(inbound, bytes.as_bytes()).await;
        assert!(!answer.contains("HTTP") && answer.len() < 32, "{answer:?}");
    }
    // An operator is somebody, but has no business here.
    let alice = mesh.connector(Role::Operator(name("alice")));
    let role = Role::Service(name("users"));
    let made = alice.connect(&inbound, &role, None, std::time::Duration::from_secs(5)).await;
    let mut stream: Stream = made.expect("its own side is done before it is judged");
    let _refused = stream.write_all(b"GET / HTTP/1.1\r\nhost: users\r\n\r\n").await;
    assert!(stream.read(&mut [0; 64]).await.is_err());
    assert_eq!(users.service.requests(), 0);
    until("three are counted", || {
        mesh.metrics.render().lines().any(|line| line == "synego_inbound_refused_connections_total 3")
    })
    .await;
    mesh.end().await;
}
