//! A connection under TLS: read and written in as few calls of the machine as one without.
//!
//! Buffers belong to the thread, not to the connection: what a connection keeps between two calls is the part of a record
//! that is still on its way. A write is done once all of its records are with the kernel; whoever was told to wait comes
//! back with the same bytes first, as all of our writers do.

mod session;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ClientConfig, Error, ServerConfig};
use rustls_pki_types::ServerName;
use synego_model::Identity;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::own::Own;
use crate::refused::{Cause, Refused, Side};
use crate::settings::Alpn;
use crate::tcp::Tcp;
use crate::verify;
use session::Session;

/// The largest record, with its header (RFC 8446 §5.2).
const RECORD: usize = 5 + 16 * 1024 + 256;
/// Ciphertext read at once, at most.
const MOST_READ: usize = 4 * RECORD;
/// Bytes enciphered at once, at most.
const MOST_WRITTEN: usize = 64 * 1024;
/// Bytes of a handshake that wait for their rest, at most.
const MOST_HANDSHAKE: usize = 64 * 1024;
/// From so many bytes on a buffer of the thread is not kept.
const LARGEST_KEPT: usize = 128 * 1024;

thread_local! {
    static CAME: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_READ + RECORD].into());
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GATHERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection under TLS 1.3 whose other end has proven who it is.
pub struct TlsStream {
    io: Tcp,
    session: Session,
    peer: Option<Identity>,
    alpn: Option<Alpn>,
    /// Ciphertext that came and was not used up.
    kept: Vec<u8>,
    /// Whether there may be whole records in it.
    is_fresh: bool,
    /// Deciphered bytes that nobody took yet, from `taken` on.
    plain: Vec<u8>,
    taken: usize,
    /// Enciphered bytes that the kernel did not take yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// Bytes of the write whose records wait in `out`.
    promised: usize,
    has_ended: bool,
    has_closed: bool,
    has_failed: bool,
    /// Of a client, until the other side has shown by its first bytes that it takes our certificate.
    unheard: Option<Box<Unheard>>,
}

/// Who is told when the other side turns out to refuse us.
struct Unheard {
    own: Own,
    /// Whom it expects there.
    expected: String,
    /// Where; a connection that broke does not know it any more.
    address: SocketAddr,
}

