//! A server: one hop on one address, on all workers. The handle by which its owner watches and ends it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use synego_runtime::clock;
use synego_runtime::keeper::Holding;
use tokio_util::sync::CancellationToken;

/// How often a draining server looks whether it is idle.
const LOOK: Duration = Duration::from_millis(10);
/// How long the connections of a server that was cut may take to notice.
const CUT: Duration = Duration::from_secs(1);

/// A running server. Cheap to clone; dropping it does not end the server.
#[derive(Clone)]
pub struct Server(pub(crate) Arc<State>);

/// What was still going on when a drain reached its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainOutcome {
    /// Requests that were cut off.
    pub cut_requests: u32,
    /// Streams (WebSockets, event streams, tunnels) that were cut off.
    pub cut_streams: u32,
}

/// What the workers of a server share with its handle.
pub(crate) struct State {
    pub(crate) address: SocketAddr,
    /// Connections are taken.
    pub(crate) opened: CancellationToken,
    /// No further connections.
    pub(crate) closed: CancellationToken,
    /// No further requests on open connections.
    pub(crate) drained: CancellationToken,
    /// Streams are to end too.
    pub(crate) parting: CancellationToken,
    /// Nothing any more.
    pub(crate) cut: CancellationToken,
    draining: AtomicBool,
    pub(crate) cells: Vec<Arc<Cells>>,
    /// What the keeper holds of it.
    held: Mutex<Option<Holding>>,
}

/// What one worker counts of one server.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Cells {
    listeners: AtomicU32,
    connections: AtomicU32,
    requests: AtomicU32,
    streams: AtomicU32,
}

/// One thing that is going on; its end is its drop.
pub(crate) struct Busy {
    cells: Arc<Cells>,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Listener,
    Connection,
    Request,
    Stream,
    Nothing,
}

impl Server {
    pub(crate) fn new(address: SocketAddr, workers: usize, held: Option<Holding>) -> Self {
        let drained = CancellationToken::new();
        Self(Arc::new(State {
            address,
            closed: drained.child_token(),
            cut: CancellationToken::new(),
            drained,
            opened: CancellationToken::new(),
            parting: CancellationToken::new(),
            held: Mutex::new(held),
            draining: AtomicBool::new(false),
            cells: (0..workers).map(|_| Arc::default()).collect(),
        }))
    }

    /// Takes connections from now on. A server does so at once, unless a former part of the program left its sockets:
    /// then clients wait in their queues until it can serve them.
    pub fn open(&self) {
        self.0.opened.cancel();
    }

    /// Whether it takes no connections yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.0.opened.is_cancelled()
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.address
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.sum(|cells| &cells.requests)
    }

    /// Streams (WebSockets, event streams, tunnels) that are open.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.0.sum(|cells| &cells.streams)
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.0.sum(|cells| &cells.connections)
    }

    /// New requests are refused as `draining` (a caller's sidecar tries another instance), or taken again.
    pub fn set_draining(&self, draining: bool) {
        self.0.draining.store(draining, Relaxed);
    }

    /// Takes no further connections; open ones go on.
    pub fn stop_accepting(&self) {
        self.0.release();
        self.0.closed.cancel();
    }

    /// Ends the server on a port that another process serves from now on: no further connections, each connection after
    /// the request that it has, and streams live on until they end by themselves, at most `within`.
    pub async fn leave(&self, within: Duration) -> DrainOutcome {
        self.0.drained.cancel();
        self.until_idle(within).await;
        self.drain(Duration::ZERO).await
    }

    /// Ends the server: no further connections, then each connection after the request that it has, then, after
    /// `within`, everything that is still going on.
    pub async fn drain(&self, within: Duration) -> DrainOutcome {
        self.0.release();
        self.0.drained.cancel();
        self.0.parting.cancel();
        self.until_idle(within).await;
        let outcome = DrainOutcome { cut_requests: self.in_flight(), cut_streams: self.open_streams() };
        self.0.cut.cancel();
        self.until_idle(CUT).await;
        outcome
    }

    async fn until_idle(&self, within: Duration) {
        let end = clock::now() + within;
        while self.0.is_busy() && clock::now() < end {
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl State {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// The keeper holds it no longer: nobody shall wait at a port that is not served.
    fn release(&self) {
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn connections(&self) -> u32 {
        self.sum(|cells| &cells.connections)
    }

    pub(crate) fn open_streams(&self) -> u32 {
        self.sum(|cells| &cells.streams)
    }

    fn is_busy(&self) -> bool {
        let counts = |cells: &Cells| {
            [&cells.listeners, &cells.connections, &cells.requests, &cells.streams].map(|count| count.load(Relaxed))
        };
        self.cells.iter().any(|cells| counts(cells) != [0; 4])
    }

    fn sum(&self, count: impl Fn(&Cells) -> &AtomicU32) -> u32 {
        self.cells.iter().map(|cells| count(cells).load(Relaxed)).sum()
    }
}

impl Cells {
    pub(crate) fn listener(self: &Arc<Self>) -> Busy {
        Busy::with(self, What::Listener)
    }

    pub(crate) fn connection(self: &Arc<Self>) -> Busy {
        Busy::with(self, What::Connection)
    }

    pub(crate) fn request(self: &Arc<Self>) -> Busy {
        Busy::with(self, What::Request)
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.requests.load(Relaxed)
    }

    pub(crate) fn open_streams(&self) -> u32 {
        self.streams.load(Relaxed)
    }

    fn count(&self, what: What) -> Option<&AtomicU32> {
        match what {
            What::Listener => Some(&self.listeners),
            What::Connection => Some(&self.connections),
            What::Request => Some(&self.requests),
            What::Stream => Some(&self.streams),
            What::Nothing => None,
        }
    }
}

impl Busy {
    fn with(cells: &Arc<Cells>, what: What) -> Self {
        if let Some(count) = cells.count(what) {
            count.fetch_add(1, Relaxed);
        }
        Self { cells: cells.clone(), what }
    }

    /// From now on it counts as a stream.
    pub(crate) fn becomes_stream(&mut self) {
        if self.what == What::Request {
            *self = Self::with(&self.cells, What::Stream);
        }
    }

    pub(crate) fn end(&mut self) {
        if let Some(count) = self.cells.count(self.what) {
            count.fetch_sub(1, Relaxed);
        }
        self.what = What::Nothing;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end();
    }
}
