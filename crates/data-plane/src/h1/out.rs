//! Bytes on their way out of a connection: small ones gathered into one write, large ones written from where they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use synego_identity::Stream;
use tokio::io::AsyncWrite;

use crate::spare::{Shelf, Spare};

/// Up to this size bytes are copied to those before them: cheaper than one more slice of a write.
const COPIED: usize = 4 * 1024;
/// Slices of one write.
const SLICES: usize = 16;
/// Buffers that a worker keeps for the next message, and their size.
const POOLED: usize = 64;
const BUFFER: usize = 4 * 1024;
/// A buffer that grew beyond this is not kept.
const LARGEST: usize = 32 * 1024;

thread_local! {
    static BUFFERS: Spare<Vec<u8>, POOLED> = const { Spare::new() };
}

/// What waits to be written: `queue` first, then `tail` from `at` on.
#[derive(Default)]
pub(crate) struct Out {
    queue: VecDeque<Bytes>,
    tail: Vec<u8>,
    at: usize,
    queued: usize,
    /// Bytes written of this message.
    written: u64,
}

impl Out {
    /// Where small parts are appended.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail = BUFFERS.take().unwrap_or_else(|| Vec::with_capacity(BUFFER));
        }
        &mut self.tail
    }

    /// Appends a part of a body.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED {
            self.tail().extend_from_slice(&data);
            return;
        }
        if !self.tail.is_empty() {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(std::mem::take(&mut self.at));
            self.queued += tail.len();
            self.queue.push_back(tail);
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.queued + self.tail.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes written since the last [`Self::restart`].
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Counts anew: another message begins.
    pub(crate) fn restart(&mut self) {
        self.written = 0;
    }

    /// Writes until nothing waits.
    pub(crate) fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let mut stream = Pin::new(&mut *stream);
            let written = if self.queue.is_empty() {
                ready!(stream.poll_write(cx, self.tail.get(self.at..).unwrap_or_default()))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let tail = self.tail.get(self.at..).unwrap_or_default();
                let parts = self.queue.iter().map(|part| &part[..]).chain([tail]);
                let count = slices.iter_mut().zip(parts).map(|(slice, part)| *slice = IoSlice::new(part)).count();
                ready!(stream.as_mut().poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            self.took(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes all that waits, as if it were written.
    #[cfg(any(test, feature = "probe"))]
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        let mut all: Vec<u8> = self.queue.iter().flatten().copied().collect();
        all.extend_from_slice(self.tail.get(self.at..).unwrap_or_default());
        self.written += all.len() as u64;
        self.took(all.len());
        all
    }

    fn took(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front_mut() {
            let part = first.len().min(written);
            first.advance(part);
            self.queued -= part;
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.at += written;
        if self.at == self.tail.len() {
            self.rest();
        }
    }

    /// Gives the buffer back, so that a connection that rests has none.
    fn rest(&mut self) {
        self.at = 0;
        self.tail.clear();
        let buffer = std::mem::take(&mut self.tail);
        if (1..=LARGEST).contains(&buffer.capacity()) {
            BUFFERS.keep(buffer);
        }
        if self.queue.capacity() > 0 {
            self.queue = VecDeque::new();
        }
    }
}
