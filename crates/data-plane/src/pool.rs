//! Connections to upstreams, kept by one worker: bounded for each address, all of them made through `identity`.
//!
//! HTTP/1.1 takes the idle connection that was used last, and opens a few at once where there is none; HTTP/2 takes the
//! one with the fewest open streams, and opens another when all are busy. Whoever holds what was [`Received`] uses a
//! connection; reading it to its end gives that back, dropping it earlier does not.

mod h1;
mod h2;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use synego_identity::{Alpn, ConnectError, Connector, Stream};
use synego_model::process::ServiceAddress;
use synego_model::{Limits, Role, ServiceName};
use synego_runtime::{clock, tasks};

use crate::h1::client::{AnswerBody, Conn};
use crate::h1::pipe::Piped;
use crate::hop::body::{BodyError, Cause};
use crate::hop::connection::largest_head;
use crate::hop::outgoing::Outgoing;
use crate::message::{Answer, Body, NextFrame};

/// How often idle connections are looked at, while there are any.
const SWEEP: Duration = Duration::from_millis(500);

/// What is spoken to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speak {
    Http1,
    Http2,
}

/// At whose address connections are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Another part of the mesh.
    Peer,
    /// The service of one's own sidecar: never TLS.
    Own,
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within {
    /// To be made: also when whoever wanted it has given up.
    pub(crate) made: Duration,
    /// To be there for the one who waits for it.
    pub(crate) there: Duration,
}

/// All connections of one caller on one worker.
pub(crate) struct Pool {
    connector: Connector,
    whom: Whom,
    /// By address, and there by service: nearly always one.
    targets: RefCell<HashMap<ServiceAddress, Vec<Rc<Target>>, RandomState>>,
    sweeping: Cell<bool>,
    this: Weak<Self>,
}

/// The connections to one address.
pub(crate) struct Target {
    pub(crate) address: ServiceAddress,
    /// Whoever answers there must prove to be it.
    service: ServiceName,
    pool: Weak<Pool>,
    idle_limit: Cell<Duration>,
    h1: h1::Idle,
    h2: h2::Group,
}

impl Target {
    /// How the instance has refused our certificate since then, if it did.
    pub(crate) fn refused_since(&self, since: std::time::Instant) -> Option<String> {
        match &self.address {
            ServiceAddress::Tcp(address) => self.pool.upgrade()?.connector.refused_since(address, since),
            ServiceAddress::Unix(_) => None,
        }
    }
}

/// Why a request that was handed to a connection has no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The connection was dead: nothing of the request left.
    Unsent,
    /// The other side says that it did not look at it (REFUSED_STREAM, GOAWAY).
    Refused,
    /// The answer breaks the rules of its protocol.
    BadResponse(Cause),
    /// The client's own body broke off.
    Client(Cause),
    /// The connection ended before the head of the answer; the request may have been processed.
    Reset(Cause),
}

/// A connection ready for one request.
pub(crate) enum Ready {
    Http1(Box<Conn>, Rc<Target>),
    Http2(h2::Ready),
}

/// The body of an answer, with the use of its connection.
pub(crate) enum Received {
    Http1(AnswerBody),
    Http2(Box<h2::Answer>),
}

impl Pool {
    pub(crate) fn new(connector: Connector, whom: Whom) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            connector,
            whom,
            targets: RefCell::default(),
            sweeping: Cell::new(false),
            this: this.clone(),
        })
    }

    /// The connections to `service` at `address`; they stay idle for at most `idle_limit` from now on.
    pub(crate) fn target(&self, address: &ServiceAddress, service: &ServiceName, idle_limit: Duration) -> Rc<Target> {
        // An address may change hands: those who proved to be another service are not it.
        let of_service = |there: &Vec<Rc<Target>>| there.iter().find(|target| target.service == *service).cloned();
        if let Some(target) = self.targets.borrow().get(address).and_then(of_service) {
            target.idle_limit.set(idle_limit);
            return target;
        }
        let target = Rc::new(Target {
            address: address.clone(),
            service: service.clone(),
            pool: self.this.clone(),
            idle_limit: Cell::new(idle_limit),
            h1: h1::Idle::default(),
            h2: h2::Group::default(),
        });
        self.targets.borrow_mut().entry(address.clone()).or_default().push(target.clone());
        target
    }

    /// Closes what is idle at an address that takes no more requests.
    pub(crate) fn empty(&self, address: &ServiceAddress) {
        for target in self.targets.borrow_mut().remove(address).into_iter().flatten() {
            target.h1.clear();
            target.h2.clear();
        }
    }

    /// A bare connection to `service`; `spoken`: what it is for, `None` for bytes.
    pub(crate) async fn connect(
        &self,
        address: &ServiceAddress,
        service: &ServiceName,
        spoken: Option<Speak>,
        limit: Duration,
    ) -> Result<Stream, ConnectError> {
        match (self.whom, address) {
            (Whom::Peer, ServiceAddress::Tcp(address)) => {
                let offered = spoken.map(|speak| match speak {
                    Speak::Http1 => Alpn::Http1,
                    Speak::Http2 => Alpn::Http2,
                });
                self.connector.connect(address, &Role::Service(service.clone()), offered, limit).await
            }
            _ => self.connector.connect_service(address, limit).await,
        }
    }

    /// Looks at idle connections from time to time until there are none.
    fn sweep(&self) {
        if self.sweeping.replace(true) {
            return;
        }
        let pool = self.this.clone();
        tasks::spawn_local("pool-sweep", tasks::Kind::Connection, async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                let now = clock::now();
                let mut idle = 0;
                pool.targets.borrow_mut().retain(|_, there| {
                    there.retain(|target| {
                        let limit = target.idle_limit.get();
                        let kept = target.h1.sweep(limit, now) + target.h2.sweep(limit, now);
                        idle += kept;
                        kept > 0 || Rc::strong_count(target) > 1
                    });
                    !there.is_empty()
                });
                if idle == 0 {
                    pool.sweeping.set(false);
                    return;
                }
            }
        });
    }
}

