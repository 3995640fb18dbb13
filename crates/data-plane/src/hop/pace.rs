//! The pace of a client's connection: when a head began, when a write stopped to move, when it was last used; and what
//! its exchanges must know of it.
//!
//! Atomics because hyper wants connections that can be upgraded to be `Send`; only one thread ever writes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, Instant};

use synego_model::Limits;
use synego_runtime::clock;

use super::strict::Fault;

/// Over how long streams that a client gives up are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);
/// How long a connection that is to end may rest before it is closed.
const LAST_REST: Duration = Duration::from_secs(5);

/// What is known of a connection's pace. Times are microseconds since its beginning, 0: not now.
pub(crate) struct Pace {
    began: Instant,
    is_http2: bool,
    /// Exchanges that go on.
    active: AtomicU32,
    head_since: AtomicU64,
    used: AtomicU64,
    stalled_since: AtomicU64,
    /// Since when it is to end.
    ending_since: AtomicU64,
    /// Whether its next answer shall be its last.
    is_old: AtomicBool,
    /// Exchanges that began.
    begun: AtomicU32,
    /// What is wrong with the last head, as a number, 0: nothing; and the how many-th it is.
    fault: AtomicU8,
    fault_at: AtomicU32,
    /// Whether its bytes are no longer messages.
    is_tunnel: AtomicBool,
    /// Streams that the client gave up, and since when they are counted.
    resets: AtomicU32,
    resets_since: AtomicU64,
}

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The head of a request takes too long.
    Head,
    /// The client reads nothing of its answer.
    Write,
    /// No request for too long.
    Idle,
}

impl Pace {
    pub(crate) fn new(is_http2: bool, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            began: now,
            is_http2,
            active: AtomicU32::new(0),
            // The first head is due from the beginning on; frames of HTTP/2 come at any time.
            head_since: AtomicU64::new(u64::from(!is_http2)),
            used: AtomicU64::new(1),
            stalled_since: AtomicU64::new(0),
            ending_since: AtomicU64::new(0),
            is_old: AtomicBool::new(false),
            begun: AtomicU32::new(0),
            fault: AtomicU8::new(0),
            fault_at: AtomicU32::new(0),
            is_tunnel: AtomicBool::new(false),
            resets: AtomicU32::new(0),
            resets_since: AtomicU64::new(0),
        })
    }

    fn stamp(&self) -> u64 {
        (clock::now().duration_since(self.began).as_micros() as u64).max(1)
    }

    /// An exchange begins: its head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        self.head_since.store(0, Relaxed);
        Active { pace: self.clone(), number: self.begun.fetch_add(1, Relaxed) + 1 }
    }

    /// The next limit, and what it says if nothing changes until then.
    pub(crate) fn next(&self, limits: &Limits) -> Option<(Instant, Late)> {
        let at = |stamp: u64, limit: Duration| self.began + Duration::from_micros(stamp) + limit;
        let set = |stamp: &AtomicU64| Some(stamp.load(Relaxed)).filter(|stamp| *stamp > 0);
        let rests = self.active.load(Relaxed) == 0;
        let head = set(&self.head_since).filter(|_| rests).map(|since| (at(since, limits.header_read), Late::Head));
        let write = set(&self.stalled_since).map(|since| (at(since, limits.write_stall), Late::Write));
        let used = self.used.load(Relaxed);
        let idle = match set(&self.ending_since) {
            Some(ending) => at(used.max(ending), LAST_REST),
            None => at(used, limits.client_idle),
        };
        [head, write, rests.then_some((idle, Late::Idle))].into_iter().flatten().min_by_key(|(when, _)| *when)
    }

    /// It is to end after what goes on.
    pub(crate) fn ends(&self) {
        self.ending_since.store(self.stamp(), Relaxed);
    }

    /// It is to end with its next answer, whenever that is.
    pub(crate) fn grows_old(&self) {
        self.is_old.store(true, Relaxed);
    }

    /// Whether the next answer is its last.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_old.load(Relaxed) || self.ending_since.load(Relaxed) != 0
    }

    /// The head of this number cannot be read.
    pub(crate) fn refuse(&self, fault: Fault, number: u32) {
        self.fault.store(fault as u8, Relaxed);
        self.fault_at.store(number, Relaxed);
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.fault.load(Relaxed) != 0
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Relaxed)
    }

    /// Whether so many streams were given up that the client does nothing else.
    pub(crate) fn is_flooded(&self, limits: &Limits) -> bool {
        self.resets.load(Relaxed) >= limits.resets
    }

    /// Bytes came.
    pub(crate) fn read(&self) {
        if !self.is_http2 && self.active.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.stamp(), Relaxed);
        }
    }

    /// A write went through, or did not.
    pub(crate) fn wrote<T>(&self, polled: &Poll<io::Result<T>>) {
        if polled.is_pending() {
            if self.stalled_since.load(Relaxed) == 0 {
                self.stalled_since.store(self.stamp(), Relaxed);
            }
        } else if self.stalled_since.load(Relaxed) != 0 {
            self.stalled_since.store(0, Relaxed);
        }
    }
}

/// One exchange on a connection.
pub(crate) struct Active {
    pace: Arc<Pace>,
    /// The how many-th it is.
    number: u32,
}

impl Active {
    /// What is wrong with its head.
    pub(crate) fn fault(&self) -> Option<Fault> {
        let is_this = self.pace.fault_at.load(Relaxed) == self.number;
        Fault::of(self.pace.fault.load(Relaxed)).filter(|_| is_this)
    }

    /// Its client gave it up.
    pub(crate) fn was_reset(&self) {
        let (pace, now) = (&self.pace, self.pace.stamp());
        if now.saturating_sub(pace.resets_since.load(Relaxed)) > RESET_WINDOW.as_micros() as u64 {
            pace.resets_since.store(now, Relaxed);
            pace.resets.store(0, Relaxed);
        }
        pace.resets.fetch_add(1, Relaxed);
    }

    /// What follows on the connection is no longer HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.pace.is_tunnel.store(true, Relaxed);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.pace.active.fetch_sub(1, Relaxed);
        self.pace.used.store(self.pace.stamp(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_head_is_due_sooner_than_the_next_request() {
        let limits = Limits::default();
        let start = clock::now();
        let pace = Pace::new(false, start);
        let seconds = |pace: &Pace| pace.next(&limits).map(|(when, late)| (when.duration_since(start).as_secs(), late));
        assert_eq!(seconds(&pace), Some((10, Late::Head)));
        let active = pace.begin();
        assert_eq!(seconds(&pace), None, "an exchange has limits of its own");
        tokio::time::advance(Duration::from_secs(100)).await;
        drop(active);
        assert_eq!(seconds(&pace), Some((175, Late::Idle)));
        tokio::time::advance(Duration::from_secs(50)).await;
        pace.read();
        assert_eq!(seconds(&pace), Some((160, Late::Head)));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_http2_begin_no_head_and_a_connection_that_ends_rests_a_last_time() {
        let limits = Limits::default();
        let start = clock::now();
        let pace = Pace::new(true, start);
        pace.read();
        assert_eq!(pace.next(&limits).map(|(_, late)| late), Some(Late::Idle));
        tokio::time::advance(Duration::from_secs(75)).await;
        pace.ends();
        assert_eq!(pace.next(&limits).map(|(when, _)| when.duration_since(start).as_secs()), Some(80));
    }
}
