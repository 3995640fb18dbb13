//! What both ends of a mesh link share: its carriers, bounds and protocol version.

use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use synego_identity::{Alpn, Connector, Stream};
use synego_model::Role;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tonic::transport::{Channel, Endpoint};

use crate::uplink::MasterAddress;

/// The version of the mesh protocol that this program speaks.
pub(crate) const PROTOCOL: u32 = 1;
/// Time for a connection, and for the look-up of its name.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// Largest message, in bytes.
pub(crate) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes under way between the two ends of a link inside one process.
const MEMORY_WINDOW: usize = 256 * 1024;
/// Time between pings, and for the answer to one.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Headers of a message together, in bytes.
const MAX_HEADERS: u32 = 64 * 1024;

/// What carries a link.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// A connection of this machine's network.
    Net(Stream),
    /// Memory of this process.
    Memory(DuplexStream),
}

/// A carrier to a master: in this process, or at the first of its addresses that takes a connection.
///
/// # Errors
/// When none of them does within the limit, or nobody there is a master of the mesh.
pub(crate) async fn dial(master: &MasterAddress, connector: &Connector) -> io::Result<Carrier> {
    let address = match master {
        MasterAddress::InProcess(master) => {
            return master.carrier().await.ok_or_else(|| io::ErrorKind::NotConnected.into());
        }
        MasterAddress::Tcp(address) => address,
    };
    let found = tokio::time::timeout(CONNECT_WITHIN, tokio::net::lookup_host(address.as_str())).await;
    let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
    for address in found {
        match connector.connect(&address, &Role::Master, Some(Alpn::Http2), CONNECT_WITHIN).await {
            Ok(stream) => return Ok(Carrier::Net(stream)),
            Err(error) => last = io::Error::other(error),
        }
    }
    Err(last)
}

/// Both ends of a link inside this process.
pub(crate) fn in_memory() -> (Carrier, Carrier) {
    let (one, other) = tokio::io::duplex(MEMORY_WINDOW);
    (Carrier::Memory(one), Carrier::Memory(other))
}

/// A gRPC channel over one connection that is there already; when that ends, so does the channel.
///
/// # Errors
/// When the other end does not speak HTTP/2.
pub(crate) async fn channel(carrier: Carrier) -> Result<Channel, tonic::transport::Error> {
    let slot = Mutex::new(Some(TokioIo::new(carrier)));
    let connector = tower::service_fn(move |_: axum::http::Uri| {
        let carrier = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A second call would be a silent reconnect: the link must know of it, so it fails instead.
        std::future::ready(carrier.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)))
    });
    Endpoint::from_static("http://master")
        .http2_keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADERS)
        .connect_with_connector(connector)
        .await
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Memory(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_flush(cx),
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Net(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
