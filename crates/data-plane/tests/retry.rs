//! What happens when instances fail: who is asked again, what is never repeated, and that nothing is lost.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Response};
use support::*;
use synego_model::{InstanceState, Policy, Protocol, Reason};
use synego_runtime::{clock, tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// 200 GETs a second, open loop, on kept connections; what each got.
async fn load(
    address: std::net::SocketAddr,
    seconds: f64,
    middle: impl Future<Output = ()>,
) -> Vec<Result<u16, String>> {
    let total = (200.0 * seconds) as u32;
    let began = clock::now();
    let sent = async {
        let mut requests = Vec::new();
        for number in 0..total {
            let planned = began + Duration::from_millis(5) * number;
            tokio::time::sleep_until(planned.into()).await;
            requests.push(tasks::spawn("test-load", tasks::Kind::Connection, async move {
                let mut client = Client1::to(address).await;
                client.get("users", "/api/users/1").await.map(|got| got.status).map_err(|error| error.to_string())
            }));
        }
        let mut got = Vec::new();
        for request in requests {
            got.push(request.await.expect("a task"));
        }
        got
    };
    let half = async {
        tokio::time::sleep(Duration::from_secs_f64(seconds / 3.0)).await;
        middle.await;
    };
    tokio::join!(sent, half).0
}

/// Answers after a while, so that requests are in flight at any time.
async fn slow(word: &'static str) -> Service {
    Service::http(move |_| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Response::new(full(word))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_when_a_service_is_killed_under_load() {
    let mesh = Mesh::start();
    let one = mesh.instance("users", slow("1").await).await;
    let two = mesh.instance("users", slow("2").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let got = load(ingress, 3.0, async { one.service.kill() }).await;
    let failed: Vec<_> = got.iter().filter(|got| **got != Ok(200)).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), got.len(), failed.first());
    assert!(one.service.requests() > 50 && two.service.requests() > 300, "the fault took place");
    let ejected = mesh.calls.ejections();
    assert_eq!(ejected.len(), 1);
    assert_eq!((&ejected[0].instance, ejected[0].cause.reason), (&one.id, Reason::Ejected));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_get_fails_when_a_sidecar_is_killed_under_load() {
    let mesh = Mesh::start();
    let one = mesh.instance("users", slow("1").await).await;
    let two = mesh.instance("users", slow("2").await).await;
    let outbound = mesh.outbound("orders").local_addr();
    let got = load(outbound, 3.0, async {
        one.inbound.drain(Duration::ZERO).await;
    })
    .await;
    let failed: Vec<_> = got.iter().filter(|got| **got != Ok(200)).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), got.len(), failed.first());
    assert!(one.service.requests() > 50 && two.service.requests() > 300, "the fault took place");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_came_is_asked_for_again_only_when_that_does_no_harm() {
    // Reads a request and ends the connection without an answer.
    let broken = || async {
        Service::each(|mut stream, service| async move {
            let mut head = [0; 4096];
            if stream.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {
                service.requests.fetch_add(1, Ordering::SeqCst);
            }
        })
        .await
    };
    let mesh = Mesh::start();
    mesh.service("users", Protocol::Http, Policy { eject: None, ..Policy::default() });
    let (one, two) = (mesh.instance("users", broken().await).await, mesh.instance("users", broken().await).await);
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let got = send(ingress, request(Method::POST, "a", "/").body(full("x")).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (502, "upstream_reset"), "{}", got.body);
    assert_eq!(one.service.requests() + two.service.requests(), 1, "a POST that may have been read is not repeated");
    let got = get(ingress, "a", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (502, "upstream_reset"));
    assert_eq!(one.service.requests() + two.service.requests(), 3, "a GET is repeated once");
    assert!(one.service.requests() >= 1 && two.service.requests() >= 1, "and never at the same instance");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_goes_elsewhere_when_nothing_of_it_was_processed() {
    let mesh = Mesh::start();
    mesh.service("users", Protocol::Http, Policy { eject: None, ..Policy::default() });
    let one = mesh.instance("users", Service::echo().await).await;
    let two = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let post = || async move {
        let body = "x".repeat(40_000);
        send(ingress, request(Method::POST, "a", "/").body(full(body)).expect("a request")).await
    };
    let target = (**one.target.load()).clone();
    one.target.store(Arc::new(synego_data_plane::InboundTarget { draining: true, ..target.clone() }));
    for _ in 0..20 {
        let got = post().await;
        assert!(got.status == 200 && got.body.len() > 40_000, "{}", got.body);
    }
    assert_eq!((one.service.requests(), two.service.requests()), (0, 20), "draining");
    one.target.store(Arc::new(target));
    one.service.kill();
    for _ in 0..20 {
        assert_eq!(post().await.status, 200);
    }
    assert_eq!(two.service.requests(), 40, "connect failed at the other side");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_instance_is_asked_twice_and_its_refusal_passed_on() {
    let mesh = Mesh::start();
    let one = mesh.instance("users", Service::echo().await).await;
    one.target.store(Arc::new(synego_data_plane::InboundTarget { draining: true, ..Default::default() }));
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let asked = request(Method::GET, "a", "/").header("x-request-id", "only");
    let got = send(ingress, asked.body(full("")).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, "draining"));
    let tries: Vec<_> =
        mesh.logged("only").iter().filter(|line| line["hop"] == "ingress").map(|line| line["tries"].clone()).collect();
    assert_eq!(tries, [2]);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_try_that_takes_too_long_is_made_elsewhere() {
    let mesh = Mesh::start();
    let policy = Policy { try_timeout: Duration::from_millis(200), ..Policy::default() };
    mesh.service("users", Protocol::Http, policy);
    let stuck = Service::http(|_| Box::pin(std::future::pending())).await;
    let stuck = mesh.instance("users", stuck).await;
    let _well = mesh.instance("users", Service::says("well").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    while stuck.service.requests() == 0 {
        let got = get(ingress, "a", "/").await;
        assert_eq!((got.status, got.body.as_str()), (200, "well"));
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_that_died_unseen_costs_nothing() {
    // Answers one request on each connection and ends it a while later, without a word.
    let service = Service::each(|mut stream, _| async move {
        let mut head = [0; 4096];
        if stream.read(&mut head).await.is_ok_and(|bytes| bytes > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mesh = Mesh::with_workers(1);
    let _users = mesh.instance("users", service).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let mut client = Client1::to(ingress).await;
    for pause in [0, 1, 5, 10, 15, 19, 20, 21, 25, 30].into_iter().cycle().take(60) {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let got = client.get("a", "/").await.expect("an answer");
        assert_eq!(got.status, 200, "after {pause} ms: {}", got.body);
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_peer_refused_goes_elsewhere() {
    // Takes HTTP/2 and refuses each stream, as a peer does that has too many.
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let service = Service::each(move |stream, _| {
        let count = count.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
        }
    })
    .await;
    let mesh = Mesh::start();
    mesh.service("orders", Protocol::Grpc, Policy { eject: None, ..Policy::default() });
    let bad = mesh.instance("orders", Service::says("unused").await).await;
    let good = mesh.instance("orders", Service::says("good").await).await;
    // In place of its inbound: the peer itself refuses.
    mesh.endpoint("orders", &bad.id, service.address, InstanceState::Ready);
    let client = Client2::to(mesh.outbound("users").local_addr()).await;
    let mut seen = 0;
    while refused.load(Ordering::SeqCst) < 3 {
        let got = client.send(grpc("orders", "/shop.v1.Orders/Create").body(full("x")).expect("a request")).await;
        assert_eq!(got.expect("an answer").body, "good");
        seen += 1;
    }
    assert_eq!(good.service.requests(), seen);
    mesh.end().await;
}
