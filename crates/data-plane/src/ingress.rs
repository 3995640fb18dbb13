//! The first hop: Nginx, or the world itself, to an instance of the service that a route names. Runs in the master.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use synego_identity::{Acceptor, Connector};
use synego_model::{HostPattern, Limits, Network, Protocol, Reason, ServiceTable, Snapshot};
use synego_runtime::logs::AccessLog;

use crate::account::Account;
use crate::calls::CallBook;
use crate::denials::DenialBook;
use crate::fields::Fields;
use crate::hop::access;
use crate::hop::answer::Refusal;
use crate::hop::head::Head;
use crate::hop::station::{Station, To, Way};
use crate::router::{Asked, Prepared};
use crate::snapshot::{Published, SnapshotReader};
use crate::upstreams::{Service, Upstreams};

/// Streams at once, bytes of a stream's window and of a connection's for clients at the border.
const AT_THE_BORDER: (u32, u64, u64) = (100, 64 * 1024, 1024 * 1024);
/// Connections at once from one client address that is no listed proxy.
const PER_CLIENT: u32 = 100;

/// How an ingress serves.
#[derive(Clone)]
pub struct IngressConfig {
    /// Who it is, for the access log and so that its listeners share what they know: `master@vm1`.
    pub name: Arc<str>,
    /// Routes, endpoints, policies, limits.
    pub snapshot: SnapshotReader,
    /// Takes connections.
    pub acceptor: Acceptor,
    /// Makes connections to sidecars.
    pub connector: Connector,
    /// One line for each exchange.
    pub access: AccessLog,
    /// What is called and who is left out, for reports.
    pub calls: CallBook,
    /// What access refuses.
    pub denials: DenialBook,
    /// Proxies whose word on the client is believed.
    pub trusted: Vec<Network>,
    /// Peers that must begin each connection with a PROXY header, which tells whose it is; none: nobody may.
    pub introduced_by: Vec<Network>,
    /// Hosts that are served; none: any. Others get 404 `no_route`.
    pub hosts: Vec<HostPattern>,
}

/// The table of an ingress on one worker.
pub(crate) struct Ingress {
    pub(crate) upstreams: Rc<Upstreams>,
    pub(crate) known: RefCell<Known>,
    pub(crate) trusted: Vec<Network>,
    pub(crate) introduced_by: Vec<Network>,
    pub(crate) hosts: Vec<HostPattern>,
}

/// Where the routes of one snapshot lead on this worker: each is looked up by the first request that it takes.
#[derive(Default)]
pub(crate) struct Known {
    snapshot: Option<Arc<Snapshot>>,
    /// By the number of the route.
    ends: Vec<Option<Rc<End>>>,
}

/// Where a route leads.
struct End {
    table: Arc<ServiceTable>,
    service: Rc<Service>,
    account: Rc<Account>,
}

impl Ingress {
    /// Clients outside get less than peers.
    pub(crate) fn at_the_border(limits: Limits) -> Limits {
        let (streams, window, connection_window) = AT_THE_BORDER;
        Limits {
            streams: limits.streams.min(streams),
            window: limits.window.min(window),
            connection_window: limits.connection_window.min(connection_window),
            ..limits
        }
    }

    pub(crate) fn per_client() -> crate::hop::accept::PerClient {
        crate::hop::accept::PerClient::limited(PER_CLIENT)
    }

    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }

    /// Whether a peer must say by a PROXY header whose connection it passes on.
    pub(crate) fn introduces(&self, ip: IpAddr) -> bool {
        self.introduced_by.iter().any(|network| network.contains(ip))
    }

    /// By host, path, method, headers and query.
    pub(crate) fn route(&self, station: &Station, head: &Head, fields: &Fields) -> Result<Way, Refusal> {
        let host = head.host();
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.matches(host)) {
            return Err(Refusal::new(Reason::NoRoute, format!("the host {host} is not served here")));
        }
        let published = station.snapshot.published();
        let asked = Asked { host, path: head.path(), query: head.query(), method: &head.method, fields };
        let route = published.router.find(&asked).ok_or_else(|| {
            Refusal::new(Reason::NoRoute, format!("no route for {} {host}{}", head.method, head.path()))
        })?;
        let end = self.end(&published, route)?;
        let table = &end.table;
        access::judge_ingress(station, table, route.rules.as_deref(), Some((head.method.as_str(), head.path())))?;
        let policy = route.policy.as_ref().unwrap_or(&table.policy).clone();
        Ok(Way { account: end.account.clone(), policy, to: To::Service(end.service.clone()) })
    }

    /// Where a route leads; no name is looked up once a request has taken it.
    fn end(&self, published: &Published, route: &Prepared) -> Result<Rc<End>, Refusal> {
        let mut known = self.known.borrow_mut();
        if !known.snapshot.as_ref().is_some_and(|last| Arc::ptr_eq(last, &published.snapshot)) {
            known.snapshot = Some(published.snapshot.clone());
            known.ends.clear();
            known.ends.resize_with(published.router.len(), || None);
        }
        let place = known.ends.get_mut(route.number);
        if let Some(Some(end)) = &place {
            return Ok(end.clone());
        }
        let name = &route.service;
        let table = published
            .snapshot
            .service(name.as_str())
            .ok_or_else(|| Refusal::new(Reason::NoReadyEndpoint, format!("no ready endpoint for {name}, 0 known")))?;
        if table.protocol == Protocol::Tcp {
            return Err(Refusal::new(Reason::NoRoute, format!("{name} speaks tcp, which no route can reach")));
        }
        let service = self.upstreams.service(&published.snapshot, table);
        let account = service.account_of(route.label.clone());
        let end = Rc::new(End { table: table.clone(), service, account });
        place.into_iter().for_each(|place| *place = Some(end.clone()));
        Ok(end)
    }
}
