//! Clients: one request on a connection of its own, a kept connection, or raw bytes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use synego_runtime::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::service::{Body, full};

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Got {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// A header of the request as an echo service saw it.
    pub fn echoed(&self, name: &str) -> Option<&str> {
        self.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    async fn read(answer: http::Response<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, body) = answer.into_parts();
        let all = body.collect().await?;
        let trailers = all.trailers().cloned();
        let body = String::from_utf8_lossy(&all.to_bytes()).into_owned();
        Ok(Self { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
    }
}

pub fn request(method: Method, host: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", host)
}

/// A kept HTTP/1.1 connection.
pub struct Client1(http1::SendRequest<Body>);

impl Client1 {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
        tasks::spawn("test-client", tasks::Kind::Connection, async move {
            let _ = connection.with_upgrades().await;
        });
        Self(sender)
    }

    pub async fn head(&mut self, request: Request<Body>) -> Result<http::Response<Incoming>, hyper::Error> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Got, hyper::Error> {
        Got::read(self.head(request).await?).await
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Result<Got, hyper::Error> {
        self.send(request(Method::GET, host, path).body(full("")).expect("a request")).await
    }

    pub async fn is_closed(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(5), async {
            while !self.0.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .is_ok()
    }
}

/// An HTTP/2 connection by prior knowledge.
#[derive(Clone)]
pub struct Client2(http2::SendRequest<Body>);

impl Client2 {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
        tasks::spawn("test-client", tasks::Kind::Connection, async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    pub async fn head(&self, request: Request<Body>) -> Result<http::Response<Incoming>, hyper::Error> {
        self.0.clone().send_request(request).await
    }

    pub async fn send(&self, request: Request<Body>) -> Result<Got, hyper::Error> {
        Got::read(self.head(request).await?).await
    }

    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A request of gRPC.
pub fn grpc(authority: &str, path: &str) -> http::request::Builder {
    Request::post(format!("http://{authority}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// A single GET on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Got {
    Client1::to(address).await.get(host, path).await.expect("an answer")
}

pub async fn send(address: SocketAddr, request: Request<Body>) -> Got {
    Client1::to(address).await.send(request).await.expect("an answer")
}

/// A raw answer without the interim ones (1xx) before it.
pub fn without_interim(answer: &str) -> &str {
    let mut rest = answer;
    while (100..200).contains(&status_of(rest))
        && let Some((_, next)) = rest.split_once("\r\n\r\n")
    {
        rest = next;
    }
    rest
}

/// Sends raw bytes and reads until the other side closes, at most five seconds.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of a raw answer; 0 when there is none.
pub fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub fn ok(got: &Got) -> bool {
    got.status == StatusCode::OK.as_u16()
}

pub fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
