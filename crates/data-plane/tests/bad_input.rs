//! Bad requests, by the lines of the table in the documentation of limits: each on every hop, each with its own answer.

#![expect(clippy::expect_used, reason = "a failed test panics")]

#[path = "support/hops.rs"]
mod hops;
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hops::{Hops, brief, nothing_wrong};
use support::*;
use synego_model::process::ServiceAddress;
use synego_model::{InstanceState, Policy, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A GET of `target` with these lines, on a connection that ends with it.
fn get_of(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: users\r\n{lines}connection: close\r\n\r\n").into_bytes()
}

/// A field of the request as the echo saw it.
fn echoed<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_chunks_get_400_and_a_close() {
    let hops = Hops::of(Service::echo().await).await;
    let chunks = [
        "\r\nabc\r\n0\r\n\r\n",
        "x\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3_0\r\nabc\r\n0\r\n\r\n",
        "3;a=\"\r\nabc\r\n0\r\n\r\n",
        "3;\0\r\nabc\r\n0\r\n\r\n",
        "3;a=b\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\r\rabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
        "3\r\nabc\r\n0\r\nx-a : 1\r\n\r\n",
        "3\r\nabc\r\n0\r\nx-a: 1\n\r\n",
        "3\r\nabc\r\n0\r\nx-a: 1\r\n folded\r\n\r\n",
        "3\r\nabc\r\n0\r\nx-a: \x00\r\n\r\n",
    ];
    let mut wrong = Vec::new();
    for (hop, address) in hops.each() {
        for chunks in chunks {
            let head = "POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: chunked\r\n\r\n";
            let more = "GET /after HTTP/1.1\r\nhost: users\r\n\r\n";
            let answer = raw(address, format!("{head}{chunks}{more}").as_bytes()).await;
            if status_of(&answer) != 400 || !answer.contains("connection: close") || answer.contains("/after") {
                wrong.push(format!("{hop}: {chunks:?}: {}", answer.lines().next().unwrap_or("no answer")));
            }
        }
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_absolute_form_wins_where_it_agrees_with_the_host() {
    let hops = Hops::of(Service::echo().await).await;
    for (hop, address) in hops.each() {
        let answer = raw(address, &get_of("http://users/7?x=1", "")).await;
        assert!(answer.contains("\r\n\r\nGET /7?x=1 HTTP/1.1\n"), "{hop}: {answer}");
        assert_eq!(echoed(&answer, "host"), Some("users"), "{hop}: {answer}");
        for bad in ["http://orders/", "http://me@users/", "http:///", "users:80", "ftp//users"] {
            assert_eq!(status_of(&raw(address, &get_of(bad, "")).await), 400, "{hop}: {bad}");
        }
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_canonical_path_goes_on_and_what_hides_a_part_of_it_gets_400() {
    let hops = Hops::of(Service::echo().await).await;
    for (hop, address) in hops.each() {
        for (given, path) in [
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("//a///b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61/./b?x=../y", "/a/b?x=../y"),
        ] {
            let answer = raw(address, &get_of(given, "")).await;
            assert!(answer.contains(&format!("\r\n\r\nGET {path} HTTP/1.1\n")), "{hop}: {given}: {answer}");
        }
        for bad in ["/a\\b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a#b", "a", "/%", "/%zz", "/a\x7fb"] {
            assert_eq!(status_of(&raw(address, &get_of(bad, "")).await), 400, "{hop}: {bad:?}");
        }
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_on_every_hop_with_the_limit_named() {
    let hops = Hops::of(Service::echo().await).await;
    let long = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    let one = |bytes: usize| format!("x-one: {}\r\n", "v".repeat(bytes));
    let many = |count: usize| (0..count).map(|number| format!("x-{number}: 1\r\n")).collect::<String>();
    let all: String = (0..8).map(|number| format!("x-{number}: {}\r\n", "v".repeat(10_000))).collect();
    let mut wrong = Vec::new();
    for (hop, address) in hops.each() {
        for (target, lines, status, limit) in [
            (long(8193), String::new(), 414, "8192"),
            (long(100_000), String::new(), 414, "8192"),
            ("/".to_owned(), one(16_500), 431, "16384"),
            ("/".to_owned(), many(150), 431, "100"),
            ("/".to_owned(), many(5000), 431, "100"),
            ("/".to_owned(), all.clone(), 431, "65536"),
        ] {
            let answer = raw(address, &get_of(&target, &lines)).await;
            assert_eq!(status_of(&answer), status, "{hop}: {} and {}: {answer}", target.len(), lines.len());
            assert!(answer.contains("connection: close"), "{hop}: {answer}");
            if !answer.contains(limit) {
                wrong.push(format!("{hop}: target of {} and headers of {}: {answer}", target.len(), lines.len()));
            }
        }
        for (target, lines) in [(long(8192), String::new()), ("/".to_owned(), one(16_000)), ("/".to_owned(), many(90))]
        {
            assert_eq!(status_of(&raw(address, &get_of(&target, &lines)).await), 200, "{hop}: below the limit");
        }
    }
    nothing_wrong(&wrong);
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_end_is_refused_long_before_it_fills_the_memory() {
    let hops = Hops::of(Service::echo().await).await;
    for (hop, address) in hops.each() {
        for (what, begin, part) in
            [("one line", "GET / HTTP/1.1\r\nx: ", "v"), ("lines", "GET / HTTP/1.1\r\n", "x: 1\r\n")]
        {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let part = part.repeat(8192);
            let mut sent = stream.write_all(begin.as_bytes()).await.map_or(0, |()| begin.len());
            while sent < 64 << 20 && stream.write_all(part.as_bytes()).await.is_ok() {
                sent += part.len();
            }
            assert!(sent < 32 << 20, "{hop}: {what}: {sent} bytes were taken");
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.is_empty() || status_of(&answer) == 431, "{hop}: {what}: {answer}");
        }
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_connection_end_there_and_protected_ones_stay() {
    let hops = Hops::of(Service::echo().await).await;
    let lines = "connection: X-Mine, host, x-request-id, traceparent\r\nconnection: cookie, authorization\r\nx-mine: 1\r\n\
        x-request-id: id-7\r\ncookie: a=b\r\nauthorization: me\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\n\
        te: gzip, trailers\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\nx-kept: 1\r\n";
    for (hop, address) in hops.each() {
        let answer = raw(address, &get_of("/", lines)).await;
        assert_eq!(status_of(&answer), 200, "{hop}: {answer}");
        for gone in ["connection", "x-mine", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(echoed(&answer, gone), None, "{hop}: {answer}");
        }
        assert!(echoed(&answer, "te").is_none_or(|te| te == "trailers"), "{hop}: {answer}");
        let kept = ["host", "x-request-id", "cookie", "authorization", "x-kept"].map(|name| echoed(&answer, name));
        assert_eq!(kept, [Some("users"), Some("id-7"), Some("a=b"), Some("me"), Some("1")], "{hop}: {answer}");
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_cannot_say_that_it_is_another() {
    let hops = Hops::of(Service::echo().await).await;
    let lines = "x-synego-caller: admin\r\nx_synego_caller: admin\r\n";
    let [(_, ingress), (_, outbound), _] = hops.each();
    let answer = raw(ingress, &get_of("/", lines)).await;
    assert_eq!((echoed(&answer, "x-synego-caller"), echoed(&answer, "x_synego_caller")), (None, None), "{answer}");
    let answer = raw(outbound, &get_of("/", lines)).await;
    assert_eq!(echoed(&answer, "x-synego-caller"), Some("orders"), "{answer}");
    let passed_on = echoed(&answer, "x_synego_caller");
    let wrong = passed_on.map(|value| format!("outbound: x_synego_caller at the outbound: {value}"));
    nothing_wrong(wrong.as_slice());
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_traceparent_begins_a_new_trace() {
    let hops = Hops::of(Service::echo().await).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (hop, address) in hops.each() {
        for bad in [
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-0000000000000000-01"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("00-{trace}-00f067aa0ba902b7-01\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01"),
        ] {
            let answer = raw(address, &get_of("/", &format!("traceparent: {bad}\r\ntracestate: a=b\r\n"))).await;
            let parent = echoed(&answer, "traceparent").expect("a trace").to_owned();
            assert!(parent.len() == 55 && !parent.contains(trace), "{hop}: {bad:?}: {parent}");
            assert_eq!(echoed(&answer, "tracestate"), None, "{hop}: {bad:?}");
        }
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_and_trace_get_405() {
    let hops = Hops::of(Service::echo().await).await;
    for (hop, address) in hops.each() {
        for head in ["CONNECT users:80 HTTP/1.1\r\nhost: users:80", "TRACE / HTTP/1.1\r\nhost: users"] {
            let answer = raw(address, format!("{head}\r\n\r\n").as_bytes()).await;
            assert_eq!(status_of(&answer), 405, "{hop}: {answer}");
            assert!(answer.contains("connection: close") && answer.contains("allow: GET, "), "{hop}: {answer}");
        }
    }
    assert_eq!(hops.users.service.requests(), 0);
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_upgrade_is_ignored() {
    let hops = Hops::of(Service::echo().await).await;
    for (hop, address) in hops.each() {
        for upgrade in ["h2c", "websocket, h2c", "TLS/1.0", "websocket\r\nupgrade: h2c"] {
            let lines = format!("upgrade: {upgrade}\r\nconnection: upgrade\r\n");
            let answer = raw(address, &get_of("/", &lines)).await;
            assert_eq!(status_of(&answer), 200, "{hop}: {upgrade:?}: {answer}");
            assert_eq!((echoed(&answer, "upgrade"), echoed(&answer, "connection")), (None, None), "{hop}: {answer}");
        }
    }
    hops.mesh.end().await;
}

/// A service that is asked for a WebSocket: says `answer`, and keeps all that came before its answer and after.
async fn upgraded(answer: &'static str) -> (Service, Arc<Mutex<[String; 2]>>) {
    let seen = Arc::<Mutex<[String; 2]>>::default();
    let told = seen.clone();
    let service = Service::each(move |mut stream, service| {
        let told = told.clone();
        async move {
            let mut buffer = [0; 4096];
            let add = |at: usize, bytes: &[u8]| {
                told.lock().expect("lock")[at].push_str(&String::from_utf8_lossy(bytes));
            };
            let read = stream.read(&mut buffer).await.unwrap_or(0);
            add(0, &buffer[..read]);
            // What must not come has no event to wait for.
            let early = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut buffer)).await;
            add(0, &buffer[..early.ok().and_then(Result::ok).unwrap_or(0)]);
            service.requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes()).await;
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                add(1, &buffer[..read]);
            }
        }
    });
    (service.await, seen)
}

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nhost: users\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly bytes\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_behind_an_upgrade_goes_on_before_its_101() {
    let (service, seen) =
        upgraded("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let hops = Hops::of(service).await;
    for (hop, address) in hops.each() {
        *seen.lock().expect("lock") = Default::default();
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(UPGRADE).await.expect("sent");
        until("the bytes arrive", || seen.lock().expect("lock")[1] == "early bytes\r\n\r\n").await;
        let [before, _] = seen.lock().expect("lock").clone();
        assert!(before.starts_with("GET /ws ") && before.ends_with("\r\n\r\n"), "{hop}: {before}");
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_behind_an_upgrade_goes_on_without_a_matching_101() {
    let mut wrong = Vec::new();
    for (what, answer) in [
        ("403", "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
        ("101 of another protocol", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        ("101 without a protocol", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ] {
        let (service, seen) = upgraded(answer).await;
        let hops = Hops::of(service).await;
        for (hop, address) in hops.each() {
            *seen.lock().expect("lock") = Default::default();
            let got = brief(address, UPGRADE).await;
            let all = seen.lock().expect("lock").concat();
            if status_of(&got) != if what == "403" { 403 } else { 502 } || all.contains("early") {
                wrong.push(format!("{hop}: {what}: {}, and the service got {all}", status_of(&got)));
            }
        }
        hops.mesh.end().await;
    }
    nothing_wrong(&wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_without_a_ready_instance_and_one_that_is_full_say_when_to_come_back() {
    let hops = Hops::of(Service::http(|_| Box::pin(std::future::pending())).await).await;
    hops.mesh.limits(|limits| limits.in_flight = 2);
    hops.mesh.service("empty", Protocol::Http, Policy::default()).route("/empty", "empty");
    let comes_back =
        |got: &Got| got.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=3).contains(&seconds));
    let [(_, ingress), (_, outbound), _] = hops.each();
    for (hop, address, host, path) in [("ingress", ingress, "a", "/empty"), ("outbound", outbound, "empty", "/")] {
        let got = get(address, host, path).await;
        assert_eq!((got.status, got.header("x-synego-reason")), (503, "no_ready_endpoint"), "{hop}");
        assert!(comes_back(&got), "{hop}");
    }
    for (hop, address) in hops.each() {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(b"GET / HTTP/1.1\r\nhost: users\r\n\r\n").await.expect("sent");
            held.push(stream);
        }
        until("all places are taken", || hops.users.load.load().in_flight == 2).await;
        let got = get(address, "users", "/").await;
        assert_eq!((got.status, got.header("x-synego-reason")), (503, "overloaded"), "{hop}");
        assert!(comes_back(&got), "{hop}");
        drop(held);
        until("all places are free", || hops.users.load.load().in_flight == 0).await;
    }
    hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_no_time_and_no_head_have_each_their_own_answer() {
    let limit = Duration::from_millis(300);
    let policy = Policy { retries: 0, timeout: limit, try_timeout: limit, ..Policy::default() };
    let service = Service::each(|mut stream, _| async move {
        let mut head = [0; 4096];
        let read = stream.read(&mut head).await.unwrap_or(0);
        if head[..read].starts_with(b"GET /late") {
            std::future::pending::<()>().await;
        }
        if head[..read].starts_with(b"GET /half") {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-").await;
        }
    });
    let hops = Hops::under(policy, service.await).await;
    let ask = |address, path: &'static str| async move {
        let got = get(address, "users", path).await;
        (got.status, got.header("x-synego-reason").to_owned())
    };
    for (hop, address) in hops.each() {
        assert_eq!(ask(address, "/late").await, (504, "deadline_exceeded".to_owned()), "{hop}");
        assert_eq!(ask(address, "/gone").await, (502, "upstream_reset".to_owned()), "{hop}");
        assert_eq!(ask(address, "/half").await, (502, "upstream_reset".to_owned()), "{hop}");
    }
    // A port where nobody listens: for the callers the instance's, for the inbound its service's.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port");
    let mut target = hops.users.target.load().as_ref().clone();
    target.http = Some(ServiceAddress::Tcp(nobody));
    hops.users.target.store(Arc::new(target));
    assert_eq!(ask(hops.users.inbound.local_addr(), "/").await, (502, "connect_failed".to_owned()), "inbound");
    hops.mesh.endpoint("users", &hops.users.id, nobody, InstanceState::Ready);
    for (hop, address) in hops.each().into_iter().take(2) {
        assert_eq!(ask(address, "/").await, (502, "connect_failed".to_owned()), "{hop}");
    }
    hops.mesh.end().await;
}
