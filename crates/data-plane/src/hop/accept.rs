//! Taking connections: one loop for each listener of a worker.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use synego_identity::{AcceptError, Peer, Stream};
use synego_runtime::tasks;
use tokio::net::{TcpListener, TcpStream};

use super::connection::unless_drained;
use super::introduced;
use super::station::Station;

/// How long to rest when the machine has no more files for connections.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Takes connections until the server is closed, and starts `serve` for each.
pub(crate) async fn run<S, F>(station: Rc<Station>, listener: TcpListener, serve: S)
where
    S: Fn(Rc<Station>, Stream, Peer) -> F + Copy + 'static,
    F: Future<Output = ()> + 'static,
{
    let _listening = station.cells.listener();
    tokio::select! {
        () = station.server.opened.cancelled() => {}
        () = station.server.closed.cancelled() => {}
    }
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = station.server.closed.cancelled() => break,
        };
        match taken {
            Ok((stream, _)) => take(&station, stream, serve),
            Err(error) => {
                tracing::warn!(cause = %error, "cannot take a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // What the kernel has taken for us already would be lost with the socket.
    while let Some(stream) = waiting(&listener).await {
        take(&station, stream, serve);
    }
}

async fn waiting(listener: &TcpListener) -> Option<TcpStream> {
    tokio::select! {
        biased;
        taken = listener.accept() => taken.ok().map(|(stream, _)| stream),
        () = std::future::ready(()) => None,
    }
}

fn take<S, F>(station: &Rc<Station>, mut stream: TcpStream, serve: S)
where
    S: Fn(Rc<Station>, Stream, Peer) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let peer = stream.peer_addr().ok();
    let is_introduced = peer.is_some_and(|peer| station.table.introduces(peer.ip()));
    // Of one that is introduced it is not known yet whose it is.
    let place = match peer {
        Some(_) if is_introduced => Some(Place(None)),
        Some(peer) => station.per_client.take(peer.ip(), station),
        None => None,
    };
    let (Some(place), true) = (place, station.server.connections() < station.max_connections) else {
        station.metrics.connection_refused(station.kind);
        return;
    };
    let mut open = Open { station: station.clone(), _busy: station.cells.connection(), _place: place };
    station.metrics.connections(station.kind, 1);
    tasks::spawn_local("client-connection", tasks::Kind::Connection, async move {
        let mut client = None;
        if is_introduced {
            // Boxed: nearly no connection has use for the room that this takes.
            let Some(known) = Box::pin(introduced(&open.station, &mut stream)).await else { return };
            (client, open._place) = known;
        }
        match open.station.acceptor.accept(stream).await {
            Ok((stream, peer)) => {
                let peer = Peer { address: client.unwrap_or(peer.address), ..peer };
                serve(open.station.clone(), stream, peer).await;
            }
            Err(AcceptError::Refused(_)) => open.station.metrics.connection_refused(open.station.kind),
            Err(AcceptError::Gone(_)) => {}
        }
    });
}

/// Learns from a listed peer whose connection it passes on, and takes a place for that one; `None`: it is refused.
async fn introduced(station: &Rc<Station>, stream: &mut TcpStream) -> Option<(Option<SocketAddr>, Place)> {
    let taken = tokio::time::timeout(station.limits().header_read, introduced::take(stream));
    let refused = match unless_drained(station, taken).await? {
        Ok(Ok(None)) => return Some((None, Place(None))),
        Ok(Ok(Some(client))) => match station.per_client.take(client.ip(), station) {
            Some(place) => return Some((Some(client), place)),
            None => format!("{} has as many connections as it may", client.ip()),
        },
        Ok(Err(fault)) => fault.to_string(),
        Err(_late) => "its PROXY header takes too long".to_owned(),
    };
    station.metrics.connection_refused(station.kind);
    let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    tracing::debug!(peer, cause = refused, "connection refused");
    None
}

/// An open connection, as it is counted.
struct Open {
    station: Rc<Station>,
    _busy: crate::server::Busy,
    _place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.station.metrics.connections(self.station.kind, -1);
    }
}

/// Connections of each client address, over all workers of a server.
#[derive(Clone, Default)]
pub(crate) struct PerClient {
    /// `None`: not limited.
    limit: Option<u32>,
    counts: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// One connection's place among those of its client.
struct Place(Option<(PerClient, IpAddr)>);

impl PerClient {
    pub(crate) fn limited(limit: u32) -> Self {
        Self { limit: Some(limit), counts: Arc::default() }
    }

    fn take(&self, ip: IpAddr, station: &Station) -> Option<Place> {
        let Some(limit) = self.limit.filter(|_| !station.table.trusts(ip)) else { return Some(Place(None)) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), ip))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((per_client, ip)) = &self.0 else { return };
        let mut counts = per_client.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(ip);
            }
        }
    }
}
