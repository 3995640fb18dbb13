//! Where a service listens: a port or a Unix socket, for HTTP and gRPC alike.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use synego_model::process::ServiceAddress;
use synego_wire::pb;
use tokio::net::{TcpListener, UnixListener, UnixStream, unix};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::codes::Code;
use crate::errors::Error;

/// How long idle connections are kept, as far as the protocol can say it: a day, in milliseconds.
const KEEP_ALIVE_MS: u32 = 86_400_000;

/// A port or socket that is taken; nothing is served there yet.
pub(crate) enum Bound {
    Port(TcpListener),
    Socket(Socket),
}

impl Bound {
    /// Takes the port or the socket at `address`.
    pub(crate) async fn bind(address: &ServiceAddress) -> Result<Self, Error> {
        let bound = match address {
            ServiceAddress::Tcp(address) => TcpListener::bind(*address).await.map(Self::Port),
            ServiceAddress::Unix(path) => Socket::bind(path).await.map(Self::Socket),
        };
        bound.map_err(|cause| Error::new(Code::Unavailable, format!("cannot listen on {address}")).because(cause))
    }

    /// Where it is; the port is that which the system chose where 0 was asked for.
    pub(crate) fn address(&self) -> Result<ServiceAddress, Error> {
        match self {
            Self::Port(listener) => listener.local_addr().map(ServiceAddress::Tcp).map_err(Error::foreign),
            Self::Socket(socket) => Ok(ServiceAddress::Unix(socket.path.clone())),
        }
    }

    /// Serves until `closing`, and then what is under way.
    pub(crate) fn serve(self, router: Router, closing: CancellationToken) -> JoinHandle<io::Result<()>> {
        let closing = closing.cancelled_owned();
        match self {
            Self::Port(listener) => {
                let listener = listener.tap_io(|stream| {
                    // Without it small answers wait for the acknowledgement of earlier ones; a socket that refuses
                    // still works.
                    let _ = stream.set_nodelay(true);
                });
                tokio::spawn(axum::serve(listener, router).with_graceful_shutdown(closing).into_future())
            }
            Self::Socket(socket) => {
                tokio::spawn(axum::serve(socket, router).with_graceful_shutdown(closing).into_future())
            }
        }
    }
}

/// A Unix socket of this process; its file goes with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. A socket that a killed predecessor left is replaced, and the new one is left to the sidecar
    /// alone, which runs as the same user or as root.
    async fn bind(path: &Path) -> io::Result<Self> {
        if is_stale(path).await {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let socket = Self { listener: UnixListener::bind(path)?, path: path.to_owned() };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(socket)
    }
}

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Before the listener closes: afterwards the file could be a successor's. One that is gone already is no loss.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether `path` is a socket on which nobody accepts. A connection to a plain file is refused too, and that is not
/// ours to remove.
async fn is_stale(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path).await.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// One address for HTTP and gRPC, as two listeners.
pub(crate) fn listeners(address: &ServiceAddress) -> Vec<pb::Listener> {
    let address = match address {
        ServiceAddress::Tcp(address) => reachable(*address).to_string(),
        ServiceAddress::Unix(_) => address.to_string(),
    };
    // Idle connections are kept for as long as the sidecar wants them.
    let listener = |protocol: pb::Protocol| pb::Listener {
        protocol: protocol.into(),
        address: address.clone(),
        keep_alive_ms: KEEP_ALIVE_MS,
    };
    vec![listener(pb::Protocol::Http1), listener(pb::Protocol::Grpc)]
}

/// Where the sidecar reaches a port.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    // The sidecar is on this machine: it reaches a service that listens everywhere by the loopback.
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    if address.port() == 0 {
        // Not known before it is bound; any port is sound until then.
        address.set_port(1);
    }
    address
}