impl Target {
    /// A connection for one request: an idle one, or a new one.
    ///
    /// - `fresh`: only a new one, because an idle one turned out to be dead.
    pub(crate) async fn ready(
        self: &Rc<Self>,
        speak: Speak,
        limits: &Limits,
        within: Within,
        fresh: bool,
    ) -> Result<Ready, ConnectError> {
        match speak {
            Speak::Http1 => h1::ready(self, within, fresh).await.map(|conn| Ready::Http1(conn, self.clone())),
            Speak::Http2 => Box::pin(h2::ready(self, limits, within, fresh)).await.map(Ready::Http2),
        }
    }

    fn not_in_time(&self, limit: Duration) -> ConnectError {
        ConnectError::TimedOut { address: self.address.to_string(), limit }
    }

    async fn connect(&self, speak: Speak, limit: Duration) -> Result<Stream, ConnectError> {
        match self.pool.upgrade() {
            Some(pool) => pool.connect(&self.address, &self.service, Some(speak), limit).await,
            None => Err(self.not_in_time(limit)),
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(crate) fn put(&self, conn: Box<Conn>) {
        if self.h1.put(conn, clock::now()) {
            self.note_idle();
        }
    }

    fn note_idle(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.sweep();
        }
    }
}

impl Ready {
    /// Whether it was used before: then it may have died unseen.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Self::Http1(conn, _) => conn.is_reused(),
            Self::Http2(ready) => ready.is_reused,
        }
    }

    pub(crate) async fn send(self, outgoing: &Outgoing<'_>, limits: &Limits) -> Result<Answer<Received>, SendError> {
        match self {
            Self::Http1(conn, target) => {
                let answer = conn.send(outgoing, target, largest_head(limits)).await?;
                Ok(answer.map(Received::Http1))
            }
            Self::Http2(ready) => {
                let answer = ready.send(outgoing).await?;
                Ok(answer.map(|body| Received::Http2(Box::new(body))))
            }
        }
    }
}

impl Received {
    /// The bare connection after a change of its protocol, and what came behind the head; `None`: there is none on
    /// HTTP/2.
    pub(crate) fn into_tunnel(self) -> Option<(Stream, Bytes)> {
        match self {
            Self::Http1(body) => body.into_tunnel(),
            Self::Http2(_) => None,
        }
    }
}

impl Received {
    /// Sends more of the request, while nothing of the answer is wanted.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(body) => body.pump(cx),
            // A body that broke off is noticed where the answer is read.
            Self::Http2(body) => drop(body.call.pump(cx)),
        }
    }
}

impl Body for Received {
    type Error = BodyError;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<BodyError> {
        match self {
            Self::Http1(body) => body.poll_frame(cx).map_err(|error| BodyError::Upstream(error.into())),
            Self::Http2(body) => body.call.poll_frame(cx).map_err(|error| BodyError::Upstream(error.into())),
        }
    }

    fn piped(&mut self, cx: &mut Context<'_>) -> Option<Piped> {
        match self {
            Self::Http1(body) => body.piped(cx),
            Self::Http2(_) => None,
        }
    }

    fn is_ended(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_ended(),
            Self::Http2(body) => body.call.is_ended(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Http1(body) => body.length(),
            Self::Http2(body) => body.call.length(),
        }
    }
}
