//! Bad answers of a service, byte by byte: never passed on, and never mixed up with the next one.

#![expect(clippy::expect_used, reason = "a failed test panics")]

#[path = "support/hops.rs"]
mod hops;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hops::{Hops, brief, nothing_wrong};
use support::*;
use synego_model::{InstanceState, Policy, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An answer, and what is to be said of it.
struct Case {
    what: &'static str,
    answer: Vec<u8>,
    /// Whether the service closes after it.
    closes: bool,
}

fn case(what: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    Case { what, answer: answer.into(), closes: false }
}

fn cut(what: &'static str, answer: impl Into<Vec<u8>>) -> Case {
    Case { closes: true, ..case(what, answer) }
}

/// A service that answers `GET /7` with the seventh of these, whatever it is, and every other path in order.
async fn service(cases: Arc<Vec<Case>>, ended: Arc<AtomicUsize>) -> Service {
    Service::each(move |mut stream, service| {
        let (cases, ended) = (cases.clone(), ended.clone());
        async move {
            let mut held = Vec::new();
            loop {
                while !held.windows(4).any(|end| end == b"\r\n\r\n") {
                    if !stream.read_buf(&mut held).await.is_ok_and(|read| read > 0) {
                        ended.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                }
                let head = String::from_utf8_lossy(&held).into_owned();
                held.clear();
                service.requests.fetch_add(1, Ordering::SeqCst);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let chosen = path.trim_start_matches('/').parse().ok().and_then(|number: usize| cases.get(number));
                let good = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
                let _ = stream.write_all(chosen.map_or(&good[..], |case| &case.answer)).await;
                if chosen.is_some_and(|case| case.closes) {
                    ended.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    })
    .await
}

/// The three hops straight to a service that answers so: no other hop stands between.
struct Straight {
    hops: Hops,
    cases: Arc<Vec<Case>>,
    /// Connections of the service that have ended.
    ended: Arc<AtomicUsize>,
}

impl Straight {
    async fn to(cases: Vec<Case>) -> Self {
        let (cases, ended) = (Arc::new(cases), Arc::default());
        let hops = Hops::of(service(cases.clone(), Arc::clone(&ended)).await).await;
        hops.mesh.service("direct", Protocol::Http, Policy { retries: 0, ..Policy::default() });
        let id = "direct-1@here".parse().expect("an id");
        hops.mesh.endpoint("direct", &id, hops.users.service.address, InstanceState::Ready);
        hops.mesh.route("direct.example/", "direct");
        Self { hops, cases, ended }
    }

    fn each(&self) -> [(&'static str, &'static str, SocketAddr); 3] {
        let [(_, ingress), (_, outbound), (_, inbound)] = self.hops.each();
        [("ingress", "direct.example", ingress), ("outbound", "direct", outbound), ("inbound", "users", inbound)]
    }

    async fn all_closed(&self) {
        let connections = || self.hops.users.service.connections();
        until("the connections of bad answers are closed", || self.ended.load(Ordering::SeqCst) == connections()).await;
    }
}

fn ask(number: usize, host: &str) -> Vec<u8> {
    format!("GET /{number} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").into_bytes()
}

fn bad_heads() -> Vec<Case> {
    let ok = |lines: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}");
    let large: String = (0..8).map(|number| format!("x-{number}: {}\r\n", "v".repeat(10_000))).collect();
    let many: String = (0..110).map(|number| format!("x-{number}: 1\r\n")).collect();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    vec![
        case("split by a bare CR", ok("x-a: 1\rset-cookie: evil\r\ncontent-length: 2\r\n", "ok")),
        case("split by a bare LF", ok("x-a: 1\nset-cookie: evil\r\ncontent-length: 2\r\n", "ok")),
        case("bare LF all over", "HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
        case("NUL", ok("x-a: 1\x002\r\ncontent-length: 2\r\n", "ok")),
        case("folded", ok("x-a: 1\r\n set-cookie: evil\r\ncontent-length: 2\r\n", "ok")),
        case("folded first", ok(" x-a: 1\r\ncontent-length: 2\r\n", "ok")),
        case("blank before the colon", ok("content-length : 2\r\n", "ok")),
        case("empty name", ok(": 1\r\ncontent-length: 2\r\n", "ok")),
        case("no colon", ok("x-a\r\ncontent-length: 2\r\n", "ok")),
        case("two lengths", ok("content-length: 2\r\ncontent-length: 4\r\n", "okok")),
        case("two lengths in one", ok("content-length: 2, 4\r\n", "okok")),
        case("signed length", ok("content-length: +2\r\n", "ok")),
        case("negative length", ok("content-length: -2\r\n", "ok")),
        case("hexadecimal length", ok("content-length: 0x2\r\n", "ok")),
        case("length beyond 64 bits", ok("content-length: 99999999999999999999\r\n", "ok")),
        case("length and coding", ok("content-length: 2\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        case("coding and length", ok("transfer-encoding: chunked\r\ncontent-length: 2\r\n", "0\r\n\r\n")),
        case("another coding", ok("transfer-encoding: gzip\r\n", "ok")),
        case("another coding first", ok("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        case("coding not last", ok("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n")),
        case("coding twice", ok("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n")),
        case("coding with a vertical tab", ok("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n")),
        case("coding in HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        case("101 unasked", "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
        case("more than ten 1xx", format!("{}{}", hints.repeat(11), ok("content-length: 2\r\n", "ok"))),
        case("1xx without end", hints.repeat(1000)),
        case("head beyond the limit", ok(&format!("{large}content-length: 2\r\n"), "ok")),
        case("one field beyond the limit", ok(&format!("x-a: {}\r\ncontent-length: 2\r\n", "v".repeat(20_000)), "ok")),
        case("too many fields", ok(&format!("{many}content-length: 2\r\n"), "ok")),
        case("no answer of HTTP", "220 mail.example ESMTP\r\n\r\n"),
        case("answer of another protocol", "ICY 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("version 2", "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("version 1.2", "HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("lower-case version", "http/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("no status", "HTTP/1.1 \r\ncontent-length: 2\r\n\r\nok"),
        case("status of two digits", "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("status of four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("status below 100", "HTTP/1.1 099 Low\r\ncontent-length: 2\r\n\r\nok"),
        case("signed status", "HTTP/1.1 +20 OK\r\ncontent-length: 2\r\n\r\nok"),
        case("status that is no number", "HTTP/1.1 two OK\r\ncontent-length: 2\r\n\r\nok"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_can_be_read_in_two_ways_becomes_502_and_its_connection_is_closed() {
    let straight = Straight::to(bad_heads()).await;
    let mut wrong = Vec::new();
    for (hop, host, address) in straight.each() {
        for (number, case) in straight.cases.iter().enumerate() {
            let answer = brief(address, &ask(number, host)).await;
            let answer = without_interim(&answer);
            let is_said = status_of(answer) == 502 && answer.contains("x-synego-reason: bad_response");
            if !is_said {
                wrong.push(format!("{hop}: {}: {}", case.what, answer.lines().next().unwrap_or("no answer")));
            }
            let next = raw(address, &ask(999, host)).await;
            assert!(next.ends_with("\r\n\r\ngood"), "{hop}: after {}: {next}", case.what);
        }
    }
    nothing_wrong(&wrong);
    straight.hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_never_passed_on_as_a_whole_one() {
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let cases = vec![
        cut("less than its length", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"),
        cut("no last chunk", chunked("4\r\nhalf\r\n")),
        cut("half a chunk", chunked("9\r\nhalf")),
        cut("half the end", chunked("4\r\nhalf\r\n0\r\n")),
        case("size that is none", chunked("4\r\nhalf\r\nx\r\n0\r\n\r\n")),
        case("negative size", chunked("4\r\nhalf\r\n-1\r\n0\r\n\r\n")),
        case("size of 17 digits", chunked("4\r\nhalf\r\n00000000000000001\r\na\r\n0\r\n\r\n")),
        case("chunk longer than its size", chunked("4\r\nhalfway\r\n0\r\n\r\n")),
        case("chunk that ends in a bare LF", chunked("4\r\nhalf\n0\r\n\r\n")),
        case("size that ends in a bare LF", chunked("4\r\nhalf\r\n1\na\r\n0\r\n\r\n")),
        case("folded trailer", chunked("4\r\nhalf\r\n0\r\nx-a: 1\r\n b\r\n\r\n")),
        case("trailer without colon", chunked("4\r\nhalf\r\n0\r\nx-a\r\n\r\n")),
    ];
    let straight = Straight::to(cases).await;
    let mut wrong = Vec::new();
    for (hop, host, address) in straight.each() {
        for (number, case) in straight.cases.iter().enumerate() {
            let answer = raw(address, &ask(number, host)).await;
            let is_whole = match answer.split_once("\r\n\r\n") {
                _ if status_of(&answer) == 502 => false,
                Some((head, _)) if head.contains("chunked") => answer.ends_with("0\r\n\r\n"),
                Some((head, body)) if head.contains("content-length: 10") => body.len() == 10,
                _ => true,
            };
            if is_whole {
                wrong.push(format!("{hop}: {}: {answer}", case.what));
            }
            let next = raw(address, &ask(999, host)).await;
            assert!(next.ends_with("\r\n\r\ngood"), "{hop}: after {}: {next}", case.what);
        }
    }
    nothing_wrong(&wrong);
    straight.hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_an_answer_is_never_taken_for_the_next_one() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let cases = vec![
        case("a second answer", format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood{evil}")),
        case("more than its length", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodevil".to_owned()),
        case(
            "a second answer behind chunks",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{evil}"),
        ),
        case("a body of 204", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
        case("a body of 204 with a length", "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil".to_owned()),
        case("a body of 304", format!("HTTP/1.1 304 Not Modified\r\n\r\n{evil}")),
    ];
    let straight = Straight::to(cases).await;
    for (hop, host, address) in straight.each() {
        for (number, case) in straight.cases.iter().enumerate() {
            for _ in 0..3 {
                let first = raw(address, &ask(number, host)).await;
                assert!(!first.contains("evil"), "{hop}: {}: {first}", case.what);
                let next = raw(address, &ask(999, host)).await;
                assert!(next.ends_with("\r\n\r\ngood"), "{hop}: after {}: {next}", case.what);
            }
        }
        // The answer to HEAD has no body, whatever it says.
        let head = format!("HEAD /1 HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = raw(address, head.as_bytes()).await;
        assert!(answer.ends_with("\r\n\r\n") && answer.contains("content-length: 4"), "{hop}: {answer}");
        let next = raw(address, &ask(999, host)).await;
        assert!(next.ends_with("\r\n\r\ngood"), "{hop}: after HEAD: {next}");
    }
    straight.hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_to_ten_1xx_may_come_before_an_answer() {
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(10);
    let straight =
        Straight::to(vec![case("ten", format!("{hints}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood"))]).await;
    for (hop, host, address) in straight.each() {
        let answer = raw(address, &ask(0, host)).await;
        assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\ngood"), "{hop}: {answer}");
    }
    straight.hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_the_services_connection_end_there() {
    let lines = "connection: x-inner\r\nx-inner: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\n\
        x-outer: 1\r\n";
    let straight =
        Straight::to(vec![case("all", format!("HTTP/1.1 200 OK\r\n{lines}content-length: 4\r\n\r\ngood"))]).await;
    for (hop, host, address) in straight.each() {
        let answer = raw(address, &ask(0, host)).await;
        assert!(answer.contains("x-outer: 1") && answer.ends_with("\r\n\r\ngood"), "{hop}: {answer}");
        for gone in ["x-inner", "keep-alive", "upgrade"] {
            assert!(!answer.contains(gone), "{hop}: {gone}: {answer}");
        }
    }
    straight.hops.mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_answer_closes_its_connection() {
    let straight = Straight::to(vec![case(
        "two lengths",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nokok",
    )])
    .await;
    for (hop, host, address) in straight.each() {
        assert_eq!(status_of(&raw(address, &ask(0, host)).await), 502, "{hop}");
        straight.all_closed().await;
    }
    straight.hops.mesh.end().await;
}
