//! One timer for all the limits of a connection: armed for the nearest, left alone while it is early.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

/// A timer that is made when it is first wanted.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready at `when`. A timer that is armed for an earlier time fires then, and this looks again.
    pub(crate) fn poll(&mut self, when: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(when.into())));
        loop {
            let armed = timer.deadline().into_std();
            if armed > when || (timer.is_elapsed() && armed < when) {
                timer.as_mut().reset(when.into());
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if timer.deadline().into_std() >= when {
                return Poll::Ready(());
            }
        }
    }
}
