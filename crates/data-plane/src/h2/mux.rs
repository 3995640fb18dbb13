//! The frames of one connection and its streams: a plain value, lent for a moment to the task of the connection and to
//! those who drive the streams. It does no I/O: bytes come in as they were read, and wait in `out` until they are written.

#[cfg(any(test, feature = "probe"))]
mod check;
mod control;
mod receive;
mod send;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;
use foldhash::fast::RandomState;
use synego_model::Limits;
use synego_runtime::clock;

use super::calm::Calm;
use super::frame::{self, FIRST_WINDOW};
use super::hpack::{Decoder, Encoder};
use super::stream::{Receiving, Sending, Stream};
use super::{Code, Error};
use crate::h1::out::Out;
use crate::hop::connection::largest_head;
use crate::message::{Answer, Frame, NextFrame};

pub(crate) use receive::{Begun, Fatal, Received};
#[cfg(any(test, feature = "probe"))]
use send::HIGH;

/// Bytes of one stream that wait for their windows, before no more is taken.
const AHEAD: usize = 64 * 1024;
/// Streams that we reset last: what is still under way on them is ignored.
const REMEMBERED: usize = 128;

/// Streams that we begin before the other side has said how many it takes (RFC 9113 §6.5.2).
const UNTOLD: usize = 100;

/// A ping whose answer says that all streams which the other side had begun before it knew of the end have come.
pub(crate) const GOODBYE: [u8; 8] = *b"goodbye ";

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// One connection.
pub(crate) struct Mux {
    role: Role,
    pub(crate) out: Out,
    decoder: Decoder,
    encoder: Encoder,
    streams: HashMap<u32, Stream, RandomState>,
    /// How many of them were given up and are not cleared away.
    gone: usize,
    /// Streams whose data waits for nothing but its turn.
    line: VecDeque<u32>,
    calm: Calm,
    /// A head that goes on in the next frame.
    block: Option<Block>,
    /// Of the server: the last stream that was begun. Of the client: the next one.
    number: u32,
    reset: VecDeque<u32>,

    /// What we allow: streams, the windows, the bytes of a head.
    max_streams: usize,
    window: i64,
    connection_window: i64,
    largest_head: usize,
    /// What the other side may still send on all streams, and what was read and not given back.
    open_window: i64,
    taken: u32,

    /// What the other side allows.
    peer_streams: usize,
    peer_window: i64,
    peer_frame: usize,
    send_window: i64,
    /// Whether its first frame, and its word on our settings, have come.
    has_settings: bool,
    is_acknowledged: bool,

    /// Above which stream we take none.
    told_last: Option<u32>,
    /// Whether the other side takes no further streams.
    pub(crate) is_away: bool,
    /// Whether nothing goes in any direction any more.
    pub(crate) is_dead: bool,
    /// Whether it is to end once no stream is open.
    pub(crate) ends_when_idle: bool,
    /// Whether the answer to [`GOODBYE`] came.
    pub(crate) is_parted: bool,
    /// When its last stream ended.
    pub(crate) used: Instant,
    driver: Option<Waker>,
}

/// A head whose end has not come.
struct Block {
    stream: u32,
    ends_stream: bool,
    bytes: BytesMut,
    frames: u32,
}

/// A connection as its streams hold it.
pub(crate) type Shared = Rc<RefCell<Mux>>;

impl Mux {
    /// A connection that has just begun: what we say first waits in `out`.
    ///
    /// - `resets`: streams that the other side may begin and give up; `None`: any number.
    pub(crate) fn new(role: Role, limits: &Limits, resets: Option<u32>) -> Self {
        let now = clock::now();
        let window = i64::try_from(limits.window).unwrap_or(FIRST_WINDOW).min(frame::WIDEST);
        let connection_window = i64::try_from(limits.connection_window).unwrap_or(FIRST_WINDOW);
        let connection_window = connection_window.clamp(FIRST_WINDOW, frame::WIDEST);
        let mut mux = Self {
            role,
            out: Out::default(),
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            streams: HashMap::default(),
            gone: 0,
            line: VecDeque::new(),
            calm: Calm::new(now, resets),
            block: None,
            number: if role == Role::Client { 1 } else { 0 },
            reset: VecDeque::new(),
            max_streams: limits.streams as usize,
            window,
            connection_window,
            largest_head: largest_head(limits),
            open_window: connection_window,
            taken: 0,
            peer_streams: UNTOLD,
            peer_window: FIRST_WINDOW,
            peer_frame: frame::LARGEST,
            send_window: FIRST_WINDOW,
            has_settings: false,
            is_acknowledged: false,
            told_last: None,
            is_away: false,
            is_dead: false,
            ends_when_idle: false,
            is_parted: false,
            used: now,
            driver: None,
        };
        mux.introduce(limits);
        mux
    }

    pub(crate) fn shared(self) -> Shared {
        Rc::new(RefCell::new(self))
    }

    fn introduce(&mut self, limits: &Limits) {
        let window = (4, self.window as u32);
        let list = (6, u32::try_from(limits.headers).unwrap_or(u32::MAX));
        let (role, more) = (self.role, (self.connection_window - FIRST_WINDOW) as u32);
        let out = self.out.tail();
        match role {
            Role::Server => frame::settings(out, &[(3, limits.streams), window, list]),
            Role::Client => {
                out.extend_from_slice(frame::PREFACE);
                frame::settings(out, &[(2, 0), window, list]);
            }
        }
        if more > 0 {
            frame::window_update(out, 0, more);
        }
    }

