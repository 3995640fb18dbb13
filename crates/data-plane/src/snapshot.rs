//! The snapshot in force: published by the control plane, read by every worker with one atomic load.

use std::sync::Arc;

use arc_swap::ArcSwap;
use synego_model::Snapshot;
use tokio::sync::watch;

use crate::hop::access::Rules;
use crate::router::Router;

/// A snapshot and what was prepared of it, once for all workers.
pub(crate) struct Published {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) router: Arc<Router>,
    pub(crate) rules: Rules,
}

/// Puts snapshots in force.
pub struct SnapshotWriter {
    current: Arc<ArcSwap<Published>>,
    turns: watch::Sender<u64>,
}

/// Reads the snapshot in force.
#[derive(Clone)]
pub struct SnapshotReader {
    current: Arc<ArcSwap<Published>>,
    turns: watch::Receiver<u64>,
}

/// A place for one snapshot at a time, `first` at the beginning.
#[must_use]
pub fn snapshot_channel(first: Snapshot) -> (SnapshotWriter, SnapshotReader) {
    let router = Arc::new(Router::new(first.routes()));
    let rules = Rules::of(first.services(), &Rules::default());
    let current = Arc::new(ArcSwap::from_pointee(Published { snapshot: Arc::new(first), router, rules }));
    let (turns, seen) = watch::channel(0);
    (SnapshotWriter { current: current.clone(), turns }, SnapshotReader { current, turns: seen })
}

impl SnapshotWriter {
    /// Puts a snapshot in force. Its routes are prepared here, on the caller's thread, unless they are the former ones.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        let former = self.current.load_full();
        let router = if snapshot.has_routes_of(&former.snapshot) {
            former.router.clone()
        } else {
            Arc::new(Router::new(snapshot.routes()))
        };
        let rules = Rules::of(snapshot.services(), &former.rules);
        self.current.store(Arc::new(Published { snapshot, router, rules }));
        self.turns.send_modify(|turn| *turn += 1);
    }
}

impl SnapshotReader {
    /// The snapshot in force.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load().snapshot.clone()
    }

    /// Waits for another snapshot than the one that was in force at the last call; at once when there was one since.
    /// Never returns when nobody can publish any more.
    pub async fn changed(&mut self) {
        if self.turns.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn published(&self) -> arc_swap::Guard<Arc<Published>> {
        self.current.load()
    }
}
