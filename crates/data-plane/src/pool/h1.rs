//! HTTP/1.1 to an upstream: one request at a time on a connection, the last one used first.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use synego_identity::ConnectError;
use synego_runtime::clock;

use super::{Speak, Target};
use crate::h1::client::Conn;

/// Idle connections kept for one address.
const MAX_IDLE: usize = 256;

/// The idle connections to one address, the last one used at the end.
#[derive(Default)]
pub(crate) struct Idle(RefCell<Vec<(Box<Conn>, Instant)>>);

impl Idle {
    /// The one used last of those that are still good; older ones wait for the sweep.
    fn take(&self, limit: Duration, now: Instant) -> Option<Box<Conn>> {
        let mut idle = self.0.borrow_mut();
        while let Some((mut conn, since)) = idle.pop() {
            if now.duration_since(since) < limit && conn.is_quiet() {
                return Some(conn);
            }
        }
        None
    }

    pub(super) fn put(&self, conn: Box<Conn>, now: Instant) -> bool {
        let mut idle = self.0.borrow_mut();
        let room = idle.len() < MAX_IDLE;
        if room {
            idle.push((conn, now));
        }
        room
    }

    pub(super) fn sweep(&self, limit: Duration, now: Instant) -> usize {
        let mut idle = self.0.borrow_mut();
        idle.retain_mut(|(conn, since)| now.duration_since(*since) < limit && conn.is_quiet());
        idle.len()
    }

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

pub(super) async fn ready(target: &Rc<Target>, limit: Duration, fresh: bool) -> Result<Box<Conn>, ConnectError> {
    if !fresh && let Some(conn) = target.h1.take(target.idle_limit.get(), clock::now()) {
        return Ok(conn);
    }
    // Boxed: most requests find a connection, and need not carry the room for making one.
    Box::pin(target.connect(Speak::Http1, limit)).await.map(Conn::new)
}
