//! Bytes in both directions between two connections, until both are at their end or nothing has moved for too long.
//!
//! A direction that waits for bytes holds no buffer: all of a worker's tunnels read through one.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use synego_runtime::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::farewell::Frames;
use super::timer::Alarm;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks moved in one direction before others get their turn.
const TURN: u32 = 8;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into());
}

/// How long a side that was told that it is over may take to say so too.
const GOODBYE: Duration = Duration::from_secs(1);

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
    /// Where the frames of a WebSocket end, for one that is to be closed politely.
    frames: Option<Frames>,
    /// What is said between two frames as the last of this direction.
    last_words: Option<Vec<u8>>,
    /// The last words were said: what still comes is thrown away.
    is_over: bool,
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
    two_way_until((first, of_first), (second, of_second), silence, None, std::future::pending()).await
}

/// The same for a WebSocket, which is closed politely once `leave` says so: `last_words` go to the first and to the second
/// side, each between two frames.
pub(crate) async fn two_way_until<A, B>(
    (first, of_first): (&mut A, Bytes),
    (second, of_second): (&mut B, Bytes),
    silence: Silence,
    last_words: Option<(Vec<u8>, Vec<u8>)>,
    leave: impl Future<Output = ()>,
) -> Carried
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let has_frames = last_words.is_some();
    let (mut there, mut back) = (Way::after(&of_first, has_frames), Way::after(&of_second, has_frames));
    let mut last_words = last_words;
    let mut left: Option<Instant> = None;
    let mut leave = std::pin::pin!(leave);
    let mut moved = clock::now();
    let mut alarm = Alarm::default();
    let complete = std::future::poll_fn(|cx| {
        let before = there.carried + back.carried;
        if last_words.is_some()
            && leave.as_mut().poll(cx).is_ready()
            && let Some((to_first, to_second)) = last_words.take()
        {
            back.last_words = Some(to_first);
            there.last_words = Some(to_second);
            left = Some(clock::now());
        }
        let ended = (there.poll(first, second, cx), back.poll(second, first, cx));
        if there.carried + back.carried > before {
            moved = clock::now();
        }
        match ended {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(true),
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(left.is_some()),
            _ => {}
        }
        if let Some(left) = left.filter(|_| back.is_over && back.rest.is_empty()) {
            // The first side has heard it: once it has answered, or did not for long enough, that is all.
            if there.done || there.has_said_goodbye() {
                return Poll::Ready(true);
            }
            return alarm.poll(left.max(moved) + GOODBYE, cx).map(|()| true);
        }
        let limit = if there.done || back.done { silence.one } else { silence.both };
        alarm.poll(moved + limit, cx).map(|()| false)
    })
    .await;
    Carried { there: there.carried, back: back.carried, complete }
}

impl Way {
    /// One of which this was read already.
    fn after(front: &[u8], has_frames: bool) -> Self {
        let mut frames = has_frames.then(Frames::default);
        if let Some(frames) = &mut frames {
            frames.pass(front);
        }
        Self { rest: front.to_vec(), carried: front.len() as u64, frames, ..Self::default() }
    }

    fn has_said_goodbye(&self) -> bool {
        self.frames.as_ref().is_some_and(Frames::has_closed)
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
            if self.frames.as_ref().is_some_and(Frames::is_between)
                && let Some(last_words) = self.last_words.take()
            {
                (self.rest, self.unflushed, self.is_over) = (last_words, true, true);
                continue;
            }
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
            let came = buf.filled();
            self.read_all = came.is_empty();
            let (chunk, last_words) = self.let_pass(came);
            self.carried += chunk.len() as u64;
            if chunk.is_empty() {
                self.rest = last_words;
                return Poll::Ready(Ok(()));
            }
            self.unflushed = true;
            let taken = match Pin::new(to).poll_write(cx, chunk) {
                Poll::Ready(written) => took(written)?,
                Poll::Pending => 0,
            };
            self.rest = chunk.get(taken..).unwrap_or_default().to_vec();
            self.rest.extend(last_words);
            Poll::Ready(Ok(()))
        })
    }

    /// What goes on to the other side, and what is said behind it as the last of this direction.
    fn let_pass<'a>(&mut self, came: &'a [u8]) -> (&'a [u8], Vec<u8>) {
        let Some(frames) = &mut self.frames else { return (came, Vec::new()) };
        if self.is_over || self.last_words.is_none() {
            frames.pass(came);
            return (if self.is_over { &[] } else { came }, Vec::new());
        }
        // The frame that has begun is the last one.
        let kept = frames.pass_one(came);
        if !frames.is_between() {
            return (kept, Vec::new());
        }
        frames.pass(came.get(kept.len()..).unwrap_or_default());
        self.is_over = true;
        (kept, self.last_words.take().unwrap_or_default())
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

    #[tokio::test]
    async fn a_websocket_is_closed_between_two_frames_on_both_sides() {
        let (mut client, mut near) = duplex(10_000);
        let (mut far, mut service) = duplex(10_000);
        let (told, leaves) = tokio::sync::oneshot::channel::<()>();
        let last_words = (b"\x88\x02\x03\xe9".to_vec(), b"\x88\x82mask\x03\xe9".to_vec());
        let carrying = two_way_until(
            (&mut near, Bytes::new()),
            (&mut far, Bytes::new()),
            silence(30),
            Some(last_words),
            async move { drop(leaves.await) },
        );
        let (carried, ()) = tokio::join!(carrying, async {
            // Half a frame of each side is under way when it is time to leave.
            client.write_all(b"\x81\x83mask1").await.expect("written");
            service.write_all(b"\x81\x03a").await.expect("written");
            let mut half = [0; 7];
            service.read_exact(&mut half).await.expect("read");
            client.read_exact(&mut half[..3]).await.expect("read");
            drop(told);
            tokio::task::yield_now().await;
            client.write_all(b"23\x81\x81maskx").await.expect("written");
            service.write_all(b"bc\x81\x01d").await.expect("written");
            let mut rest = [0; 6];
            client.read_exact(&mut rest).await.expect("read");
            assert_eq!(&rest, b"bc\x88\x02\x03\xe9");
            let mut rest = [0; 10];
            service.read_exact(&mut rest).await.expect("read");
            assert_eq!(&rest, b"23\x88\x82mask\x03\xe9");
            client.write_all(b"\x88\x80mask").await.expect("written");
        });
        assert!(carried.complete);
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
