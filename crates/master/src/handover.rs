//! From one part of the program to the next: the port of the mesh API stays, the ingress takes requests once it knows
//! whom the former one knew, and what is open finishes.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use synego_data_plane::{Server, SnapshotReader};
use synego_model::Snapshot;
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Stop, keeper};

/// What the keeper knows by how many endpoints of each service took requests.
const KNOWN: &str = "known";
/// Time for the sidecars to link with a part that takes over from one that serves meanwhile, and from one that died.
const LINK_WITHIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(1500));

/// Time for whoever has the store and is about to end.
pub(crate) const LETS_GO: Duration = Duration::from_secs(1);
/// Longest life of a part that has a successor, for the streams that are open on it.
const LEAVE: Duration = Duration::from_secs(60 * 60);
/// Time for these streams when the whole program ends.
const LAST: Duration = Duration::from_secs(2);

/// Takes the port of the mesh API, or takes it over from a former part.
pub(crate) fn mesh_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let make = || synego_identity::listen(address).map(|listener| vec![listener]);
    let made = keeper::claim_sockets(&format!("mesh {address}"), make)?;
    // It listens to the end of the program.
    std::mem::forget(made.held);
    made.all.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Returns once as many endpoints take requests as a former part knew, or after a while.
pub(crate) async fn known_again(mut snapshot: SnapshotReader) {
    let Some(left) = keeper::claim(KNOWN) else { return };
    let wanted: BTreeMap<String, usize> = serde_json::from_str(&left.note).unwrap_or_default();
    let all = async {
        loop {
            let now = known(&snapshot.load());
            if wanted.iter().all(|(service, count)| now.get(service).is_some_and(|known| known >= count)) {
                return;
            }
            snapshot.changed().await;
        }
    };
    let within = if keeper::is_successor() { LINK_WITHIN.0 } else { LINK_WITHIN.1 };
    if tokio::time::timeout(within, all).await.is_err() {
        tracing::warn!(wanted = left.note, "not all that took requests have linked again");
    }
}

/// Keeps up what the next part waits for.
pub(crate) fn remember(mut snapshot: SnapshotReader) {
    // Text and numbers: nothing that could not be written.
    let text = |known: &BTreeMap<String, usize>| serde_json::to_string(known).unwrap_or_default();
    let mut last = known(&snapshot.load());
    let Some(held) = keeper::hold(KNOWN, &text(&last), &[]) else { return };
    tasks::spawn("known", Kind::Connection, async move {
        loop {
            snapshot.changed().await;
            let now = known(&snapshot.load());
            if now != last {
                held.note(text(&now));
                last = now;
            }
        }
    });
}

fn known(snapshot: &Snapshot) -> BTreeMap<String, usize> {
    let count = |endpoints: &[synego_model::Endpoint]| {
        endpoints.iter().filter(|endpoint| endpoint.state.takes_requests()).count()
    };
    snapshot.services().map(|table| (table.name.to_string(), count(&table.endpoints))).collect()
}

/// Finishes what is open on ports that a successor serves, once it does.
pub(crate) async fn leave(servers: &[Server], stop: &Stop) {
    keeper::leaving().await;
    let leaves = servers.iter().map(|server| server.leave(LEAVE));
    tokio::select! {
        _ = futures_util::future::join_all(leaves) => {}
        () = stop.stopped() => {
            // The program ends, and with it what was left of this part.
            let _outcomes = futures_util::future::join_all(servers.iter().map(|server| server.drain(LAST))).await;
        }
    }
}
