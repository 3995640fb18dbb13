//! A WebSocket after its 101: bytes in both directions, until one side is silent for too long or the server ends.

use std::rc::Rc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use synego_model::Reason;
use synego_runtime::tasks;

use super::copy;
use super::record::Exchange;
use super::station::Station;
use crate::upstreams::Flight;

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
    let station = station.clone();
    tasks::spawn_local("tunnel", tasks::Kind::Connection, async move {
        let _flight = flight;
        let work = async {
            let Ok((client, upstream)) = tokio::try_join!(client, upstream) else { return false };
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            let carried = copy::two_way(&mut client, &mut upstream, idle).await;
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
