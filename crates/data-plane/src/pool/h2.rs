//! HTTP/2 to an upstream: a few connections, each with many streams; another one is opened when all are busy.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use synego_identity::ConnectError;
use synego_model::Limits;
use synego_runtime::{clock, tasks};
use tokio::sync::watch;

use super::{SendError, Target};
use crate::hop::connection::LocalExecutor;
use crate::hop::intake::TryBody;

/// Open streams on every connection at which another connection is opened.
const BUSY: u32 = 100;
/// Connections to one address.
const MAX_CONNECTIONS: usize = 8;
/// How long an answer to a ping may take.
const PONG: Duration = Duration::from_secs(5);
/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 256 * 1024;

/// The connections to one address.
#[derive(Default)]
pub(crate) struct Group {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// The outcome of the connect that goes on, for all who wait for it.
    connecting: RefCell<Option<watch::Receiver<Option<Outcome>>>>,
}

type Outcome = Result<(), Arc<str>>;

struct Connection {
    sender: http2::SendRequest<TryBody>,
    open: Cell<u32>,
    idle_since: Cell<Instant>,
    used: Cell<bool>,
}

/// A connection with room for a stream.
pub(crate) struct Ready {
    lease: Lease,
    pub(super) is_reused: bool,
}

/// One open stream.
pub(crate) struct Lease {
    connection: Rc<Connection>,
    target: Rc<Target>,
}

impl Group {
    /// The connection with the fewest open streams.
    fn least(&self) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed());
        connections.iter().min_by_key(|connection| connection.open.get()).cloned()
    }

    fn has_room(&self) -> bool {
        self.connections.borrow().len() < MAX_CONNECTIONS
    }

    pub(super) fn sweep(&self, limit: Duration, now: Instant) -> usize {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| {
            let idle = connection.open.get() == 0 && now.duration_since(connection.idle_since.get()) >= limit;
            !connection.sender.is_closed() && !idle
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
    limit: Duration,
    fresh: bool,
) -> Result<Ready, ConnectError> {
    let group = &target.h2;
    if fresh {
        group.clear();
    }
    if let Some(connection) = group.least() {
        if connection.open.get() >= BUSY && group.has_room() {
            connect(target, limits, limit);
        }
        return Ok(open(target, connection));
    }
    let mut outcome = connect(target, limits, limit);
    let failed = match outcome.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(Err(cause))) => cause.to_string(),
        _ => match group.least() {
            Some(connection) => return Ok(open(target, connection)),
            None => "the new connection ended at once".to_owned(),
        },
    };
    Err(ConnectError::Refused { address: target.address.to_string(), source: std::io::Error::other(failed) })
}

fn open(target: &Rc<Target>, connection: Rc<Connection>) -> Ready {
    connection.open.set(connection.open.get() + 1);
    let is_reused = connection.used.replace(true);
    Ready { lease: Lease { connection, target: target.clone() }, is_reused }
}

/// Begins to connect, or joins the connect that goes on; it does not depend on who waits.
fn connect(target: &Rc<Target>, limits: &Limits, limit: Duration) -> watch::Receiver<Option<Outcome>> {
    if let Some(going_on) = &*target.h2.connecting.borrow() {
        return going_on.clone();
    }
    let (told, outcome) = watch::channel(None);
    target.h2.connecting.replace(Some(outcome.clone()));
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(u32::try_from(limits.window).ok())
        .initial_connection_window_size(u32::try_from(limits.connection_window).ok())
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(PONG)
        .keep_alive_while_idle(true);
    let target = target.clone();
    tasks::spawn_local("upstream-http2", tasks::Kind::Connection, async move {
        let made = handshake(&target, &builder, limit).await;
        target.h2.connecting.replace(None);
        match made {
            Ok(connection) => {
                let _ = told.send(Some(Ok(())));
                target.note_idle();
                drop(target);
                // Whoever has a stream on it learns of its end there.
                let _ = connection.await;
            }
            Err(cause) => {
                let _ = told.send(Some(Err(cause.into())));
            }
        }
    });
    outcome
}

async fn handshake(
    target: &Target,
    builder: &http2::Builder<LocalExecutor>,
    limit: Duration,
) -> Result<impl Future<Output = hyper::Result<()>> + use<>, String> {
    let stream = target.connect(limit).await.map_err(|error| error.to_string())?;
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection_kept =
        Rc::new(Connection { sender, open: Cell::new(0), idle_since: Cell::new(clock::now()), used: Cell::new(false) });
    target.h2.connections.borrow_mut().push(connection_kept);
    Ok(connection)
}

impl Ready {
    pub(super) async fn send(self, request: Request<TryBody>) -> Result<(Response<Incoming>, Lease), SendError> {
        let mut sender = self.lease.connection.sender.clone();
        match sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, self.lease)),
            Err(error) if error.message().is_some() => Err(SendError::Unsent),
            Err(error) => Err(SendError::of(error.into_error())),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.open.set(connection.open.get().saturating_sub(1));
        if connection.open.get() == 0 {
            connection.idle_since.set(clock::now());
            self.target.note_idle();
        }
    }
}
