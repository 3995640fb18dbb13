//! A client's connection with an eye on it: when a head began, when a write stopped to move, when it was last used.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use synego_identity::Stream;
use synego_model::Limits;
use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is known of a connection's pace. Times are microseconds since its beginning, 0: not now.
pub(crate) struct Pace {
    began: Instant,
    /// Exchanges that go on.
    active: AtomicU32,
    head_since: AtomicU64,
    used: AtomicU64,
    stalled_since: AtomicU64,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The head of a request takes too long.
    Head,
    /// The client reads nothing of its answer.
    Write,
    /// No request for too long.
    Idle,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            began: now,
            active: AtomicU32::new(0),
            head_since: AtomicU64::new(1),
            used: AtomicU64::new(1),
            stalled_since: AtomicU64::new(0),
        })
    }

    fn stamp(&self) -> u64 {
        (clock::now().duration_since(self.began).as_micros() as u64).max(1)
    }

    /// An exchange begins: its head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        Active(self.clone())
    }

    /// The next limit, and what it says if nothing changes until then.
    pub(crate) fn next(&self, limits: &Limits) -> Option<(Instant, Late)> {
        let at = |stamp: u64, limit: Duration| self.began + Duration::from_micros(stamp) + limit;
        let set = |stamp: &AtomicU64| Some(stamp.load(Relaxed)).filter(|stamp| *stamp > 0);
        let idle = self.active.load(Relaxed) == 0;
        let head = set(&self.head_since).filter(|_| idle).map(|since| (at(since, limits.header_read), Late::Head));
        let write = set(&self.stalled_since).map(|since| (at(since, limits.write_stall), Late::Write));
        let rest = idle.then(|| (at(self.used.load(Relaxed), limits.client_idle), Late::Idle));
        [head, write, rest].into_iter().flatten().min_by_key(|(when, _)| *when)
    }

    fn read(&self) {
        if self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.stamp(), Relaxed);
        }
    }

    fn wrote<T>(&self, polled: &Poll<io::Result<T>>) {
        if polled.is_pending() {
            if self.stalled_since.load(Relaxed) == 0 {
                self.stalled_since.store(self.stamp(), Relaxed);
            }
        } else if self.stalled_since.load(Relaxed) != 0 {
            self.stalled_since.store(0, Relaxed);
        }
    }
}

/// One exchange on a connection.
pub(crate) struct Active(Arc<Pace>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
        self.0.used.store(self.0.stamp(), Relaxed);
    }
}

/// The connection itself, with what was read of it to learn its protocol put back in front.
pub(crate) struct Watched {
    stream: Stream,
    front: Bytes,
    pace: Arc<Pace>,
}

impl Watched {
    pub(crate) fn new(stream: Stream, front: Bytes, pace: Arc<Pace>) -> Self {
        Self { stream, front, pace }
    }
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.front.is_empty() {
            let part = this.front.len().min(buf.remaining());
            buf.put_slice(this.front.get(..part).unwrap_or_default());
            this.front.advance(part);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.pace.read();
        }
        polled
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
