//! Bodies of any size pass all hops with back-pressure: no process grows with them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use synego_testkit::{Mesh, fault};

const GIB: u64 = 1 << 30;
const CHUNK: usize = 64 * 1024;
const MAY_GROW: u64 = 16 << 20;

fn manifest() -> String {
    let program = synego_testkit::program::root().join("tests/fixtures/bodies.js");
    let head = "mesh: bodies\ngateway: { listen: \"${SHOP_HTTP}\" }\nmasters: { ingress: 0, mesh: 0, admin: 0 }\n";
    format!("{head}services:\n  bodies:\n    run: [node, {}]\n    routes: [/]\n", program.display())
}

/// The processes of the mesh: `synego up` (master and sidecars) and the workers of Nginx.
fn watched(mesh: &Mesh) -> Vec<u32> {
    let mut found = vec![mesh.up.pid()];
    let children = |parent: u32| -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
            .collect()
    };
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children(pid));
        next += 1;
    }
    let is_ours = |pid: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.starts_with("synego") || name.starts_with("nginx")
    };
    found.retain(is_ours);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_goes_up_and_down_and_no_process_grows_by_sixteen_mebibytes() {
    let mesh = Mesh::of(&manifest()).await;
    let pids = watched(&mesh);
    assert!(pids.len() >= 2, "synego and Nginx: {pids:?}");
    let memory = || -> Vec<u64> { pids.iter().map(|pid| fault::resident_bytes(*pid)).collect() };

    // Once small, so that what is allocated once is not counted as growth.
    upload(&mesh, 8 << 20).await;
    download(&mesh, 8 << 20).await;
    let before = memory();
    let (peaks, watching) = tokio::sync::watch::channel(before.clone());
    let watcher = tokio::spawn({
        let pids = pids.clone();
        async move {
            let mut look = tokio::time::interval(Duration::from_millis(50));
            loop {
                look.tick().await;
                peaks.send_modify(|peaks| {
                    for (peak, pid) in peaks.iter_mut().zip(&pids) {
                        *peak = fault::resident_bytes(*pid).max(*peak);
                    }
                });
            }
        }
    });
    upload(&mesh, GIB).await;
    download(&mesh, GIB).await;
    watcher.abort();
    let peaks = watching.borrow().clone();
    for ((pid, before), peak) in pids.iter().zip(before).zip(peaks) {
        assert!(peak > 0, "process {pid} was watched");
        assert!(peak < before + MAY_GROW, "process {pid} grew from {before} to {peak}");
    }
}

async fn upload(mesh: &Mesh, bytes: u64) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let chunk = Bytes::from(vec![b'x'; CHUNK]);
    let chunks = futures_util::stream::iter(0..bytes / CHUNK as u64)
        .map(move |_| Ok::<_, std::convert::Infallible>(Frame::data(chunk.clone())));
    let request =
        Request::post(mesh.url("/")).body(http_body_util::BodyExt::boxed(StreamBody::new(chunks))).expect("a request");
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let told = answer.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(told, bytes.to_string(), "every byte arrived");
}

async fn download(mesh: &Mesh, bytes: u64) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(mesh.url(&format!("/?bytes={bytes}"))).body(Empty::<Bytes>::new()).expect("a request");
    let mut body = client.request(request).await.expect("an answer").into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame.expect("no break").data_ref().map_or(0, Bytes::len) as u64;
    }
    assert_eq!(received, bytes, "every byte arrived");
}
