//! The second hop: a service to an instance of another service, through its own sidecar.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use synego_identity::{Acceptor, Connector};
use synego_model::access::Asked;
use synego_model::{Caller, Protocol, Reason, ServiceName, ServiceTable, Snapshot};
use synego_runtime::clock;
use synego_runtime::logs::AccessLog;

use crate::calls::CallBook;
use crate::denials::DenialBook;
use crate::fields::{Fields, Name};
use crate::hop::access::Permits;
use crate::hop::answer::Refusal;
use crate::hop::head::Head;
use crate::hop::station::{Station, To, Way};
use crate::snapshot::SnapshotReader;
use crate::upstreams::{Service, Upstreams};

/// How long a request waits for a service that was not called before to be known.
const FIRST_CALL: Duration = Duration::from_secs(1);
/// How often it looks, beside each new snapshot.
const LOOK: Duration = Duration::from_millis(10);
/// How long a name that turned out unknown is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// Names that turned out unknown and are remembered.
const MAX_UNKNOWN: usize = 1000;

/// How an outbound serves.
#[derive(Clone)]
pub struct OutboundConfig {
    /// The calling instance, for the access log and so that its listeners share what they know: `orders-1@vm1`.
    pub name: Arc<str>,
    /// The calling service.
    pub caller: ServiceName,
    /// The one service that this listener reaches, whatever a request says; `None`: its host says which.
    pub fixed_service: Option<ServiceName>,
    /// Endpoints, policies, limits.
    pub snapshot: SnapshotReader,
    /// Asks for services that are called for the first time.
    pub wanted: Arc<dyn Wanted>,
    /// Takes connections.
    pub acceptor: Acceptor,
    /// Makes connections to sidecars.
    pub connector: Connector,
    /// One line for each exchange.
    pub access: AccessLog,
    /// What is called and who is left out, for reports.
    pub calls: CallBook,
    /// Whom the caller may call, as far as that is known here.
    pub permits: Arc<ArcSwap<Permits>>,
    /// What access refuses.
    pub denials: DenialBook,
}

/// Knows, or finds out, which services there are.
pub trait Wanted: Send + Sync {
    /// Asks for a service; it appears in the snapshot if there is such a service. Never blocks; asking again is harmless.
    fn want(&self, service: &ServiceName);

    /// Whether the mesh has such a service; `None`: no answer yet.
    fn known(&self, service: &ServiceName) -> Option<bool>;
}

/// The table of an outbound on one worker.
pub(crate) struct Outbound {
    pub(crate) fixed: Option<ServiceName>,
    upstreams: Rc<Upstreams>,
    wanted: Arc<dyn Wanted>,
    caller: Caller,
    permits: Arc<ArcSwap<Permits>>,
    known: RefCell<Known>,
    unknown: RefCell<HashMap<ServiceName, Instant>>,
}

/// What was found out of the services that are called, while snapshot and permissions stay the same.
#[derive(Default)]
struct Known {
    snapshot: Option<Arc<Snapshot>>,
    permits: Option<Arc<Permits>>,
    ends: HashMap<ServiceName, Rc<End>, RandomState>,
}

/// A service that is called.
pub(crate) struct End {
    pub(crate) table: Arc<ServiceTable>,
    pub(crate) service: Rc<Service>,
    /// Whether it lets pass whatever the caller asks for, as far as that is known here.
    passes: bool,
}

impl Outbound {
    pub(crate) fn new(config: &OutboundConfig, upstreams: Rc<Upstreams>) -> Self {
        Self {
            upstreams,
            fixed: config.fixed_service.clone(),
            wanted: config.wanted.clone(),
            caller: Caller::Service(config.caller.clone()),
            permits: config.permits.clone(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// By the service that the request names: its host, or the port it came to.
    pub(crate) async fn route(&self, station: &Station, head: &Head) -> Result<Way, Refusal> {
        let name = self.fixed.as_ref().map_or_else(|| head.host(), ServiceName::as_str);
        let end = match self.end(station, name) {
            Some(end) => end,
            None => self.first_end(station, name).await?,
        };
        self.may_call(station, &end, Some((head.method.as_str(), head.path())))?;
        let table = &end.table;
        if table.protocol == Protocol::Tcp {
            return Err(Refusal::new(Reason::BadRequest, format!("{name} speaks tcp: call it at its own port")));
        }
        let service = end.service.clone();
        Ok(Way { account: service.account.clone(), policy: table.policy.clone(), to: To::Service(service) })
    }

    /// Whether the service would let this call pass, as far as that is known here.
    ///
    /// # Errors
    /// When it would not: then nothing is sent.
    pub(crate) fn may_call(&self, station: &Station, end: &End, asked: Asked<'_>) -> Result<(), Refusal> {
        if end.passes {
            return Ok(());
        }
        self.permits.load().judge(station, &self.caller, &end.table, asked)
    }

    /// The service of this name, if there is one in the snapshot in force: one lookup for each request, and no more.
    fn end(&self, station: &Station, name: &str) -> Option<Rc<End>> {
        let published = station.snapshot.published();
        let permits = self.permits.load();
        let mut known = self.known.borrow_mut();
        let is_same = known.snapshot.as_ref().is_some_and(|last| Arc::ptr_eq(last, &published.snapshot))
            && known.permits.as_ref().is_some_and(|last| Arc::ptr_eq(last, &permits));
        if !is_same {
            let (snapshot, permits) = (Some(published.snapshot.clone()), Some(permits.clone()));
            *known = Known { snapshot, permits, ends: HashMap::default() };
        }
        if let Some(end) = known.ends.get(name) {
            return Some(end.clone());
        }
        let table = published.snapshot.service(name)?;
        let service = self.upstreams.service(&published.snapshot, table);
        let end = Rc::new(End { table: table.clone(), service, passes: permits.passes(table) });
        known.ends.insert(table.name.clone(), end.clone());
        Some(end)
    }

    /// The service of this name; one that is not known yet is asked for and waited for, for a while.
    ///
    /// # Errors
    /// When it is no name, or nobody's.
    pub(crate) async fn first_end(&self, station: &Station, name: &str) -> Result<Rc<End>, Refusal> {
        if let Some(end) = self.end(station, name) {
            return Ok(end);
        }
        let name = ServiceName::new(name)
            .map_err(|_| Refusal::new(Reason::UnknownService, format!("`{name}` is not the name of a service")))?;
        let now = clock::now();
        if self.unknown.borrow().get(&name).is_some_and(|until| *until > now) {
            return Err(unknown(&name));
        }
        self.wanted.want(&name);
        let mut snapshots = station.snapshot.clone();
        while clock::now().duration_since(now) < FIRST_CALL && self.wanted.known(&name) != Some(false) {
            tokio::select! {
                () = snapshots.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Some(end) = self.end(station, name.as_str()) {
                return Ok(end);
            }
        }
        let refusal = unknown(&name);
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() >= MAX_UNKNOWN {
            unknown.clear();
        }
        unknown.insert(name, clock::now() + UNKNOWN_FOR);
        Err(refusal)
    }

    /// The calling service.
    pub(crate) fn name(&self) -> &str {
        self.caller.as_str()
    }

    /// Who calls is not for the service to say.
    pub(crate) fn say_caller(&self, fields: &mut Fields) {
        fields.set(Name::Caller, self.name().as_bytes());
    }
}

fn unknown(name: &ServiceName) -> Refusal {
    Refusal::new(Reason::UnknownService, format!("`{name}` is no service of this mesh"))
}
