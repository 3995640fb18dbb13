//! One generation of the service's process, as its requests see it: how many of them are open there, and the word that it
//! is time to leave.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rand::Rng;
use synego_runtime::clock;
use tokio_util::sync::CancellationToken;

use crate::server::{Busy, Cells};

/// How often it is looked whether all have left.
const LOOK: Duration = Duration::from_millis(10);
/// Streams that leave together come back together: each makes the time over which all of them leave so much longer.
const SPREAD_EACH: Duration = Duration::from_millis(10);
/// What of the time for leaving is kept for those that do not leave by themselves.
const LAST: Duration = Duration::from_secs(1);

/// Requests and streams that are open on one generation of a service's process. Cheap to clone; the default one counts
/// nothing.
#[derive(Clone, Default)]
pub struct Tenure(Option<Arc<Inner>>);

struct Inner {
    cells: Vec<Arc<Cells>>,
    leaving: CancellationToken,
    window: OnceLock<Window>,
}

impl std::fmt::Debug for Tenure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (in_flight, streams) = (self.in_flight(), self.open_streams());
        f.debug_struct("Tenure").field("in_flight", &in_flight).field("streams", &streams).finish_non_exhaustive()
    }
}

/// When streams leave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    began: Instant,
    spread: Duration,
    /// When those are told to end that may have ended by themselves.
    pub(crate) ends: Instant,
}

impl Tenure {
    /// One on which nothing is open; `workers`: how many will count.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self(Some(Arc::new(Inner {
            cells: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            leaving: CancellationToken::new(),
            window: OnceLock::new(),
        })))
    }

    /// Requests that are being answered.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.cells().map(|cells| cells.in_flight()).sum()
    }

    /// Streams (WebSockets, event streams, calls of bytes) that are open.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.cells().map(|cells| cells.open_streams()).sum()
    }

    /// Its streams end within that time: WebSockets with a close of 1001 and event streams after an event, spread so that
    /// their clients do not all come back at once; calls of gRPC that go on to the last as `draining`. Saying it again
    /// changes nothing.
    pub fn leave(&self, within: Duration) {
        let Some(inner) = &self.0 else { return };
        let began = clock::now();
        let spread = (SPREAD_EACH * self.open_streams()).min(within / 2);
        let ends = began + within.saturating_sub(LAST.min(within / 4));
        inner.window.get_or_init(|| Window { began, spread, ends });
        inner.leaving.cancel();
    }

    /// Returns once nothing is open, or after `within`; true in the first case.
    pub async fn idle(&self, within: Duration) -> bool {
        let end = clock::now() + within;
        loop {
            if self.in_flight() + self.open_streams() == 0 {
                return true;
            }
            if clock::now() >= end {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn cells(&self) -> impl Iterator<Item = &Arc<Cells>> {
        self.0.iter().flat_map(|inner| &inner.cells)
    }

    /// A request is open on it, as this worker counts.
    pub(crate) fn hold(&self, worker: usize) -> Option<Busy> {
        self.0.as_ref()?.cells.get(worker).map(Cells::request)
    }

    /// Whether both are the same one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// When its streams leave; `None`: they do not.
    pub(crate) fn window(&self) -> Option<Window> {
        self.0.as_ref()?.window.get().copied()
    }

    /// Returns once its streams are to leave.
    pub(crate) async fn leaving(self) {
        match self.0 {
            Some(inner) => inner.leaving.clone().cancelled_owned().await,
            None => std::future::pending().await,
        }
    }
}

impl Window {
    /// When one of them leaves.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> Instant {
        self.began + rng.random_range(Duration::ZERO..=self.spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_open_is_counted_until_it_ends() {
        let tenure = Tenure::new(2);
        let (one, two) = (tenure.hold(0), tenure.hold(1));
        let mut two = two.expect("a worker that counts");
        two.becomes_stream();
        assert_eq!((tenure.in_flight(), tenure.open_streams()), (1, 1));
        assert!(!tenure.idle(Duration::from_millis(20)).await);
        drop(one);
        two.end();
        assert!(tenure.idle(Duration::ZERO).await);
        assert!(tenure.hold(7).is_none() && Tenure::default().hold(0).is_none());
    }

    #[tokio::test]
    async fn streams_leave_over_a_time_that_grows_with_their_number_but_not_beyond_half_of_it() {
        let tenure = Tenure::new(1);
        let open: Vec<_> = (0..20)
            .filter_map(|_| tenure.hold(0))
            .map(|mut busy| {
                busy.becomes_stream();
                busy
            })
            .collect();
        assert!(tenure.window().is_none());
        tenure.leave(Duration::from_secs(10));
        tenure.clone().leaving().await;
        let window = tenure.window().expect("they leave");
        assert_eq!((open.len(), window.spread), (20, Duration::from_millis(200)));
        assert_eq!(window.ends - window.began, Duration::from_secs(9));
        let draw = window.draw(&mut rand::rng());
        assert!(draw >= window.began && draw <= window.began + window.spread);
        tenure.leave(Duration::ZERO);
        assert_eq!(tenure.window().map(|window| window.spread), Some(Duration::from_millis(200)));
    }
}
