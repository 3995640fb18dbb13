//! The word that it is time to end, in two steps: drain, then cut.

use tokio_util::sync::CancellationToken;

/// Listens for the end. Cheap to clone; everything that runs holds one.
#[derive(Debug, Clone)]
pub struct Stop {
    drain: CancellationToken,
    cut: CancellationToken,
}

/// Says that it is time to end. Dropping it says nothing.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Stop,
}

impl Stopper {
    /// A pair that hears of no other.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let stop = Stop { drain: CancellationToken::new(), cut: CancellationToken::new() };
        (Self { stop: stop.clone() }, stop)
    }

    /// Begin to drain: take nothing new, finish what goes on. Saying it again changes nothing.
    pub fn stop(&self) {
        self.stop.drain.cancel();
    }

    /// End now: what still goes on is cut off. Stops too, if that was not said yet.
    pub fn cut(&self) {
        self.stop.drain.cancel();
        self.stop.cut.cancel();
    }

    /// What listens to this.
    #[must_use]
    pub fn listener(&self) -> Stop {
        self.stop.clone()
    }
}

impl Stop {
    /// Returns once draining has begun; at once when it has already.
    pub async fn stopped(&self) {
        self.drain.cancelled().await;
    }

    /// Returns once everything must end now.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Whether everything must end now.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// A pair that hears of this one, and can be ended alone.
    #[must_use]
    pub fn child(&self) -> (Stopper, Self) {
        let stop = Self { drain: self.drain.child_token(), cut: self.cut.child_token() };
        (Stopper { stop: stop.clone() }, stop)
    }

    /// A pair that is cut when this one is cut, but drains only when told itself: for what must outlive the drain of
    /// the rest, such as the outbound of a service that is still draining, or the admin server.
    #[must_use]
    pub fn outliving(&self) -> (Stopper, Self) {
        let cut = self.cut.child_token();
        // A child of `cut`: the drain is over by then.
        let stop = Self { drain: cut.child_token(), cut };
        (Stopper { stop: stop.clone() }, stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_hears_its_parent_and_not_the_other_way_round() {
        let (parent, stop) = Stopper::new();
        let (child, child_stop) = stop.child();
        child.stop();
        assert!(child_stop.is_stopped() && !stop.is_stopped());
        let (_second, second_stop) = stop.child();
        parent.stop();
        second_stop.stopped().await;
        assert!(!second_stop.is_cut());
        parent.cut();
        second_stop.cut().await;
    }

    #[tokio::test]
    async fn what_outlives_the_drain_ends_with_the_cut() {
        let (parent, stop) = Stopper::new();
        let (_own, last) = stop.outliving();
        parent.stop();
        assert!(!last.is_stopped());
        parent.cut();
        assert!(last.is_stopped() && last.is_cut());
    }

    #[test]
    fn a_cut_stops_too() {
        let (stopper, stop) = Stopper::new();
        stopper.cut();
        assert!(stop.is_stopped() && stop.is_cut());
    }
}
