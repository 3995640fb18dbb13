//! Connecting: to a peer of the mesh, and to the service of one's own sidecar.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use tokio::net::{TcpStream, UnixStream};

use crate::stream::Stream;

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
}

/// Opens connections in the name of one part of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Connector(());

impl Connector {
    /// Connections without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self(())
    }

    /// A connection to another part of the mesh (a sidecar's inbound, a master) within `limit`.
    ///
    /// # Errors
    /// [`ConnectError`]: refused, unreachable, or not in time.
    pub async fn connect(&self, address: &SocketAddr, limit: Duration) -> Result<Stream, ConnectError> {
        within(limit, address, async { TcpStream::connect(address).await.map(Stream::from) }).await
    }

    /// A connection to one's own service, on this machine and never by TLS, within `limit`.
    ///
    /// # Errors
    /// [`ConnectError`]: refused, no such socket, or not in time.
    pub async fn connect_service(&self, address: &ServiceAddress, limit: Duration) -> Result<Stream, ConnectError> {
        within(limit, address, async {
            match address {
                ServiceAddress::Tcp(address) => TcpStream::connect(address).await.map(Stream::from),
                ServiceAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::from),
            }
        })
        .await
    }
}

async fn within(
    limit: Duration,
    address: &impl ToString,
    connect: impl Future<Output = io::Result<Stream>>,
) -> Result<Stream, ConnectError> {
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
        let refused = Connector::plain().connect(&address, Duration::from_secs(1)).await;
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
}
