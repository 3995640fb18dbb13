//! Whether something is still going on.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts what is going on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain {
    count: Arc<watch::Sender<usize>>,
}

/// Held while something goes on; its end is told when it is dropped.
#[derive(Debug)]
pub struct DrainGuard {
    count: Arc<watch::Sender<usize>>,
}

impl Drain {
    /// With nothing going on.
    #[must_use]
    pub fn new() -> Self {
        Self { count: Arc::new(watch::Sender::new(0)) }
    }

    /// Something more goes on until the guard is dropped.
    #[must_use]
    pub fn guard(&self) -> DrainGuard {
        self.count.send_modify(|count| *count += 1);
        DrainGuard { count: self.count.clone() }
    }

    /// How much is going on.
    #[must_use]
    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Returns once nothing goes on; at once when nothing does.
    pub async fn idle(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let mut changes = self.count.subscribe();
        let _nothing = changes.wait_for(|count| *count == 0).await;
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_guard() {
        let drain = Drain::new();
        drain.idle().await;
        let (first, second) = (drain.guard(), drain.guard());
        assert_eq!(drain.count(), 2);
        drop(first);
        assert!(futures_util::FutureExt::now_or_never(drain.idle()).is_none());
        drop(second);
        drain.idle().await;
    }
}
