//! Opening the connection to the sidecar: a Unix socket, or a pipe within the process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use synego_wire::pb::{self, sidecar_client::SidecarClient};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use super::backoff::delay;
use crate::environment::SidecarAddress;

/// Largest message on the link, in bytes.
const MAX_MESSAGE: usize = 1024 * 1024;

/// Buffer of a pipe, in bytes.
const PIPE: usize = 64 * 1024;

/// Connects once.
pub(super) async fn open(address: &SidecarAddress) -> Result<SidecarClient<Channel>, tonic::transport::Error> {
    // The authority is `localhost` on purpose: that of a socket's path is refused by servers.
    let endpoint = Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let channel = match address.clone() {
        SidecarAddress::Unix(path) => {
            endpoint.connect_with_connector(service_fn(move |_: Uri| connect_socket(path.clone()))).await?
        }
        SidecarAddress::Pipe(pipes) => {
            endpoint.connect_with_connector(service_fn(move |_: Uri| connect_pipe(pipes.clone()))).await?
        }
        SidecarAddress::Off => endpoint.connect_with_connector(service_fn(|_: Uri| nowhere())).await?,
    };
    Ok(SidecarClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

async fn connect_socket(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(&path).await.map(TokioIo::new)
}

async fn connect_pipe(pipes: mpsc::Sender<tokio::io::DuplexStream>) -> io::Result<TokioIo<tokio::io::DuplexStream>> {
    let (here, there) = tokio::io::duplex(PIPE);
    pipes.send(there).await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
    Ok(TokioIo::new(here))
}

async fn nowhere() -> io::Result<TokioIo<UnixStream>> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

/// Asks the sidecar what it is, again and again until it answers; the caller limits the time.
pub(crate) async fn describe(address: &SidecarAddress) -> pb::Description {
    let mut attempt = 0;
    loop {
        if let Ok(mut sidecar) = open(address).await
            && let Ok(answer) = sidecar.describe(pb::DescribeRequest {}).await
        {
            return answer.into_inner();
        }
        attempt += 1;
        tokio::time::sleep(delay(attempt)).await;
    }
}
