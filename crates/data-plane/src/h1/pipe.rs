//! Large bodies between two connections without TLS: the kernel hands their pages from one socket to the other through a
//! pipe (splice(2)), and nobody copies them.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use synego_identity::{Stream, Tcp};

use crate::spare::{Shelf, Spare};

/// From so many expected bytes on it is worth its calls.
const WORTH: u64 = 64 * 1024;
/// Bytes moved at once, at most.
const AT_ONCE: usize = 1024 * 1024;
/// What a pipe may hold, as the kernel counts it: a page for each piece, however small. Bytes; only a wish.
const SIZE: usize = 256 * 1024;
/// Pipes of a worker, lent and kept. Whoever comes when all are lent reads and writes as usual.
const MOST: usize = 64;
/// Of these so many are kept while nobody needs them.
const KEPT: usize = 16;

thread_local! {
    static SPARE: Spare<Pipe, KEPT> = const { Spare::new() };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Whether a body of which so much is certain to come may go by a pipe.
pub(crate) fn is_worth(expected: u64) -> bool {
    expected >= WORTH
}

/// An empty pipe.
struct Pipe {
    reads: OwnedFd,
    writes: OwnedFd,
}

impl Pipe {
    fn take() -> Option<Self> {
        SPARE.take().or_else(|| {
            if COUNT.get() >= MOST {
                return None;
            }
            let (reads, writes) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // Whoever is at its limit of pipe memory gets less, and the rest works the same.
            let _wished = fcntl_setpipe_size(&writes, SIZE);
            COUNT.set(COUNT.get() + 1);
            Some(Self { reads, writes })
        })
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let _ = COUNT.try_with(|count| count.set(count.get().saturating_sub(1)));
    }
}

/// A part of a body that lies in a pipe.
pub(crate) struct Piped {
    /// `None` once it is empty and was given back.
    pipe: Option<Pipe>,
    len: usize,
}

impl Piped {
    /// Takes what has come of `expected` bytes; `None` when there is nothing, or this is not the way: a plain read tells why.
    pub(crate) fn read(stream: &Stream, expected: u64, cx: &mut Context<'_>) -> Option<Self> {
        let Stream::Tcp(tcp) = stream else { return None };
        if !is_worth(expected) {
            return None;
        }
        let pipe = Pipe::take()?;
        let most = usize::try_from(expected).unwrap_or(AT_ONCE).min(AT_ONCE);
        match tcp.poll_into(pipe.writes.as_fd(), most, cx) {
            Poll::Ready(Ok(len)) if len > 0 => Some(Self { pipe: Some(pipe), len }),
            _ => {
                SPARE.keep(pipe);
                None
            }
        }
    }

    /// Bytes that are left of it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes some of it; how many bytes.
    pub(crate) fn poll_write(&mut self, tcp: &Tcp, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let Some(pipe) = &self.pipe else { return Poll::Ready(Ok(0)) };
        let written = ready!(tcp.poll_out_of(pipe.reads.as_fd(), self.len, cx))?;
        self.len = self.len.saturating_sub(written);
        if self.len == 0
            && let Some(pipe) = self.pipe.take()
        {
            SPARE.keep(pipe);
        }
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connected").into(), far.expect("accepted").0)
    }

    #[tokio::test]
    async fn bytes_go_from_one_connection_to_the_other_and_no_further_than_the_body() {
        let ((from, mut source), (to, mut sink)) = (pair().await, pair().await);
        let data: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 5) as u8).collect();
        let sent = data.clone();
        let relay = async {
            let (mut left, mut held): (u64, Option<Piped>) = (2_900_000, None);
            std::future::poll_fn(|cx| {
                while left >= WORTH || held.is_some() {
                    if held.is_none() {
                        held = Piped::read(&from, left, cx);
                        let Some(piped) = &held else { return Poll::Pending };
                        left -= piped.len() as u64;
                    }
                    let (Some(piped), Stream::Tcp(tcp)) = (&mut held, &to) else { unreachable!("it is held") };
                    ready!(piped.poll_write(tcp, cx)).expect("written");
                    if piped.len() == 0 {
                        held = None;
                    }
                }
                Poll::Ready(())
            })
            .await;
            drop(to);
            left
        };
        let send = async {
            source.write_all(&sent).await.expect("sent");
            source.shutdown().await.expect("ended");
        };
        let receive = async {
            let mut all = Vec::new();
            sink.read_to_end(&mut all).await.expect("received");
            all
        };
        let (left, (), all) = tokio::join!(relay, send, receive);
        assert!(left < WORTH && all.len() as u64 == 2_900_000 - left, "{left} left of {}", all.len());
        assert!(all == data[..all.len()]);
        assert!(COUNT.get() <= 1);
    }

    #[tokio::test]
    async fn there_are_no_more_pipes_than_allowed() {
        let mut pipes = Vec::new();
        while let Some(pipe) = Pipe::take() {
            pipes.push(pipe);
        }
        assert_eq!(pipes.len(), MOST);
        pipes.truncate(10);
        assert!(Pipe::take().is_some());
    }
}
