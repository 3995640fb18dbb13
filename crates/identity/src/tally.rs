//! What one part of the mesh has seen of others: counted by words of closed lists, told in the log without a flood.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use synego_model::Identity;
use synego_runtime::clock;

use crate::refused::{Cause, Refused, Side};

/// Peers that are remembered.
const MOST_PEERS: usize = 256;
/// A cause is told in the log so often, in milliseconds; what comes between is counted.
const QUIET_MS: u64 = 1000;

/// A peer that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSeen {
    /// Who it is.
    pub id: Identity,
    /// Handshakes with it, on both sides.
    pub handshakes: u64,
    /// When the last one was, in milliseconds since 1970.
    pub last_unix_ms: u64,
}

/// One count for each side and cause.
type Counts = [[AtomicU64; Cause::ALL.len()]; 2];

#[derive(Default)]
pub(crate) struct Tally {
    made: [AtomicU64; 2],
    refused: Counts,
    /// When each cause was told last, and how many were not told since.
    told: Mutex<HashMap<(Side, Cause), (u64, u64)>>,
    peers: Mutex<HashMap<Identity, (u64, u64)>>,
}

impl Tally {
    pub(crate) fn met(&self, side: Side, peer: Option<&Identity>) {
        self.made[at(side)].fetch_add(1, Ordering::Relaxed);
        let Some(peer) = peer else { return };
        let now = clock::unix_ms();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((handshakes, last)) = peers.get_mut(peer) {
            (*handshakes, *last) = (*handshakes + 1, now);
            return;
        }
        if peers.len() >= MOST_PEERS
            && let Some(oldest) = peers.iter().min_by_key(|(_, (_, last))| *last).map(|(id, _)| id.clone())
        {
            peers.remove(&oldest);
        }
        peers.insert(peer.clone(), (1, now));
    }

    pub(crate) fn refused(&self, own: &Identity, refused: &Refused) {
        let Refused { cause, side, address, expected, came, detail } = refused;
        if let Some(count) = self.refused[at(*side)].get(*cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let now = clock::unix_ms();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, untold) = told.entry((*side, *cause)).or_default();
        if now.saturating_sub(*last) < QUIET_MS {
            *untold += 1;
            return;
        }
        *last = now;
        let untold = std::mem::take(untold);
        tracing::warn!(%own, side = side.word(), cause = cause.word(), peer = %address, expected, came = came.as_deref().unwrap_or("-"),
            detail, remedy = cause.remedy(), more_like_it = untold, "handshake refused: {}", cause.meaning());
    }

    pub(crate) fn handshakes(&self) -> [(Side, u64); 2] {
        [Side::Accepting, Side::Connecting].map(|side| (side, self.made[at(side)].load(Ordering::Relaxed)))
    }

    pub(crate) fn refusals(&self) -> Vec<(Side, Cause, u64)> {
        let mut all = Vec::new();
        for side in [Side::Accepting, Side::Connecting] {
            for (cause, count) in Cause::ALL.into_iter().zip(&self.refused[at(side)]) {
                all.push((side, cause, count.load(Ordering::Relaxed)));
            }
        }
        all.retain(|(_, _, count)| *count > 0);
        all
    }

    pub(crate) fn peers(&self) -> Vec<PeerSeen> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = |(id, (handshakes, last)): (&Identity, &(u64, u64))| PeerSeen {
            id: id.clone(),
            handshakes: *handshakes,
            last_unix_ms: *last,
        };
        let mut all: Vec<PeerSeen> = peers.iter().map(seen).collect();
        all.sort_by(|a, b| b.last_unix_ms.cmp(&a.last_unix_ms).then_with(|| a.id.cmp(&b.id)));
        all
    }
}

fn at(side: Side) -> usize {
    match side {
        Side::Accepting => 0,
        Side::Connecting => 1,
    }
}

#[cfg(test)]
mod tests {
    use synego_model::{MeshName, ServiceName};

    use super::*;

    #[test]
    fn peers_that_are_remembered_have_a_bound() {
        let tally = Tally::default();
        let mesh = MeshName::new("shop").expect("a name");
        for number in 0..MOST_PEERS + 10 {
            let name = ServiceName::new(&format!("s{number}")).expect("a name");
            tally.met(Side::Accepting, Some(&Identity::service(mesh.clone(), name)));
        }
        assert_eq!(tally.peers().len(), MOST_PEERS);
        assert_eq!(tally.handshakes()[0], (Side::Accepting, (MOST_PEERS + 10) as u64));
    }
}