    /// Whoever reads and writes the connection is woken when there is something to write.
    pub(crate) fn drive(&mut self, cx: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    pub(crate) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    /// Streams on which something still goes.
    pub(crate) fn open(&self) -> usize {
        self.streams.len() - self.gone
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// How many streams the other side takes at once.
    pub(crate) fn peer_streams(&self) -> usize {
        self.peer_streams
    }

    /// Whether another stream can be begun on it.
    pub(crate) fn takes_streams(&self) -> bool {
        !self.is_dead && !self.is_away && self.number < frame::LAST_STREAM
    }

    /// Nothing goes in any direction any more.
    pub(crate) fn die(&mut self) {
        self.is_dead = true;
        self.streams.values_mut().for_each(|stream| stream.fail(Error::Short));
        self.line.clear();
        self.wake_driver();
    }

    /// Tells the other side that it takes no streams above `last`.
    pub(crate) fn go_away(&mut self, last: u32, code: Code) {
        self.told_last = Some(last);
        frame::go_away(self.out.tail(), last, code);
    }

    /// Whether the other side was told that the connection ends.
    pub(crate) fn is_told(&self) -> bool {
        self.told_last.is_some()
    }

    /// The last stream of the other side that was begun.
    pub(crate) fn last_begun(&self) -> u32 {
        if self.role == Role::Server { self.number } else { 0 }
    }

    pub(crate) fn ping(&mut self, payload: [u8; 8]) {
        frame::ping(self.out.tail(), 0, payload);
    }

    /// What came together was handed on.
    pub(crate) fn round(&mut self) {
        self.calm.round();
    }

    /// Whether nothing more will be read on the stream, now and later.
    pub(crate) fn is_ended(&self, id: u32) -> bool {
        self.streams.get(&id).is_none_or(|stream| {
            stream.receiving == Receiving::Ended && stream.data.is_empty() && stream.trailers.is_none()
        })
    }

    /// Whether somebody gave the stream up, or the connection is dead; else whoever asks is woken when it happens.
    pub(crate) fn is_given_up(&mut self, id: u32, cx: &Context<'_>) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        stream.is_seen = true;
        stream.note(cx);
        stream.is_gone || self.is_dead
    }

    /// The head of the answer.
    pub(crate) fn poll_answer(&mut self, id: u32, cx: &Context<'_>) -> Poll<Result<Answer, Error>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Err(Error::Superseded)) };
        if let Some(answer) = stream.answer.take() {
            return Poll::Ready(Ok(answer));
        }
        if let Receiving::Failed(error) = stream.receiving {
            return Poll::Ready(Err(error));
        }
        stream.note(cx);
        Poll::Pending
    }

    /// The interim answers that came since this was asked last.
    pub(crate) fn take_interim(&mut self, id: u32) -> Vec<Answer> {
        self.streams.get_mut(&id).map(|stream| std::mem::take(&mut stream.early)).unwrap_or_default()
    }

    /// The next part of a body: what is taken gives its room back to the other side.
    pub(crate) fn poll_data(&mut self, id: u32, cx: &Context<'_>) -> NextFrame<Error> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Some(Err(Error::Superseded))) };
        if let Some(data) = stream.data.pop() {
            self.give_back(id, data.len());
            return Poll::Ready(Some(Ok(Frame::Data(data))));
        }
        match stream.receiving {
            Receiving::Ended => Poll::Ready(stream.trailers.take().map(|trailers| Ok(Frame::Trailers(trailers)))),
            Receiving::Failed(error) => Poll::Ready(Some(Err(error))),
            Receiving::Open => {
                stream.note(cx);
                Poll::Pending
            }
        }
    }

    /// The length of what is still to come, where it is known.
    pub(crate) fn expected(&self, id: u32) -> Option<u64> {
        let stream = self.streams.get(&id)?;
        let unread = stream.unread() as u64;
        match stream.receiving {
            Receiving::Ended => Some(unread),
            _ => stream.expected.map(|left| left + unread),
        }
    }

    /// Room for more that comes, on a stream and on all of them.
    fn give_back(&mut self, id: u32, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.receiving == Receiving::Open
        {
            stream.taken += bytes as u32;
            if i64::from(stream.taken) * 2 >= self.window {
                stream.window += i64::from(stream.taken);
                frame::window_update(self.out.tail(), id, std::mem::take(&mut stream.taken));
                self.wake_driver();
            }
        }
        self.give_back_to_all(bytes);
    }

    fn give_back_to_all(&mut self, bytes: usize) {
        self.taken += bytes as u32;
        if i64::from(self.taken) * 2 >= self.connection_window {
            self.open_window += i64::from(self.taken);
            frame::window_update(self.out.tail(), 0, std::mem::take(&mut self.taken));
            self.wake_driver();
        }
    }

    /// Nobody drives the stream any more: what is not at its end ends here.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.gone -= usize::from(stream.is_gone);
        self.give_back_to_all(stream.unread());
        let is_sent = stream.sending == Sending::Done;
        let code = match (stream.receiving, self.role) {
            _ if stream.is_gone || self.is_dead => None,
            (Receiving::Ended, _) if is_sent => None,
            // The answer is whole, and the rest of the request is not wanted (RFC 9113 §8.1).
            (_, Role::Server) if is_sent => Some(Code::NO_ERROR),
            (_, Role::Server) => Some(Code::INTERNAL_ERROR),
            (_, Role::Client) => Some(Code::CANCEL),
        };
        if let Some(code) = code {
            self.write_reset(id, code);
        }
        if self.streams.is_empty() {
            self.used = clock::now();
            if self.ends_when_idle || self.told_last.is_some() || self.is_away {
                self.wake_driver();
            }
        }
    }

    fn write_reset(&mut self, id: u32, code: Code) {
        frame::reset(self.out.tail(), id, code);
        if self.reset.len() == REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
        self.wake_driver();
    }
}
