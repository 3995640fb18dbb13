//! Memory: bodies of any size pass in little. Alone in its file, because all tests of a file share one process.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;

/// Frames of 64 KiB, `count` of them.
fn large(count: u64) -> Body {
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let frames = futures_util::stream::iter(
        (0..count).map(move |_| Ok::<_, std::convert::Infallible>(Frame::data(chunk.clone()))),
    );
    StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync()
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_a_gibibyte_goes_up_and_down_in_little_memory() {
    const FRAMES: u64 = 16 * 1024;
    let seen = Arc::new(AtomicU64::new(0));
    let count = seen.clone();
    let files = Service::http(move |request| {
        let count = count.clone();
        Box::pin(async move {
            if request.method() == Method::GET {
                return Response::new(large(FRAMES));
            }
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                count.fetch_add(frame.data_ref().map_or(0, Bytes::len) as u64, Ordering::Relaxed);
            }
            Response::new(full("taken"))
        })
    })
    .await;
    let mesh = Mesh::start();
    let _files = mesh.instance("files", files).await;
    let ingress = mesh.route("/", "files").ingress().local_addr();
    let before = resident();
    let up = send(ingress, request(Method::POST, "a", "/").body(large(FRAMES)).expect("a request")).await;
    assert_eq!((up.status, up.body.as_str()), (200, "taken"));
    assert_eq!(seen.load(Ordering::Relaxed), FRAMES * 64 * 1024);
    let mut client = Client1::to(ingress).await;
    let down = client.head(request(Method::GET, "a", "/").body(full("")).expect("a request")).await.expect("a head");
    let (mut body, mut read) = (down.into_body(), 0);
    while let Some(frame) = body.frame().await {
        read += frame.expect("sound").data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(read, FRAMES * 64 * 1024);
    // Client, service and all hops are this one process.
    let grown = resident().saturating_sub(before) / (1024 * 1024);
    assert!(grown < 24, "{grown} MiB");
    mesh.end().await;
}
