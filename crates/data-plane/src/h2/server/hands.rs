//! Tasks that answer streams, used again: making one costs more than most of what it does.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use synego_runtime::tasks;

use super::{Job, serve_stream};
use crate::hop::timer::Alarm;
use crate::spare::{Shelf, Spare};

/// Tasks of a worker that wait for a stream; more than these end with theirs.
const KEPT: usize = 64;

thread_local! {
    static IDLE: Spare<Rc<Hand>, KEPT> = const { Spare::new() };
}

/// A task, as those see it who have work for it.
#[derive(Default)]
struct Hand {
    job: Cell<Option<Box<Job>>>,
    waker: Cell<Option<Waker>>,
}

/// Has a stream answered, by a task that waits or by a new one.
pub(super) fn work(job: Job) {
    let job = Box::new(job);
    let Some(hand) = IDLE.take() else {
        tasks::spawn_local("http2-stream", tasks::Kind::Connection, run(job));
        return;
    };
    hand.job.set(Some(job));
    if let Some(waker) = hand.waker.take() {
        waker.wake();
    }
}

async fn run(first: Box<Job>) {
    let hand = Rc::<Hand>::default();
    let mut next = Some(first);
    let mut alarm = Alarm::default();
    while let Some(job) = next.take() {
        serve_stream(job, &mut alarm).await;
        if !IDLE.keep(hand.clone()) {
            return;
        }
        let job = poll_fn(|cx| match hand.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                hand.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        });
        next = Some(job.await);
    }
}
