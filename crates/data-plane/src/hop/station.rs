//! One hop of one server on one worker: everything that an exchange there may use.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use rand::rngs::SmallRng;
use synego_identity::Acceptor;
use synego_model::process::ServiceAddress;
use synego_model::{Caller, Limits, Policy};
use synego_runtime::logs::AccessLog;

use super::accept::PerClient;
use super::access::Who;
use super::answer::Refusal;
use super::connection::Client;
use super::ending::Ending;
use super::head::Head;
use super::headers;
use crate::account::Account;
use crate::denials::DenialBook;
use crate::fields::{Fields, Name, Names};
use crate::inbound::Inbound;
use crate::ingress::Ingress;
use crate::load::Permit;
use crate::metrics::{HopKind, RouteCell, WorkerMetrics};
use crate::outbound::Outbound;
use crate::pool::{Pool, Speak};
use crate::server::{Cells, State};
use crate::snapshot::SnapshotReader;
use crate::tenure::Tenure;
use crate::upstreams::Service;

/// One hop of one server on one worker.
pub(crate) struct Station {
    pub(crate) kind: HopKind,
    /// Who this is, as the access log has it.
    pub(crate) writer: Arc<str>,
    pub(crate) table: Table,
    pub(crate) snapshot: SnapshotReader,
    pub(crate) acceptor: Acceptor,
    pub(crate) pool: Rc<Pool>,
    pub(crate) denials: DenialBook,
    pub(crate) server: Arc<State>,
    pub(crate) ending: Rc<Ending>,
    pub(crate) cells: Arc<Cells>,
    pub(crate) metrics: Rc<WorkerMetrics>,
    pub(crate) log: AccessLog,
    /// Of exchanges that did not fail, so many in a hundred are logged.
    pub(crate) log_share: Arc<AtomicU8>,
    pub(crate) rng: RefCell<SmallRng>,
    /// Those of the connection that began last.
    pub(crate) last_limits: RefCell<Rc<Limits>>,
    /// Connections at once, over all workers of the server.
    pub(crate) max_connections: u32,
    pub(crate) per_client: PerClient,
    pub(crate) worker: usize,
    /// Where exchanges are counted that come to no service; filled by the first.
    pub(crate) nowhere: OnceCell<Arc<RouteCell>>,
}

impl Station {
    /// The bounds for a new connection, shared by those that begin under the same ones.
    pub(crate) fn limits(&self) -> Rc<Limits> {
        let published = self.snapshot.published();
        let limits = match &self.table {
            Table::Ingress(_) => Ingress::at_the_border(published.snapshot.limits().clone()),
            Table::Outbound(_) | Table::Inbound(_) => published.snapshot.limits().clone(),
        };
        let mut last = self.last_limits.borrow_mut();
        if **last != limits {
            *last = Rc::new(limits);
        }
        last.clone()
    }

    /// Where exchanges are counted that come to no service.
    pub(crate) fn nowhere(&self) -> &RouteCell {
        self.nowhere.get_or_init(|| self.metrics.cell(self.kind, "", ""))
    }
}

/// What the three hops do differently: each has its own table.
pub(crate) enum Table {
    Ingress(Ingress),
    Outbound(Outbound),
    Inbound(Inbound),
}

/// Where a request goes and how it is treated: what `route` finds.
pub(crate) struct Way {
    pub(crate) account: Rc<Account>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) to: To,
}

/// Who answers.
pub(crate) enum To {
    /// One of the instances of a service.
    Service(Rc<Service>),
    /// The service of one's own sidecar.
    Own { address: ServiceAddress, speak: Speak, idle_limit: Duration, tenure: Tenure },
}

impl Table {
    pub(crate) async fn route(
        &self,
        station: &Station,
        client: &Client,
        head: &Head,
        fields: &Fields,
    ) -> Result<Way, Refusal> {
        match self {
            Self::Ingress(ingress) => ingress.route(station, head, fields),
            Self::Outbound(outbound) => outbound.route(station, head).await,
            Self::Inbound(inbound) => match inbound.route(station, client, head) {
                Err(refusal) if inbound.parks(&refusal) => {
                    Box::pin(inbound.parked_route(station, client, head, fields)).await
                }
                found => found,
            },
        }
    }

    /// Whether a client's word about its requests (ids, forwarded addresses) is believed: a service and the sidecars of
    /// peers always, at the border only listed proxies.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        match self {
            Self::Ingress(ingress) => ingress.trusts(ip),
            Self::Outbound(_) | Self::Inbound(_) => true,
        }
    }

    /// Whether a peer must say by a PROXY header whose connection it passes on.
    pub(crate) fn introduces(&self, ip: IpAddr) -> bool {
        matches!(self, Self::Ingress(ingress) if ingress.introduces(ip))
    }

    /// How many parts of the mesh, a proxy in front included, a request may have passed before it came here.
    pub(crate) fn before(&self, trusted: bool) -> u8 {
        match self {
            Self::Ingress(_) => u8::from(trusted),
            Self::Outbound(_) => 0,
            Self::Inbound(_) => 2,
        }
    }

    /// Removes from a request what its sender may not say.
    pub(crate) fn clear(&self, fields: &mut Fields) {
        match self {
            // Not believed to anyone outside, a listed proxy included: it passes it on.
            Self::Ingress(_) => headers::remove_internal(fields),
            // Some servers read an underscore as a dash: nobody but the mesh speaks for it in either spelling.
            Self::Outbound(_) => headers::remove_underscored(fields),
            Self::Inbound(_) => {}
        }
    }

    /// Puts who calls in the place of what a request says of it, where a certificate proves it.
    pub(crate) fn prove(&self, fields: &mut Fields, client: &Client) {
        match (self, &client.who) {
            (Self::Inbound(_), Who::Known(Caller::Service(name))) => fields.set(Name::Caller, name.as_str().as_bytes()),
            (Self::Inbound(_), Who::Known(Caller::Ingress)) => fields.remove(Name::Caller),
            _ => {}
        }
    }

    /// The calling service; at the border nobody.
    pub(crate) fn caller<'a>(&'a self, fields: &'a Fields) -> Option<&'a [u8]> {
        match self {
            Self::Ingress(_) => None,
            Self::Outbound(outbound) => Some(outbound.name().as_bytes()),
            Self::Inbound(_) => fields.get(Name::Caller),
        }
    }

    /// Adds to a request what the next hop shall know of its sender.
    pub(crate) fn address(&self, fields: &mut Fields, client: &Client, head: &Head) {
        match self {
            Self::Ingress(_) => headers::say_forwarded(fields, &client.address, head.authority(), client.trusted),
            Self::Outbound(outbound) => outbound.say_caller(fields),
            Self::Inbound(_) => {}
        }
    }

    /// Removes from an answer what must not go on from here.
    pub(crate) fn clear_answer(&self, fields: &mut Fields) {
        match self {
            Self::Ingress(_) => fields.remove_all(Names::LOAD_REPORTS),
            Self::Outbound(_) => {}
            Self::Inbound(_) => Inbound::clear_answer(fields),
        }
    }

    /// A place among the requests in flight, where this hop limits them.
    pub(crate) fn admit(&self, station: &Station, limits: &Limits) -> Result<Option<Permit>, Refusal> {
        match self {
            Self::Ingress(_) | Self::Outbound(_) => Ok(None),
            Self::Inbound(inbound) => inbound.admit(station, limits).map(Some),
        }
    }
}
