//! Listeners of our own APIs: TCP, or a Unix socket that only this user can open.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::clock;
use crate::keeper::{self, Holding};

/// Time for a part of a program whose keeper was just killed to be gone.
const LETS_GO: Duration = Duration::from_millis(500);

/// Where one of our own APIs listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindAddr {
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0600.
    Unix(PathBuf),
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for BindAddr {
    type Err = String;
    /// `PORT` (on 127.0.0.1), `IP:PORT` or `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let full = text.parse::<u16>().map_or_else(|_| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        full.parse().map(Self::Tcp).map_err(|_| format!("`{text}` is no address: expected PORT, IP:PORT or unix:PATH"))
    }
}

/// A listener that is bound. Dropping one on a Unix socket removes its file.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket and its file.
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket; removed with its listener.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    _held: Option<Holding>,
}

impl SocketFile {
    /// Whether it was given to this user, as only its maker can.
    fn belongs_to(&self, uid: u32) -> bool {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(&self.path);
        found.is_ok_and(|found| found.uid() == uid && (found.dev(), found.ino()) == self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A successor may have put its own socket there, or listen on this one: then it stays.
        if !keeper::is_anothers() && inode_of(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn inode_of(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Binds an address.
///
/// # Errors
/// When it is taken (a Unix socket: when someone answers on it), or may not be bound; the message names it.
pub async fn bind(address: &BindAddr) -> io::Result<Listener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    match address {
        BindAddr::Tcp(tcp) => bind_tcp(*tcp).await.map(Listener::Tcp).map_err(named),
        BindAddr::Unix(path) => bind_unix(path).await.map_err(named),
    }
}

async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let key = format!("api {address}");
    if let Some(held) = keeper::claim(&key).and_then(|mut held| held.fds.pop()) {
        return TcpListener::from_std(held.into());
    }
    let until = clock::now() + LETS_GO;
    let listener = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now() < until => {
                tokio::time::sleep(LETS_GO / 20).await;
            }
            outcome => break outcome?,
        }
    };
    // It is held to the end of the program, as it listens to the end of it.
    std::mem::forget(keeper::hold(&key, "", &[listener.as_fd()]));
    Ok(listener)
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let key = format!("api unix:{}", path.display());
    if let Some(mut left) = keeper::claim(&key)
        && let (Some(held), Ok(inode)) = (left.fds.pop(), inode_of(path))
        && left.note == format!("{inode:?}")
    {
        let listener = UnixListener::from_std(held.into())?;
        let held = keeper::hold(&key, &left.note, &[listener.as_fd()]);
        return Ok(Listener::Unix(listener, SocketFile { path: path.to_owned(), inode, _held: held }));
    }
    let until = clock::now() + LETS_GO;
    while UnixStream::connect(path).await.is_ok() {
        if clock::now() >= until {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        tokio::time::sleep(LETS_GO / 20).await;
    }
    // Made under another name and moved into place, so that it is never open to others and replaces a dead one.
    let made = path.with_extension(format!("{}.tmp", std::process::id()));
    let _leftover = std::fs::remove_file(&made);
    let listener = UnixListener::bind(&made)?;
    let placed = std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| std::fs::rename(&made, path));
    if let Err(error) = placed {
        let _gone = std::fs::remove_file(&made);
        return Err(error);
    }
    let inode = inode_of(path)?;
    let held = keeper::hold(&key, &format!("{inode:?}"), &[listener.as_fd()]);
    Ok(Listener::Unix(listener, SocketFile { path: path.to_owned(), inode, _held: held }))
}

impl Listener {
    /// Where it listens; with the real port.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<BindAddr> {
        Ok(match self {
            Self::Tcp(listener) => BindAddr::Tcp(listener.local_addr()?),
            Self::Unix(_, file) => BindAddr::Unix(file.path.clone()),
        })
    }

    /// The next connection. On a Unix socket one of another user is closed and the next awaited, but for root and the one
    /// to whom its file was given.
    ///
    /// # Errors
    /// As of the system's `accept`.
    pub async fn accept(&self) -> io::Result<(ApiStream, ApiPeer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((ApiStream::Tcp(stream), ApiPeer::Net(address)))
            }
            Self::Unix(listener, file) => loop {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if uid == 0 || uid == rustix::process::geteuid().as_raw() || file.belongs_to(uid) {
                    return Ok((ApiStream::Unix(stream), ApiPeer::User(uid)));
                }
                tracing::warn!(uid, "connection of another user refused");
            },
        }
    }
}

/// Who is at the other end of a connection to one of our own APIs; found in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiPeer {
    /// A process of this machine, at a Unix socket: its user.
    User(u32),
    /// Anyone, over TCP.
    Net(SocketAddr),
}

/// A connection to one of our own APIs.
#[derive(Debug)]
pub enum ApiStream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl AsyncRead for ApiStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ApiStream {
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
