//! Taking connections: who is at the other end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use synego_model::Identity;
use synego_runtime::clock;
use tokio::net::TcpStream;

use crate::own::Own;
use crate::refused::{Cause, Refused, Side};
use crate::settings;
use crate::stream::Stream;
use crate::tls::{Fault, TlsStream};
use crate::verify::{Expected, Unfit, unfit_of};

/// Time for a handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Who it proved to be; `None` without TLS, or where someone without a certificate is let in.
    pub id: Option<Identity>,
}

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Services of the mesh, and masters: an inbound.
    Services,
    /// Services of the mesh, masters, and those who have no certificate: the mesh API, where a sidecar joins. Who shows a
    /// certificate must show a good one.
    MasterDoor,
    /// Operators of the mesh, and those who have no certificate, who prove themselves by a token: the admin API.
    Operators,
}

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It was gone before it said anything.
    #[error("the connection is gone: {0}")]
    Gone(#[from] std::io::Error),
    /// It did not prove what it had to; counted and told in the log already.
    #[error(transparent)]
    Refused(Box<Refused>),
}

/// Takes connections in the name of one part of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Acceptor(Option<Arc<Mutual>>);

#[derive(Debug)]
struct Mutual {
    own: Own,
    expected: Expected,
    /// `None`: the parts of cryptography do not fit together, a mistake of the program.
    config: Option<Arc<ServerConfig>>,
}

impl Acceptor {
    /// Connections without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// Connections under mutual TLS, and no others: with the certificate and the roots that `own` has at the moment.
    #[must_use]
    pub fn mutual(own: Own, admit: Admit) -> Self {
        let mesh = own.identity().mesh.clone();
        let expected = match admit {
            Admit::Services => Expected::Services(mesh),
            Admit::MasterDoor => Expected::ServicesOrNobody(mesh),
            Admit::Operators => Expected::OperatorsOrNobody(mesh),
        };
        let config = settings::server(&own, expected.clone());
        let config = config.inspect_err(|error| tracing::error!(cause = %error, "TLS cannot be spoken")).ok();
        Self(Some(Arc::new(Mutual { own, expected, config: config.map(Arc::new) })))
    }

    /// Whether it takes connections under TLS only.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.0.is_some()
    }

    /// Finds out who connected, within [`HANDSHAKE`].
    ///
    /// # Errors
    /// [`AcceptError`] when the other side is gone already, or is refused.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Stream, Peer), AcceptError> {
        let address = stream.peer_addr()?;
        match &self.0 {
            None => Ok((Stream::from(stream), Peer { address, id: None })),
            // Boxed: a connection has no use for the room of its handshake later.
            Some(mutual) => Box::pin(mutual.accept(stream, address)).await,
        }
    }
}

impl Mutual {
    async fn accept(&self, stream: TcpStream, address: SocketAddr) -> Result<(Stream, Peer), AcceptError> {
        let refuse = |unfit: Unfit| AcceptError::Refused(self.refused(address, unfit));
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(clock::unix_ms());
        if let Some(cause) = self.own.unfit(now) {
            return Err(refuse(Unfit { cause, came: None, detail: String::new() }));
        }
        let Some(config) = self.config.clone() else {
            return Err(refuse(Unfit { cause: Cause::NotEnrolled, came: None, detail: "TLS cannot be spoken".into() }));
        };
        let _ = stream.set_nodelay(true);
        let outcome = tokio::time::timeout(HANDSHAKE, TlsStream::accept(stream, config)).await;
        let unfit = match outcome {
            Ok(Ok(stream)) => {
                let id = stream.peer().cloned();
                self.own.met(Side::Accepting, id.as_ref());
                return Ok((Stream::Tls(Box::new(stream)), Peer { address, id }));
            }
            Ok(Err(Fault::Gone { after_first_byte: false })) => {
                return Err(AcceptError::Gone(std::io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(Err(fault)) => unfit(fault),
            Err(_) => stalled(),
        };
        Err(refuse(unfit))
    }

    fn refused(&self, address: SocketAddr, unfit: Unfit) -> Box<Refused> {
        let Unfit { cause, came, detail } = unfit;
        let expected = self.expected.shown();
        let refused = Refused { cause, side: Side::Accepting, address, expected, came, detail };
        self.own.refused(&refused);
        Box::new(refused)
    }
}

/// What a fault of a handshake means.
pub(crate) fn unfit(fault: Fault) -> Unfit {
    match fault {
        Fault::Tls(error, front) => unfit_of(&error, &front),
        Fault::Io(error) => Unfit { cause: Cause::BrokenOff, came: None, detail: error.to_string() },
        Fault::Gone { .. } => Unfit { cause: Cause::BrokenOff, came: None, detail: String::new() },
    }
}

/// The handshake took longer than it may.
pub(crate) fn stalled() -> Unfit {
    Unfit { cause: Cause::Stalled, came: None, detail: format!("{} s are given", HANDSHAKE.as_secs()) }
}
