//! How connections of HTTP/1.1 are opened: few at once, for whoever waits, and none of them in vain.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use support::*;
use synego_model::{Access, AccessMode, InstanceState, Policy, Protocol};
use synego_runtime::tasks::{self, Kind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections to one address that a worker opens at once.
const AT_ONCE: usize = 16;
const LONG: Duration = Duration::from_secs(30);

/// Stands before an inbound and takes connections, but lets no byte pass until it is opened.
struct Gate {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    is_open: watch::Sender<bool>,
}

impl Gate {
    async fn before(place: SocketAddr) -> Self {
        let listener = TcpListener::bind(any()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (taken, is_open) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
        let (count, open) = (taken.clone(), is_open.subscribe());
        tasks::spawn("gate", Kind::Connection, async move {
            while let Ok((mut near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut open = open.clone();
                tasks::spawn("gate-connection", Kind::Connection, async move {
                    if open.wait_for(|open| *open).await.is_err() {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(place).await else { return };
                    let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, taken, is_open }
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

/// A mesh of one worker in which `users` is reached through a gate, and the address of an outbound.
async fn gated(connect: Duration) -> (Mesh, Instance, Gate, SocketAddr) {
    let mesh = Mesh::mutual_with_workers(1);
    mesh.service("users", Protocol::Http, Policy { connect, timeout: LONG, try_timeout: LONG, ..Policy::default() });
    let users = mesh.instance("users", Service::echo().await).await;
    users.admits(&Access { mode: AccessMode::Open, ..Access::default() }, &[]);
    let gate = Gate::before(users.inbound.local_addr()).await;
    mesh.endpoint("users", &users.id, gate.address, InstanceState::Ready);
    let outbound = mesh.outbound("orders").local_addr();
    (mesh, users, gate, outbound)
}

fn in_flight(mesh: &Mesh, count: usize) -> bool {
    let line = format!("synego_outbound_in_flight{{service=\"users\"}} {count}");
    mesh.metrics.render().lines().any(|found| found == line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_opens_few_connections_at_once_and_every_request_is_answered() {
    const CROWD: usize = 200;
    let (mesh, _users, gate, outbound) = gated(LONG).await;
    let asked = (0..CROWD)
        .map(|_| tasks::spawn("test-load", Kind::Connection, async move { get(outbound, "users", "/").await.status }));
    let asked: Vec<_> = asked.collect();
    until("all are in flight", || in_flight(&mesh, CROWD)).await;
    until("connections are opened", || gate.taken() >= AT_ONCE).await;
    assert_eq!(gate.taken(), AT_ONCE);
    gate.is_open.send_replace(true);
    for asked in asked {
        assert_eq!(asked.await.expect("a task"), 200);
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_opened_for_a_request_that_gave_up_serves_the_next_one() {
    let (mesh, _users, gate, outbound) = gated(LONG).await;
    let hurried = request(Method::GET, "users", "/").header("x-synego-timeout", "100").body(full(""));
    assert_eq!(send(outbound, hurried.expect("a request")).await.header("x-synego-reason"), "deadline_exceeded");
    assert_eq!(gate.taken(), 1);
    gate.is_open.send_replace(true);
    assert!(ok(&get(outbound, "users", "/").await));
    assert_eq!(gate.taken(), 1);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_behind_connections_that_do_not_come_about_is_told_in_time() {
    const CROWD: usize = 50;
    let (mesh, _users, gate, outbound) = gated(Duration::from_millis(300)).await;
    let asked = (0..CROWD).map(|_| {
        tasks::spawn("test-load", Kind::Connection, async move {
            let asked = request(Method::POST, "users", "/").body(full("")).expect("a request");
            send(outbound, asked).await.header("x-synego-reason").to_owned()
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        let reason = tokio::time::timeout(LONG / 2, asked).await.expect("in time").expect("a task");
        assert!(["connect_failed", "no_ready_endpoint"].contains(&reason.as_str()), "{reason}");
    }
    assert!(gate.taken() > 0);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_at_one_address_keep_a_connection_each() {
    let mesh = Mesh::with_workers(1);
    let behind = Service::echo().await;
    for service in ["orders", "users"] {
        mesh.service(service, Protocol::Http, Policy::default());
        let id = format!("{service}-1@here").parse().expect("an id");
        mesh.endpoint(service, &id, behind.address, InstanceState::Ready);
    }
    let mut client = Client1::to(mesh.outbound("shop").local_addr()).await;
    for service in ["orders", "users", "orders", "users"] {
        assert!(ok(&client.get(service, "/").await.expect("an answer")));
    }
    assert_eq!((behind.requests(), behind.connections()), (4, 2));
    mesh.end().await;
}