/// Why there was no handshake.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The rules were broken; with the first bytes that came.
    Tls(Error, Vec<u8>),
    /// The connection broke.
    Io(io::Error),
    /// The other side went away, before its first byte or later.
    Gone { after_first_byte: bool },
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TlsStream").field("io", &self.io).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// The handshake of the side that was connected to.
    pub(crate) async fn accept(io: TcpStream, config: Arc<ServerConfig>) -> Result<Self, Fault> {
        let session = Session::server(config).map_err(|error| Fault::Tls(error, Vec::new()))?;
        Self::new(io, session).handshake().await
    }

    /// The handshake of the side that connected.
    ///
    /// - `own`: told when the other side turns out to refuse us; with whom it expects there.
    pub(crate) async fn connect(
        io: TcpStream,
        config: ClientConfig,
        own: Option<(Own, String)>,
    ) -> Result<Self, Fault> {
        let address = io.peer_addr().map_err(Fault::Io)?;
        let name = ServerName::IpAddress(address.ip().into());
        let session = Session::client(config, name).map_err(|error| Fault::Tls(error, Vec::new()))?;
        let mut stream = Self::new(io, session).handshake().await?;
        stream.unheard = own.map(|(own, expected)| Box::new(Unheard { own, expected, address }));
        Ok(stream)
    }

    fn new(io: TcpStream, session: Session) -> Self {
        Self {
            io: io.into(),
            session,
            peer: None,
            alpn: None,
            kept: Vec::new(),
            is_fresh: false,
            plain: Vec::new(),
            taken: 0,
            out: Vec::new(),
            sent: 0,
            promised: 0,
            has_ended: false,
            has_closed: false,
            has_failed: false,
            unheard: None,
        }
    }

    async fn handshake(mut self) -> Result<Self, Fault> {
        let mut front = Vec::new();
        loop {
            let plain = &mut self.plain;
            let taken = self.session.take_in(&mut self.kept, &mut |data| plain.extend_from_slice(data), &mut self.out);
            let sent = self.io.write_all(&self.out).await;
            self.out.clear();
            let (used, has_ended) = taken.map_err(|error| Fault::Tls(error, std::mem::take(&mut front)))?;
            sent.map_err(Fault::Io)?;
            self.kept.drain(..used);
            self.has_ended |= has_ended;
            if !self.session.is_handshaking() {
                break;
            }
            if self.has_ended || self.kept.len() >= MOST_HANDSHAKE {
                return Err(Fault::Tls(Error::HandshakeNotComplete, front));
            }
            self.kept.reserve(4096);
            if self.io.read_buf(&mut self.kept).await.map_err(Fault::Io)? == 0 {
                return Err(Fault::Gone { after_first_byte: !front.is_empty() });
            }
            if front.is_empty() {
                front.extend(self.kept.iter().take(32));
            }
        }
        self.peer = verify::who(self.session.peer_certificates());
        self.alpn = self.session.alpn().and_then(Alpn::of);
        self.is_fresh = !self.kept.is_empty();
        self.kept.shrink_to_fit();
        self.out = Vec::new();
        Ok(self)
    }

    /// Who is at the other end, by its certificate; `None`: it has shown none.
    #[must_use]
    pub fn peer(&self) -> Option<&Identity> {
        self.peer.as_ref()
    }

    /// What is spoken inside, where both sides agreed on it.
    #[must_use]
    pub fn agreed(&self) -> Option<Alpn> {
        self.alpn
    }

    /// Deciphers what came into `into`, and keeps what it has no room for.
    fn decipher(&mut self, came: &mut [u8], into: &mut ReadBuf<'_>, cx: &mut Context<'_>) -> io::Result<usize> {
        let plain = &mut self.plain;
        let mut take = |data: &[u8]| {
            let (now, later) = data.split_at(data.len().min(into.remaining()));
            into.put_slice(now);
            plain.extend_from_slice(later);
        };
        let outcome = self.session.take_in(came, &mut take, &mut self.out);
        if !self.out.is_empty() {
            // Alerts and new keys; what cannot leave now does so before the next write.
            let _later = self.poll_send(cx)?;
        }
        match outcome {
            Ok((used, has_ended)) => {
                self.has_ended |= has_ended;
                Ok(used)
            }
            Err(error) => {
                self.has_failed = true;
                Err(self.told(&error))
            }
        }
    }

    /// The error for whoever reads; a client learns here that it was refused, after its handshake (RFC 8446 §4.4.4).
    fn told(&mut self, error: &Error) -> io::Error {
        let unfit = verify::unfit_of(error, &[]);
        let Some(first) = self.unheard.take().filter(|_| unfit.cause == Cause::RefusedByPeer) else {
            return io::Error::new(io::ErrorKind::InvalidData, unfit.detail);
        };
        let Unheard { own, expected, address } = *first;
        let came = self.peer.as_ref().map(ToString::to_string);
        let detail = unfit.detail;
        let refused = Refused { cause: unfit.cause, side: Side::Connecting, address, expected, came, detail };
        own.refused(&refused);
        io::Error::new(io::ErrorKind::ConnectionRefused, refused)
    }

    /// The error for whoever writes. One who refused us has said so before it went away: that is still to be read.
    fn broken(&mut self, error: io::Error) -> io::Error {
        if self.unheard.is_none() {
            return error;
        }
        let mut last = [0; 1024];
        let read = rustix::net::recv(&self.io, &mut last[..], rustix::net::RecvFlags::DONTWAIT);
        let read = read.map_or(0, |(read, _)| read);
        let mut kept = std::mem::take(&mut self.kept);
        kept.extend_from_slice(last.get(..read).unwrap_or_default());
        let plain = &mut self.plain;
        let taken = self.session.take_in(&mut kept, &mut |data| plain.extend_from_slice(data), &mut self.out);
        match taken {
            // An answer that came before the end can still be read.
            Ok((used, has_ended)) => {
                kept.drain(..used);
                self.kept = kept;
                self.has_ended |= has_ended;
                error
            }
            Err(told) => {
                self.has_failed = true;
                self.told(&told)
            }
        }
    }

    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(waits) = self.out.get(self.sent..).filter(|waits| !waits.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, waits)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(sent) => self.sent += sent,
                Err(error) => return Poll::Ready(Err(self.broken(error))),
            }
        }
        self.sent = 0;
        self.out = Vec::new();
        Poll::Ready(Ok(()))
    }

    /// Writes at most [`MOST_WRITTEN`] bytes.
    fn poll_write_some(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let promised = std::mem::take(&mut self.promised);
        if promised > data.len() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, "a write was taken back")));
        }
        if promised > 0 || data.is_empty() {
            return Poll::Ready(Ok(promised));
        }
        if self.has_closed || self.has_failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let data = data.get(..data.len().min(MOST_WRITTEN)).unwrap_or_default();
        SEALED.with_borrow_mut(|sealed| {
            sealed.clear();
            let plain = &mut self.plain;
            let mut take = |data: &[u8]| plain.extend_from_slice(data);
            self.session.seal(data, &mut self.kept, &mut take, sealed).map_err(|error| self.told(&error))?;
            let mut sent = 0;
            while let Some(waits) = sealed.get(sent..).filter(|waits| !waits.is_empty()) {
                match Pin::new(&mut self.io).poll_write(cx, waits) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(some)) => sent += some,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                    Poll::Pending => {
                        self.out.extend_from_slice(waits);
                        self.promised = data.len();
                        return Poll::Pending;
                    }
                }
            }
            if sealed.capacity() > LARGEST_KEPT {
                *sealed = Vec::new();
            }
            Poll::Ready(Ok(data.len()))
        })
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(waits) = this.plain.get(this.taken..).filter(|waits| !waits.is_empty()) {
            let some = waits.len().min(buf.remaining());
            buf.put_slice(waits.get(..some).unwrap_or_default());
            this.taken += some;
            if this.taken == this.plain.len() {
                this.taken = 0;
                this.plain = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        if this.has_failed {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        if std::mem::take(&mut this.is_fresh) {
            let mut kept = std::mem::take(&mut this.kept);
            let used = this.decipher(&mut kept, buf, cx)?;
            kept.drain(..used);
            this.kept = kept;
        }
        CAME.with_borrow_mut(|came| {
            while buf.filled().len() == before && !this.has_ended {
                let kept = this.kept.len();
                // Room for the rest of a record at least, and for what the reader has room for.
                let room = buf.remaining().clamp(RECORD, MOST_READ);
                let whole = came.get_mut(..kept + room).unwrap_or_default();
                let (front, fresh) = whole.split_at_mut(kept.min(whole.len()));
                front.copy_from_slice(&this.kept);
                let mut read = ReadBuf::new(fresh);
                ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
                let read = read.filled().len();
                if read == 0 {
                    // Without the word that it is the end, whoever sits between may have cut it short.
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                let whole = whole.get_mut(..kept + read).unwrap_or_default();
                let used = this.decipher(whole, buf, cx)?;
                let rest = whole.get(used..).unwrap_or_default();
                // Nothing is allocated while records come whole.
                this.kept = if rest.is_empty() { Vec::new() } else { rest.to_vec() };
            }
            if buf.filled().len() > before {
                this.unheard = None;
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_some(cx, buf)
    }

    /// All parts leave in the same records: a head and a small body make one.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let mut parts = bufs.iter().filter(|part| !part.is_empty());
        let (Some(first), second) = (parts.next(), parts.next()) else {
            return this.poll_write_some(cx, &[]);
        };
        if second.is_none() || first.len() >= MOST_WRITTEN {
            return this.poll_write_some(cx, first);
        }
        GATHERED.with_borrow_mut(|gathered| {
            gathered.clear();
            for part in bufs {
                let room = MOST_WRITTEN - gathered.len();
                gathered.extend_from_slice(part.get(..part.len().min(room)).unwrap_or_default());
            }
            this.poll_write_some(cx, gathered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        if !this.has_closed && !this.has_failed {
            this.has_closed = true;
            let plain = &mut this.plain;
            let mut take = |data: &[u8]| plain.extend_from_slice(data);
            // Who cannot be told any more is left without a word.
            let _gone = this.session.close(&mut this.kept, &mut take, &mut this.out);
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
