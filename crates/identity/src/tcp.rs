//! A TCP connection whose reads and writes go to the kernel without the detour of the C library.
//!
//! `recv` and `send` of the C library are points where a thread may be cancelled, and each of them says so twice to the
//! thread it runs on: in a proxy, where nothing is cancelled so, that is a twentieth of the call.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{SpliceFlags, splice};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Pages are moved where they can be, and nothing is waited for.
const AS_IT_IS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A TCP connection without TLS.
#[derive(Debug)]
pub struct Tcp(TcpStream);

impl Tcp {
    /// The address of the other end.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Moves what has come to a pipe that is empty, at most so many bytes; 0 at the end.
    ///
    /// # Errors
    /// When the connection fails, or there can be no such move.
    pub fn poll_into(&self, pipe: BorrowedFd<'_>, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Less than asked for may also mean that the pipe is full: so it says nothing of the socket.
        self.poll_io(Interest::READABLE, 0, cx, |stream| splice(stream, None, pipe, None, most, AS_IT_IS))
    }

    /// Writes so many bytes that lie in a pipe; how many of them were taken.
    ///
    /// # Errors
    /// When the connection fails, or there can be no such move.
    pub fn poll_out_of(&self, pipe: BorrowedFd<'_>, len: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::WRITABLE, 0, cx, |stream| splice(pipe, None, stream, None, len, AS_IT_IS))
    }

    /// Calls the kernel while the socket is ready, until it says something else than that it would have to wait.
    ///
    /// `call` gets how much was moved out of what was asked for; less means that the kernel has no more, and another call
    /// only to hear that is spared.
    fn poll_io(
        &self,
        interest: Interest,
        asked: usize,
        cx: &mut Context<'_>,
        mut call: impl FnMut(&TcpStream) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if interest.is_readable() {
                ready!(self.0.poll_read_ready(cx))?;
            } else {
                ready!(self.0.poll_write_ready(cx))?;
            }
            let mut moved = None;
            // What `try_io` is told to be a wait makes it forget that the socket was ready.
            let outcome = self.0.try_io(interest, || match call(&self.0) {
                Ok(count) if count > 0 && count < asked => {
                    moved = Some(count);
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Ok(count) => Ok(count),
                Err(errno) => Err(errno.into()),
            });
            match (moved, outcome) {
                (Some(count), _) | (None, Ok(count)) => return Poll::Ready(Ok(count)),
                (None, Err(error)) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl AsFd for Tcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.initialized().len() < buf.capacity() {
            // To initialise it first would cost more than the detour.
            return Pin::new(&mut this.0).poll_read(cx, buf);
        }
        let room = buf.initialize_unfilled();
        let read = ready!(this.poll_io(Interest::READABLE, room.len(), cx, |stream| {
            rustix::net::recv(stream, &mut *room, RecvFlags::empty()).map(|(read, _)| read)
        }))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_io(Interest::WRITABLE, data.len(), cx, |stream| rustix::net::send(stream, data, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Tcp, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.expect("connected").into(), far.expect("accepted").0)
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_all_of_it_arrives_in_order() {
        let (mut near, far) = pair().await;
        let data: Vec<u8> = (0..8_000_000_u32).map(|n| (n / 7) as u8).collect();
        let (mut reads, mut writes) = far.into_split();
        let echo = async {
            tokio::io::copy(&mut reads, &mut writes).await.expect("echoed");
            writes.shutdown().await.expect("ended");
        };
        let expected = data.clone();
        let near = async move {
            let (mut reads, mut writes) = tokio::io::split(&mut near);
            let write = async {
                writes.write_all(&data).await.expect("written");
                writes.shutdown().await.expect("ended");
            };
            let read = async {
                let (mut all, mut buffer) = (Vec::new(), vec![0; 10_000]);
                loop {
                    let read = reads.read(&mut buffer).await.expect("read");
                    if read == 0 {
                        return all;
                    }
                    all.extend_from_slice(&buffer[..read]);
                }
            };
            tokio::join!(write, read).1
        };
        let ((), all) = tokio::join!(echo, near);
        assert!(all == expected, "{} bytes came back", all.len());
    }

    #[tokio::test]
    async fn a_short_read_is_followed_by_a_wait_that_the_next_bytes_end() {
        let (mut near, mut far) = pair().await;
        let mut buffer = [0; 100];
        for word in ["one", "two", "three"] {
            far.write_all(word.as_bytes()).await.expect("written");
            let read = near.read(&mut buffer).await.expect("read");
            assert_eq!(&buffer[..read], word.as_bytes());
            let waits = std::future::poll_fn(|cx| {
                Poll::Ready(Pin::new(&mut near).poll_read(cx, &mut ReadBuf::new(&mut [0; 1])).is_pending())
            });
            assert!(waits.await);
        }
        drop(far);
        assert_eq!(near.read(&mut buffer).await.expect("the end"), 0);
    }

    #[tokio::test]
    async fn a_connection_that_was_reset_says_so_to_both_directions() {
        let (mut near, far) = pair().await;
        rustix::net::sockopt::set_socket_linger(&far, Some(std::time::Duration::ZERO)).expect("set");
        drop(far);
        let error = near.read(&mut [0; 10]).await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = near.write(b"x").await.expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
