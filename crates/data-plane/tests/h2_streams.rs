//! Streams of HTTP/2 side by side: none waits for another that nobody reads, and none is lost when a connection ends.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "support/frames.rs"]
mod frames;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use frames::*;
use futures_util::StreamExt;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use synego_model::{Policy, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LARGE: usize = 32 * 1024 * 1024;

/// A service that speaks HTTP/2: `/large` in full, `/endless` as fast as it is taken, all else in a word.
async fn files(sent: Arc<AtomicU64>) -> Service {
    let large = Bytes::from(vec![7; LARGE]);
    Service::http(move |request| {
        let body = match request.uri().path() {
            "/large" => full(large.clone()),
            "/endless" => {
                let (sent, part) = (sent.clone(), large.slice(..64 * 1024));
                let frames = futures_util::stream::repeat_with(move || {
                    sent.fetch_add(part.len() as u64, Ordering::Relaxed);
                    Ok::<_, std::convert::Infallible>(Frame::data(part.clone()))
                });
                StreamBody::new(frames.boxed()).map_err(|never| match never {}).boxed_unsync()
            }
            _ => full("small"),
        };
        Box::pin(async { Response::new(body) })
    })
    .await
}

fn get2(path: &str) -> http::Request<Body> {
    http::Request::get(format!("http://files{path}")).body(full("")).expect("a request")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_answers_pass_large_ones_that_nobody_reads() {
    let mesh = Mesh::start();
    mesh.service("files", Protocol::Http, Policy::default());
    let _files = mesh.instance("files", files(Arc::default()).await).await;
    let ingress = mesh.route("/", "files").ingress();
    let client = Client2::to(ingress.local_addr()).await;
    let mut large = Vec::new();
    for _ in 0..2 {
        large.push(client.head(get2("/large")).await.expect("a head"));
    }
    for _ in 0..50 {
        assert_eq!(client.send(get2("/")).await.expect("an answer").body, "small");
    }
    for answer in large {
        let body = answer.into_body().collect().await.expect("all of it").to_bytes();
        assert!(body.len() == LARGE && body.iter().all(|byte| *byte == 7));
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_a_stream_slows_its_writer() {
    let sent = Arc::new(AtomicU64::new(0));
    let mesh = Mesh::start();
    let _files = mesh.instance("files", files(sent.clone()).await).await;
    let ingress = mesh.route("/", "files").ingress();
    let client = Client2::to(ingress.local_addr()).await;
    let _unread = client.head(get2("/endless")).await.expect("a head");
    // It stands still when nothing more is taken from it over many round trips beside it.
    let (mut before, mut stands) = (0, false);
    for _ in 0..500 {
        for _ in 0..20 {
            assert_eq!(client.send(get2("/")).await.expect("an answer").body, "small");
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

/// Reads frames by hand: answers every stream, but with `only_first` just the first one, and goes away then.
async fn by_hand(mut stream: TcpStream, only_first: bool, answered: &AtomicUsize) {
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).await.is_err() || stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.is_err() {
        return;
    }
    let mut begun = 0;
    let ok = Block::of(&[(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "0")]);
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut payload = vec![0; (word(&head, 0) >> 8) as usize];
        if stream.read_exact(&mut payload).await.is_err() {
            return;
        }
        if head[3] != HEADERS {
            continue;
        }
        begun += 1;
        let id = word(&head, 5);
        if !only_first {
            answered.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(&ok.frames(id, END_STREAM)).await;
        } else if begun == 3 {
            answered.fetch_add(1, Ordering::SeqCst);
            let away = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            let _ = stream.write_all(&[ok.frames(1, END_STREAM), away].concat()).await;
            let _ = stream.shutdown().await;
            // What is still under way must not turn the end into a reset.
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_above_the_last_that_a_service_saw_are_sent_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let answered = Arc::new(AtomicUsize::new(0));
    let (count, total) = (connections.clone(), answered.clone());
    let service = Service::each(move |stream, _| {
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        let total = total.clone();
        async move { by_hand(stream, is_first, &total).await }
    });
    let mesh = Mesh::with_workers(1);
    mesh.service("orders", Protocol::Grpc, Policy::default());
    let orders = mesh.instance("orders", Service::says("unused").await).await;
    mesh.endpoint("orders", &orders.id, service.await.address, synego_model::InstanceState::Ready);
    let client = Client2::to(mesh.outbound("users").local_addr()).await;
    // Not idempotent: they may be repeated only because nobody looked at them.
    let call =
        || client.send(grpc("orders", "/shop.v1.Orders/Create").method(Method::POST).body(full("x")).expect("one"));
    let (first, second, third) = tokio::join!(call(), call(), call());
    for got in [first, second, third] {
        let got = got.expect("an answer");
        assert_eq!((got.status, got.header("grpc-status")), (200, "0"), "{got:?}");
    }
    assert_eq!((connections.load(Ordering::SeqCst), answered.load(Ordering::SeqCst)), (2, 3));
    mesh.end().await;
}
