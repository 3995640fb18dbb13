//! Bytes on their way out of a connection: small ones gathered into one write, large ones written from where they are.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use synego_identity::Stream;
use tokio::io::AsyncWrite;

use super::pipe::Piped;
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

/// What lies where it was read.
enum Part {
    Bytes(Bytes),
    Piped(Piped),
}

/// What waits to be written: `queue` first, then `tail` from `at` on.
#[derive(Default)]
pub(crate) struct Out {
    queue: VecDeque<Part>,
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
        self.queue_tail();
        self.queued += data.len();
        self.queue.push_back(Part::Bytes(data));
    }

    /// Appends a part of a body that lies in a pipe.
    pub(crate) fn push_piped(&mut self, piped: Piped) {
        self.queue_tail();
        self.queued += piped.len();
        self.queue.push_back(Part::Piped(piped));
    }

    fn queue_tail(&mut self) {
        if !self.tail.is_empty() {
            let mut tail = Bytes::from(std::mem::take(&mut self.tail));
            tail.advance(std::mem::take(&mut self.at));
            self.queued += tail.len();
            self.queue.push_back(Part::Bytes(tail));
        }
    }

    /// Whether more may be appended when `most` bytes may wait; of pipes only one.
    pub(crate) fn has_room(&self, most: usize) -> bool {
        self.len() < most && !matches!(self.queue.back(), Some(Part::Piped(_)))
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
            let written = match (self.queue.front_mut(), &mut *stream) {
                (None, stream) => {
                    ready!(Pin::new(stream).poll_write(cx, self.tail.get(self.at..).unwrap_or_default()))?
                }
                (Some(Part::Piped(piped)), Stream::Tcp(tcp)) => ready!(piped.poll_write(tcp, cx))?,
                (Some(Part::Piped(_)), _) => return Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
                (Some(Part::Bytes(_)), stream) => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let mut count = 0;
                    for (slice, part) in slices.iter_mut().zip(self.bytes()) {
                        *slice = IoSlice::new(part);
                        count += 1;
                    }
                    ready!(Pin::new(stream).poll_write_vectored(cx, slices.get(..count).unwrap_or_default()))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written as u64;
            self.took(written);
        }
        Poll::Ready(Ok(()))
    }

    /// What waits in our memory, as far as it can leave in one write.
    fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        let tail = self.tail.get(self.at..).filter(|_| !self.has_pipe());
        let queued = self.queue.iter().map_while(|part| match part {
            Part::Bytes(bytes) => Some(&bytes[..]),
            Part::Piped(_) => None,
        });
        queued.chain(tail)
    }

    fn has_pipe(&self) -> bool {
        self.queue.iter().any(|part| matches!(part, Part::Piped(_)))
    }

    /// Takes all that waits, as if it were written.
    #[cfg(any(test, feature = "probe"))]
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        let all = self.bytes().collect::<Vec<_>>().concat();
        self.written += all.len() as u64;
        self.took(all.len());
        all
    }

    fn took(&mut self, mut written: usize) {
        while let Some(first) = self.queue.front_mut() {
            let (part, is_over) = match first {
                Part::Bytes(bytes) => {
                    let part = bytes.len().min(written);
                    bytes.advance(part);
                    (part, bytes.is_empty())
                }
                // It has counted by itself.
                Part::Piped(piped) => (written, piped.len() == 0),
            };
            self.queued -= part;
            written -= part;
            if !is_over {
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
