//! A WebSocket after its 101: bytes in both directions, until one side is silent for too long or the server ends.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use synego_identity::Stream;
use synego_model::Reason;
use synego_runtime::clock;
use tokio::io::AsyncWriteExt as _;

use super::copy::{self, Silence};
use super::farewell;
use super::record::Exchange;
use super::station::Station;
use crate::tenure::Tenure;
use crate::upstreams::Flight;

/// How long one side may go on after the other has ended: a WebSocket has no use for half a connection.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// When a server ends, each stream makes the time over which all of them leave so much longer.
const SPREAD_EACH: Duration = Duration::from_millis(10);
const LONGEST_SPREAD: Duration = Duration::from_secs(10);

/// An exchange whose two sides both change their protocol.
pub(crate) struct Tunnel {
    pub(crate) upstream: Stream,
    /// What came of the upstream behind its head.
    pub(crate) front: Bytes,
    pub(crate) exchange: Exchange,
    /// Held to the end: it counts for the instance.
    pub(crate) flight: Option<Flight>,
    pub(crate) idle: Duration,
    /// The generation of the service's process that is at its other end.
    pub(crate) tenure: Tenure,
}

impl Tunnel {
    /// Carries bytes to the end of the tunnel.
    ///
    /// - `ahead`: what the client sent behind its request.
    pub(crate) async fn run(self, station: &Station, mut client: Stream, ahead: Bytes) {
        let Self { mut upstream, front, mut exchange, flight: _flight, idle, tenure } = self;
        let silence = Silence { both: idle, one: HALF_CLOSED.min(idle) };
        let last_words = farewell::closes(&mut *station.rng.borrow_mut());
        let complete = tokio::select! {
            carried = copy::two_way_until(
                (&mut client, ahead),
                (&mut upstream, front),
                silence,
                Some(last_words),
                leaving(station, tenure),
            ) => {
                exchange.tunnelled(carried.there, carried.back);
                carried.complete
            }
            () = station.server.cut.cancelled() => {
                exchange.failed(Reason::Draining);
                false
            }
        };
        exchange.finish(complete);
        // What was said last is to be heard before the connection is gone.
        let _ = tokio::time::timeout(HALF_CLOSED, client.shutdown()).await;
    }
}

/// Returns when it is this one's turn to leave: its server ends, or the process behind it. All that leave do so one after
/// the other, since their clients come back at once.
async fn leaving(station: &Station, tenure: Tenure) {
    let at = tokio::select! {
        () = tenure.clone().leaving() => tenure.window().map(|window| window.draw(&mut *station.rng.borrow_mut())),
        () = station.server.parting.cancelled() => {
            let spread = SPREAD_EACH * station.server.open_streams();
            Some(clock::now() + station.rng.borrow_mut().random_range(Duration::ZERO..=spread.min(LONGEST_SPREAD)))
        }
    };
    if let Some(at) = at {
        tokio::time::sleep_until(at.into()).await;
    }
}
