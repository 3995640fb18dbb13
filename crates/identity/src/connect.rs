//! Connecting: to a peer of the mesh, and to the service of one's own sidecar.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use synego_model::process::ServiceAddress;
use synego_model::{Identity, Role};
use synego_runtime::clock;
use tokio::net::{TcpStream, UnixStream};

use crate::accept::{HANDSHAKE, stalled, unfit};
use crate::keys::Fingerprint;
use crate::own::Own;
use crate::refused::{Cause, Refused, Side};
use crate::settings::{self, Alpn, Servers};
use crate::stream::Stream;
use crate::tls::TlsStream;
use crate::verify::{Expected, Unfit};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The other side did not take it in time.
    #[error("no connection to {address} within {limit:?}")]
    TimedOut {
        /// Whom.
        address: String,
        /// The limit.
        limit: Duration,
    },
    /// It was refused, or the machine cannot.
    #[error("cannot connect to {address}: {source}")]
    Refused {
        /// Whom.
        address: String,
        /// What the machine says.
        source: io::Error,
    },
    /// The other side is not who it should be, or does not take us for who we are; counted and told in the log already.
    #[error(transparent)]
    Handshake(Box<Refused>),
}

/// Opens connections in the name of one part of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Connector(How);

#[derive(Debug, Clone, Default)]
enum How {
    #[default]
    Plain,
    Mutual(Own),
    Pinned(Vec<Fingerprint>),
}

impl Connector {
    /// Connections without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// Connections under mutual TLS, and no others: with the certificate and the roots that `own` has at the moment.
    #[must_use]
    pub fn mutual(own: Own) -> Self {
        Self(How::Mutual(own))
    }

    /// Connections to a master of which no more is known than the key of its root, by those who have no certificate yet.
    /// The master shows its root with its certificate.
    #[must_use]
    pub fn pinned(root: Fingerprint) -> Self {
        Self::pinned_to(vec![root])
    }

    /// The same where any of these roots will do: while a mesh goes over from one to another, both are good.
    #[must_use]
    pub fn pinned_to(roots: Vec<Fingerprint>) -> Self {
        Self(How::Pinned(roots))
    }

    /// Whether it makes connections under TLS only.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        !matches!(self.0, How::Plain)
    }

    /// A connection to another part of the mesh (a sidecar's inbound, a master): taken within `limit`, and proven to be
    /// `expected`, of our own mesh, within [`HANDSHAKE`] from then.
    ///
    /// - `spoken`: what will be spoken inside, so that the other side knows it; `None`: bytes.
    ///
    /// # Errors
    /// [`ConnectError`]: refused, unreachable, not in time, or somebody else.
    pub async fn connect(
        &self,
        address: &SocketAddr,
        expected: &Role,
        spoken: Option<Alpn>,
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        let (own, expected) = match &self.0 {
            How::Plain => return within(limit, address, TcpStream::connect(address)).await.map(Stream::from),
            How::Mutual(own) => {
                let id = Identity { mesh: own.identity().mesh.clone(), role: expected.clone() };
                (Some(own), Expected::Exactly(id))
            }
            How::Pinned(_) => (None, Expected::AnyMaster),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::unix_ms());
        if let Some(cause) = own.and_then(|own| own.unfit(now)) {
            let unfit = Unfit { cause, came: None, detail: String::new() };
            return Err(refuse(own, *address, expected.shown(), unfit));
        }
        let stream = within(limit, address, TcpStream::connect(address)).await?;
        // Boxed: a request has no use for the room of a handshake when it finds a connection.
        Box::pin(self.shake_hands(stream, *address, own, expected, spoken)).await
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        own: Option<&Own>,
        expected: Expected,
        spoken: Option<Alpn>,
    ) -> Result<Stream, ConnectError> {
        let shown = expected.shown();
        let refuse = |unfit| refuse(own, address, shown.clone(), unfit);
        let pins = match &self.0 {
            How::Pinned(pins) => pins.clone(),
            How::Plain | How::Mutual(_) => Vec::new(),
        };
        let servers = Servers { own: own.cloned(), pins, expected };
        let config = settings::client(servers, spoken)
            .map_err(|error| refuse(Unfit { cause: Cause::NotEnrolled, came: None, detail: error.to_string() }))?;
        let _ = stream.set_nodelay(true);
        let unheard = own.map(|own| (own.clone(), shown.clone()));
        match tokio::time::timeout(HANDSHAKE, TlsStream::connect(stream, config, unheard)).await {
            Ok(Ok(stream)) => {
                if let Some(own) = own {
                    own.met(Side::Connecting, stream.peer());
                }
                Ok(Stream::Tls(Box::new(stream)))
            }
            Ok(Err(fault)) => Err(refuse(unfit(fault))),
            Err(_) => Err(refuse(stalled())),
        }
    }

    /// How whoever is at this address has refused our certificate since then, if it did. In TLS 1.3 the other side
    /// judges it when our handshake is done already, so that it is the first read that fails.
    #[must_use]
    pub fn refused_since(&self, address: &SocketAddr, since: Instant) -> Option<String> {
        match &self.0 {
            How::Mutual(own) => own.refused_by(address, since),
            How::Plain | How::Pinned(_) => None,
        }
    }

    /// A connection to one's own service, on this machine and never by TLS, within `limit`.
    ///
    /// Whoever listens at a Unix socket must be this user, root, or the one to whom its folder belongs: in a folder for
    /// all, another user could have been there first.
    ///
    /// # Errors
    /// [`ConnectError`]: refused, no such socket, of somebody else, or not in time.
    pub async fn connect_service(&self, address: &ServiceAddress, limit: Duration) -> Result<Stream, ConnectError> {
        match address {
            ServiceAddress::Tcp(address) => within(limit, address, TcpStream::connect(address)).await.map(Stream::from),
            ServiceAddress::Unix(path) => {
                let stream = within(limit, &path.display(), UnixStream::connect(path)).await?;
                let refused = |source| ConnectError::Refused { address: path.display().to_string(), source };
                its_own(&stream, path).map_err(refused)?;
                Ok(stream.into())
            }
        }
    }
}

