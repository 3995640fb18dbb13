//! A small client: one request on a connection of its own, and its whole answer.

use std::net::SocketAddr;

use ::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use synego_runtime::tasks::{self, Kind};
use tokio::net::TcpStream;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status and reason of an answer in the JSON form of the mesh.
    pub(crate) fn reason(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text());
        let text = self.text();
        let field = |name: &str| {
            let begin = text.find(&format!("\"{name}\":")).map(|at| at + name.len() + 3).expect("a field");
            text[begin..].trim_start_matches('"').split(['"', ',', '}']).next().unwrap_or_default().to_owned()
        };
        assert_eq!(field("code"), self.status.as_u16().to_string());
        assert_eq!(field("reason"), self.header("x-synego-reason"));
        assert_eq!(field("request_id"), self.header("x-request-id"));
        (self.status.as_u16(), field("reason"))
    }
}

/// Sends a request whose `Host` is `example.test` unless `headers` say another.
pub(crate) async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> ::http::Response<Incoming> {
    let stream = TcpStream::connect(address).await.expect("connect");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("handshake");
    tasks::spawn("client", Kind::Connection, connection.with_upgrades());
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "example.test");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Full::new(body.into())).expect("a request")).await.expect("an answer")
}

pub(crate) async fn ask(address: SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let (head, body) = send(address, method, path, headers, "").await.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, Method::GET, path, &[]).await
}
