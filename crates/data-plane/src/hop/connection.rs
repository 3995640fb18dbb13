//! One connection of a client: which protocol it speaks, and how long it lasts.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::HeaderValue;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::Rng;
use synego_identity::{Peer, Stream};
use synego_model::Limits;
use synego_runtime::{clock, tasks};

use super::intake::Source;
use super::pace::Pace;
use super::station::Station;
use super::timer::Alarm;
use super::watched::Watched;
use crate::h1;
use crate::metrics::HopKind;

/// With what a client that speaks HTTP/2 by prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long an answer to a ping may take.
const PONG: Duration = Duration::from_secs(5);
/// How long a client may take to send its request once the server is drained: it may be on its way.
pub(crate) const JUST_SENT: Duration = Duration::from_millis(100);
/// Pending resets of streams by the client, and resets caused by us, that a connection may have.
const RESETS: (usize, usize) = (20, 100);
/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 256 * 1024;

/// Runs the tasks of HTTP/2 connections on the thread of their worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        tasks::spawn_local("http2-stream", tasks::Kind::Connection, task);
    }
}

/// Who sends the requests of a connection.
pub(crate) struct Client {
    /// Its address, as `X-Forwarded-For` has it.
    pub(crate) address: HeaderValue,
    /// Whether its word about requests (ids, forwarded addresses) is believed.
    pub(crate) trusted: bool,
    /// The bounds in force when it connected.
    pub(crate) limits: Rc<Limits>,
    /// Of a connection of HTTP/2, whose exchanges run side by side.
    pub(crate) pace: Option<Rc<Pace>>,
}

impl Client {
    /// Bytes of a head that are read: one that is too large by little gets our own answer, which names the limit.
    pub(crate) fn largest_head(&self) -> usize {
        largest_head(&self.limits)
    }
}

/// Twice what a head may have.
pub(crate) fn largest_head(limits: &Limits) -> usize {
    usize::try_from(2 * (limits.headers + limits.target)).unwrap_or(usize::MAX)
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

/// Serves one connection to its end.
pub(crate) async fn serve(station: Rc<Station>, mut stream: Stream, peer: Peer) {
    let limits = station.limits();
    let begun = Box::pin(async {
        let preface = tokio::time::timeout(limits.header_read, read_preface(&mut stream));
        unless_drained(&station, preface).await.and_then(Result::ok).flatten()
    });
    let Some((front, is_http2)) = begun.await else { return };
    let now = clock::now();
    let age = now + limits.connection_age.mul_f64(station.rng.borrow_mut().random_range(0.9..1.1));
    let ip = peer.address.ip();
    let pace = is_http2.then(|| Pace::new(now));
    let address = HeaderValue::try_from(ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
    let client = Rc::new(Client { address, trusted: station.table.trusts(ip), limits, pace });
    // Boxed: a connection of HTTP/1.1 has no use for the room that one of HTTP/2 takes.
    let ended = match client.pace.clone() {
        Some(pace) => Box::pin(serve_http2(&station, stream, front, client, &pace, age)).await,
        None => Box::pin(h1::server::serve(station.clone(), stream, front, client, age)).await,
    };
    ended.tell(&station, &peer);
}

async fn serve_http2(
    station: &Rc<Station>,
    stream: Stream,
    front: BytesMut,
    client: Rc<Client>,
    pace: &Rc<Pace>,
    age: Instant,
) -> Ended {
    let limits = client.limits.clone();
    let io = TokioIo::new(Watched::new(stream, front, pace.clone()));
    let answering = station.clone();
    let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let exchange = super::exchange(answering.clone(), client.clone(), request.map(Source::of_http2));
        // Nothing changes its protocol on a stream of HTTP/2.
        async move { Ok::<_, Infallible>(exchange.await.answer) }
    });
    let connection = pin!(http2_builder(&limits).serve_connection(io, answer));
    let watch = Watch { station, limits: &limits, pace, age };
    watch.over(connection, |connection| connection.graceful_shutdown()).await
}

