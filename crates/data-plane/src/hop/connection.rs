//! One connection of a client: which protocol it speaks, and how long it lasts.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::Rng;
use synego_identity::{Peer, Stream};
use synego_model::Limits;
use synego_runtime::{clock, tasks};
use tokio::io::AsyncReadExt;
use tokio::time::Sleep;

use super::pace::{Late, Pace};
use super::station::Station;
use super::watched::Watched;
use crate::metrics::HopKind;

/// With what a client that speaks HTTP/2 by prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long an answer to a ping may take.
const PONG: Duration = Duration::from_secs(5);
/// How long a client that has just connected may take to send its request once the server is drained.
const JUST_SENT: Duration = Duration::from_millis(100);
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
    pub(crate) ip: IpAddr,
    /// Whether its word about requests (ids, forwarded addresses) is believed.
    pub(crate) trusted: bool,
    /// The bounds in force when it connected.
    pub(crate) limits: Limits,
    pub(crate) pace: Arc<Pace>,
}

/// Serves one connection to its end.
pub(crate) async fn serve(station: Rc<Station>, mut stream: Stream, peer: Peer) {
    let limits = station.limits();
    let preface = tokio::time::timeout(limits.header_read, read_preface(&mut stream));
    let Some((front, is_http2)) = unless_drained(&station, preface).await.and_then(Result::ok).flatten() else {
        return;
    };
    let pace = Pace::new(is_http2, clock::now());
    let client = Rc::new(Client {
        ip: peer.address.ip(),
        trusted: station.table.trusts(peer.address.ip()),
        limits: limits.clone(),
        pace: pace.clone(),
    });
    let largest_head = usize::try_from(limits.headers + limits.target).unwrap_or(usize::MAX);
    let looked_at = (!is_http2).then_some(2 * largest_head);
    let io = TokioIo::new(Watched::new(stream, front, looked_at, pace.clone()));
    let answer = {
        let station = station.clone();
        service_fn(move |request| {
            let (station, client) = (station.clone(), client.clone());
            async move { Ok::<_, Infallible>(super::exchange(station, client, request).await) }
        })
    };
    let age = aged(limits.connection_age, &mut *station.rng.borrow_mut());
    let watch = Watch { station: &station, limits: &limits, pace: &pace, is_http2, age };
    let ended = if is_http2 {
        let connection = pin!(http2_builder(&limits).serve_connection(io, answer));
        watch.over(connection, |connection| connection.graceful_shutdown()).await
    } else {
        let connection = pin!(http1_builder(&limits).serve_connection(io, answer).with_upgrades());
        watch.over(connection, |connection| connection.graceful_shutdown()).await
    };
    ended.tell(&station, &peer);
}

/// What was read, and whether it begins as HTTP/2 does; `None`: the client went away first.
async fn read_preface(stream: &mut Stream) -> Option<(BytesMut, bool)> {
    let mut front = BytesMut::with_capacity(PREFACE.len());
    while PREFACE.starts_with(&front) && front.len() < PREFACE.len() {
        if stream.read_buf(&mut front).await.ok()? == 0 {
            return None;
        }
    }
    let is_http2 = front.starts_with(PREFACE);
    Some((front, is_http2))
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

/// The age at which a connection is ended gently: ± 10 %, so that those that began together do not end together.
fn aged(age: Duration, rng: &mut impl Rng) -> Instant {
    clock::now() + age.mul_f64(rng.random_range(0.9..1.1))
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A head that is too large by little gets our own answer; hyper's own limits lie above and answer without a body.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(2 * limits.header_count as usize)
        .max_header_size(2 * usize::try_from(limits.headers).unwrap_or(usize::MAX / 2))
        .half_close(false);
    builder
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
enum Ended {
    Well,
    Broken(hyper::Error),
    Late(Late),
    /// Its client gives up one stream after another.
    Flooded,
    Cut,
}

impl Ended {
    fn tell(&self, station: &Station, peer: &Peer) {
        match self {
            Self::Broken(error) => {
                if error.is_parse() {
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

/// What a connection is watched for while it is served.
struct Watch<'a> {
    station: &'a Station,
    limits: &'a Limits,
    pace: &'a Pace,
    is_http2: bool,
    age: Instant,
}

impl Watch<'_> {
    async fn over<C>(self, mut connection: Pin<&mut C>, end_gently: impl Fn(Pin<&mut C>)) -> Ended
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut drained = pin!(self.station.server.drained.cancelled());
        let mut cut = pin!(self.station.server.cut.cancelled());
        let mut timer = pin!(tokio::time::sleep_until(self.next().0.into()));
        let mut told = false;
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended.map_or_else(Ended::Broken, |()| Ended::Well));
                }
                if cut.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ended::Cut);
                }
                // A peer passes on what its own clients give up: those who share its connection must not pay for them.
                if self.station.kind != HopKind::Inbound && self.pace.is_flooded(self.limits) {
                    return Poll::Ready(Ended::Flooded);
                }
                if !told && drained.as_mut().poll(cx).is_ready() {
                    told = true;
                    self.pace.ends();
                    end_gently(connection.as_mut());
                    continue;
                }
                let (when, late) = self.next();
                if rest(timer.as_mut(), when, cx).is_pending() {
                    return Poll::Pending;
                }
                match late {
                    // Old: HTTP/1.1 is told with its next answer, so that no request meets a closing connection.
                    None if !self.is_http2 => self.pace.grows_old(),
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

/// Ready at `when`. A timer that is armed for an earlier time is left alone: it fires, and the caller looks again.
fn rest(mut timer: Pin<&mut Sleep>, when: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if timer.deadline().into_std() > when || (timer.is_elapsed() && timer.deadline().into_std() < when) {
            timer.as_mut().reset(when.into());
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if timer.deadline().into_std() >= when {
            return Poll::Ready(());
        }
    }
}
