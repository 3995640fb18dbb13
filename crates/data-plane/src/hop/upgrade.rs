//! A WebSocket after its 101: bytes in both directions, until one side is silent for too long or the server ends.

use std::time::Duration;

use bytes::Bytes;
use synego_identity::Stream;
use synego_model::Reason;

use super::copy::{self, Silence};
use super::record::Exchange;
use super::station::Station;
use crate::upstreams::Flight;

/// How long one side may go on after the other has ended: a WebSocket has no use for half a connection.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// An exchange whose two sides both change their protocol.
pub(crate) struct Tunnel {
    pub(crate) upstream: Stream,
    /// What came of the upstream behind its head.
    pub(crate) front: Bytes,
    pub(crate) exchange: Exchange,
    /// Held to the end: it counts for the instance.
    pub(crate) flight: Option<Flight>,
    pub(crate) idle: Duration,
}

impl Tunnel {
    /// Carries bytes to the end of the tunnel.
    ///
    /// - `ahead`: what the client sent behind its request.
    pub(crate) async fn run(self, station: &Station, mut client: Stream, ahead: Bytes) {
        let Self { mut upstream, front, mut exchange, flight: _flight, idle } = self;
        let silence = Silence { both: idle, one: HALF_CLOSED.min(idle) };
        let complete = tokio::select! {
            carried = copy::two_way((&mut client, ahead), (&mut upstream, front), silence) => {
                exchange.tunnelled(carried.there, carried.back);
                carried.complete
            }
            () = station.server.cut.cancelled() => {
                exchange.failed(Reason::Draining);
                false
            }
        };
        exchange.finish(complete);
    }
}
