//! gRPC through the mesh: all kinds of calls, their trailers, their status, their deadline.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use synego_model::{Policy, Protocol};
use synego_runtime::clock;
use tokio::sync::mpsc;

type Frames = mpsc::UnboundedSender<Frame<Bytes>>;

/// A body whose frames are sent one by one.
fn stream() -> (Frames, Body) {
    let (sender, receiver) = mpsc::unbounded_channel::<Frame<Bytes>>();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (Ok::<_, std::convert::Infallible>(frame), receiver))
    });
    (sender, StreamBody::new(frames.boxed()).map_err(|never| match never {}).boxed_unsync())
}

/// Trailers with this status.
fn status(code: &'static str, message: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers.insert("x-meta-bin", HeaderValue::from_static("AAEC"));
    Frame::trailers(trailers)
}

/// One message, then a reset: when the call's time is over, as gRPC's own servers do it, or at once when it has none.
fn breaks_off(timeout: Option<HeaderValue>) -> Body {
    let left = timeout.map_or(Duration::ZERO, |timeout| {
        let text = timeout.to_str().expect("text");
        let (number, unit) = text.split_at(text.len() - 1);
        let number = number.parse().expect("a number");
        if unit == "n" { Duration::from_nanos(number) } else { Duration::from_micros(number) }
    });
    let frames = futures_util::stream::once(async { Ok(Frame::data(bytes("one"))) });
    let end = futures_util::stream::once(async move {
        tokio::time::sleep(left).await;
        Err("broken off".into())
    });
    StreamBody::new(frames.chain(end).boxed()).boxed_unsync()
}

/// Echoes each message of a call, then ends it with status 9; `/refuse` answers with trailers only, `/stuck` never.
async fn orders() -> Service {
    Service::http(|request| {
        Box::pin(async move {
            let answer = Response::builder().header("content-type", "application/grpc");
            match request.uri().path() {
                "/refuse" => {
                    answer.header("grpc-status", "7").header("grpc-message", "no").body(full("")).expect("an answer")
                }
                "/stuck" => std::future::pending().await,
                "/breaks" => {
                    answer.body(breaks_off(request.headers().get("grpc-timeout").cloned())).expect("an answer")
                }
                _ => {
                    let seen = request.headers().get("grpc-timeout").cloned();
                    let (frames, body) = stream();
                    synego_runtime::tasks::spawn("test-echo", synego_runtime::tasks::Kind::Connection, async move {
                        let mut messages = request.into_body();
                        while let Some(Ok(frame)) = messages.frame().await {
                            if let Ok(data) = frame.into_data() {
                                let _ = frames.send(Frame::data(data));
                            }
                        }
                        let _ = frames.send(status("9", "order%20closed"));
                    });
                    let seen = seen.unwrap_or(HeaderValue::from_static("none"));
                    answer.header("x-seen-timeout", seen).body(body).expect("an answer")
                }
            }
        })
    })
    .await
}

