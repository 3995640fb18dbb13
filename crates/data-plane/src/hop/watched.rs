//! A client's connection with an eye on it: when a head began, when a write stopped to move, when it was last used.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use synego_identity::Stream;
use synego_model::Limits;
use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::strict::{self, Fault, Part};

/// Bytes of a head read at once.
const HEAD: usize = 8 * 1024;
/// Bytes of a chunked body read at once.
const CHUNK: usize = 64 * 1024;
/// Over how long streams that a client gives up are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// What hyper gets in place of a head that is refused.
const EMPTY: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\n\r\n";

/// What is known of a connection's pace. Times are microseconds since its beginning, 0: not now.
pub(crate) struct Pace {
    began: Instant,
    /// Exchanges that go on.
    active: AtomicU32,
    head_since: AtomicU64,
    used: AtomicU64,
    stalled_since: AtomicU64,
    /// Exchanges that began.
    begun: AtomicU32,
    /// What is wrong with the last head, as a number, 0: nothing; and the how many-th it is.
    fault: AtomicU8,
    fault_at: AtomicU32,
    /// Whether its bytes are no longer messages.
    is_tunnel: AtomicBool,
    /// Streams that the client gave up, and since when they are counted.
    resets: AtomicU32,
    resets_since: AtomicU64,
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
            begun: AtomicU32::new(0),
            fault: AtomicU8::new(0),
            fault_at: AtomicU32::new(0),
            is_tunnel: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            resets_since: AtomicU64::new(0),
        })
    }

    fn stamp(&self) -> u64 {
        (clock::now().duration_since(self.began).as_micros() as u64).max(1)
    }

    /// An exchange begins: its head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        Active { pace: self.clone(), number: self.begun.fetch_add(1, Relaxed) + 1 }
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

    fn is_refused(&self) -> bool {
        self.fault.load(Relaxed) != 0
    }

    /// A client gave up a stream whose answer was not complete.
    fn reset(&self) {
        let now = self.stamp();
        if now.saturating_sub(self.resets_since.load(Relaxed)) > RESET_WINDOW.as_micros() as u64 {
            self.resets_since.store(now, Relaxed);
            self.resets.store(0, Relaxed);
        }
        self.resets.fetch_add(1, Relaxed);
    }

    /// Whether so many streams were given up that the client does nothing else.
    pub(crate) fn is_flooded(&self, limits: &Limits) -> bool {
        self.resets.load(Relaxed) >= limits.resets
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
pub(crate) struct Active {
    pace: Arc<Pace>,
    /// The how many-th it is.
    number: u32,
}

impl Active {
    /// What is wrong with its head.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let is_this = self.pace.fault_at.load(Relaxed) == self.number;
        Fault::of(self.pace.fault.load(Relaxed)).filter(|_| is_this)
    }

    /// Its client gave it up.
    pub(crate) fn was_reset(&self) {
        self.pace.reset();
    }

    /// What follows on the connection is no longer HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.pace.is_tunnel.store(true, Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.pace.active.fetch_sub(1, Relaxed);
        self.pace.used.store(self.pace.stamp(), Relaxed);
    }
}

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
        buf.put_slice(&self.held.split_to(part));
        self.passed -= part;
        part > 0
    }

    /// Looks at what is held; false when more of it must come first.
    fn look(&mut self) -> io::Result<bool> {
        if self.part.is_none() || self.pace.is_tunnel.load(Relaxed) {
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
        self.pace.fault.store(fault as u8, Relaxed);
        self.pace.fault_at.store(self.heads + 1, Relaxed);
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
            this.held.reserve(if this.part == Some(Part::Head) { HEAD } else { CHUNK });
            let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.held))?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
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
