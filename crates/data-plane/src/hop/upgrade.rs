//! A WebSocket after its 101: bytes in both directions, until one side is silent for too long or the server ends.

use std::rc::Rc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use synego_model::Reason;
use synego_runtime::tasks;

use super::copy::{self, Silence};
use super::record::Exchange;
use super::station::Station;
use crate::upstreams::Flight;

/// How long one side may go on after the other has ended: a WebSocket has no use for half a connection.
const HALF_CLOSED: Duration = Duration::from_secs(5);

/// Starts the tunnel of an exchange whose two sides both change their protocol.
pub(crate) fn tunnel(
    station: &Rc<Station>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    mut exchange: Exchange,
    flight: Option<Flight>,
    idle: Duration,
) {
    exchange.is_stream();
    let silence = Silence { both: idle, one: HALF_CLOSED.min(idle) };
    let station = station.clone();
    tasks::spawn_local("tunnel", tasks::Kind::Connection, async move {
        let _flight = flight;
        // The connection is hyper's no longer, but it is still one.
        let _connection = station.cells.connection();
        let work = async {
            let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return false };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let carried = copy::two_way(&mut client, &mut upstream, silence).await;
            exchange.tunnelled(carried.there, carried.back);
            carried.complete
        };
        let complete = tokio::select! {
            complete = work => complete,
            () = station.server.cut.cancelled() => {
                exchange.failed(Reason::Draining);
                false
            }
        };
        exchange.finish(complete);
    });
}
