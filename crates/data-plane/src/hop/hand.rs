//! Room for exchanges, used again: the future of one is larger than what an allocator hands out quickly, and its timer is
//! worth keeping.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::Client;
use super::early::Early;
use super::intake::Source;
use super::station::Station;
use super::timer::Alarm;
use super::{Reply, exchange};
use crate::message::Request;
use crate::spare::{Shelf, Spare};

/// What a worker keeps for the next requests.
const KEPT: usize = 64;

thread_local! {
    static IDLE: Spare<Hand, KEPT> = const { Spare::new() };
}

/// A request, and all that its exchange needs.
pub(crate) struct Job {
    pub(crate) station: Rc<Station>,
    pub(crate) client: Rc<Client>,
    pub(crate) request: Box<Request>,
    pub(crate) body: Source,
}

/// Where a job is laid down, and its reply.
#[derive(Default)]
struct Desk {
    job: Cell<Option<Job>>,
    early: Early,
    reply: Cell<Option<Reply>>,
}

/// Carries out one exchange after the other, wherever it is polled.
struct Hand {
    desk: Rc<Desk>,
    work: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// An exchange that goes on; dropping it gives it up.
pub(crate) struct Work(Option<Hand>);

impl Work {
    /// Begins an exchange.
    pub(crate) fn begin(job: Job) -> Self {
        let hand = IDLE.take().unwrap_or_else(|| {
            let desk = Rc::<Desk>::default();
            Hand { work: Box::pin(work(desk.clone())), desk }
        });
        hand.desk.job.set(Some(job));
        Self(Some(hand))
    }

    /// Its reply; pending for ever once that was given. What comes before it is given to `tell` first.
    pub(crate) fn poll(&mut self, tell: impl FnOnce(&Early), cx: &mut Context<'_>) -> Poll<Reply> {
        let Some(hand) = &mut self.0 else { return Poll::Pending };
        let Poll::Pending = hand.work.as_mut().poll(cx);
        tell(&hand.desk.early);
        let Some(reply) = hand.desk.reply.take() else { return Poll::Pending };
        if let Some(hand) = self.0.take() {
            IDLE.keep(hand);
        }
        Poll::Ready(reply)
    }
}

async fn work(desk: Rc<Desk>) -> Infallible {
    let mut alarm = Alarm::default();
    loop {
        // Whoever lays a job down polls afterwards: nobody has to be woken.
        let job = poll_fn(|_| desk.job.take().map_or(Poll::Pending, Poll::Ready)).await;
        let Job { station, client, request, body } = job;
        let reply = exchange(station, client, request, body, &mut alarm, &desk.early).await;
        desk.reply.set(Some(reply));
    }
}
