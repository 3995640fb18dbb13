//! What streams: headers and bodies to masters and back, WebSocket, server-sent events.

use ::http::Method;
use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use tokio_tungstenite::tungstenite::Message;

use crate::edge::{Edge, LONG, config, gateway};
use crate::http::{ask, get, send};
use crate::master::Master;

#[tokio::test]
async fn a_request_reaches_the_master_as_it_was_with_forwarded_fields_of_ours() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let forged = [
        ("host", "shop.example.com:8080"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=6.6.6.6"),
        ("x-synego-fallback", "spa"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-request-id", "mine-1"),
        ("x-own", "kept"),
    ];
    let answer = send(edge.http(), Method::PUT, "/api/echo?a=%2Fb&c", &forged, "body").await;
    let seen = String::from_utf8(answer.into_body().collect().await.expect("body").to_bytes().to_vec()).expect("text");
    let port = edge.http().port();
    for line in [
        "PUT /api/echo?a=%2Fb&c",
        "host: shop.example.com:8080",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: shop.example.com:8080",
        &format!("x-forwarded-port: {port}"),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "x-request-id: mine-1",
        "x-own: kept",
        "content-length: 4",
    ] {
        assert!(seen.lines().any(|seen| seen == line), "no `{line}` in {seen}");
    }
    assert!(!seen.contains("6.6.6.6") && !seen.contains("x-synego-") && !seen.contains("connection:"), "{seen}");
    assert!(seen.ends_with("\n\nbody"));
    let made = get(edge.http(), "/api/echo").await.text();
    let id = made.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("a request id");
    assert_eq!(id.len(), 32);
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn large_bodies_stream_both_ways_without_a_file_or_memory_for_them() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let memory = || synego_supervise::stat::usage(edge.pid()).expect("nginx").memory_bytes;
    assert_eq!(get(edge.http(), "/api/name").await.status, 200);
    let before = memory();
    let up = send(edge.http(), Method::POST, "/api/sink", &[], vec![b'x'; 64 << 20]).await;
    let size = up.into_body().collect().await.expect("body").to_bytes();
    assert_eq!(&size[..], (64 << 20).to_string().as_bytes());
    let mut down = send(edge.http(), Method::GET, "/api/source?64", &[], "").await.into_body();
    let mut received = 0;
    while let Some(frame) = down.frame().await {
        received += frame.expect("a frame").data_ref().map_or(0, bytes::Bytes::len);
    }
    assert_eq!(received, 64 << 20);
    let grown = memory().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more");
    assert_eq!(std::fs::read_dir(edge.prefix().join("temp/proxy")).expect("temp").count(), 0);
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_websocket_passes_with_all_its_messages() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let url = format!("ws://{}/api/ws", edge.http());
    let (mut socket, answer) = tokio_tungstenite::connect_async(url).await.expect("a websocket");
    assert_eq!(answer.status(), 101);
    for n in 0..100 {
        let message = Message::text(format!("{n} {}", "x".repeat(n * 100)));
        socket.send(message.clone()).await.expect("send");
        assert_eq!(socket.next().await.expect("a message").expect("a message"), message);
    }
    socket.close(None).await.expect("close");
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_websocket_outlives_a_reload() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let url = format!("ws://{}/api/ws", edge.http());
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a websocket");
    let workers = || synego_supervise::stat::all().filter(|found| found.parent == edge.pid()).count();
    assert_eq!(workers(), 1);
    synego_nginx::reload(edge.pid()).expect("a reload");
    crate::edge::eventually("a new worker", || async { workers() == 2 }).await;
    socket.send(Message::text("still here")).await.expect("send");
    assert_eq!(socket.next().await.expect("a message").expect("a message"), Message::text("still here"));
    socket.close(None).await.expect("close");
    crate::edge::eventually("the old worker gone", || async { workers() == 1 }).await;
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn events_arrive_one_by_one_as_they_happen() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let mut body = send(edge.http(), Method::GET, "/api/events", &[], "").await.into_body();
    for n in 0..5 {
        // The next event is made only after this one has come: a buffer anywhere would hold it for ever.
        let frame = tokio::time::timeout(LONG, body.frame()).await.expect("in time").expect("more").expect("a frame");
        let event = format!("data: {n}\n\n");
        assert_eq!(frame.data_ref().map(|data| &data[..]), Some(event.as_bytes()));
        master.seen.next_event.notify_one();
    }
    drop(body);
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn what_nginx_itself_refuses_is_said_in_the_form_of_the_mesh() {
    let master = Master::start("one").await;
    let mut wanted = config(gateway(), &[master.address]);
    wanted.body_limit = Some(1_000);
    let edge = Edge::start(wanted).await;
    let http = edge.http();
    let large = send(http, Method::POST, "/api/sink", &[], vec![b'x'; 2_000]).await;
    assert_eq!(large.status(), 413);
    assert_eq!(large.headers()["x-synego-reason"], "body_too_large");
    let target = format!("/{}", "x".repeat(20_000));
    assert_eq!(get(http, &target).await.reason(), (414, "target_too_long".to_owned()));
    let value = "x".repeat(20_000);
    let header = ask(http, Method::GET, "/api/name", &[("x-long", &value)]).await;
    assert_eq!(header.reason(), (431, "headers_too_large".to_owned()));
    let trace = ask(http, Method::TRACE, "/api/name", &[]).await;
    assert_eq!(trace.reason(), (405, "method_not_allowed".to_owned()));
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn a_service_cannot_reach_what_nginx_keeps_to_itself() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    assert_eq!(get(edge.http(), "/api/redirect").await.text(), "mine");
    assert_eq!(get(edge.http(), "/.synego/error").await.reason(), (404, "no_route".to_owned()));
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn every_exchange_has_its_json_line() {
    let (dir, master) = (tempfile::tempdir().expect("dir"), Master::start("one").await);
    let mut wanted = config(gateway(), &[master.address]);
    wanted.access = synego_nginx::AccessTo::Dir(dir.path().join("logs"));
    let edge = Edge::start(wanted).await;
    let quote = [("x-request-id", "a\"b"), ("user-agent", "x\"y\\z")];
    assert_eq!(ask(edge.http(), Method::GET, "/api/name", &quote).await.status, 200);
    let log = || {
        let file = std::fs::read_dir(dir.path().join("logs")).expect("dir").flatten().next()?;
        assert!(file.file_name().to_string_lossy().ends_with(".nginx.log"));
        std::fs::read_to_string(file.path()).ok().filter(|text| text.ends_with('\n'))
    };
    crate::edge::eventually("logged", || async { log().is_some() }).await;
    let line = log().expect("a line");
    for part in [
        r#""hop":"nginx""#,
        r#""method":"GET","path":"/api/name""#,
        r#""status":200"#,
        r#""request_id":"a\"b""#,
        r#""user_agent":"x\"y\\z""#,
        &format!(r#""upstream":"{}""#, master.address),
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    edge.stop().await;
    master.kill().await;
}
