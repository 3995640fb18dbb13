//! HTTP/2 to an upstream: a few connections, each with many streams; another one is opened when all are busy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use synego_identity::ConnectError;
use synego_model::Limits;
use synego_runtime::{clock, tasks};
use tokio::sync::{Notify, watch};

use super::{SendError, Speak, Target, Within};
use crate::h2::client::{self, Call};
use crate::h2::mux::Shared;
use crate::hop::outgoing::Outgoing;
use crate::message;

/// Open streams on every connection at which another connection is opened.
const BUSY: usize = 100;
/// Connections to one address that are opened because the others are busy, and because they take no more streams.
const MAX_BUSY: usize = 8;
const MAX_FULL: usize = 64;

/// The connections to one address.
#[derive(Default)]
pub(crate) struct Group {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// The outcome of the connect that goes on, for all who wait for it.
    connecting: RefCell<Option<watch::Receiver<Option<Outcome>>>>,
    /// A stream has ended.
    freed: Notify,
}

type Outcome = Result<(), Arc<str>>;

struct Connection {
    mux: Shared,
    idle_since: Cell<Instant>,
    used: Cell<bool>,
}

/// A connection with room for a stream.
pub(crate) struct Ready {
    connection: Rc<Connection>,
    target: Rc<Target>,
    pub(super) is_reused: bool,
}

/// The body of an answer, with the use of its connection.
pub(crate) struct Answer {
    pub(super) call: Call,
    /// Given back after the stream is released.
    _open: Lease,
}

/// One open stream.
struct Lease {
    connection: Rc<Connection>,
    target: Rc<Target>,
}

impl Group {
    /// The connection with the fewest open streams.
    fn least(&self) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.mux.borrow().takes_streams());
        connections.iter().min_by_key(|connection| connection.mux.borrow().open()).cloned()
    }

    fn has_room(&self, most: usize) -> bool {
        self.connections.borrow().len() < most
    }

    pub(super) fn sweep(&self, limit: Duration, now: Instant) -> usize {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            let mux = connection.mux.borrow();
            let idle = mux.is_idle() && now.duration_since(connection.idle_since.get()) >= limit;
            mux.takes_streams() && !idle
        });
        connections.len()
    }

    pub(super) fn clear(&self) {
        self.connections.borrow_mut().clear();
    }
}

/// - `fresh`: an idle connection turned out to be dead, so the known ones are given up.
pub(super) async fn ready(
    target: &Rc<Target>,
    limits: &Limits,
    within: Within,
    fresh: bool,
) -> Result<Ready, ConnectError> {
    let group = &target.h2;
    if fresh {
        group.clear();
    }
    if let Some(ready) = at_once(target, limits, within.made) {
        return Ok(ready);
    }
    let waited = tokio::time::timeout(within.there, when_there_is_room(target, limits, within.made)).await;
    waited.unwrap_or_else(|_| Err(target.not_in_time(within.there)))
}

/// A connection that takes a stream now.
fn at_once(target: &Rc<Target>, limits: &Limits, limit: Duration) -> Option<Ready> {
    let group = &target.h2;
    let connection = group.least()?;
    let (open, most) = {
        let mux = connection.mux.borrow();
        (mux.open(), mux.peer_streams())
    };
    if open >= BUSY && group.has_room(MAX_BUSY) || open >= most && group.has_room(MAX_FULL) {
        connect(target, limits, limit);
    }
    (open < most).then(|| {
        let is_reused = connection.used.replace(true);
        Ready { connection, target: target.clone(), is_reused }
    })
}

async fn when_there_is_room(target: &Rc<Target>, limits: &Limits, limit: Duration) -> Result<Ready, ConnectError> {
    let group = &target.h2;
    loop {
        let freed = group.freed.notified();
        if let Some(ready) = at_once(target, limits, limit) {
            return Ok(ready);
        }
        if !group.has_room(MAX_FULL) {
            freed.await;
            continue;
        }
        let mut outcome = connect(target, limits, limit);
        let connected = async { outcome.wait_for(Option::is_some).await.ok().and_then(|told| told.clone()) };
        let failed = tokio::select! {
            () = freed => continue,
            connected = connected => match connected {
                Some(Err(cause)) => cause.to_string(),
                _ if group.least().is_some() => continue,
                _ => "the new connection ended at once".to_owned(),
            },
        };
        let source = std::io::Error::other(failed);
        return Err(ConnectError::Refused { address: target.address.to_string(), source });
    }
}

/// Begins to connect, or joins the connect that goes on; it does not depend on who waits.
fn connect(target: &Rc<Target>, limits: &Limits, limit: Duration) -> watch::Receiver<Option<Outcome>> {
    if let Some(going_on) = &*target.h2.connecting.borrow() {
        return going_on.clone();
    }
    let (told, outcome) = watch::channel(None);
    target.h2.connecting.replace(Some(outcome.clone()));
    let (target, limits) = (target.clone(), limits.clone());
    tasks::spawn_local("upstream-http2", tasks::Kind::Connection, async move {
        let made = target.connect(Speak::Http2, limit).await;
        target.h2.connecting.replace(None);
        let stream = match made {
            Ok(stream) => stream,
            Err(error) => {
                let _ = told.send(Some(Err(error.to_string().into())));
                return;
            }
        };
        let mux = client::begin(&limits);
        let idle_since = Cell::new(clock::now());
        let connection = Rc::new(Connection { mux: mux.clone(), idle_since, used: Cell::new(false) });
        target.h2.connections.borrow_mut().push(connection);
        let _ = told.send(Some(Ok(())));
        target.note_idle();
        drop(target);
        // Whoever has a stream on it learns of its end there.
        client::drive(mux, stream, &limits).await;
    });
    outcome
}

impl Ready {
    pub(super) async fn send(self, outgoing: &Outgoing<'_>) -> Result<message::Answer<Answer>, SendError> {
        if !self.connection.mux.borrow().takes_streams() {
            return Err(SendError::Unsent);
        }
        let call = Call::begin(&self.connection.mux, outgoing);
        let open = Lease { connection: self.connection, target: self.target };
        let answer = call.answer(outgoing.early).await?;
        Ok(answer.map(|call| Answer { call, _open: open }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.target.h2.freed.notify_one();
        if self.connection.mux.borrow().is_idle() {
            self.connection.idle_since.set(clock::now());
            self.target.note_idle();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut mux = self.mux.borrow_mut();
        mux.ends_when_idle = true;
        mux.wake_driver();
    }
}
