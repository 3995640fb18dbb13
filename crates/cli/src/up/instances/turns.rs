//! Whose turn it is to be reloaded, of the instances of one service on this machine.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use synego_model::ReloadSpec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Takes turns as `reload: { max_surge, max_unavailable }` says.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    spec: ReloadSpec,
    room: Arc<Semaphore>,
    /// The last round in which one failed.
    failed: Option<(u64, String)>,
    /// The last round in which it was built.
    built: Option<u64>,
}

/// One's turn; over when it is dropped.
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    /// Whether it is to build first.
    pub(super) builds: bool,
    /// Whether the process ends before its successor starts.
    pub(super) in_place: bool,
}

impl Turns {
    pub(super) fn new(spec: ReloadSpec) -> Self {
        let room = Arc::new(Semaphore::new(at_once(spec)));
        Self(Arc::new(Mutex::new(State { spec, room, failed: None, built: None })))
    }

    /// From now on it goes by this.
    pub(super) fn set(&self, spec: ReloadSpec) {
        let mut state = self.lock();
        if state.spec != spec {
            (state.spec, state.room) = (spec, Arc::new(Semaphore::new(at_once(spec))));
        }
    }

    /// Waits for a turn in a round of reloads.
    ///
    /// # Errors
    /// The instance that failed in this round: the others are not tried.
    pub(super) async fn take(&self, round: u64) -> Result<Turn, String> {
        let room = self.lock().room.clone();
        // It is never closed.
        let permit = room.acquire_owned().await.ok();
        let mut state = self.lock();
        if let Some((_, failed)) = state.failed.as_ref().filter(|(failed, _)| *failed == round) {
            return Err(failed.clone());
        }
        // Those that go at the same time share one build, whoever asks for it.
        let builds = state.built != Some(round) || at_once(state.spec) > 1;
        state.built = Some(round);
        Ok(Turn { _permit: permit, builds, in_place: state.spec.max_surge == 0 })
    }

    /// An instance failed in this round.
    pub(super) fn failed(&self, round: u64, instance: &str) {
        self.lock().failed = Some((round, instance.to_owned()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many go at once: beside their predecessors as far as there is room, else in their place.
fn at_once(spec: ReloadSpec) -> usize {
    let count = if spec.max_surge > 0 { spec.max_surge } else { spec.max_unavailable };
    usize::try_from(count).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_goes_after_the_other_and_only_the_first_builds() {
        let turns = Turns::new(ReloadSpec::default());
        let first = turns.take(1).await.expect("a turn");
        assert!(first.builds && !first.in_place);
        let next = turns.clone();
        let waiting = async move { next.take(1).await };
        let mut waiting = std::pin::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("two at once"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        assert!(!waiting.await.expect("a turn").builds);
    }

    #[tokio::test]
    async fn after_a_failure_the_rest_of_its_round_is_not_tried() {
        let turns = Turns::new(ReloadSpec { max_surge: 0, max_unavailable: 2 });
        let (one, two) = (turns.take(7).await.expect("a turn"), turns.take(7).await.expect("a turn"));
        assert!(one.in_place && two.in_place);
        turns.failed(7, "users-1");
        drop((one, two));
        assert_eq!(turns.take(7).await.err().as_deref(), Some("users-1"));
        assert!(turns.take(8).await.is_ok());
    }
}
