//! A client's connection with an eye on it: its pace, and the heads of HTTP/1.1 before hyper gets them.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use synego_identity::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Pace;
use super::strict::{self, Fault, Part};

/// Bytes read at once where they are looked at.
const READ: usize = 16 * 1024;
/// What hyper gets in place of a head that is refused.
const EMPTY: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\n\r\n";

/// The connection itself. Of HTTP/1.1 whole heads are looked at before hyper gets them; in place of a bad one it gets an
/// empty one, and the pace says what is to be answered.
pub(crate) struct Watched {
    stream: Stream,
    /// Read, but not handed on yet.
    held: BytesMut,
    /// How much of `held` may be handed on.
    passed: usize,
    /// What comes after that; `None`: bytes that nobody looks at.
    part: Option<Part>,
    largest_head: usize,
    /// Heads handed on.
    heads: u32,
    pace: Arc<Pace>,
}

impl Watched {
    /// - `front`: what was read of the connection already.
    /// - `largest_head`: bytes of a head of HTTP/1.1; `None`: the connection speaks HTTP/2.
    pub(crate) fn new(stream: Stream, front: BytesMut, largest_head: Option<usize>, pace: Arc<Pace>) -> Self {
        let part = largest_head.map(|_| Part::Head);
        Self { stream, passed: 0, held: front, part, largest_head: largest_head.unwrap_or(0), heads: 0, pace }
    }

    /// Hands on what may be handed on.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let part = self.passed.min(buf.remaining());
        buf.put_slice(self.held.get(..part).unwrap_or_default());
        self.held.advance(part);
        self.passed -= part;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
        part > 0
    }

    /// Looks at what is held; false when more of it must come first.
    fn look(&mut self) -> io::Result<bool> {
        if self.part.is_none() || self.pace.is_tunnel() {
            self.part = None;
            self.passed = self.held.len();
            return Ok(self.passed > 0);
        }
        match self.part {
            Some(Part::Head) if !self.held.is_empty() => match strict::head(&self.held) {
                Ok(Some((end, part))) => {
                    self.part = Some(part);
                    self.passed = end;
                    self.heads += 1;
                }
                Ok(None) if self.held.len() > self.largest_head => self.refuse(Fault::TooLarge),
                Ok(None) => {}
                Err(fault) => self.refuse(fault),
            },
            Some(Part::Length(left)) => {
                self.passed = usize::try_from(left).unwrap_or(usize::MAX).min(self.held.len());
                self.took(self.passed as u64);
            }
            Some(Part::Chunked(chunks)) => {
                let broken = |()| io::Error::new(io::ErrorKind::InvalidData, "a broken chunk");
                let (used, next) = chunks.follow(&self.held).map_err(broken)?;
                self.passed = used;
                self.part = Some(next.map_or(Part::Head, Part::Chunked));
            }
            _ => {}
        }
        Ok(self.passed > 0)
    }

    fn took(&mut self, bytes: u64) {
        if let Some(Part::Length(left)) = self.part {
            self.part = Some(if left > bytes { Part::Length(left - bytes) } else { Part::Head });
        }
    }

    /// What follows a bad head has no beginning: none of it is read.
    fn refuse(&mut self, fault: Fault) {
        self.pace.refuse(fault, self.heads + 1);
        self.held = BytesMut::from(EMPTY);
        self.passed = EMPTY.len();
    }

    /// Reads straight into the reader's own buffer where nothing has to be looked at.
    fn poll_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match self.part {
            // What follows the body is looked at, so it must not be read along with it.
            Some(Part::Length(left)) if left < buf.remaining() as u64 => {
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(usize::try_from(left).unwrap_or(usize::MAX)));
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
                let read = part.filled().len();
                buf.advance(read);
                read
            }
            _ => {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
                buf.filled().len() - before
            }
        };
        self.took(read as u64);
        if read > 0 {
            self.pace.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.give(buf) || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.pace.is_refused() {
                // The answer ends the connection; the client is not heard any more.
                return Poll::Pending;
            }
            if this.look()? {
                continue;
            }
            if this.held.is_empty() && matches!(this.part, None | Some(Part::Length(_))) {
                return this.poll_through(cx, buf);
            }
            // On the stack, so that a connection that rests holds no buffer.
            let mut space = [MaybeUninit::uninit(); READ];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(read.filled());
            this.pace.read();
        }
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
