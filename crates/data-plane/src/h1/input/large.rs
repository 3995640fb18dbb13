//! Parts of large bodies: read into buffers that a worker uses again, since the first touch of fresh memory costs more than
//! all else of such a read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use synego_identity::Stream;
use tokio::io::{AsyncRead, ReadBuf};

use crate::spare::{Shelf, Spare};

/// Bytes of one read.
const SIZE: usize = 128 * 1024;
/// Buffers that a worker keeps.
const KEPT: usize = 16;
/// A smaller part is copied: it must not hold a whole buffer.
const SMALL: usize = 16 * 1024;

thread_local! {
    static SPARE: Spare<Box<[u8]>, KEPT> = const { Spare::new() };
}

/// A buffer that goes back to its worker.
struct Lent(Box<[u8]>);

impl Lent {
    fn take() -> Self {
        Self(SPARE.take().unwrap_or_else(|| vec![0; SIZE].into()))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        SPARE.keep(std::mem::take(&mut self.0));
    }
}

/// Reads at most `expected` bytes; none at the end.
pub(super) fn poll_read(stream: &mut Stream, expected: u64, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut lent = Lent::take();
    let most = usize::try_from(expected).unwrap_or(SIZE).min(SIZE);
    let mut buffer = ReadBuf::new(lent.0.get_mut(..most).unwrap_or_default());
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    let read = buffer.filled().len();
    Poll::Ready(Ok(if read < SMALL {
        Bytes::copy_from_slice(buffer.filled())
    } else {
        Bytes::from_owner(lent).slice(..read)
    }))
}
