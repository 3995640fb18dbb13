//! The life of a service beside a sidecar on a real Unix socket.

use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;

use super::*;
use crate::testing::sidecar::Sidecar;

/// A sidecar program: a socket that is there while it runs.
struct Program {
    sidecar: Sidecar,
    path: PathBuf,
    server: JoinHandle<()>,
}

impl Program {
    fn start(path: &Path) -> Self {
        let sidecar = Sidecar::new("users", "users-1", "http://127.0.0.1:4001");
        let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let server = tokio::spawn(sidecar.clone().serve(incoming, CancellationToken::new()));
        Self { sidecar, path: path.to_owned(), server }
    }

    async fn crash(self) {
        // The connections live in tasks of their own: the stream is broken first, as the death of the process would.
        self.server.abort();
        let _ = self.server.await;
        std::fs::remove_file(self.path).unwrap();
        self.sidecar.end(tonic::Status::unavailable("killed")).await;
    }

    async fn attached(&self) {
        let attached = async { self.sidecar.seen().wait_for(|seen| !seen.hellos.is_empty()).await.map(drop) };
        tokio::time::timeout(Duration::from_secs(10), attached).await.unwrap().unwrap();
    }
}

fn environment(path: &Path) -> Environment {
    Environment { sidecar: SidecarAddress::Unix(path.to_owned()), ..Environment::default() }
}

#[tokio::test]
async fn a_service_starts_without_its_sidecar_and_attaches_when_it_comes_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.sock");
    let running = start(Service::new("users"), environment(&path)).await.unwrap();
    let mut link = running.client().link();
    assert!(matches!(link.state(), LinkState::Connecting { .. }), "{:?}", link.state());
    let first = Program::start(&path);
    first.attached().await;
    assert_eq!(link.attached().await.unwrap().instance, "users-1");
    assert_eq!(running.client().environment().outbound.as_deref(), Some("http://127.0.0.1:4001"));
    first.crash().await;
    let second = Program::start(&path);
    second.attached().await;
    let hello = second.sidecar.seen().borrow().hellos[0].clone();
    assert_eq!((hello.attachment_id.as_str(), hello.state.unwrap().phase()), ("a-1", pb::Phase::Ready));
    running.stop();
    running.stopped().await.unwrap();
    assert_eq!(second.sidecar.seen().borrow().phase, pb::Phase::Drained, "the last word arrives");
    second.server.abort();
}

#[tokio::test]
async fn a_program_that_serves_nothing_learns_the_outbound_from_its_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidecar.sock");
    let client = Client::new(environment(&path));
    let program = Program::start(&path);
    client.find_outbound().await.unwrap();
    assert_eq!(client.environment().outbound.as_deref(), Some("http://127.0.0.1:4001"));
    assert!(matches!(client.link().state(), LinkState::Off));
    program.crash().await;
}

#[tokio::test(start_paused = true)]
async fn a_required_sidecar_that_is_missing_ends_the_start_after_10_s() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::new("users").require_sidecar();
    let before = Instant::now();
    let error = start(service, environment(&folder.path().join("none.sock"))).await.unwrap_err();
    assert_eq!((error.code(), error.reason_word()), (Code::Unavailable, "sidecar_unreachable"));
    assert!((10..13).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
}

#[tokio::test]
async fn an_address_in_use_is_told_with_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = start(Service::new("users").listen(address), Environment::default()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
}
