//! HTTP/1.1 to an upstream: one request at a time on a connection, the last one used first.
//!
//! A request that finds none idle waits for the first that there is: one that another request gives back, or one that
//! is opened for it. Few are opened at once: the others would only slow the handshakes of each other, and where a
//! machine is busy none of them would end in time. What is opened does not depend on who waits, so that no handshake is
//! in vain; those who wait are served in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use synego_identity::ConnectError;
use synego_runtime::{clock, tasks};
use tokio::sync::oneshot;

use super::{Speak, Target, Within};
use crate::h1::client::Conn;

/// Idle connections kept for one address.
const MAX_IDLE: usize = 256;
/// Connections to one address that one worker opens at once.
const MAX_OPENING: usize = 16;

type Outcome = Result<Box<Conn>, ConnectError>;

/// The connections to one address that carry no request, and the requests that wait for one.
#[derive(Default)]
pub(crate) struct Idle {
    /// The last one used at the end.
    conns: RefCell<Vec<(Box<Conn>, Instant)>>,
    opening: Cell<usize>,
    waiting: RefCell<VecDeque<Waiting>>,
}

/// A request without a connection.
struct Waiting {
    give: oneshot::Sender<Outcome>,
    /// A connection that was kept has failed it already.
    fresh: bool,
}

/// The place of a request among those that wait; what it was given and did not take is given to others.
struct Place<'a> {
    given: oneshot::Receiver<Outcome>,
    target: &'a Rc<Target>,
}

impl Idle {
    /// The one used last of those that are still good; older ones wait for the sweep.
    fn take(&self, limit: Duration, now: Instant) -> Option<Box<Conn>> {
        let mut idle = self.conns.borrow_mut();
        while let Some((mut conn, since)) = idle.pop() {
            if now.duration_since(since) < limit && conn.is_quiet() {
                return Some(conn);
            }
        }
        None
    }

    /// Gives a connection to a request that waits, or keeps it; whether it is kept.
    pub(super) fn put(&self, mut conn: Box<Conn>, now: Instant) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(place) = waiting.iter().position(|waiting| !waiting.fresh || !conn.is_reused()) {
            let Some(first) = waiting.remove(place) else { break };
            match first.give.send(Ok(conn)) {
                Ok(()) => return false,
                Err(back) => match back {
                    Ok(back) => conn = back,
                    Err(_) => return false,
                },
            }
        }
        drop(waiting);
        let mut idle = self.conns.borrow_mut();
        let room = idle.len() < MAX_IDLE;
        if room {
            conn.put_aside();
            idle.push((conn, now));
        }
        room
    }

    /// Tells the first that waits that there is no connection.
    fn fail(&self, mut error: ConnectError) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.pop_front() {
            match first.give.send(Err(error)) {
                Err(Err(back)) => error = back,
                _ => return,
            }
        }
    }

    /// Whether one more is to be opened; those who gave up are forgotten.
    fn wants_more(&self) -> bool {
        let opening = self.opening.get();
        if opening >= MAX_OPENING {
            return false;
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|waiting| !waiting.give.is_closed());
        waiting.len() > opening
    }

    pub(super) fn sweep(&self, limit: Duration, now: Instant) -> usize {
        let mut idle = self.conns.borrow_mut();
        idle.retain_mut(|(conn, since)| now.duration_since(*since) < limit && conn.is_quiet());
        idle.len()
    }

    pub(super) fn clear(&self) {
        self.conns.borrow_mut().clear();
    }
}

/// - `fresh`: only a new one, because one that was kept turned out to be dead.
pub(super) async fn ready(target: &Rc<Target>, within: Within, fresh: bool) -> Outcome {
    if !fresh && let Some(conn) = target.h1.take(target.idle_limit.get(), clock::now()) {
        return Ok(conn);
    }
    // Boxed: most requests find a connection, and need not carry the room for waiting.
    Box::pin(when_there_is_one(target, within, fresh)).await
}

async fn when_there_is_one(target: &Rc<Target>, within: Within, fresh: bool) -> Outcome {
    let (give, given) = oneshot::channel();
    target.h1.waiting.borrow_mut().push_back(Waiting { give, fresh });
    let mut place = Place { given, target };
    open(target, within.made);
    match tokio::time::timeout(within.there, &mut place.given).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err(target.not_in_time(within.there)),
    }
}

/// Opens connections for those who wait, and none for nobody.
fn open(target: &Rc<Target>, limit: Duration) {
    while target.h1.wants_more() {
        target.h1.opening.set(target.h1.opening.get() + 1);
        let target = target.clone();
        tasks::spawn_local("upstream-http1", tasks::Kind::Connection, async move {
            let made = target.connect(Speak::Http1, limit).await;
            target.h1.opening.set(target.h1.opening.get() - 1);
            match made {
                Ok(stream) => target.put(Conn::new(stream)),
                Err(error) => target.h1.fail(error),
            }
            open(&target, limit);
        });
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.given.close();
        if let Ok(Ok(conn)) = self.given.try_recv() {
            self.target.put(conn);
        }
    }
}
