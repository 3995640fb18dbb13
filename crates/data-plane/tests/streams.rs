//! What lasts: WebSockets, event streams, large bodies in both directions, and bytes of services that speak no HTTP.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use synego_model::{InstanceId, InstanceState, Policy, Protocol, Reason};
use synego_runtime::{clock, tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// A chat that echoes.
async fn chat() -> Service {
    Service::each(|stream, service| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        service.requests.fetch_add(1, Ordering::SeqCst);
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn websocket(address: std::net::SocketAddr) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let url = "ws://chat/ws/chat";
    tokio_tungstenite::client_async(url, stream).await.expect("a WebSocket").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_all_hops_and_counts_as_a_stream() {
    let mesh = Mesh::start();
    let instance = mesh.instance("chat", chat().await).await;
    let ingress = mesh.route("/ws", "chat").ingress();
    let outbound = mesh.outbound("users");
    for server in [&ingress, &outbound] {
        let mut socket = websocket(server.local_addr()).await;
        for text in ["hello", "again"] {
            socket.send(Message::text(text)).await.expect("sent");
            assert_eq!(socket.next().await.expect("an answer").expect("sound").to_string(), text);
        }
        assert_eq!((server.open_streams(), server.in_flight()), (1, 0));
        assert_eq!((instance.load.load().open_streams, instance.load.load().in_flight), (1, 0));
        socket.close(None).await.expect("closed");
        if server.local_addr() == outbound.local_addr() {
            drop(socket);
        }
        // The other client keeps its half open, for which a WebSocket has no use.
        until("the stream is over", || server.open_streams() == 0).await;
    }
    let logged = mesh.logged("/ws/chat");
    assert!(logged.iter().all(|line| line["status"] == 101 && line["bytes_in"].as_u64() > Some(0)), "{logged:?}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_websockets_do_not_notice_that_instances_join_and_leave() {
    let mesh = Mesh::start();
    let chat = mesh.instance("chat", chat().await).await;
    let ingress = mesh.route("/", "chat").ingress();
    let mut sockets = Vec::new();
    for _ in 0..90 {
        sockets.push(websocket(ingress.local_addr()).await);
    }
    let other: InstanceId = "chat-9@there".parse().expect("an id");
    for turn in 0..100 {
        let state = if turn % 2 == 0 { InstanceState::Ready } else { InstanceState::Gone };
        mesh.endpoint("chat", &other, ([127, 0, 0, 1], 9).into(), state);
        let state = if turn % 4 < 2 { InstanceState::Draining } else { InstanceState::Ready };
        mesh.endpoint("chat", &chat.id, chat.inbound.local_addr(), state);
        let _ = get(ingress.local_addr(), "a", "/").await;
    }
    assert_eq!(ingress.open_streams(), 90);
    for socket in &mut sockets {
        socket.send(Message::text("still here")).await.expect("sent");
        assert_eq!(socket.next().await.expect("an answer").expect("sound").to_string(), "still here");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_websocket_is_closed_after_its_idle_limit() {
    let mesh = Mesh::start();
    mesh.service("chat", Protocol::Http, Policy { idle: Duration::from_secs(2), ..Policy::default() });
    let _chat = mesh.instance("chat", chat().await).await;
    let ingress = mesh.route("/", "chat").ingress();
    let mut socket = websocket(ingress.local_addr()).await;
    let began = clock::now();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        socket.send(Message::text("x")).await.expect("it moves, so it lives");
        socket.next().await.expect("an answer").expect("sound");
    }
    assert!(socket.next().await.is_none_or(|ended| ended.is_err()));
    assert!(clock::now().duration_since(began) > Duration::from_secs(4));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_changes_the_protocol_unasked_has_answered_badly() {
    let service = Service::each(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    })
    .await;
    let mesh = Mesh::start();
    let _users = mesh.instance("users", service).await;
    let got = get(mesh.outbound("orders").local_addr(), "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (502, "bad_response"), "{}", got.body);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_arrive_one_by_one_and_outlive_the_timeout_of_requests() {
    let mesh = Mesh::start();
    let policy =
        Policy { timeout: Duration::from_millis(200), try_timeout: Duration::from_millis(200), ..Policy::default() };
    mesh.service("users", Protocol::Http, policy);
    let ticker = Service::http(|_| {
        let events = futures_util::stream::unfold(0, |number| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let event = Frame::data(Bytes::from(format!("data: {number}\n\n")));
            (number < 8).then_some((Ok::<_, std::convert::Infallible>(event), number + 1))
        });
        let body: Body = StreamBody::new(events).map_err(|never| match never {}).boxed_unsync();
        Box::pin(async {
            Response::builder().header("content-type", "text/event-stream").body(body).expect("an answer")
        })
    });
    let _users = mesh.instance("users", ticker.await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut client = Client1::to(ingress.local_addr()).await;
    let asked = request(Method::GET, "a", "/ticker").body(full("")).expect("a request");
    let mut body = client.head(asked).await.expect("a head").into_body();
    let mut times = Vec::new();
    for number in 0..8 {
        let event = body.frame().await.expect("an event").expect("sound").into_data().expect("data");
        assert_eq!(event, format!("data: {number}\n\n"));
        assert_eq!(ingress.open_streams(), 1);
        times.push(clock::now());
    }
    assert!(times[7].duration_since(times[0]) > Duration::from_millis(500), "they were not held back");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_the_writer() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let endless = Service::http(move |request| {
        if request.uri().path() == "/small" {
            return Box::pin(async { Response::new(full("small")) });
        }
        let count = count.clone();
        let chunk = Bytes::from(vec![7; 64 * 1024]);
        let frames = futures_util::stream::repeat_with(move || {
            count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(Frame::data(chunk.clone()))
        });
        let body: Body = StreamBody::new(frames.boxed()).map_err(|never| match never {}).boxed_unsync();
        Box::pin(async { Response::new(body) })
    })
    .await;
    let mesh = Mesh::start();
    let _files = mesh.instance("files", endless).await;
    let ingress = mesh.route("/", "files").ingress().local_addr();
    let stream =
        Client1::to(ingress).await.head(request(Method::GET, "a", "/").body(full("")).expect("a request")).await;
    let _unread = stream.expect("a head");
    // What the kernel buffers at each hop is all that is taken. It stands still when nothing more is taken over many round
    // trips beside it.
    let mut beside = Client1::to(ingress).await;
    let (mut before, mut stands) = (0, false);
    for _ in 0..500 {
        for _ in 0..20 {
            assert_eq!(beside.get("a", "/small").await.expect("an answer").body, "small");
        }
        let now = sent.load(Ordering::Relaxed);
        stands = std::mem::replace(&mut before, now) == now;
        if stands {
            break;
        }
    }
    assert!(stands, "it is still written");
    assert!(before < 40 * 1024 * 1024, "{before}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_of_a_length_arrive_whole_and_the_connections_go_on() {
    let echo = Service::http(|request| {
        Box::pin(async {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            Response::new(
                http_body_util::Full::new(body.unwrap_or_default()).map_err(|never| match never {}).boxed_unsync(),
            )
        })
    });
    let mesh = Mesh::start();
    let files = mesh.instance("files", echo.await).await;
    let mut client = Client1::to(mesh.route("/", "files").ingress().local_addr()).await;
    for size in [1_000_000_u32, 70_000, 5_000_001, 3] {
        let sent: Bytes = (0..size).map(|n| (n / 3) as u8).collect::<Vec<_>>().into();
        let body = http_body_util::Full::new(sent.clone()).map_err(|never| match never {}).boxed_unsync();
        let asked = request(Method::POST, "a", "/").body(body).expect("a request");
        let answer = client.head(asked).await.expect("an answer");
        assert_eq!(answer.headers()["content-length"], size.to_string());
        let got = answer.into_body().collect().await.expect("a body").to_bytes();
        assert!(got == sent, "{} of {size} bytes came back", got.len());
    }
    assert_eq!(files.service.connections.load(Ordering::SeqCst), 1);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_that_breaks_off_is_no_whole_one() {
    let liar = Service::each(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n").await;
        let _ = stream.write_all(&vec![7; 3_000_000]).await;
    });
    let mesh = Mesh::start();
    let _files = mesh.instance("files", liar.await).await;
    let ingress = mesh.route("/", "files").ingress();
    let mut client = Client1::to(ingress.local_addr()).await;
    let asked = request(Method::GET, "a", "/").body(full("")).expect("a request");
    let answer = client.head(asked).await.expect("a head");
    assert!(answer.into_body().collect().await.is_err());
    until("it is recorded", || !mesh.logged("upstream_reset").is_empty()).await;
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_balanced_when_they_connect_and_copied_both_ways() {
    let shout = || async {
        Service::each(|mut stream, service| async move {
            service.requests.fetch_add(1, Ordering::SeqCst);
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text).await;
            let _ = stream.write_all(text.to_uppercase().as_bytes()).await;
        })
        .await
    };
    let mesh = Mesh::start();
    mesh.service("store", Protocol::Tcp, Policy::default());
    let one = mesh.instance("store", shout().await).await;
    let two = mesh.instance("store", shout().await).await;
    let outbound = mesh.outbound_of("users", Some("store"));
    let ask = || async {
        let mut stream = TcpStream::connect(outbound.local_addr()).await.expect("a connection");
        stream.write_all(b"hello").await.expect("sent");
        stream.shutdown().await.expect("ended");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    };
    for _ in 0..20 {
        assert_eq!(ask().await, "HELLO");
    }
    assert!(one.service.requests() > 0 && two.service.requests() > 0);
    one.inbound.drain(Duration::ZERO).await;
    for _ in 0..10 {
        assert_eq!(ask().await, "HELLO", "the one that is gone is left out");
    }
    let http = get(mesh.outbound("users").local_addr(), "store", "/").await;
    assert_eq!((http.status, http.header("x-synego-reason")), (400, "bad_request"));
    assert!(mesh.logged("\"tcp\"").len() >= 30);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_requests_and_closes_websockets_politely() {
    let mesh = Mesh::start();
    let slow = Service::http(|_| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Response::new(full("done"))
        })
    });
    let users = mesh.instance("users", slow.await).await;
    let instance = mesh.instance("chat", chat().await).await;
    let ingress = mesh.route("/", "users").route("/ws", "chat").ingress();
    let mut socket = websocket(ingress.local_addr()).await;
    let mut idle = Client1::to(ingress.local_addr()).await;
    assert_eq!(idle.get("a", "/").await.expect("an answer").status, 200);
    let address = ingress.local_addr();
    let request = tasks::spawn("test-request", tasks::Kind::Connection, async move { get(address, "a", "/").await });
    until("it is in flight", || ingress.in_flight() == 1).await;
    // As a client does, which answers a close by itself.
    let last = tasks::spawn("test-socket", tasks::Kind::Connection, async move {
        let last = socket.next().await;
        let _over = socket.next().await;
        last
    });
    let outcome = ingress.drain(Duration::from_millis(900)).await;
    let got = request.await.expect("a task");
    assert_eq!((got.body.as_str(), got.header("connection")), ("done", "close"));
    assert_eq!((outcome.cut_requests, outcome.cut_streams), (0, 0));
    assert!(idle.is_closed().await && TcpStream::connect(address).await.is_err());
    let last = last.await.expect("the task").expect("a close").expect("sound");
    let Message::Close(Some(close)) = last else { panic!("{last:?}") };
    assert_eq!(u16::from(close.code), 1001);
    assert_eq!(mesh.logged("\"reason\":\"draining\"").len(), 0, "nothing was cut");
    assert_eq!(users.load.load().in_flight + instance.load.load().in_flight, 0);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_server_refuses_what_is_new_and_tells_http2_to_go_away() {
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::says("users").await).await;
    users.inbound.set_draining(true);
    let got = get(users.inbound.local_addr(), "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, Reason::Draining.word()));
    users.inbound.set_draining(false);
    let client = Client2::to(users.inbound.local_addr()).await;
    let asked = || http::Request::get("http://users/").body(full("")).expect("a request");
    assert_eq!(client.send(asked()).await.expect("an answer").status, 200);
    let outcome = users.inbound.drain(Duration::from_secs(5)).await;
    assert_eq!(outcome, synego_data_plane::DrainOutcome::default());
    until("the connection is closed", || client.is_closed()).await;
    mesh.end().await;
}
