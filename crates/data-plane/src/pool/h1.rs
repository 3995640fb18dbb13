//! HTTP/1.1 to an upstream: one request at a time on a connection, the last one used first.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use synego_identity::ConnectError;
use synego_model::Limits;
use synego_runtime::{clock, tasks};

use super::{SendError, Target};
use crate::hop::intake::TryBody;

/// Idle connections kept for one address.
const MAX_IDLE: usize = 256;

type Sender = http1::SendRequest<TryBody>;

/// The idle connections to one address, the last one used at the end.
#[derive(Default)]
pub(crate) struct Idle(RefCell<Vec<(Sender, Instant)>>);

/// A connection that takes one request.
pub(crate) struct Ready {
    target: Rc<Target>,
    sender: Sender,
    pub(super) is_reused: bool,
}

/// A connection whose answer is being read.
pub(crate) struct Lease {
    target: Rc<Target>,
    sender: Sender,
}

impl Idle {
    fn take(&self, limit: Duration, now: Instant) -> Option<Sender> {
        let mut idle = self.0.borrow_mut();
        // Those that are not ready yet still write the rest of a request whose answer came early.
        let usable =
            idle.iter().rposition(|(sender, since)| sender.is_ready() && now.duration_since(*since) < limit)?;
        Some(idle.remove(usable).0)
    }

    fn put(&self, sender: Sender, now: Instant) -> bool {
        let mut idle = self.0.borrow_mut();
        let room = !sender.is_closed() && idle.len() < MAX_IDLE;
        if room {
            idle.push((sender, now));
        }
        room
    }

    pub(super) fn sweep(&self, limit: Duration, now: Instant) -> usize {
        let mut idle = self.0.borrow_mut();
        idle.retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) < limit);
        idle.len()
    }

    pub(super) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

pub(super) async fn ready(
    target: &Rc<Target>,
    limits: &Limits,
    limit: Duration,
    fresh: bool,
) -> Result<Ready, ConnectError> {
    if !fresh && let Some(sender) = target.h1.take(target.idle_limit.get(), clock::now()) {
        return Ok(Ready { target: target.clone(), sender, is_reused: true });
    }
    let stream = target.connect(limit).await?;
    let handshake =
        http1::Builder::new().max_headers(limits.header_count as usize).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| ConnectError::Refused {
        address: target.address.to_string(),
        source: std::io::Error::other(error),
    })?;
    tasks::spawn_local("upstream-http1", tasks::Kind::Connection, async move {
        // Whoever has a request on it learns of its end there.
        let _ = connection.with_upgrades().await;
    });
    Ok(Ready { target: target.clone(), sender, is_reused: false })
}

impl Ready {
    pub(super) async fn send(mut self, request: Request<TryBody>) -> Result<(Response<Incoming>, Lease), SendError> {
        match self.sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, Lease { target: self.target, sender: self.sender })),
            Err(error) if error.message().is_some() => Err(SendError::Unsent),
            Err(error) => Err(SendError::of(error.into_error())),
        }
    }
}

impl Lease {
    pub(super) fn done(self) {
        if self.target.h1.put(self.sender, clock::now()) {
            self.target.note_idle();
        }
    }
}
