//! HTTP/2 with hand-written frames: the settings that each hop tells, floods that must not harm others, and messages
//! that break the rules of RFC 9113.

#[path = "support/frames.rs"]
mod frames;
#[path = "support/hops.rs"]
mod hops;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use frames::*;
use hops::{Hops, nothing_wrong};
use http::Response;
use http_body_util::BodyExt;
use support::*;

/// A service that counts the requests whose body came to its end.
async fn whole() -> (Service, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let counted = count.clone();
    let service = Service::http(move |request| {
        let counted = counted.clone();
        Box::pin(async move {
            if request.into_body().collect().await.is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Response::new(full("users"))
        })
    });
    (service.await, count)
}

/// The hops to such a service, and its count.
async fn hops() -> (Hops, Arc<AtomicUsize>) {
    let (service, whole) = whole().await;
    (Hops::of(service).await, whole)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_hop_tells_its_limits_in_its_settings() {
    let (hops, _) = hops().await;
    for ((hop, address), (streams, window, connection_window)) in
        hops.each().into_iter().zip([(100, 64 << 10, 1 << 20), (250, 256 << 10, 2 << 20), (250, 256 << 10, 2 << 20)])
    {
        let client = Raw2::to(address).await;
        until("the window of the connection", || client.count(WINDOW_UPDATE, 0) > 0).await;
        let frames = client.frames();
        let settings = frames.iter().find(|frame| frame.kind == SETTINGS).expect("settings");
        let value = |id: u16| {
            let mut pairs = settings.payload.chunks(6);
            pairs.find(|pair| pair[..2] == id.to_be_bytes()).map(|pair| word(pair, 2))
        };
        assert!(value(1).is_none_or(|table| table == 4096), "{hop}: the table of HPACK");
        assert_eq!((value(3), value(4), value(6)), (Some(streams), Some(window), Some(64 << 10)), "{hop}");
        assert!(value(5).is_none_or(|frame| frame == 16_384), "{hop}: the largest frame");
        assert_eq!(value(8).unwrap_or(0), 0, "{hop}: no CONNECT with a protocol");
        let update = frames.iter().find(|frame| frame.kind == WINDOW_UPDATE).expect("an update");
        assert_eq!((update.stream, word(&update.payload, 0) + 65_535), (0, connection_window), "{hop}");
    }
    hops.mesh.end().await;
}

/// Frames of a flood that asks for an answer to each.
const FLOOD: usize = 50_000;

/// Floods, by name.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let get = Block::request("GET", "/", &[]);
    let cancel = 8_u32.to_be_bytes();
    let resets = (0..1000_u32).flat_map(|number| {
        let stream = 2 * number + 1;
        [get.frames(stream, END_STREAM), frame(RESET, 0, stream, &cancel)].concat()
    });
    let first = frame(HEADERS, END_STREAM, 1, &get.0);
    let field = Block::of(&[("x-more", "1")]).0;
    let continued = (0..10_000).flat_map(|_| frame(CONTINUATION, 0, 1, &field));
    let nothing_continued = (0..10_000).flat_map(|_| frame(CONTINUATION, 0, 1, b""));
    let post = Block::request("POST", "/", &[]).frames(1, 0);
    let empty = (0..10_000).flat_map(|_| frame(DATA, 0, 1, b""));
    let padded = (0..10_000).flat_map(|_| frame(DATA, PADDED, 1, &[255; 256]));
    let bomb = Block::request("GET", "/", &[]).remembered(b"x-bomb", &[b'b'; 4000]).newest(16_000);
    // A value of 100 bytes, so that the number of fields and not one of them is too large.
    let many = Block::request("GET", "/", &[]).remembered(b"cookie", &[b'c'; 100]).newest(16_000);
    vec![
        ("rapid reset", resets.collect()),
        ("CONTINUATION", first.iter().copied().chain(continued).collect()),
        ("empty CONTINUATION", first.iter().copied().chain(nothing_continued).collect()),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(FLOOD)),
        ("PING", frame(PING, 0, 0, b"pingping").repeat(FLOOD)),
        ("empty DATA", post.iter().copied().chain(empty).collect()),
        ("padding alone", post.iter().copied().chain(padded).collect()),
        ("header bomb", bomb.frames(1, END_STREAM)),
        ("bomb of cookies", many.frames(1, END_STREAM)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_told_to_calm_down_and_other_clients_are_unharmed() {
    let (hops, _) = hops().await;
    let mut wrong = Vec::new();
    for (hop, address) in hops.each() {
        for (what, bytes) in floods() {
            let mut client = Raw2::to(address).await;
            let others = async {
                for _ in 0..5 {
                    assert_eq!(get(address, "users", "/").await.status, 200, "{hop}: {what}");
                }
            };
            tokio::join!(client.flood(&bytes), others);
            // Whatever is still in the pipes is answered before this.
            client.send(&frame(PING, 0, 0, b"the last")).await;
            let answered = || client.frames().iter().any(|frame| frame.kind == PING && frame.payload == b"the last");
            until("the flood is over", || client.is_closed() || client.away().is_some() || answered()).await;
            if client.away() == Some(ENHANCE_YOUR_CALM) {
                until("it is closed", || client.is_closed()).await;
            } else {
                // At least each is answered before the next is read, so that nothing piles up.
                let said = client.count(SETTINGS, ACK).max(client.count(PING, ACK));
                assert!(answered() && said >= FLOOD, "{hop}: {what}: {said} answers, {:?}", client.away());
                wrong.push(format!("{hop}: {what}: {:?}, closed: {}", client.away(), client.is_closed()));
            }
        }
        assert_eq!(get(address, "users", "/").await.status, 200, "{hop}: afterwards");
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

/// Header blocks that are no request, and what they are.
fn malformed() -> Vec<(&'static str, Block)> {
    let with = |fields: &[(&str, &str)]| Block::request("GET", "/", fields);
    let pseudo = |fields: &[(&str, &str)]| Block::of(fields);
    let (method, scheme, authority, path) =
        ((":method", "GET"), (":scheme", "http"), (":authority", "users"), (":path", "/"));
    vec![
        ("upper case", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("te with more than trailers", with(&[("te", "trailers, deflate")])),
        ("no method", pseudo(&[scheme, authority, path])),
        ("no scheme", pseudo(&[method, authority, path])),
        ("no path", pseudo(&[method, scheme, authority])),
        ("no authority and no host", pseudo(&[method, scheme, path])),
        ("empty path", pseudo(&[method, scheme, authority, (":path", "")])),
        ("no slash", pseudo(&[method, scheme, authority, (":path", "users")])),
        ("asterisk", pseudo(&[method, scheme, authority, (":path", "*")])),
        ("blank in the path", pseudo(&[method, scheme, authority, (":path", "/a b")])),
        ("line in the path", pseudo(&[method, scheme, authority, (":path", "/ HTTP/1.1\r\nx: 1")])),
        ("blank in the method", pseudo(&[(":method", "GET /x"), scheme, authority, path])),
        ("user in the authority", pseudo(&[method, scheme, (":authority", "me@users"), path])),
        ("empty authority", pseudo(&[method, scheme, (":authority", ""), path])),
        ("path twice", pseudo(&[method, scheme, authority, path, path])),
        ("method twice", pseudo(&[method, method, scheme, authority, path])),
        ("authority twice", pseudo(&[method, scheme, authority, (":authority", "orders"), path])),
        ("late path", pseudo(&[method, scheme, authority, ("x-a", "1"), path])),
        ("unknown pseudo-header", pseudo(&[method, scheme, authority, path, (":shape", "1")])),
        ("status in a request", pseudo(&[method, scheme, authority, path, (":status", "200")])),
        ("protocol without CONNECT", pseudo(&[method, scheme, authority, path, (":protocol", "websocket")])),
        ("host of another name", with(&[("host", "orders")])),
        ("two hosts", with(&[("host", "users"), ("host", "users")])),
        ("empty name", with(&[("", "1")])),
        ("blank in a name", with(&[("x a", "1")])),
        ("colon in a name", with(&[("x:a", "1")])),
        ("line feed in a value", with(&[("x-a", "1\nx-b: 2")])),
        ("carriage return in a value", with(&[("x-a", "1\r2")])),
        ("NUL in a value", with(&[("x-a", "1\x002")])),
        ("length of a body that does not come", with(&[("content-length", "5")])),
        ("no number as length", with(&[("content-length", "+0")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "5")])),
        ("index zero", Block([with(&[]).0, vec![0x80]].concat())),
        ("index of no entry", Block([with(&[]).0, vec![0xff, 0x7f]].concat())),
        ("text longer than the block", Block([with(&[]).0, vec![0, 30, b'x']].concat())),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_and_never_reaches_the_service() {
    let (hops, _) = hops().await;
    let mut wrong = Vec::new();
    let mut served = 0;
    for (hop, address) in hops.each() {
        for (what, block) in malformed() {
            let mut client = Raw2::to(address).await;
            let got = client.ask(1, &block).await;
            if !got.is_refusal() {
                wrong.push(format!("{hop}: {what}: {got:?}"));
            }
            assert_eq!(hops.users.service.requests(), served, "{hop}: {what}: it reached the service");
            if !matches!(got, Outcome::Away(_) | Outcome::Closed) {
                // What is wrong with a stream is no fault of the others.
                let next = client.ask(3, &Block::request("GET", "/next", &[])).await;
                assert_eq!(next, Outcome::Status(200), "{hop}: after {what}");
                served += 1;
            }
        }
        let mut client = Raw2::to(address).await;
        let connect = Block::of(&[(":method", "CONNECT"), (":authority", "users:80")]);
        let got = client.ask(1, &connect).await;
        assert!(got == Outcome::Status(405) || got == Outcome::Reset(PROTOCOL_ERROR), "{hop}: CONNECT: {got:?}");
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

/// A request with a body whose frames are `body`, on stream 1.
fn posted(fields: &[(&str, &str)], body: &[Vec<u8>]) -> Vec<u8> {
    [Block::request("POST", "/", fields).frames(1, 0), body.concat()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_as_announced_never_reaches_the_service_whole() {
    let (hops, whole) = hops().await;
    let data = |flags: u8, text: &[u8]| frame(DATA, flags, 1, text);
    let trailers = |fields: &[(&str, &str)], flags: u8| Block::of(fields).frames(1, flags);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("less than its length", posted(&[("content-length", "5")], &[data(END_STREAM, b"abc")])),
        ("more than its length", posted(&[("content-length", "2")], &[data(END_STREAM, b"abc")])),
        (
            "trailers before its length",
            posted(&[("content-length", "5")], &[data(0, b"abc"), trailers(&[("x", "1")], END_STREAM)]),
        ),
        ("trailers that are not the end", posted(&[], &[data(0, b"abc"), trailers(&[("x", "1")], 0)])),
        ("connection in trailers", posted(&[], &[data(0, b"abc"), trailers(&[("connection", "x")], END_STREAM)])),
        ("padding longer than the frame", posted(&[], &[frame(DATA, PADDED | END_STREAM, 1, &[9, b'a'])])),
    ];
    let mut wrong = Vec::new();
    for (hop, address) in hops.each() {
        for (what, bytes) in &cases {
            let before = whole.load(Ordering::SeqCst);
            let mut client = Raw2::to(address).await;
            client.send(bytes).await;
            let got = client.outcome(1).await;
            if !got.is_refusal() || whole.load(Ordering::SeqCst) != before {
                wrong.push(format!("{hop}: {what}: {got:?}, {} whole requests", whole.load(Ordering::SeqCst) - before));
            }
        }
        assert_eq!(get(address, "users", "/").await.status, 200, "{hop}: afterwards");
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

/// Frames that are an error of the connection or of stream 1, and what they are.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let get = Block::request("GET", "/", &[]);
    let open = Block::request("POST", "/", &[]).frames(1, 0);
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let dependent = |stream: u32| [&stream.to_be_bytes()[..], &[16]].concat();
    let prioritised = |stream: u32| [dependent(stream), get.0.clone()].concat();
    vec![
        ("HEADERS on stream 0", get.frames(0, END_STREAM)),
        ("DATA on stream 0", frame(DATA, END_STREAM, 0, b"x")),
        ("even stream", get.frames(2, END_STREAM)),
        ("stream that goes back", [get.frames(5, END_STREAM), get.frames(3, END_STREAM)].concat()),
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x")),
        ("RST_STREAM on an idle stream", frame(RESET, 0, 1, &8_u32.to_be_bytes())),
        ("WINDOW_UPDATE on an idle stream", frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("PUSH_PROMISE of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &get.0].concat())),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &get.0)),
        (
            "another frame among CONTINUATION",
            [frame(HEADERS, END_STREAM, 1, &get.0), frame(PING, 0, 0, b"12345678")].concat(),
        ),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, END_STREAM, 1, b""), frame(CONTINUATION, END_HEADERS, 3, &get.0)].concat(),
        ),
        ("PRIORITY on itself", [open.clone(), frame(PRIORITY, 0, 1, &dependent(1))].concat()),
        ("HEADERS with priority on itself", frame(HEADERS, END_STREAM | END_HEADERS | 0x20, 1, &prioritised(1))),
        ("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &dependent(1))),
        (
            "window of the connection over the top",
            [frame(WINDOW_UPDATE, 0, 0, &most), frame(WINDOW_UPDATE, 0, 0, &most)].concat(),
        ),
        (
            "window of a stream over the top",
            [open.clone(), frame(WINDOW_UPDATE, 0, 1, &most), frame(WINDOW_UPDATE, 0, 1, &most)].concat(),
        ),
        ("update of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("first window over the top", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("largest frame too small", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        ("push neither on nor off", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("acknowledgement with a payload", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("RST_STREAM on stream 0", frame(RESET, 0, 0, &[0; 4])),
        ("RST_STREAM of three bytes", [open.clone(), frame(RESET, 0, 1, &[0; 3])].concat()),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8])),
        ("frame beyond the largest", frame(DATA, 0, 1, &[0; 20_000])),
        ("DATA after the end", [get.frames(1, END_STREAM), frame(DATA, END_STREAM, 1, b"x")].concat()),
        ("HEADERS after the end", [get.frames(1, END_STREAM), get.frames(1, END_STREAM)].concat()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_against_the_rules_end_the_connection_or_the_stream() {
    let (hops, _) = hops().await;
    let mut wrong = Vec::new();
    for (hop, address) in hops.each() {
        for (what, bytes) in broken() {
            let mut client = Raw2::to(address).await;
            client.send(&bytes).await;
            client.send(&frame(PING, 0, 0, b"the last")).await;
            let answered = || client.frames().iter().any(|frame| frame.kind == PING && frame.payload == b"the last");
            until("an end or an answer", || client.is_closed() || client.away().is_some() || answered()).await;
            let reset = client.frames().iter().any(|frame| frame.kind == RESET && word(&frame.payload, 0) != 0);
            if client.away().is_some() {
                until("it is closed", || client.is_closed()).await;
            } else if !reset {
                wrong.push(format!("{hop}: {what}: closed {}", client.is_closed()));
            }
        }
        assert_eq!(get(address, "users", "/").await.status, 200, "{hop}: afterwards");
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_data_than_the_window_holds_ends_the_stream() {
    let mesh = Mesh::start();
    // It reads nothing, so that no window is given back once the pipes are full.
    let service = Service::each(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    });
    let users = mesh.instance("users", service.await).await;
    let ingress = mesh.route("/", "users").ingress();
    let outbound = mesh.outbound("orders");
    for (hop, server) in [("ingress", &ingress), ("outbound", &outbound), ("inbound", &users.inbound)] {
        let mut client = Raw2::to(server.local_addr()).await;
        client.send(&Block::request("POST", "/", &[]).frames(1, 0)).await;
        let chunk = frame(DATA, 0, 1, &[b'x'; 16_384]);
        let mut sent = 0;
        let ended = |client: &Raw2| client.is_closed() || client.away().is_some() || client.count(RESET, 0) > 0;
        while !ended(&client) && sent < 64 << 20 && client.send(&chunk).await {
            sent += 16_384;
            tokio::task::yield_now().await;
        }
        let got = client.outcome(1).await;
        let is_flow = matches!(got, Outcome::Reset(FLOW_CONTROL_ERROR) | Outcome::Away(FLOW_CONTROL_ERROR));
        assert!(is_flow, "{hop}: {got:?} after {sent} bytes");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_beyond_the_limits_get_431_and_the_connection_goes_on() {
    let (hops, _) = hops().await;
    let large = "v".repeat(10_000);
    let one = "v".repeat(17 * 1024);
    let all: Vec<(String, &str)> = (0..8).map(|number| (format!("x-{number}"), large.as_str())).collect();
    let many: Vec<(String, &str)> = (0..150).map(|number| (format!("x-{number}"), "1")).collect();
    let cookies: Vec<(String, &str)> = (0..150).map(|_| ("cookie".to_owned(), "a=b")).collect();
    for (hop, address) in hops.each() {
        for (what, fields) in [
            ("all together", &all),
            ("one of them", &vec![("x-one".to_owned(), one.as_str())]),
            ("too many", &many),
            ("too many crumbs", &cookies),
        ] {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            let mut client = Raw2::to(address).await;
            let got = client.ask(1, &Block::request("GET", "/", &fields)).await;
            assert_eq!(got, Outcome::Status(431), "{hop}: {what}");
            let next = client.ask(3, &Block::request("GET", "/", &[])).await;
            assert_eq!(next, Outcome::Status(200), "{hop}: after {what}");
        }
        let mut client = Raw2::to(address).await;
        let long = Block::request("GET", &format!("/{}", "x".repeat(9000)), &[]);
        assert_eq!(client.ask(1, &long).await, Outcome::Status(414), "{hop}");
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_and_no_other_is_lost() {
    let mesh = Mesh::start();
    let released = Arc::new(tokio::sync::Notify::new());
    let release = released.clone();
    let service = Service::http(move |_| {
        let released = released.clone();
        Box::pin(async move {
            released.notified().await;
            Response::new(full("users"))
        })
    });
    let users = mesh.instance("users", service.await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut client = Raw2::to(ingress.local_addr()).await;
    let get = Block::request("GET", "/", &[]);
    let all: Vec<u8> = (0..110).flat_map(|number| get.frames(2 * number + 1, END_STREAM)).collect();
    assert!(client.send(&all).await);
    until("ten are refused", || client.count(RESET, 0) == 10).await;
    until("a hundred are served", || users.service.requests() == 100).await;
    for frame in client.frames().iter().filter(|frame| frame.kind == RESET) {
        assert_eq!(word(&frame.payload, 0), 7, "REFUSED_STREAM: it was not looked at");
    }
    release.notify_waiters();
    for number in 0..100 {
        assert_eq!(client.outcome(2 * number + 1).await, Outcome::Status(200));
    }
    mesh.end().await;
}
