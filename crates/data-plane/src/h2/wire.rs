//! Reading and writing a connection, and what ends it while it moves no bytes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use synego_identity::Stream;
use synego_model::Limits;
use synego_runtime::clock;
use tokio::io::AsyncWrite;

use super::Code;
use super::mux::{Begun, Fatal, Mux, Received, Shared};
use crate::h1::input::Input;
use crate::hop::connection::{Ended, Late};

/// Bytes that wait to be written, from which on nothing more is read.
const FULL: usize = 1024 * 1024;
/// How long an answer to a ping may take.
const PONG: Duration = Duration::from_secs(5);
/// With what the other side is asked whether it is there.
const THERE: [u8; 8] = *b"there?  ";
/// How long the last words may take, and bytes that are read meanwhile: who still writes while its connection is closed
/// may never see them.
const LAST_WORDS: Duration = Duration::from_secs(1);
const DISCARD: usize = 256 * 1024;

/// The bytes of one connection.
pub(super) struct Wire {
    stream: Stream,
    input: Input,
    /// Bytes that must come before the next frame is whole.
    expected: usize,
    /// When something was last read.
    heard: Instant,
    /// When the other side was asked whether it is there.
    asked: Option<Instant>,
    /// Since when nothing could be written.
    stalled: Option<Instant>,
}

impl Wire {
    pub(super) fn new(stream: Stream, front: BytesMut) -> Self {
        Self { stream, input: Input::new(front), expected: 0, heard: clock::now(), asked: None, stalled: None }
    }

    /// Reads and writes what it can; ready at the end of the connection. `begin` gets the streams that a client began.
    pub(super) fn poll(&mut self, mux: &Shared, cx: &mut Context<'_>, mut begin: impl FnMut(Begun)) -> Poll<Ended> {
        match self.try_poll(mux, cx, &mut begin) {
            Ok(polled) => polled.map(|()| Ended::Well),
            Err(ended) => Poll::Ready(ended),
        }
    }

    /// Ready when the other side sends no more.
    fn try_poll(
        &mut self,
        mux: &Shared,
        cx: &mut Context<'_>,
        begin: &mut impl FnMut(Begun),
    ) -> Result<Poll<()>, Ended> {
        mux.borrow_mut().drive(cx);
        loop {
            let read = self.poll_read(mux, cx, begin)?;
            let mux = &mut *mux.borrow_mut();
            mux.round();
            let was_full = mux.out.len() >= FULL;
            let is_written = self.poll_write(mux, cx)?.is_ready();
            if read.is_ready() || !was_full || !is_written {
                return Ok(read);
            }
        }
    }

    /// Ready when the other side sends no more.
    fn poll_read(
        &mut self,
        mux: &Shared,
        cx: &mut Context<'_>,
        begin: &mut impl FnMut(Begun),
    ) -> Result<Poll<()>, Ended> {
        let mut is_heard = false;
        loop {
            let received = mux.borrow_mut().receive(&mut self.input.buf);
            match received.map_err(|Fatal(code)| Ended::Faulty(code))? {
                Received::Begun(begun) => {
                    begin(begun);
                    continue;
                }
                Received::More(expected) => self.expected = expected,
            }
            if mux.borrow().out.len() >= FULL {
                return Ok(Poll::Pending);
            }
            match self.input.poll_fill(&mut self.stream, self.expected as u64, cx) {
                Poll::Ready(Ok(0)) => return Ok(Poll::Ready(())),
                Poll::Ready(Ok(_)) if is_heard => {}
                Poll::Ready(Ok(_)) => {
                    is_heard = true;
                    self.heard = clock::now();
                    self.asked = None;
                }
                Poll::Ready(Err(error)) => return Err(Ended::Broken(error.into())),
                Poll::Pending => {
                    if self.input.buf.is_empty() {
                        self.input.rest();
                    }
                    return Ok(Poll::Pending);
                }
            }
        }
    }

    /// Ready when all that waits was written.
    fn poll_write(&mut self, mux: &mut Mux, cx: &mut Context<'_>) -> Result<Poll<()>, Ended> {
        loop {
            mux.fill();
            if mux.out.is_empty() {
                self.stalled = None;
                return Ok(Poll::Ready(()));
            }
            let before = mux.out.written();
            match mux.out.poll_flush(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Ended::Broken(error.into())),
                Poll::Pending => {
                    if mux.out.written() > before || self.stalled.is_none() {
                        self.stalled = Some(clock::now());
                    }
                    return Ok(Poll::Pending);
                }
            }
        }
    }

    /// Whether what waits to be written has to wait for the other side.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Until when it may go on so; asks the other side whether it is there.
    ///
    /// # Errors
    /// When it has gone on so for too long.
    pub(super) fn next(&mut self, mux: &mut Mux, limits: &Limits, now: Instant) -> Result<Instant, Ended> {
        let stall = self.stalled.map(|since| since + limits.write_stall);
        if stall.is_some_and(|when| when <= now) {
            return Err(Ended::Late(Late::Write));
        }
        if self.asked.is_none() && self.heard + limits.ping <= now {
            self.asked = Some(now);
            mux.ping(THERE);
            mux.wake_driver();
        }
        let silent = match self.asked {
            Some(asked) if asked + PONG <= now => return Err(Ended::Late(Late::Pong)),
            Some(asked) => asked + PONG,
            None => self.heard + limits.ping,
        };
        Ok(stall.map_or(silent, |stall| stall.min(silent)))
    }

    /// The last words, so that the other side can read them.
    ///
    /// - `why`: what to tell it; `None`: what waits already says it.
    pub(super) async fn close(mut self, mux: &Shared, why: Option<Code>) {
        if let Some(code) = why {
            let last = mux.borrow().last_begun();
            mux.borrow_mut().go_away(last, code);
        }
        let mut room = DISCARD;
        let words = std::future::poll_fn(|cx| {
            let mut mux = mux.borrow_mut();
            if ready!(mux.out.poll_flush(&mut self.stream, cx)).is_err()
                || ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err()
            {
                return Poll::Ready(());
            }
            while room > 0 {
                self.input.buf.clear();
                match ready!(self.input.poll_fill(&mut self.stream, 0, cx)) {
                    Ok(0) | Err(_) => break,
                    Ok(bytes) => room = room.saturating_sub(bytes),
                }
            }
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(LAST_WORDS, words).await;
    }
}
