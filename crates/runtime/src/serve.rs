//! Serving of HTTP on our own APIs: one hardened constructor for all of them, and one accept loop.
//!
//! hyper's guards are off unless someone switches them on (its header timeout is inert without a timer), and tonic's own
//! server switches off more: so tonic services are served as routers through here.

mod listen;

use std::io;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

pub use listen::{ApiPeer, ApiStream, BindAddr, Listener, SocketFile, bind};

use crate::lifecycle::{Drain, Stop};
use crate::tasks;

/// Bounds of one kind of server.
#[derive(Debug, Clone)]
pub struct Profile {
    /// HTTP/2 streams at once on a connection.
    pub streams: u32,
    /// HTTP/2 window of a stream; bytes.
    pub window: u32,
    /// HTTP/2 window of a connection; bytes.
    pub connection_window: u32,
    /// Headers of a message together; bytes.
    pub headers: u32,
    /// How many headers a message has at most (HTTP/1).
    pub header_count: usize,
    /// Time to read a message's head.
    pub header_read: Duration,
    /// Time between HTTP/2 pings, and how long an answer may take.
    pub ping: (Duration, Duration),
    /// Connections at once; a further one waits to be accepted.
    pub connections: usize,
    /// Time from the stop until open connections are dropped.
    pub linger: Duration,
}

impl Profile {
    /// For people and tools: the admin server, the service protocol.
    #[must_use]
    pub fn admin() -> Self {
        Self {
            streams: 100,
            window: 64 * 1024,
            connection_window: 1024 * 1024,
            headers: 64 * 1024,
            header_count: 100,
            header_read: Duration::from_secs(10),
            ping: (Duration::from_secs(10), Duration::from_secs(5)),
            connections: 1024,
            linger: Duration::from_secs(1),
        }
    }

    /// Between the parts of a mesh: more and larger streams, one connection for each sidecar.
    #[must_use]
    pub fn mesh() -> Self {
        Self { streams: 250, window: 256 * 1024, connection_window: 2048 * 1024, connections: 10_000, ..Self::admin() }
    }

    /// The builder of connections with every guard on: HTTP/1.1, and HTTP/2 by prior knowledge.
    #[must_use]
    pub fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read)
            .max_headers(self.header_count)
            .max_buf_size(usize::try_from(self.headers).unwrap_or(usize::MAX));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.streams)
            .initial_stream_window_size(self.window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(self.headers)
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100)
            .keep_alive_interval(self.ping.0)
            .keep_alive_timeout(self.ping.1);
        builder
    }
}

/// Serves `router` on all `listeners` until `stop`; then open connections finish what they do, at most `linger` long.
///
/// A connection on a Unix socket is taken only from this user or root.
pub async fn serve(listeners: Vec<Listener>, router: Router, profile: Profile, stop: Stop) {
    let drain = Drain::new();
    let (last, lingering) = stop.outliving();
    let loops: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let (router, profile, stop) = (router.clone(), profile.clone(), stop.clone());
            let (lingering, drain) = (lingering.clone(), drain.clone());
            tasks::spawn("accept", tasks::Kind::Critical, accept(listener, router, profile, stop, lingering, drain))
        })
        .collect();
    for accepting in loops {
        // A panic in it has been told already, and stops the host.
        let _ended = accepting.await;
    }
    tokio::select! {
        () = drain.idle() => {}
        () = tokio::time::sleep(profile.linger) => {}
        () = stop.cut() => {}
    }
    last.cut();
    drain.idle().await;
}

async fn accept(listener: Listener, router: Router, profile: Profile, stop: Stop, lingering: Stop, drain: Drain) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(profile.connections));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.stopped() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.stopped() => return,
        };
        let (router, profile, stop, lingering) = (router.clone(), profile.clone(), stop.clone(), lingering.clone());
        let guard = (place, drain.guard());
        match accepted {
            Ok((stream, peer)) => {
                tasks::spawn("connection", tasks::Kind::Connection, async move {
                    let _guard = guard;
                    tokio::select! {
                        () = serve_peer(stream, Some(peer), router, &profile, stop) => {}
                        () = lingering.cut() => {}
                    }
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Serves one connection that was accepted elsewhere; returns when it is over. After `stop` it takes no new request.
pub async fn serve_connection<S>(stream: S, router: Router, profile: &Profile, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_peer(stream, None, router, profile, stop).await;
}

async fn serve_peer<S>(stream: S, peer: Option<ApiPeer>, router: Router, profile: &Profile, stop: Stop)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = profile.builder();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let mut router = router.clone();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        async move { Service::call(&mut router, request).await }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(cause = %error, "connection ended");
    }
}

/// After a failed accept: a connection that broke off asks for the next at once, a lack of files for some patience.
async fn pause_after(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(cause = %error, "cannot accept a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
#[path = "serve/tests.rs"]
mod tests;
