//! Bytes in both directions between two connections, until both are at their end or nothing has moved for too long.
//!
//! A direction that waits for bytes holds no buffer: all of a worker's tunnels read through one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::timer::Alarm;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks moved in one direction before others get their turn.
const TURN: u32 = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// How a tunnel ended, and what it carried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Carried {
    /// From the first to the second.
    pub(crate) there: u64,
    /// From the second to the first.
    pub(crate) back: u64,
    /// Whether both sides ended it.
    pub(crate) complete: bool,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What the writer has not taken yet, from `at` on.
    rest: Vec<u8>,
    at: usize,
    carried: u64,
    read_all: bool,
    unflushed: bool,
    done: bool,
}

/// How long nothing may move.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// While both directions are open.
    pub(crate) both: Duration,
    /// Once one of them has ended.
    pub(crate) one: Duration,
}

/// Copies until both directions have ended, one of them fails, or nothing moved for too long. What was read of a side
/// already stands beside it.
pub(crate) async fn two_way<A, B>(
    (first, of_first): (&mut A, Bytes),
    (second, of_second): (&mut B, Bytes),
    silence: Silence,
) -> Carried
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut there, mut back) = (Way::after(&of_first), Way::after(&of_second));
    let mut moved = clock::now();
    let mut alarm = Alarm::default();
    let complete = std::future::poll_fn(|cx| {
        let before = there.carried + back.carried;
        let ended = (there.poll(first, second, cx), back.poll(second, first, cx));
        if there.carried + back.carried > before {
            moved = clock::now();
        }
        match ended {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(true),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(false),
            _ => {}
        }
        let limit = if there.done || back.done { silence.one } else { silence.both };
        alarm.poll(moved + limit, cx).map(|()| false)
    })
    .await;
    Carried { there: there.carried, back: back.carried, complete }
}

impl Way {
    /// One of which this was read already.
    fn after(front: &[u8]) -> Self {
        Self { rest: front.to_vec(), carried: front.len() as u64, ..Self::default() }
    }

    fn poll<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURN {
            while let Some(rest) = self.rest.get(self.at..).filter(|rest| !rest.is_empty()) {
                self.at += took(ready!(Pin::new(&mut *to).poll_write(cx, rest)))?;
            }
            self.rest = Vec::new();
            self.at = 0;
            if self.read_all {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            if self.poll_chunk(from, to, cx)?.is_pending() {
                if self.unflushed {
                    ready!(Pin::new(&mut *to).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads a chunk and writes what the other side takes at once; the rest is kept.
    fn poll_chunk<R, W>(&mut self, from: &mut R, to: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buf))?;
            let chunk = buf.filled();
            self.read_all = chunk.is_empty();
            self.carried += chunk.len() as u64;
            if chunk.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.unflushed = true;
            let taken = match Pin::new(to).poll_write(cx, chunk) {
                Poll::Ready(written) => took(written)?,
                Poll::Pending => 0,
            };
            self.rest = chunk.get(taken..).unwrap_or_default().to_vec();
            Poll::Ready(Ok(()))
        })
    }
}

fn took(written: io::Result<usize>) -> io::Result<usize> {
    written.and_then(|bytes| if bytes == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn silence(seconds: u64) -> Silence {
        Silence { both: Duration::from_secs(seconds), one: Duration::from_secs(seconds) }
    }

    #[tokio::test]
    async fn each_direction_ends_on_its_own_and_all_bytes_arrive() {
        let (mut client, mut near) = duplex(100);
        let (mut far, mut service) = duplex(100);
        let data: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        let expected = data.clone();
        let (carried, (), answered) = tokio::join!(
            two_way((&mut near, Bytes::new()), (&mut far, Bytes::new()), silence(5)),
            async {
                client.write_all(&data).await.expect("written");
                client.shutdown().await.expect("ended");
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.expect("read");
                assert_eq!(answer, b"done");
            },
            async {
                let mut all = Vec::new();
                service.read_to_end(&mut all).await.expect("read");
                service.write_all(b"done").await.expect("answered after the other side had ended");
                service.shutdown().await.expect("ended");
                all
            }
        );
        assert_eq!(answered, expected);
        assert_eq!((carried.there, carried.back, carried.complete), (200_000, 4, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_tunnel_ends_and_one_that_moves_does_not() {
        let (mut client, mut near) = duplex(100);
        let (mut far, mut service) = duplex(100);
        let began = clock::now();
        let (carried, ()) =
            tokio::join!(two_way((&mut near, Bytes::new()), (&mut far, Bytes::new()), silence(10)), async {
                for _ in 0..3 {
                    tokio::time::sleep(Duration::from_secs(8)).await;
                    client.write_all(b"x").await.expect("written");
                    service.read_u8().await.expect("read");
                }
            });
        assert!(!carried.complete && carried.there == 3);
        assert_eq!(clock::now().duration_since(began).as_secs(), 34);
    }
}
