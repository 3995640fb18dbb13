//! gRPC on its own address: HTTP/2 without TLS, trailers, and answers of Nginx itself that a gRPC client understands.

use std::net::SocketAddr;

use ::http::{HeaderMap, HeaderValue, Request, Response};
use axum::body::Body;
use axum::extract::Request as Incoming;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use synego_runtime::tasks::{self, Kind};
use tokio::net::TcpStream;

use crate::edge::{Edge, config, gateway};
use crate::master::Master;

/// Answers with the message it got, the metadata it saw, and trailers.
pub(crate) async fn unary(request: Incoming) -> Response<Body> {
    let (head, body) = request.into_parts();
    let seen = |name: &str| head.headers.get(name).cloned().unwrap_or(HeaderValue::from_static("none"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("9"));
    trailers.insert("grpc-message", HeaderValue::from_static("sold out"));
    for name in ["x-own-bin", "grpc-timeout", "x-forwarded-for", "te", "x-synego-fallback"] {
        trailers.insert(::http::HeaderName::try_from(format!("seen-{name}")).expect("a name"), seen(name));
    }
    trailers.insert("seen-version", HeaderValue::try_from(format!("{:?}", head.version)).expect("a value"));
    let message = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let frames = [Ok::<_, std::io::Error>(Frame::data(message)), Ok(Frame::trailers(trailers))];
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(futures_util::stream::iter(frames))))
        .expect("an answer")
}

async fn call(address: SocketAddr, host: &str) -> (HeaderMap, Bytes, HeaderMap) {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("handshake");
    tasks::spawn("client", Kind::Connection, connection);
    let request = Request::post(format!("http://{host}/shop.v1.Orders/Get"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "2S")
        .header("x-own-bin", "AAEC")
        .header("x-synego-fallback", "spa")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\x03abc")))
        .expect("a request");
    let (head, body) = sender.send_request(request).await.expect("an answer").into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/grpc");
    let body = body.collect().await.expect("a body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    (head.headers, body.to_bytes(), trailers)
}

#[tokio::test]
async fn message_metadata_and_trailers_pass_unchanged() {
    let master = Master::start("one").await;
    let edge = Edge::start(config(gateway(), &[master.address])).await;
    let (_, message, trailers) = call(edge.grpc(), "shop.example.com").await;
    assert_eq!(&message[..], b"\0\0\0\0\x03abc");
    for (name, value) in [
        ("grpc-status", "9"),
        ("grpc-message", "sold out"),
        ("seen-x-own-bin", "AAEC"),
        ("seen-grpc-timeout", "2S"),
        ("seen-x-forwarded-for", "127.0.0.1"),
        ("seen-te", "trailers"),
        ("seen-x-synego-fallback", "none"),
        ("seen-version", "HTTP/2.0"),
    ] {
        assert_eq!(trailers.get(name).and_then(|found| found.to_str().ok()), Some(value), "{name}");
    }
    edge.stop().await;
    master.kill().await;
}

#[tokio::test]
async fn without_a_master_or_on_another_host_the_status_says_so() {
    let master = Master::start("one").await;
    let mut wanted = gateway();
    wanted.hosts = vec!["example.com".parse().expect("a host")];
    let edge = Edge::start(config(wanted, &[master.address])).await;
    let (head, _, _) = call(edge.grpc(), "other.org").await;
    assert_eq!(
        (&head["grpc-status"], &head["x-synego-reason"]),
        (&"12".parse().expect("12"), &"no_route".parse().expect("reason"))
    );
    master.kill().await;
    let (head, _, _) = call(edge.grpc(), "example.com").await;
    assert_eq!(head["grpc-status"], "14");
    assert_eq!(head["x-synego-reason"], "connect_failed");
    assert_eq!(head["grpc-message"], "no connection to the instance could be made in time");
    edge.stop().await;
}
