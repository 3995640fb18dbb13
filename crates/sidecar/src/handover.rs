//! From one part of the program to the next: connections that waited are taken, and those that are open finish.

use std::time::Duration;

use synego_control_plane::uplink::UplinkStatus;
use synego_data_plane::Server;
use synego_runtime::Stop;
use tokio::sync::watch;

use crate::instance::View;
use crate::sidecar::Ended;

/// Longest time in which connections that a former part left wait for this one.
const OPEN_WITHIN: Duration = Duration::from_secs(1);
/// Longest life of a part that has a successor, for the streams that are open on it.
const LEAVE: Duration = Duration::from_secs(60 * 60);
/// Time for these streams when the whole program ends.
const LAST: Duration = Duration::from_secs(2);

/// Takes the connections that wait since a former part died or is about to leave: what the process says to others once a
/// picture of the mesh is there, what others say to it once it takes requests. Who waits for that too long is answered
/// with the cause instead.
pub(crate) async fn open(
    inbound: Server,
    outbounds: Vec<Server>,
    mut view: watch::Receiver<View>,
    mut links: watch::Receiver<UplinkStatus>,
) {
    let outbound = async {
        let _late = tokio::time::timeout(OPEN_WITHIN, links.wait_for(|links| links.taken_up)).await.is_err();
        outbounds.iter().for_each(Server::open);
    };
    let inbound = async {
        let ready = view.wait_for(|view| view.state.takes_requests());
        let _late = tokio::time::timeout(OPEN_WITHIN, ready).await.is_err();
        inbound.open();
    };
    tokio::join!(outbound, inbound);
}

/// Finishes what is open on ports that a successor serves.
pub(crate) async fn leave(inbound: &Server, outbounds: &[Server], stop: &Stop) -> Ended {
    let outbound = futures_util::future::join_all(outbounds.iter().map(|outbound| outbound.leave(LEAVE)));
    tokio::select! {
        (outcome, _) = async { tokio::join!(inbound.leave(LEAVE), outbound) } => {
            tracing::info!(cut_requests = outcome.cut_requests, cut_streams = outcome.cut_streams, "left to the successor");
            Ended { cut_requests: outcome.cut_requests, cut_streams: outcome.cut_streams, ..Ended::default() }
        }
        () = stop.stopped() => {
            // The program ends, and with it what was left of this part.
            let outcome = inbound.drain(LAST).await;
            Ended { cut_requests: outcome.cut_requests, cut_streams: outcome.cut_streams, ..Ended::default() }
        }
    }
}
