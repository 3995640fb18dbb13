//! A stand-in of a master's ingress: routes `/api`, answers the rest as the ingress does, and tells what reached it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use futures_util::StreamExt;
use synego_runtime::serve::{BindAddr, Profile, bind, serve};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Stop, Stopper};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A running stand-in.
pub(crate) struct Master {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

/// What reached it, and what holds its answers back.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: AtomicU64,
    pub(crate) next_event: Notify,
    /// Requests for `/api/slow` that came so far.
    pub(crate) slow: AtomicU64,
    /// Whether they are answered.
    pub(crate) release: watch::Sender<bool>,
}

impl Master {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::start_at(name, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let seen = Arc::new(Seen::default());
        let listener = bind(&BindAddr::Tcp(address)).await.expect("bind");
        let Ok(BindAddr::Tcp(address)) = listener.address() else { panic!("no address") };
        let router = Router::new()
            .route("/api/echo", any(echo))
            .route("/api/sink", any(sink))
            .route("/api/source", any(source))
            .route("/api/events", any(events))
            .route("/api/ws", any(websocket))
            .route("/api/missing", any(|| async { plain(404, "no such user") }))
            .route("/api/broken", any(|| async { plain(502, "its own 502") }))
            .route("/api/redirect", any(|| async { redirecting() }))
            .route("/api/slow", any(move |State(seen): State<Arc<Seen>>| slow(seen, name)))
            .route("/shop.v1.Orders/Get", any(super::grpc::unary))
            .route("/api/name", any(move || async move { plain(200, name) }))
            .fallback(no_route)
            .layer(axum::middleware::from_fn_with_state(seen.clone(), count))
            .with_state(seen.clone());
        let (stopper, stop): (Stopper, Stop) = Stopper::new();
        let serving = tasks::spawn("master", Kind::Connection, serve(vec![listener], router, Profile::mesh(), stop));
        Self { address, seen, stopper, serving }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// As if it were killed: every connection breaks.
    pub(crate) async fn kill(self) {
        self.stopper.cut();
        self.serving.await.expect("the stand-in");
    }
}

async fn count(State(seen): State<Arc<Seen>>, request: Request, next: axum::middleware::Next) -> Response {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

fn plain(status: u16, text: &'static str) -> Response {
    Response::builder().status(status).header("content-type", "text/plain").body(Body::from(text)).expect("an answer")
}

/// A service that tries to read what Nginx keeps to itself.
fn redirecting() -> Response {
    Response::builder().header("x-accel-redirect", "/.synego/error").body(Body::from("mine")).expect("an answer")
}

/// As the ingress: 404, or 421 where Nginx has a page for what is no route.
async fn no_route(request: Request) -> Response {
    let is_spa = request.headers().get("x-synego-fallback").is_some_and(|value| value == "spa");
    Response::builder()
        .status(if is_spa { 421 } else { 404 })
        .header("content-type", "application/json")
        .header("x-synego-reason", "no_route")
        .body(Body::from(format!("no route of the master for {} {}", request.method(), request.uri())))
        .expect("an answer")
}

/// Answers once the test says so.
async fn slow(seen: Arc<Seen>, name: &'static str) -> Response {
    seen.slow.fetch_add(1, Ordering::Relaxed);
    let mut release = seen.release.subscribe();
    release.wait_for(|release| *release).await.expect("the test");
    plain(200, name)
}

/// Method, path, headers and body, a line each.
async fn echo(request: Request) -> String {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
    }
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    text + "\n" + &String::from_utf8_lossy(&body)
}

/// Takes a body without keeping it, and tells its size.
async fn sink(request: Request) -> String {
    let mut size = 0;
    let mut body = request.into_body().into_data_stream();
    while let Some(Ok(chunk)) = body.next().await {
        size += chunk.len();
    }
    size.to_string()
}

/// As many MiB as the query says.
async fn source(request: Request) -> Response {
    let mib: usize = request.uri().query().and_then(|query| query.parse().ok()).unwrap_or(1);
    let chunk = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let chunks = futures_util::stream::iter((0..mib).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    Response::new(Body::from_stream(chunks))
}

/// Server-sent events: one at once, each further one when the test asks for it.
async fn events(State(seen): State<Arc<Seen>>) -> Response {
    let (send, mut next) = mpsc::channel::<String>(1);
    tasks::spawn("events", Kind::Connection, async move {
        for n in 0.. {
            if send.send(format!("data: {n}\n\n")).await.is_err() {
                return;
            }
            seen.next_event.notified().await;
        }
    });
    let stream =
        futures_util::stream::poll_fn(move |cx| next.poll_recv(cx).map(|event| event.map(Ok::<_, std::io::Error>)));
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(stream)).expect("an answer")
}

/// A WebSocket that echoes.
async fn websocket(mut request: Request) -> Response {
    let key = request.headers().get("sec-websocket-key").cloned().expect("a key");
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tasks::spawn("websocket", Kind::Connection, async move {
        let stream = hyper_util::rt::TokioIo::new(upgrade.await.expect("an upgrade"));
        let socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        let (write, read) = socket.split();
        // Ends with the client.
        let _end = read.forward(write).await;
    });
    Response::builder()
        .status(101)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .body(Body::empty())
        .expect("an answer")
}
