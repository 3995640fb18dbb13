//! A client's HTTP/2 connection with an eye on its pace.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use synego_identity::Stream;
use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{BE_CALM, Frames};
use super::pace::Pace;

/// The connection itself, and what was read of it already.
pub(crate) struct Watched {
    stream: Stream,
    front: BytesMut,
    frames: Frames,
    pace: Rc<Pace>,
}

impl Watched {
    pub(crate) fn new(stream: Stream, front: BytesMut, pace: Rc<Pace>) -> Self {
        Self { stream, front, frames: Frames::new(clock::now()), pace }
    }

    /// Looks at what was read.
    ///
    /// # Errors
    /// When the client sends control frames alone: it is told so, and nothing more is read.
    fn look(&mut self, read: &[u8], cx: &mut Context<'_>) -> io::Result<()> {
        if !self.frames.follow(read) {
            return Ok(());
        }
        // Best effort: the connection ends in any case.
        let _ = Pin::new(&mut self.stream).poll_write(cx, &BE_CALM);
        Err(io::Error::other("its client sends nothing but control frames"))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.front.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            return Poll::Ready(this.look(read, cx));
        }
        let part = this.front.len().min(buf.remaining());
        buf.put_slice(this.front.get(..part).unwrap_or_default());
        this.front.advance(part);
        if this.front.is_empty() {
            this.front = BytesMut::new();
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        Poll::Ready(this.look(read, cx))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.pace.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.pace.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