async fn mesh() -> (Mesh, Instance, Client2, Client2) {
    let mesh = Mesh::start();
    mesh.service("orders", Protocol::Grpc, Policy::default()).route("/", "orders");
    let instance = mesh.instance("orders", orders().await).await;
    let outbound = Client2::to(mesh.outbound("users").local_addr()).await;
    let ingress = Client2::to(mesh.ingress().local_addr()).await;
    (mesh, instance, outbound, ingress)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unary_call_keeps_its_message_metadata_trailers_and_status() {
    let (mesh, _orders, outbound, ingress) = mesh().await;
    for client in [outbound, ingress] {
        let call = grpc("orders", "/shop.v1.Orders/Create").header("grpc-timeout", "5S").body(full("message"));
        let got = client.send(call.expect("a call")).await.expect("an answer");
        let trailers = got.trailers.as_ref().expect("trailers");
        assert_eq!((got.status, got.body.as_str()), (200, "message"));
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"9".parse::<HeaderValue>().expect("v"), &"order%20closed".parse::<HeaderValue>().expect("v"))
        );
        assert_eq!(trailers["x-meta-bin"], "AAEC");
        let seen = got.header("x-seen-timeout");
        let micros: u64 = seen.strip_suffix('u').expect("finer than given").parse().expect("a number");
        assert!((4_000_000..5_000_000).contains(&micros), "shortened, never lengthened: {seen}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_service_arrives_as_it_was_given() {
    let (mesh, _orders, outbound, _) = mesh().await;
    let got = outbound.send(grpc("orders", "/refuse").body(full("x")).expect("a call")).await.expect("an answer");
    assert_eq!((got.status, got.header("grpc-status"), got.header("grpc-message")), (200, "7", "no"));
    assert_eq!(got.trailers, None);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_flow_in_both_directions_while_the_call_lasts() {
    let (mesh, orders, outbound, _) = mesh().await;
    let (frames, body) = stream();
    let call = outbound.head(grpc("orders", "/shop.v1.Orders/Sync").body(body).expect("a call"));
    frames.send(Frame::data(bytes("one"))).expect("open");
    let mut answer = call.await.expect("a head before the end of the request").into_body();
    for message in ["one", "two", "three"] {
        if message != "one" {
            frames.send(Frame::data(Bytes::from_static(message.as_bytes()))).expect("open");
        }
        let echoed = answer.frame().await.expect("a frame").expect("sound").into_data().expect("data");
        assert_eq!(echoed, message);
    }
    assert_eq!(orders.service.requests.load(Ordering::SeqCst), 1);
    drop(frames);
    let trailers = answer.frame().await.expect("a frame").expect("sound").into_trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "9");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_time_is_over_is_told_so_by_the_mesh() {
    let (mesh, _orders, outbound, _) = mesh().await;
    let began = clock::now();
    let call = grpc("orders", "/stuck").header("grpc-timeout", "300m").body(full("x")).expect("a call");
    let got = outbound.send(call).await.expect("an answer");
    assert_eq!((got.status, got.header("grpc-status"), got.header("x-synego-reason")), (200, "4", "deadline_exceeded"));
    assert!(clock::now().duration_since(began) < Duration::from_secs(2));
    // The same when its head has gone out: the stream ends with trailers.
    let (frames, body) = stream();
    frames.send(Frame::data(bytes("one"))).expect("open");
    let call = grpc("orders", "/shop.v1.Orders/Sync").header("grpc-timeout", "300m").body(body).expect("a call");
    let got = outbound.send(call).await.expect("an answer");
    assert_eq!(got.body, "one");
    assert_eq!(got.trailers.expect("trailers")["grpc-status"], "4");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_breaks_off_after_its_head_is_told_why_in_trailers() {
    let (mesh, _orders, outbound, ingress) = mesh().await;
    for client in [outbound, ingress] {
        let call = grpc("orders", "/breaks").body(full("x")).expect("a call");
        let got = client.send(call).await.expect("an answer");
        let trailers = got.trailers.expect("trailers");
        assert_eq!((got.body.as_str(), &trailers["grpc-status"]), ("one", &HeaderValue::from_static("14")));
        assert_eq!(trailers["x-synego-reason"], "upstream_reset");

        let call = grpc("orders", "/breaks").header("grpc-timeout", "100m").body(full("x")).expect("a call");
        let got = client.send(call).await.expect("an answer");
        let trailers = got.trailers.expect("trailers");
        assert_eq!((got.body.as_str(), &trailers["grpc-status"]), ("one", &HeaderValue::from_static("4")));
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_mesh_cannot_pass_on_gets_trailers_only() {
    let (mesh, orders, outbound, ingress) = mesh().await;
    let nobody = grpc("nobody", "/x").body(full("x")).expect("a call");
    mesh.asked.unknown.lock().expect("lock").push(name("nobody"));
    let got = outbound.send(nobody).await.expect("an answer");
    assert_eq!((got.status, got.header("grpc-status"), got.header("x-synego-reason")), (200, "12", "unknown_service"));
    assert_eq!(got.header("content-type"), "application/grpc");
    orders.service.kill();
    let call = || grpc("orders", "/x").body(full("x")).expect("a call");
    until("the port is closed", || std::net::TcpStream::connect(orders.service.address).is_err()).await;
    let got = ingress.send(call()).await.expect("an answer");
    assert_eq!((got.status, got.header("grpc-status"), got.header("x-synego-reason")), (200, "14", "connect_failed"));
    let logged = mesh.logged("connect_failed");
    assert!(
        logged.iter().any(|line| line["hop"] == "inbound" && line["grpc_status"] == 14 && line["protocol"] == "grpc")
    );
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_client_resets_ends_at_the_service() {
    let mesh = Mesh::start();
    mesh.service("orders", Protocol::Grpc, Policy::default());
    let orders = mesh.instance("orders", orders().await).await;
    let outbound = mesh.outbound("users").local_addr();
    let stream = tokio::net::TcpStream::connect(outbound).await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
    synego_runtime::tasks::spawn("test-client", synego_runtime::tasks::Kind::Connection, connection);
    // Before its answer begins, and in the middle of it.
    for (path, sends) in [("/stuck", false), ("/shop.v1.Orders/Sync", true)] {
        let call = grpc("orders", path).body(()).expect("a call");
        let (answer, mut body) = client.send_request(call, false).expect("sent");
        if sends {
            body.send_data(bytes("one"), false).expect("sent");
            let head = answer.await.expect("a head");
            assert_eq!(head.status(), 200);
        } else {
            until("it is in flight", || orders.load.load().in_flight == 1).await;
        }
        body.send_reset(h2::Reason::CANCEL);
        until("it has ended", || orders.load.load().in_flight == 0).await;
    }
    assert_eq!(mesh.logged("\"complete\":false").len(), 4, "two calls, two hops");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_share_a_connection() {
    let mesh = Mesh::with_workers(1);
    mesh.service("orders", Protocol::Grpc, Policy::default());
    let orders = mesh.instance("orders", orders().await).await;
    let client = Client2::to(mesh.outbound("users").local_addr()).await;
    let calls = (0..200).map(|_| client.send(grpc("orders", "/x").body(full("m")).expect("a call")));
    for got in futures_util::future::join_all(calls).await {
        assert_eq!(got.expect("an answer").body, "m");
    }
    assert!(orders.service.connections() <= 3, "{}", orders.service.connections());
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_converted_for_a_service_that_speaks_http1_alone() {
    let mesh = Mesh::start();
    let users = Service::each(|stream, service| async move {
        let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            service.requests.fetch_add(1, Ordering::SeqCst);
            let text = format!("{:?} {} {:?}", request.version(), request.uri(), request.headers().get("cookie"));
            let host = request.headers().get("host").cloned().expect("a host");
            async move {
                Ok::<_, std::convert::Infallible>(
                    Response::builder().header("x-host", host).body(full(text)).expect("an answer"),
                )
            }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
    })
    .await;
    let _users = mesh.instance("users", users).await;
    let client = Client2::to(mesh.outbound("orders").local_addr()).await;
    let call = http::Request::get("http://users/7").header("cookie", "a=1").header("cookie", "b=2").body(full(""));
    let got = client.send(call.expect("a request")).await.expect("an answer");
    assert_eq!((got.status, got.header("x-host")), (200, "users"), "{}", got.body);
    assert_eq!(got.body, r#"HTTP/1.1 /7 Some("a=1; b=2")"#);
    mesh.end().await;
}
