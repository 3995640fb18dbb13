//! One connection of a client: which protocol it speaks, and how long it lasts.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rand::Rng;
use synego_identity::{Alpn, Peer, Stream};
use synego_model::Limits;
use synego_runtime::clock;

use super::access::{Gate, Who};
use super::station::Station;
use crate::h2::frame::PREFACE;
use crate::{h1, h2};

/// How long a client may take to send its request once the server is drained: it may be on its way.
pub(crate) const JUST_SENT: Duration = Duration::from_millis(100);
/// Who sends the requests of a connection.
pub(crate) struct Client {
    /// Its address, as `X-Forwarded-For` has it.
    pub(crate) address: Box<str>,
    /// Whether its word about requests (ids, forwarded addresses) is believed.
    pub(crate) trusted: bool,
    /// Who it proved to be.
    pub(crate) who: Who,
    /// The gate that lets it pass whatever it asks for, as was found out by its last request.
    pub(crate) passes: RefCell<Option<Arc<Gate>>>,
    /// The bounds in force when it connected.
    pub(crate) limits: Rc<Limits>,
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
    /// No answer to our ping.
    Pong,
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
    let address = ip.to_string().into();
    let (trusted, who, passes) = (station.table.trusts(ip), Who::of(&peer), RefCell::default());
    let client = Rc::new(Client { address, trusted, who, passes, limits });
    // Boxed: a connection of HTTP/1.1 has no use for the room that one of HTTP/2 takes.
    let ended = if is_http2 {
        Box::pin(h2::server::serve(station.clone(), stream, front, client, age)).await
    } else {
        Box::pin(h1::server::serve(station.clone(), stream, front, client, age)).await
    };
    ended.tell(&station, &peer);
}

/// What was read, and whether it begins as HTTP/2 does; `None`: the client went away first.
async fn read_preface(stream: &mut Stream) -> Option<(BytesMut, bool)> {
    let mut input = h1::input::Input::default();
    while PREFACE.starts_with(&input.buf) && input.buf.len() < PREFACE.len() {
        if poll_fn(|cx| input.poll_fill(stream, 0, cx)).await.ok()? == 0 {
            return None;
        }
    }
    // What both sides agreed on counts, whatever comes then.
    let is_http2 = stream.agreed().map_or_else(|| input.buf.starts_with(PREFACE), |agreed| agreed == Alpn::Http2);
    Some((input.buf, is_http2))
}

/// The outcome, or `None` when the server is drained first: what a client has just sent is still served.
pub(super) async fn unless_drained<T>(station: &Station, work: impl Future<Output = T>) -> Option<T> {
    let drained = async {
        station.server.drained.cancelled().await;
        tokio::time::sleep(JUST_SENT).await;
    };
    tokio::select! {
        outcome = work => Some(outcome),
        () = drained => None,
    }
}

/// How a connection ended.
pub(crate) enum Ended {
    Well,
    Broken(Box<dyn std::error::Error>),
    Late(Late),
    /// What came on HTTP/2 breaks the rules, or is too much.
    Faulty(h2::Code),
    Cut,
}

impl Ended {
    fn tell(&self, station: &Station, peer: &Peer) {
        match self {
            Self::Broken(error) => tracing::debug!(peer = %peer.address, cause = %error, "connection broke off"),
            Self::Faulty(code) => {
                station.metrics.connection_refused(station.kind);
                if *code == h2::Code::ENHANCE_YOUR_CALM {
                    tracing::warn!(peer = %peer.address, "connection closed: its client sends what asks for nothing");
                } else {
                    tracing::debug!(peer = %peer.address, code = code.0, "connection closed: it breaks the rules");
                }
            }
            Self::Late(late) => tracing::debug!(peer = %peer.address, ?late, "connection closed"),
            Self::Well | Self::Cut => {}
        }
    }
}
