//! Taking connections: who is at the other end.

use std::net::SocketAddr;

use synego_model::Identity;
use tokio::net::TcpStream;

use crate::stream::Stream;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Who it proved to be; `None` without TLS.
    pub id: Option<Identity>,
}

/// Why a connection was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It was gone before it was looked at.
    #[error("the connection is gone: {0}")]
    Gone(#[from] std::io::Error),
}

/// Takes connections in the name of one part of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Acceptor(());

impl Acceptor {
    /// Connections without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self(())
    }

    /// Finds out who connected.
    ///
    /// # Errors
    /// [`AcceptError`] when the other side is gone already.
    pub async fn accept(&self, stream: TcpStream) -> Result<(Stream, Peer), AcceptError> {
        let peer = Peer { address: stream.peer_addr()?, id: None };
        Ok((Stream::from(stream), peer))
    }
}
