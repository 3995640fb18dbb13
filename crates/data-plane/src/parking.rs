//! Requests that wait while the only process of their service is started again: bounded in number and time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::watch;

/// Where the requests of one inbound wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Parking(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: AtomicU32,
    turned: watch::Sender<()>,
}

/// One request's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    parking: Parking,
    turned: watch::Receiver<()>,
}

impl Default for Parking {
    fn default() -> Self {
        Self(Arc::new(Inner { waiting: AtomicU32::new(0), turned: watch::Sender::new(()) }))
    }
}

impl Parking {
    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.0.waiting.load(Relaxed)
    }

    /// The target of the inbound is another one now: whoever waits looks again.
    pub fn turn(&self) {
        self.0.turned.send_replace(());
    }

    /// A place among at most `most`.
    pub(crate) fn enter(&self, most: u32) -> Option<Place> {
        let taken = self.0.waiting.fetch_add(1, Relaxed);
        // From here on it is given back, whatever follows.
        let place = Place { parking: self.clone(), turned: self.0.turned.subscribe() };
        (taken < most).then_some(place)
    }
}

impl Place {
    /// Returns when it is worth looking again.
    pub(crate) async fn turned(&mut self) {
        if self.turned.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.parking.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_bounded_given_back_and_woken() {
        let parking = Parking::default();
        let mut one = parking.enter(1).expect("a place");
        assert!(parking.enter(1).is_none());
        assert_eq!(parking.waiting(), 1);
        parking.turn();
        one.turned().await;
        drop(one);
        assert_eq!(parking.waiting(), 0);
        assert!(parking.enter(1).is_some());
    }
}
