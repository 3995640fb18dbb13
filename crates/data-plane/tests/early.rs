//! Interim answers: what a service says before its answer reaches the client, on every hop and in both protocols.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::sync::Arc;

use frames::{Block, HEADERS, Outcome, Raw2};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

const HINTS: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\
    connection: x-own\r\nx-own: 1\r\ncontent-length: 7\r\n\r\n";

/// A service that hints at once, and answers when it is told to.
async fn hinting() -> (Service, Arc<Semaphore>) {
    let answers = Arc::new(Semaphore::new(0));
    let told = answers.clone();
    let service = Service::each(move |mut stream, _| {
        let told = told.clone();
        async move {
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                stream.write_all(HINTS.as_bytes()).await.expect("sent");
                told.acquire().await.expect("told").forget();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("sent");
            }
        }
    });
    (service.await, answers)
}

/// What comes, until it ends so.
async fn until_end(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.expect("read");
        assert!(read > 0, "it ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_the_client_before_the_answer_and_the_answer_follows() {
    let mesh = Mesh::start();
    let (service, answers) = hinting().await;
    let _pages = mesh.instance("pages", service).await;
    let mut stream = TcpStream::connect(mesh.route("/", "pages").ingress().local_addr()).await.expect("a connection");
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
        let hints = until_end(&mut stream, "\r\n\r\n").await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n");
        answers.add_permits(1);
        let answer = until_end(&mut stream, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_1_0_gets_the_answer_alone() {
    let mesh = Mesh::start();
    let (service, answers) = hinting().await;
    let _pages = mesh.instance("pages", service).await;
    answers.add_permits(1);
    let answer = raw(mesh.route("/", "pages").ingress().local_addr(), b"GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok") && !answer.contains("103"), "{answer}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_reach_a_client_of_http_2_over_hops_that_speak_it() {
    let mesh = Mesh::start();
    let (service, answers) = hinting().await;
    let _pages = mesh.instance("pages", service).await;
    let mut client = Raw2::to(mesh.route("/", "pages").ingress().local_addr()).await;
    client.send(&Block::request("GET", "/", &[]).frames(1, frames::END_STREAM)).await;
    assert_eq!(client.outcome(1).await, Outcome::Status(103));
    answers.add_permits(1);
    let heads =
        || client.frames().into_iter().filter(|frame| frame.kind == HEADERS && frame.stream == 1).collect::<Vec<_>>();
    until("the answer", || heads().len() == 2).await;
    assert_eq!(heads()[0].flags & frames::END_STREAM, 0);
    // 200 stands in the static table.
    assert!(heads()[1].payload.contains(&0x88), "{:?}", heads()[1]);
    mesh.end().await;
}
