//! The third hop: a peer, or a master, to the service of this sidecar.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use synego_identity::{Acceptor, Connector};
use synego_model::process::ServiceAddress;
use synego_model::{Cause, Limits, Policy, Protocol, Reason, ServiceName};
use synego_runtime::clock;
use synego_runtime::logs::AccessLog;

use crate::account::Account;
use crate::denials::DenialBook;
use crate::fields::{Fields, Name};
use crate::hop::access::Gate;
use crate::hop::answer::Refusal;
use crate::hop::connection::Client;
use crate::hop::deadline;
use crate::hop::head::Head;
use crate::hop::headers;
use crate::hop::station::{Station, To, Way};
use crate::load::{LoadMeter, Permit};
use crate::parking::Parking;
use crate::pool::Speak;
use crate::snapshot::SnapshotReader;
use crate::tenure::Tenure;

/// How long a connection to a service whose own limit is not known may be idle: below the 5 s of Node.js.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// The longest that any connection to a service may be idle.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

/// How an inbound serves.
#[derive(Clone)]
pub struct InboundConfig {
    /// The instance, for the access log: `users-1@vm1`.
    pub name: Arc<str>,
    /// Its service.
    pub service: ServiceName,
    /// What it speaks; with [`Protocol::Tcp`] bytes are passed on as they are.
    pub protocol: Protocol,
    /// Where and how the service is reached now.
    pub target: Arc<ArcSwap<InboundTarget>>,
    /// Where its requests wait while its target parks them; to be turned with each change of the target.
    pub parking: Parking,
    /// Limits.
    pub snapshot: SnapshotReader,
    /// Takes connections.
    pub acceptor: Acceptor,
    /// Makes connections to the service.
    pub connector: Connector,
    /// One line for each exchange.
    pub access: AccessLog,
    /// Counts what is going on.
    pub load: LoadMeter,
    /// What access refuses.
    pub denials: DenialBook,
}

/// Where the service is and whether it takes requests.
#[derive(Debug, Clone, Default)]
pub struct InboundTarget {
    /// Where it takes HTTP.
    pub http: Option<ServiceAddress>,
    /// Whether it takes HTTP/2 by prior knowledge there; if not, such requests are converted.
    pub http2: bool,
    /// Where it takes gRPC, if that is another place.
    pub grpc: Option<ServiceAddress>,
    /// Where it takes bytes.
    pub tcp: Option<ServiceAddress>,
    /// How long it keeps an idle connection itself; `None`: not known, 5 s are assumed.
    pub keep_alive: Option<Duration>,
    /// Whether it takes requests.
    pub ready: bool,
    /// Whether it takes no new ones because it ends.
    pub draining: bool,
    /// Whether requests wait until it takes them again, as its policy says.
    pub parks: bool,
    /// The generation of the process that is there.
    pub tenure: Tenure,
    /// Why it is not ready.
    pub cause: Option<Cause>,
    /// How its requests are treated.
    pub policy: Arc<Policy>,
    /// Who may call it.
    pub gate: Arc<Gate>,
}

/// The table of an inbound on one worker.
pub(crate) struct Inbound {
    pub(crate) service: ServiceName,
    pub(crate) account: Rc<Account>,
    pub(crate) target: Arc<ArcSwap<InboundTarget>>,
    pub(crate) parking: Parking,
    pub(crate) load: LoadMeter,
    /// To whom the last request went, so that connections to a former process are given up.
    pub(crate) last: RefCell<Last>,
}

/// Where the last request went.
#[derive(Default)]
pub(crate) struct Last {
    tenure: Tenure,
    addresses: Vec<ServiceAddress>,
}

impl Inbound {
    /// To the listener that takes this request, if the service takes any now.
    ///
    /// # Errors
    /// Who may not call hears nothing of how the service is.
    pub(crate) fn route(&self, station: &Station, client: &Client, head: &Head) -> Result<Way, Refusal> {
        let target = self.target.load();
        self.may_call(station, client, &target.gate, head)?;
        self.takes_requests(&target)?;
        self.leave_former(station, &target);
        let (address, speak) = match (&target.grpc, &target.http) {
            (Some(grpc), _) if head.is_grpc => (grpc, Speak::Http2),
            (_, Some(http)) if head.is_http2() && target.http2 => (http, Speak::Http2),
            (_, Some(http)) => (http, Speak::Http1),
            (Some(grpc), None) => (grpc, Speak::Http2),
            (None, None) => return Err(self.refused(Reason::Starting, "it listens nowhere yet")),
        };
        Ok(Way {
            account: self.account.clone(),
            policy: target.policy.clone(),
            to: To::Own {
                address: address.clone(),
                speak,
                idle_limit: idle_limit(target.keep_alive),
                tenure: target.tenure.clone(),
            },
        })
    }

