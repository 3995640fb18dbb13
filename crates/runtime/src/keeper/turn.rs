//! Who has what only one part can have, while a newer part takes over from a former one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::LINK;
use super::message::ToKeeper;

/// Longest time in which a part lets go of what its successor wants.
const YIELDS_WITHIN: Duration = Duration::from_secs(10);

/// How far this part is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Another part serves, and has what only one can have.
    Waiting,
    /// It serves.
    Serving,
    /// Its successor wants all but the connections: processes, links, stores.
    Yielding,
    /// Its successor serves: no more connections, and the end when those that are open have ended.
    Leaving,
}

/// Something that only one part can have: while one exists, a successor waits for its turn.
#[derive(Debug)]
#[must_use]
pub struct Share(());

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(link) = LINK.get() {
            link.shares.send_modify(|shares| *shares = shares.saturating_sub(1));
        }
    }
}

/// Whether a successor has, or is about to have, all but the connections of this part.
#[must_use]
pub fn has_left() -> bool {
    LINK.get().is_some_and(|link| *link.phase.borrow() >= Phase::Yielding)
}

/// Whether what this part has is another's too: that of its successor, or, until it has said that it serves, that of the
/// part from which it takes over. Then nothing may be ended or removed with it, unless the whole program ends.
#[must_use]
pub fn is_anothers() -> bool {
    has_left()
        || LINK.get().is_some_and(|link| {
            link.succeeds && !link.is_ready.load(Ordering::Relaxed) && link.stops.borrow().signal.is_empty()
        })
}

/// Returns once this part may take what only one can have: at once, unless it takes over from another.
pub async fn turn() {
    let Some(link) = LINK.get() else { return };
    if *link.phase.borrow() != Phase::Waiting {
        return;
    }
    link.send(&ToKeeper::WantsTurn, &[]);
    let mut phase = link.phase.subscribe();
    // The sender is there as long as this process.
    let _turn = phase.wait_for(|phase| *phase != Phase::Waiting).await;
}

/// Takes a share; it is dropped, once [`yielding`] has returned, when what it stands for was let go.
pub fn share() -> Share {
    if let Some(link) = LINK.get() {
        link.shares.send_modify(|shares| *shares += 1);
    }
    Share(())
}

/// Returns when a successor wants all but the connections.
pub async fn yielding() {
    reached(Phase::Yielding).await;
}

/// Returns when a successor serves: then connections that are open are all that is left.
pub async fn leaving() {
    reached(Phase::Leaving).await;
}

async fn reached(wanted: Phase) {
    let Some(link) = LINK.get() else { return std::future::pending().await };
    // The sender is there as long as this process.
    let mut phase = link.phase.subscribe();
    let _reached = phase.wait_for(|phase| *phase >= wanted).await;
}

/// Gives the turn to a successor that wants it, once everything is let go; never without a keeper.
pub(crate) async fn give_turn() {
    yielding().await;
    let Some(link) = LINK.get() else { return };
    let mut shares = link.shares.subscribe();
    if tokio::time::timeout(YIELDS_WITHIN, shares.wait_for(|shares| *shares == 0)).await.is_err() {
        tracing::warn!(shares = *link.shares.borrow(), "not everything is let go for the successor");
    }
    link.send(&ToKeeper::Yielded, &[]);
}
