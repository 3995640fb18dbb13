//! Bytes on their way in: read through one buffer of the worker while little is expected, and past the connection's own
//! buffer while a large body comes.

mod large;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use synego_identity::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::spare::{Shelf, Spare};

/// Bytes read at once where little is expected.
const SCRATCH: usize = 16 * 1024;
/// From so many expected bytes on a body is read into a buffer of its own.
const LARGE: u64 = 16 * 1024;
/// The sizes of that buffer: it grows while reads fill it.
const FIRST: usize = 64 * 1024;
const LAST: usize = 256 * 1024;
/// With less room than this a read is not worth its call.
const LEAST: usize = 16 * 1024;

/// Buffers that a worker keeps for the next message, and their size.
const POOLED: usize = 64;
const SMALL: usize = 4 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
    static SPARE: Spare<BytesMut, POOLED> = const { Spare::new() };
}

/// What was read of a connection and not used yet.
#[derive(Default)]
pub(crate) struct Input {
    pub(crate) buf: BytesMut,
    /// The size of the next large read; 0: none was made.
    size: usize,
}

impl Input {
    pub(crate) fn new(buf: BytesMut) -> Self {
        Self { buf, size: 0 }
    }

    /// Reads more; how many bytes, 0 at the end.
    ///
    /// - `expected`: bytes that are certain to come.
    pub(crate) fn poll_fill(
        &mut self,
        stream: &mut Stream,
        expected: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if expected > LARGE || self.size > 0 {
            return self.poll_large(stream, cx);
        }
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(stream).poll_read(cx, &mut read))?;
            let read = read.filled();
            if self.buf.capacity() == 0 && !read.is_empty() {
                self.buf = SPARE.take().unwrap_or_else(|| BytesMut::with_capacity(SMALL));
            }
            // Takes up what was handed on and is used no more, where it can.
            self.buf.extend_from_slice(read);
            if read.len() == SCRATCH {
                self.size = FIRST;
            }
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads a part of a body of which so much is certain to come; nothing of it was read before. Empty at the end.
    pub(crate) fn poll_part(
        &mut self,
        stream: &mut Stream,
        expected: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        debug_assert!(self.buf.is_empty(), "what was read comes first");
        large::poll_read(stream, expected, cx)
    }

    /// Whether a body of which so much is certain to come is worth reading past the buffer.
    pub(crate) fn is_large(&self, expected: u64) -> bool {
        expected > LARGE && self.buf.is_empty()
    }

    fn poll_large(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.size = self.size.max(FIRST);
        if self.buf.capacity() - self.buf.len() < LEAST {
            // Takes up what was handed on and is used no more, where it can.
            self.buf.reserve(self.size);
        }
        let room = self.buf.capacity() - self.buf.len();
        let read = ready!(poll_read_buf(Pin::new(stream), cx, &mut self.buf))?;
        if read == room {
            self.size = (self.size * 2).min(LAST);
        }
        Poll::Ready(Ok(read))
    }

    /// A message is over: what is kept of the buffer is only what already came of the next one.
    pub(crate) fn rest(&mut self) {
        let is_small = std::mem::take(&mut self.size) == 0;
        if !self.buf.is_empty() {
            self.buf = BytesMut::from(&self.buf[..]);
            return;
        }
        let buf = std::mem::take(&mut self.buf);
        if is_small && buf.capacity() > 0 {
            SPARE.keep(buf);
        }
    }
}