    /// Whether `client` may ask this; its name is looked up once for each connection, as long as the gate is the same.
    fn may_call(&self, station: &Station, client: &Client, gate: &Arc<Gate>, head: &Head) -> Result<(), Refusal> {
        let mut passes = client.passes.borrow_mut();
        if passes.as_ref().is_some_and(|last| Arc::ptr_eq(last, gate)) {
            return Ok(());
        }
        *passes = gate.passes(&client.who).then(|| gate.clone());
        gate.judge(station, &self.service, &client.who, Some((head.method.as_str(), head.path())))
    }

    /// Whether a request that is not taken now may wait; one that nobody permits does not.
    pub(crate) fn parks(&self, refusal: &Refusal) -> bool {
        refusal.reason != Reason::Denied && self.target.load().parks
    }

    /// The same as [`Self::route`] for a request that has to wait for it.
    pub(crate) async fn parked_route(
        &self,
        station: &Station,
        client: &Client,
        head: &Head,
        fields: &Fields,
    ) -> Result<Way, Refusal> {
        self.parked(deadline::given(fields), || self.route(station, client, head)).await
    }

    /// Waits until `attempt` succeeds, the target parks no more, or the time is over.
    ///
    /// - `given`: what the caller's deadline leaves.
    ///
    /// # Errors
    /// Why it is not taken after all; nothing of the request was processed.
    pub(crate) async fn parked<T>(
        &self,
        given: Option<Duration>,
        attempt: impl Fn() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let policy = self.target.load().policy.clone();
        let Some(park) = &policy.park else { return attempt() };
        let Some(mut place) = self.parking.enter(park.max) else {
            let why = format!("{} requests wait for it already, the limit", park.max);
            return Err(self.refused(Reason::Overloaded, &why));
        };
        // A caller that has given up meanwhile would hear nothing of it.
        let given = given.map_or(policy.try_timeout, |given| given.min(policy.try_timeout));
        let end = clock::now() + park.within.min(given.mul_f64(0.95));
        let mut in_time = true;
        loop {
            match attempt() {
                Err(refusal) if in_time && self.parks(&refusal) => {}
                outcome => return outcome,
            }
            in_time = tokio::time::timeout_at(end.into(), place.turned()).await.is_ok();
        }
    }

    /// Gives up idle connections to the process before this one: it is to end.
    fn leave_former(&self, station: &Station, target: &InboundTarget) {
        let mut last = self.last.borrow_mut();
        if last.tenure.is(&target.tenure) {
            return;
        }
        let addresses: Vec<ServiceAddress> = [&target.http, &target.grpc].into_iter().flatten().cloned().collect();
        for former in last.addresses.iter().filter(|former| !addresses.contains(former)) {
            station.pool.empty(former);
        }
        *last = Last { tenure: target.tenure.clone(), addresses };
    }

    pub(crate) fn admit(&self, station: &Station, limits: &Limits) -> Result<Permit, Refusal> {
        self.load.begin(station.worker, limits.in_flight).ok_or_else(|| {
            self.refused(Reason::Overloaded, &format!("{} requests are in flight, the limit", limits.in_flight))
        })
    }

    /// # Errors
    /// When the service takes none: nothing of the request was processed, so that its caller asks another instance.
    pub(crate) fn takes_requests(&self, target: &InboundTarget) -> Result<(), Refusal> {
        if target.draining {
            return Err(self.refused(Reason::Draining, "it ends"));
        }
        if target.ready {
            return Ok(());
        }
        let (reason, why) =
            target.cause.as_ref().map_or((Reason::Starting, String::new()), |cause| (cause.reason, cause.to_string()));
        // Every cause of not being ready tells callers to go elsewhere.
        let reason = if reason.status() == 503 { reason } else { Reason::Starting };
        Err(self.refused(reason, &why))
    }

    fn refused(&self, reason: Reason, why: &str) -> Refusal {
        let service = &self.service;
        let colon = if why.is_empty() { "" } else { ": " };
        Refusal::new(reason, format!("this instance of {service} takes no request{colon}{why}"))
    }

    /// A service may give the reasons of its handlers, and no other: those are the mesh's own.
    pub(crate) fn clear_answer(fields: &mut Fields) {
        let own = headers::reason(fields).filter(|reason| headers::is_of_service(*reason));
        headers::remove_internal(fields);
        if let Some(reason) = own {
            fields.set(Name::Reason, reason.word().as_bytes());
        }
    }
}

/// Below the service's own limit, so that a request does not meet its end.
fn idle_limit(keep_alive: Option<Duration>) -> Duration {
    keep_alive.map_or(KEEP_ALIVE, |own| own.mul_f64(0.6).min(LONGEST_IDLE))
}

/// The pool of connections to the service, which each server of an inbound has for itself.
pub(crate) fn pool(connector: Connector) -> Rc<crate::pool::Pool> {
    crate::pool::Pool::new(connector, crate::pool::Whom::Own)
}