/// What was read, and whether it begins as HTTP/2 does; `None`: the client went away first.
async fn read_preface(stream: &mut Stream) -> Option<(BytesMut, bool)> {
    let mut input = h1::input::Input::default();
    while PREFACE.starts_with(&input.buf) && input.buf.len() < PREFACE.len() {
        if poll_fn(|cx| input.poll_fill(stream, 0, cx)).await.ok()? == 0 {
            return None;
        }
    }
    let is_http2 = input.buf.starts_with(PREFACE);
    Some((input.buf, is_http2))
}

/// The outcome, or `None` when the server is drained first: what a client has just sent is still served.
async fn unless_drained<T>(station: &Station, work: impl Future<Output = T>) -> Option<T> {
    let drained = async {
        station.server.drained.cancelled().await;
        tokio::time::sleep(JUST_SENT).await;
    };
    tokio::select! {
        outcome = work => Some(outcome),
        () = drained => None,
    }
}

fn http2_builder(limits: &Limits) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_stream_window_size(u32::try_from(limits.window).ok())
        .initial_connection_window_size(u32::try_from(limits.connection_window).ok())
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(RESETS.1)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(PONG);
    builder
}

/// How a connection ended.
pub(crate) enum Ended {
    Well,
    Broken(Box<dyn std::error::Error>),
    Late(Late),
    /// Its client gives up one stream after another.
    Flooded,
    Cut,
}

impl Ended {
    fn tell(&self, station: &Station, peer: &Peer) {
        match self {
            Self::Broken(error) => {
                let is_parse = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
                if is_parse {
                    station.metrics.connection_refused(station.kind);
                }
                tracing::debug!(peer = %peer.address, cause = %error, "connection broke off");
            }
            Self::Flooded => {
                station.metrics.connection_refused(station.kind);
                tracing::warn!(peer = %peer.address, "connection closed: its client only begins streams and resets them");
            }
            Self::Late(late) => tracing::debug!(peer = %peer.address, ?late, "connection closed"),
            Self::Well | Self::Cut => {}
        }
    }
}

/// What a connection of HTTP/2 is watched for while it is served.
struct Watch<'a> {
    station: &'a Station,
    limits: &'a Limits,
    pace: &'a Pace,
    age: Instant,
}

impl Watch<'_> {
    async fn over<C>(self, mut connection: Pin<&mut C>, end_gently: impl Fn(Pin<&mut C>)) -> Ended
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let (ending, mut alarm, mut told) = (self.station.ending.watch(), Alarm::default(), false);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended.map_or_else(|error| Ended::Broken(error.into()), |()| Ended::Well));
                }
                if ending.is_cut(cx) {
                    return Poll::Ready(Ended::Cut);
                }
                // A peer passes on what its own clients give up: those who share its connection must not pay for them.
                if self.station.kind != HopKind::Inbound && self.pace.is_flooded(self.limits) {
                    return Poll::Ready(Ended::Flooded);
                }
                if !told && ending.is_drained(cx) {
                    told = true;
                    self.pace.ends();
                    end_gently(connection.as_mut());
                    continue;
                }
                let (when, late) = self.next();
                if alarm.poll(when, cx).is_pending() {
                    return Poll::Pending;
                }
                match late {
                    // Too old, or idle: the client is told, and what it has just begun is still served.
                    None | Some(Late::Idle) if !told => {
                        told = true;
                        self.pace.ends();
                        end_gently(connection.as_mut());
                    }
                    None => {}
                    Some(late) => return Poll::Ready(Ended::Late(late)),
                }
            }
        })
        .await
    }

    /// When to look again; `None`: then the connection is old.
    fn next(&self) -> (Instant, Option<Late>) {
        let late = self.pace.next(self.limits);
        // One that ends anyway cannot become too old.
        let age = if self.pace.is_ending() { self.age + self.limits.connection_age } else { self.age };
        late.filter(|(when, _)| *when < age).map_or((age, None), |(when, late)| (when, Some(late)))
    }
}
