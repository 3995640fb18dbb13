//! Bad input, byte by byte: refused on every hop, with the connection closed where its end is not certain.

mod support;

use support::*;

/// Requests that must get 400, and what they are.
const BAD: &[(&str, &[u8])] = &[
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", b"GET / HTTP/1.1\r\nhost: users\r\nhost: users\r\n\r\n"),
    ("malformed host", b"GET / HTTP/1.1\r\nhost: us@ers\r\n\r\n"),
    ("absolute form of another host", b"GET http://orders/ HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("differing lengths", b"POST / HTTP/1.1\r\nhost: users\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"),
    ("malformed length", b"POST / HTTP/1.1\r\nhost: users\r\ncontent-length: +3\r\n\r\nabc"),
    (
        "length and coding",
        b"POST / HTTP/1.1\r\nhost: users\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "coding and length",
        b"POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
    ),
    ("another coding", b"POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("coding not last", b"POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    (
        "coding twice",
        b"POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\nhost: users\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("folded header", b"GET / HTTP/1.1\r\nhost: users\r\nx-a: 1\r\n 2\r\n\r\n"),
    ("bare carriage return", b"GET / HTTP/1.1\r\nhost: users\r\nx-a: 1\r2\r\n\r\n"),
    ("NUL", b"GET / HTTP/1.1\r\nhost: users\r\nx-a: 1\x002\r\n\r\n"),
    ("blank before the colon", b"GET / HTTP/1.1\r\nhost: users\r\nx-a : 1\r\n\r\n"),
    ("empty name", b"GET / HTTP/1.1\r\nhost: users\r\n: 1\r\n\r\n"),
    ("no leading slash", b"GET users HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("backslash", b"GET /a\\b HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("hidden slash", b"GET /a%2fb HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("hidden NUL", b"GET /a%00 HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("asterisk", b"OPTIONS * HTTP/1.1\r\nhost: users\r\n\r\n"),
    ("no version", b"GET /\r\nhost: users\r\n\r\n"),
    ("bare line feeds", b"GET / HTTP/1.1\nhost: users\n\n"),
    ("fragment", b"GET /a#b HTTP/1.1\r\nhost: users\r\n\r\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_in_two_ways_is_refused_on_every_hop() {
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let outbound = mesh.outbound("orders");
    for server in [&ingress, &outbound, &users.inbound] {
        for (what, bytes) in BAD {
            let answer = raw(server.local_addr(), bytes).await;
            assert_eq!(status_of(&answer), 400, "{what}: {answer}");
            assert!(answer.contains("connection: close"), "{what}: {answer}");
        }
    }
    assert_eq!(users.service.requests(), 0, "none of it reached the service");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_refused_request_is_not_read_as_another() {
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let smuggled = b"POST / HTTP/1.1\r\nhost: users\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: users\r\n\r\n";
    let answer = raw(ingress.local_addr(), smuggled).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(users.service.requests(), 0);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_chunks_end_the_request_and_the_connection() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    for chunks in ["x\r\nabc\r\n0\r\n\r\n", "3\r\nabcd\r\n0\r\n\r\n", "-1\r\n", "ffffffffffffffffff\r\n"] {
        let head = "POST / HTTP/1.1\r\nhost: users\r\ntransfer-encoding: chunked\r\n\r\n";
        let more = "GET /after HTTP/1.1\r\nhost: users\r\n\r\n";
        let answer = raw(ingress.local_addr(), format!("{head}{chunks}{more}").as_bytes()).await;
        assert!(!answer.contains("/after"), "{chunks:?}: {answer}");
        assert_ne!(status_of(&answer), 200, "{chunks:?}: {answer}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let three = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = raw(ingress.local_addr(), three.as_bytes()).await;
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("no {text} in {answer}"));
    assert!(at("GET /1 ") < at("GET /2 ") && at("GET /2 ") < at("GET /3 "));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_before_a_bad_request_is_still_answered() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let two =
        "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhiGET /2 HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n 2\r\n\r\n";
    let answer = raw(ingress.local_addr(), two.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("POST /1 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 Bad Request") && answer.contains("goes on in the next line"), "{answer}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_may_come_byte_by_byte() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut stream = tokio::net::TcpStream::connect(ingress.local_addr()).await.expect("a connection");
    let text = b"POST /slow HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for byte in text {
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[*byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\n\nabcde"), "{answer}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_a_word_before_its_body_gets_it() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut stream = tokio::net::TcpStream::connect(ingress.local_addr()).await.expect("a connection");
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("sent");
    let mut word = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut word).await.expect("a word");
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"hi").await.expect("sent");
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hi"), "{answer}");
    assert!(!answer.contains("expect:"), "met here, not passed on");
    mesh.end().await;
}
