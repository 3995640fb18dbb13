//! Services as users write them: HTTP/1.1 or HTTP/2 by prior knowledge, on a loopback port, ended as hard as asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use synego_runtime::tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;
pub type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A running service.
#[derive(Clone)]
pub struct Service {
    pub address: SocketAddr,
    /// Connections that it took.
    pub connections: Arc<AtomicUsize>,
    /// Requests that it saw.
    pub requests: Arc<AtomicUsize>,
    killed: CancellationToken,
}

impl Service {
    /// A service that answers by `handler`.
    pub async fn http(handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static) -> Self {
        let handler = Arc::new(handler);
        Self::each(move |stream, service| {
            let (handler, service) = (handler.clone(), service.clone());
            async move {
                let answer = hyper::service::service_fn(move |request| {
                    service.requests.fetch_add(1, Ordering::SeqCst);
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
            }
        })
        .await
    }

    /// A service that does `serve` with each connection.
    pub async fn each<F>(serve: impl Fn(TcpStream, Self) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let service = Self {
            address: listener.local_addr().expect("an address"),
            connections: Arc::default(),
            requests: Arc::default(),
            killed: CancellationToken::new(),
        };
        let of = service.clone();
        tasks::spawn("test-service", tasks::Kind::Connection, async move {
            loop {
                let stream = tokio::select! {
                    taken = listener.accept() => taken.expect("a connection").0,
                    () = of.killed.cancelled() => return,
                };
                let _ = stream.set_nodelay(true);
                of.connections.fetch_add(1, Ordering::SeqCst);
                let (work, killed) = (serve(stream, of.clone()), of.killed.clone());
                tasks::spawn("test-connection", tasks::Kind::Connection, async move {
                    tokio::select! {
                        () = work => {}
                        () = killed.cancelled() => {}
                    }
                });
            }
        });
        service
    }

    /// Answers every request with its method, path, headers and body as text.
    pub async fn echo() -> Self {
        Self::http(|request| {
            Box::pin(async move {
                let (parts, body) = request.into_parts();
                let mut text = format!("{} {} {:?}\n", parts.method, parts.uri, parts.version);
                for (name, value) in &parts.headers {
                    text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
                }
                let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
                text.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
                Response::new(full(text))
            })
        })
        .await
    }

    /// Answers every request with this word.
    pub async fn says(word: &'static str) -> Self {
        Self::http(move |_| Box::pin(async move { Response::new(full(word)) })).await
    }

    /// Ends at once, with all connections: as `kill -9` does.
    pub fn kill(&self) {
        self.killed.cancel();
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}
