//! The life of a service: beside a sidecar on a real Unix socket, on a port or a socket of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use synego_wire::pb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
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

/// Of a program that runs alone and is told to listen on this socket.
fn at_socket(path: &Path) -> Environment {
    Environment { socket: Some(path.to_owned()), ..Environment::default() }
}

/// Whether a service is alive, asked over its socket.
async fn is_alive(socket: &Path) -> bool {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: users\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.starts_with("HTTP/1.1 200 ")
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

#[tokio::test]
async fn a_service_listens_on_the_socket_that_its_parent_names_and_takes_it_away_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (path, sidecar) = (folder.path().join("users.sock"), folder.path().join("sidecar.sock"));
    let program = Program::start(&sidecar);
    let told = Environment { socket: Some(path.clone()), ..environment(&sidecar) };
    let running = start(Service::new("users"), told).await.unwrap();
    program.attached().await;
    assert!(is_alive(&path).await);
    assert_eq!(running.address(), &ServiceAddress::Unix(path.clone()));
    let hello = program.sidecar.seen().borrow().hellos[0].clone();
    let listeners = hello.listeners.iter().map(|listener| (listener.protocol(), listener.address.clone()));
    let address = format!("unix:{}", path.display());
    let expected = [(pb::Protocol::Http1, address.clone()), (pb::Protocol::Grpc, address)];
    assert_eq!(listeners.collect::<Vec<_>>(), expected);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    running.stop();
    running.stopped().await.unwrap();
    assert!(!path.exists());
    program.server.abort();
}

#[tokio::test]
async fn an_address_in_the_program_goes_before_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.sock");
    let service = Service::new("users").listen(([127, 0, 0, 1], 0).into());
    let running = start(service, at_socket(&path)).await.unwrap();
    assert!(matches!(running.address(), ServiceAddress::Tcp(_)), "{}", running.address());
    assert!(!path.exists());
    running.stop();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_socket_that_a_killed_predecessor_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.sock");
    // A listener of tokio leaves its file, as a kill does.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let running = start(Service::new("users"), at_socket(&path)).await.unwrap();
    assert!(is_alive(&path).await);
    running.stop();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_socket_on_which_somebody_accepts_or_a_plain_file_is_in_use_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (taken, plain) = (folder.path().join("taken.sock"), folder.path().join("plain"));
    let other = UnixListener::bind(&taken).unwrap();
    std::fs::write(&plain, "kept").unwrap();
    for path in [&taken, &plain] {
        let error = start(Service::new("users"), at_socket(path)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on unix:{}: ", path.display())), "{error}");
    }
    UnixStream::connect(&taken).await.unwrap();
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "kept");
    drop(other);
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_refused() {
    let long = format!("/{}", "x".repeat(107));
    for path in ["", "users.sock", long.as_str()] {
        let environment = Environment::from_variables([("SOCKET".to_owned(), path.to_owned())]);
        let error = start(Service::new("users"), environment).await.unwrap_err();
        let expected = format!("SOCKET: `{path}`: expected an absolute path of at most 107 bytes");
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, expected.as_str()));
    }
}
