//! How much of what asks for nothing is borne on a connection, before it is told to calm down and closed.

use std::time::{Duration, Instant};

use synego_runtime::clock;

/// Over how long it is counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Frames that ask for nothing but an answer, or for nothing at all.
const IDLE: u32 = 1_000;
/// Streams that were reset because the other side broke the rules on them.
const CAUSED: u32 = 100;
/// Streams that were reset before anybody had looked at them, among those that came together.
const UNSEEN: u32 = 20;

/// What is counted.
#[derive(Debug)]
pub(crate) struct Calm {
    since: Instant,
    idle: u32,
    caused: u32,
    given_up: u32,
    unseen: u32,
    /// Streams that the other side may begin and give up; `None`: any number.
    allowed: Option<u32>,
}

/// It is too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Calm {
    pub(crate) fn new(now: Instant, allowed: Option<u32>) -> Self {
        Self { since: now, idle: 0, caused: 0, given_up: 0, unseen: 0, allowed }
    }

    /// What came together was handed on.
    pub(crate) fn round(&mut self) {
        self.unseen = 0;
    }

    /// Something of a message came or went: whoever sends that may ask for more in between.
    pub(crate) fn useful(&mut self) {
        self.idle = 0;
    }

    /// A frame that carries nothing.
    pub(crate) fn idle(&mut self) -> Result<(), TooMuch> {
        self.renew();
        self.idle += 1;
        Self::check(self.idle > IDLE)
    }

    /// A stream was reset because of what came on it.
    pub(crate) fn caused(&mut self) -> Result<(), TooMuch> {
        self.renew();
        self.caused += 1;
        Self::check(self.caused > CAUSED)
    }

    /// The other side gave up a stream; `was_seen`: somebody was at work on it.
    pub(crate) fn given_up(&mut self, was_seen: bool) -> Result<(), TooMuch> {
        self.renew();
        self.given_up += 1;
        self.unseen += u32::from(!was_seen);
        Self::check(self.unseen > UNSEEN || self.allowed.is_some_and(|allowed| self.given_up >= allowed))
    }

    fn check(too_much: bool) -> Result<(), TooMuch> {
        if too_much { Err(TooMuch) } else { Ok(()) }
    }

    fn renew(&mut self) {
        let now = clock::now();
        if now.duration_since(self.since) > WINDOW {
            *self = Self { unseen: self.unseen, ..Self::new(now, self.allowed) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_little_of_it_is_borne_in_every_while() {
        let mut calm = Calm::new(clock::now(), Some(200));
        for _ in 0..3 {
            for _ in 0..IDLE {
                assert_eq!(calm.idle(), Ok(()));
            }
            for _ in 0..CAUSED {
                assert_eq!(calm.caused(), Ok(()));
            }
            for _ in 0..199 {
                assert_eq!(calm.given_up(true), Ok(()));
            }
            tokio::time::advance(WINDOW + Duration::from_millis(1)).await;
        }
        for _ in 0..IDLE {
            assert_eq!(calm.idle(), Ok(()));
        }
        assert_eq!(calm.idle(), Err(TooMuch));
        calm.useful();
        assert_eq!(calm.idle(), Ok(()), "clients of gRPC send a ping with much of their data");
    }

    #[test]
    fn streams_that_nobody_has_seen_are_given_up_in_small_numbers_only() {
        let mut calm = Calm::new(clock::now(), None);
        for _ in 0..10 {
            for _ in 0..UNSEEN {
                assert_eq!(calm.given_up(false), Ok(()));
            }
            calm.round();
        }
        for _ in 0..1000 {
            assert_eq!(calm.given_up(true), Ok(()), "a peer passes on what its own clients give up");
        }
        let told = (0..=UNSEEN).map(|_| calm.given_up(false)).filter(Result::is_err).count();
        assert_eq!(told, 1);
    }
}
