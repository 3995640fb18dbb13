//! One look at how a process is: over HTTP, gRPC, a connection, or by a command.

mod command;
mod grpc;
mod http;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{Probe, RunAs};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What a probe needs besides its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeContext {
    /// Name of the service: the `Host` of a probe over HTTP.
    pub service: String,
    /// Where it listens.
    pub address: ServiceAddress,
    /// All variables of a probe by command.
    pub env: BTreeMap<String, String>,
    /// Its folder.
    pub cwd: PathBuf,
    /// As whom it runs.
    pub run_as: RunAs,
}

/// Looks once.
///
/// - `timeout`: for all of it, connecting included.
///
/// # Errors
/// A sentence that says what was expected and what came: it becomes the message of the cause.
pub async fn run(probe: &Probe, context: &ProbeContext, timeout: Duration) -> Result<(), String> {
    let look = async {
        match probe {
            Probe::Tcp => connect(&context.address).await.map(drop),
            Probe::Http(path) => http::get(connect(&context.address).await?, &context.service, path).await,
            Probe::Grpc(name) => grpc::check(connect(&context.address).await?, &context.service, name).await,
            Probe::Exec(line) => command::run(line, context).await,
        }
    };
    tokio::time::timeout(timeout, look)
        .await
        .unwrap_or_else(|_| Err(format!("{} did not answer within {}", what(probe), text_of(timeout))))
}

fn what(probe: &Probe) -> String {
    match probe {
        Probe::Tcp => "the connection".to_owned(),
        Probe::Http(path) => format!("GET {path}"),
        Probe::Grpc(_) => "grpc.health.v1.Health/Check".to_owned(),
        Probe::Exec(line) => format!("`{line}`"),
    }
}

fn text_of(time: Duration) -> String {
    synego_model::text::duration(time)
}

async fn connect(address: &ServiceAddress) -> Result<Connection, String> {
    let connected = match address {
        ServiceAddress::Tcp(address) => TcpStream::connect(address).await.map(Connection::Tcp),
        ServiceAddress::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
    };
    connected.map_err(|error| format!("cannot connect to {address}: {}", short(&error)))
}

/// An error without the number of the system.
fn short(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// A connection for one look.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
