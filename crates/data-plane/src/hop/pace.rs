//! The pace of a client's HTTP/2 connection: when a write stopped to move, when it was last used, how many streams were
//! given up; and what its exchanges must know of it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use synego_model::Limits;
use synego_runtime::clock;

use super::connection::Late;

/// Over how long streams that a client gives up are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// How long a connection that is to end may rest before it is closed.
const LAST_REST: Duration = Duration::from_secs(5);

/// What is known of a connection's pace.
pub(crate) struct Pace {
    /// Exchanges that go on.
    active: Cell<u32>,
    used: Cell<Instant>,
    stalled_since: Cell<Option<Instant>>,
    /// Since when it is to end.
    ending_since: Cell<Option<Instant>>,
    /// Streams that the client gave up, and since when they are counted.
    resets: Cell<u32>,
    resets_since: Cell<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            active: Cell::new(0),
            used: Cell::new(now),
            stalled_since: Cell::new(None),
            ending_since: Cell::new(None),
            resets: Cell::new(0),
            resets_since: Cell::new(now),
        })
    }

    /// An exchange begins.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active { pace: self.clone() }
    }

    /// The next limit, and what it says if nothing changes until then.
    pub(crate) fn next(&self, limits: &Limits) -> Option<(Instant, Late)> {
        let write = self.stalled_since.get().map(|since| (since + limits.write_stall, Late::Write));
        let idle = match self.ending_since.get() {
            Some(ending) => self.used.get().max(ending) + LAST_REST,
            None => self.used.get() + limits.client_idle,
        };
        let rests = self.active.get() == 0;
        [write, rests.then_some((idle, Late::Idle))].into_iter().flatten().min_by_key(|(when, _)| *when)
    }

    /// It is to end after what goes on.
    pub(crate) fn ends(&self) {
        self.ending_since.set(Some(clock::now()));
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending_since.get().is_some()
    }

    /// Whether so many streams were given up that the client does nothing else.
    pub(crate) fn is_flooded(&self, limits: &Limits) -> bool {
        self.resets.get() >= limits.resets
    }

    /// A write went through, or did not.
    pub(crate) fn wrote<T>(&self, polled: &Poll<io::Result<T>>) {
        match (polled.is_pending(), self.stalled_since.get()) {
            (true, None) => self.stalled_since.set(Some(clock::now())),
            (false, Some(_)) => self.stalled_since.set(None),
            _ => {}
        }
    }
}

/// One exchange on a connection.
pub(crate) struct Active {
    pace: Rc<Pace>,
}

impl Active {
    /// Its client gave it up.
    pub(crate) fn was_reset(&self) {
        let (pace, now) = (&self.pace, clock::now());
        if now.duration_since(pace.resets_since.get()) > RESET_WINDOW {
            pace.resets_since.set(now);
            pace.resets.set(0);
        }
        pace.resets.set(pace.resets.get() + 1);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.pace.active.set(self.pace.active.get().saturating_sub(1));
        self.pace.used.set(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_between_its_exchanges_and_rests_a_last_time_when_it_ends() {
        let limits = Limits::default();
        let start = clock::now();
        let pace = Pace::new(start);
        let seconds = |pace: &Pace| pace.next(&limits).map(|(when, late)| (when.duration_since(start).as_secs(), late));
        assert_eq!(seconds(&pace), Some((75, Late::Idle)));
        let active = pace.begin();
        assert_eq!(seconds(&pace), None, "an exchange has limits of its own");
        tokio::time::advance(Duration::from_secs(100)).await;
        drop(active);
        assert_eq!(seconds(&pace), Some((175, Late::Idle)));
        pace.ends();
        assert_eq!(seconds(&pace), Some((105, Late::Idle)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_move_has_its_limit() {
        let limits = Limits::default();
        let pace = Pace::new(clock::now());
        let _active = pace.begin();
        pace.wrote::<()>(&Poll::Pending);
        assert_eq!(pace.next(&limits).map(|(_, late)| late), Some(Late::Write));
        pace.wrote(&Poll::Ready(Ok(())));
        assert_eq!(pace.next(&limits), None);
    }
}
