//! The PROXY header at a listener that faces the world: required from listed load balancers, and from nobody else.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::*;
use synego_data_plane::{Network, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ASK: &[u8] =
    b"GET /users/7 HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: 6.6.6.6\r\nconnection: close\r\n\r\n";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n";

/// An ingress at which load balancers of these addresses introduce their clients.
fn ingress(mesh: &Mesh, ranges: &[&str]) -> Server {
    let ranges: Vec<Network> = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    mesh.route("/", "users").ingress_with(|config| (config.trusted, config.introduced_by) = (Vec::new(), ranges))
}

/// Version 2 that names 203.0.113.7.
fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, family], &length, addresses].concat()
}

async fn seen_as(address: SocketAddr, header: &[u8]) -> String {
    let answer = raw(address, &[header, ASK].concat()).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
    let seen = answer.lines().find_map(|line| line.strip_prefix("x-forwarded-for: ")).expect("the field");
    seen.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_load_balancer_tells_whose_connection_it_passes_on() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = ingress(&mesh, &["10.0.0.0/8", "127.0.0.0/8"]);
    let address = ingress.local_addr();
    let four = [203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
    assert_eq!(seen_as(address, LINE).await, "203.0.113.7");
    assert_eq!(seen_as(address, &binary(0x21, 0x11, &four)).await, "203.0.113.7");
    assert_eq!(seen_as(address, b"PROXY TCP6 2001:db8::7 ::1 8080 80\r\n").await, "2001:db8::7");
    // Its own checks name nobody: then it is its own client.
    assert_eq!(seen_as(address, &binary(0x20, 0x00, &[])).await, "127.0.0.1");
    assert_eq!(seen_as(address, b"PROXY UNKNOWN\r\n").await, "127.0.0.1");
    // It comes as it likes, and HTTP/2 may follow as well.
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    for byte in LINE.iter().chain(ASK) {
        stream.write_all(&[*byte]).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains("x-forwarded-for: 203.0.113.7"), "{answer}");
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(&[LINE, settings].concat()).await.expect("sent");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.expect("a frame");
    assert_eq!(frame[3], 4, "its SETTINGS");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_load_balancer_that_introduces_nobody_is_refused() {
    let mesh = Mesh::start();
    mesh.limits(|limits| limits.header_read = Duration::from_millis(300));
    let users = mesh.instance("users", Service::echo().await).await;
    let ingress = ingress(&mesh, &["127.0.0.1"]);
    let four = [203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
    for (what, header) in [
        ("nothing", Vec::new()),
        ("a bare line feed", b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\n".to_vec()),
        ("no address", b"PROXY TCP4 shop.example 10.0.0.1 8080 80\r\n".to_vec()),
        ("another version", binary(0x31, 0x11, &four)),
        ("a datagram", binary(0x21, 0x12, &four)),
        ("half an address", binary(0x21, 0x11, &four[..7])),
    ] {
        assert_eq!(raw(ingress.local_addr(), &[&header, ASK].concat()).await, "", "{what}");
    }
    // One that sends no more than a part of it is not waited for.
    let mut stream = TcpStream::connect(ingress.local_addr()).await.expect("a connection");
    stream.write_all(&LINE[..20]).await.expect("sent");
    let mut answer = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
    assert_eq!(users.service.requests(), 0);
    until("all are closed", || ingress.connections() == 0).await;
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_listed_introduces_nobody() {
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::echo().await).await;
    for ranges in [&["10.0.0.0/8", "::1"][..], &[]] {
        let ingress = ingress(&mesh, ranges);
        let before = users.service.requests();
        for header in [LINE.to_vec(), binary(0x20, 0, &[])] {
            let answer = raw(ingress.local_addr(), &[&header, ASK].concat()).await;
            assert_eq!(status_of(&answer), 400, "{answer}");
        }
        assert_eq!(users.service.requests(), before);
        assert_eq!(seen_as(ingress.local_addr(), &[]).await, "127.0.0.1");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_counted_for_the_client_not_for_the_load_balancer() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = ingress(&mesh, &["127.0.0.1"]);
    let mut open = Vec::new();
    for number in 0..150 {
        let mut stream = TcpStream::connect(ingress.local_addr()).await.expect("a connection");
        let line = format!("PROXY TCP4 203.0.113.{} 10.0.0.1 {} 80\r\n", number % 2, 1000 + number);
        stream.write_all(&[line.as_bytes(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await.expect("sent");
        assert_eq!(stream.read_u8().await.ok(), Some(b'H'), "75 of each are no more than either may have");
        open.push(stream);
    }
    let mut refused = 0;
    for number in 0..30 {
        let line = format!("PROXY TCP4 203.0.113.0 10.0.0.1 {} 80\r\n", 2000 + number);
        let mut stream = TcpStream::connect(ingress.local_addr()).await.expect("a connection");
        stream.write_all(&[line.as_bytes(), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"].concat()).await.expect("sent");
        refused += usize::from(stream.read_u8().await.is_err());
        open.push(stream);
    }
    assert_eq!(refused, 5, "100 of one client");
    assert_eq!(seen_as(ingress.local_addr(), LINE).await, "203.0.113.7", "another client is let in");
    drop(open);
    mesh.end().await;
}
