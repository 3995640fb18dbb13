//! An answer that lasts longer than the process it comes of: when it ends, so that its client finds the successor.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use synego_runtime::clock;

use crate::tenure::Tenure;

/// Most answers are over sooner: only one that lasts so long waits for the word.
const LASTS: Duration = Duration::from_secs(1);

/// Watches over one answer.
pub(crate) struct Leave {
    tenure: Tenure,
    /// Whether it is an event stream, which can end after any event; a call of gRPC may still end by itself.
    pub(crate) is_events: bool,
    /// Whether what was sent last ends an event.
    is_between: bool,
    state: State,
}

enum State {
    /// It may be over before this.
    Fresh(Instant),
    /// It waits for the word.
    Waits(Pin<Box<dyn Future<Output = ()>>>),
    /// It is to end then.
    Due(Instant),
}

impl Leave {
    /// Of an answer that begins now; `None`: what it comes of never leaves.
    pub(crate) fn of(tenure: Tenure, is_events: bool) -> Option<Self> {
        if tenure.is(&Tenure::default()) {
            return None;
        }
        Some(Self { tenure, is_events, is_between: true, state: State::Fresh(clock::now() + LASTS) })
    }

    /// This is sent to the client.
    pub(crate) fn pass(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.is_between = data.ends_with(b"\n\n") || data.ends_with(b"\r\n\r\n");
        }
    }

    /// When it has to be polled again even if nothing comes.
    pub(crate) fn look(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            State::Fresh(at) | State::Due(at) => Some(*at).filter(|at| *at > now),
            State::Waits(_) => None,
        }
    }

    /// Ready when the answer is to end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Fresh(at) if *at > now => return Poll::Pending,
                State::Fresh(_) => self.state = State::Waits(Box::pin(self.tenure.clone().leaving())),
                State::Waits(word) => {
                    ready!(word.as_mut().poll(cx));
                    let Some(window) = self.tenure.window() else { return Poll::Pending };
                    let due = if self.is_events { window.draw(&mut rand::rng()) } else { window.ends };
                    self.state = State::Due(due);
                }
                State::Due(at) if *at > now || (self.is_events && !self.is_between) => return Poll::Pending,
                State::Due(_) => return Poll::Ready(()),
            }
        }
    }
}