/// # Errors
/// When a stranger listens there.
fn its_own(stream: &UnixStream, path: &Path) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (own, root) = (rustix::process::geteuid().as_raw(), 0);
    let folder = || path.parent().and_then(|folder| std::fs::metadata(folder).ok()).map(|folder| folder.uid());
    if uid == own || uid == root || folder() == Some(uid) {
        return Ok(());
    }
    let message = format!("the user {uid} listens there, who is neither this one ({own}) nor the owner of its folder");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Counts a refusal and tells it in the log.
fn refuse(own: Option<&Own>, address: SocketAddr, expected: String, unfit: Unfit) -> ConnectError {
    let Unfit { cause, came, detail } = unfit;
    let refused = Refused { cause, side: Side::Connecting, address, expected, came, detail };
    match own {
        Some(own) => own.refused(&refused),
        None => tracing::warn!("{refused}"),
    }
    ConnectError::Handshake(Box::new(refused))
}

async fn within<S>(
    limit: Duration,
    address: &impl ToString,
    connect: impl Future<Output = io::Result<S>>,
) -> Result<S, ConnectError> {
    match tokio::time::timeout(limit, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(source)) => Err(ConnectError::Refused { address: address.to_string(), source }),
        Err(_) => Err(ConnectError::TimedOut { address: address.to_string(), limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_names_whom() {
        let port = crate::listen(SocketAddr::from(([127, 0, 0, 1], 0))).and_then(|free| free.local_addr());
        let address = port.expect("a free port");
        let refused = Connector::plain().connect(&address, &Role::Master, None, Duration::from_secs(1)).await;
        assert!(matches!(refused, Err(ConnectError::Refused { address: said, .. }) if said == address.to_string()));
    }

    #[tokio::test]
    async fn a_service_is_reached_by_its_unix_socket() {
        let dir = std::env::temp_dir().join(format!("synego-identity-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder");
        let path = dir.join("service.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let address = ServiceAddress::Unix(path);
        let connector = Connector::plain();
        let (taken, made) =
            tokio::join!(listener.accept(), connector.connect_service(&address, Duration::from_secs(1)));
        std::fs::remove_dir_all(&dir).expect("removed");
        assert!(taken.is_ok() && made.is_ok());
    }

    #[tokio::test]
    async fn a_stranger_who_listens_at_the_socket_of_a_service_gets_nothing() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested here: only root can be another user");
            return;
        }
        // In a folder for all, as `/tmp` is one.
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(folder.path(), open).expect("opened");
        let path = folder.path().join("service.sock");
        let script = "import os,socket,sys; os.setuid(65534); s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); \
                      s.listen(); print('listens', flush=True); sys.stdin.read()";
        let mut stranger = std::process::Command::new("python3")
            .args(["-c", script, &path.display().to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 is on the machine");
        let mut told = [0; 7];
        let output = stranger.stdout.as_mut().expect("its output");
        io::Read::read_exact(output, &mut told).expect("it listens");
        let made = Connector::plain().connect_service(&ServiceAddress::Unix(path), Duration::from_secs(1)).await;
        drop(stranger.stdin.take());
        let _ended = stranger.wait();
        let refused = made.expect_err("a stranger").to_string();
        assert!(refused.contains("the user 65534 listens there"), "{refused}");
    }
}
