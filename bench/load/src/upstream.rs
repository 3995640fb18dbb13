//! The upstreams that Nginx cannot be: it takes uploads to their end, echoes WebSocket frames, and answers gRPC over
//! cleartext HTTP/2. One thread.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::frames::{self, ACCEPT};

/// HTTP/2 streams at once on a connection.
const STREAMS: u32 = 1000;
/// Windows of HTTP/2: wide, so that the upstream is never what one waits for.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// The call whose messages are collected and answered at once.
const UNARY: &str = "/bench.Echo/Unary";

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves until it is ended.
pub(crate) async fn run(http: u16, grpc: u16) -> Outcome<()> {
    let http = TcpListener::bind((Ipv4Addr::LOCALHOST, http)).await?;
    let grpc = TcpListener::bind((Ipv4Addr::LOCALHOST, grpc)).await?;
    loop {
        tokio::select! {
            Ok((stream, _)) = http.accept() => { tokio::spawn(serve_http(stream)); }
            Ok((stream, _)) = grpc.accept() => { tokio::spawn(serve_grpc(stream)); }
        }
    }
}

async fn serve_http(stream: TcpStream) {
    if stream.set_nodelay(true).is_ok() {
        let connection = hyper::server::conn::http1::Builder::new();
        // A client that goes away ends its connection; the client counts it.
        let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await;
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    if request.headers().contains_key(header::UPGRADE) {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                // As above.
                let _ = echo_frames(TokioIo::new(upgraded)).await;
            }
        });
        let mut answer = Response::new(full(Bytes::new()));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static(ACCEPT));
        return Ok(answer);
    }
    if request.method() == Method::POST {
        let mut taken = 0;
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            taken += frame?.data_ref().map_or(0, Bytes::len);
        }
        return Ok(Response::new(full(Bytes::from(format!("{taken}\n")))));
    }
    Ok(Response::new(full(Bytes::from_static(&[b'x'; 1024]))))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

async fn echo_frames(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> std::io::Result<()> {
    let mut got = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some((start, mask, end)) = frames::first(&got) {
            let mut frame = got.split_to(end);
            let payload = frame.get_mut(start..).unwrap_or_default();
            frames::mask(payload, mask);
            let echo = frames::frame(payload, false);
            stream.write_all(&echo).await?;
        }
        if stream.read_buf(&mut got).await? == 0 {
            return Ok(());
        }
    }
}

async fn serve_grpc(stream: TcpStream) {
    if stream.set_nodelay(true).is_ok() {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .serve_connection(TokioIo::new(stream), service_fn(echo));
        // As above.
        let _ = connection.await;
    }
}

/// Sends back what it gets: a unary call as one message, any other as it comes.
async fn echo(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let is_unary = request.uri().path() == UNARY;
    let messages: Body = if is_unary {
        full(request.into_body().collect().await?.to_bytes())
    } else {
        request.into_body().map_frame(|frame| frame).boxed()
    };
    let status = async {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let mut answer = Response::new(messages.with_trailers(status).boxed());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(answer)
}
