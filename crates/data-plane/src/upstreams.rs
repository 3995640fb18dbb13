//! Whom one caller calls, on one worker: the services with their balancers and budgets, and the connections to them.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use synego_balance::{Balancer, Ejected, Failure, PickError, RetryBudget, Slot};
use synego_identity::Connector;
use synego_model::process::ServiceAddress;
use synego_model::{Endpoint, InstanceId, Limits, ServiceName, ServiceTable, Snapshot};
use synego_runtime::clock;

use crate::account::Account;
use crate::calls::{CallBook, Page};
use crate::metrics::{HopKind, WorkerMetrics};
use crate::pool::{Pool, Whom};

/// All that one caller keeps on one worker; its listeners on that worker share it.
pub(crate) struct Upstreams {
    pub(crate) pool: Rc<Pool>,
    pub(crate) page: Rc<Page>,
    kind: HopKind,
    metrics: Rc<WorkerMetrics>,
    services: RefCell<HashMap<ServiceName, Rc<Service>, RandomState>>,
    /// The snapshot by which services that left were forgotten last.
    pruned: Cell<*const Snapshot>,
}

/// One service as one caller on one worker sees it.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    kind: HopKind,
    metrics: Rc<WorkerMetrics>,
    page: Rc<Page>,
    balancer: RefCell<Balancer>,
    pub(crate) budget: RefCell<RetryBudget>,
    table: RefCell<Arc<ServiceTable>>,
    /// Whether others were told of instances that are left out.
    has_told: Cell<bool>,
    /// Of requests that no route leads to it.
    pub(crate) account: Rc<Account>,
}

/// One request in flight to one instance.
pub(crate) struct Flight {
    service: Rc<Service>,
    pub(crate) slot: Slot,
    heard: bool,
    is_stream: bool,
}

/// An instance that was picked.
pub(crate) struct Picked {
    pub(crate) flight: Flight,
    pub(crate) id: InstanceId,
    pub(crate) address: ServiceAddress,
}

impl Upstreams {
    pub(crate) fn new(
        kind: HopKind,
        connector: Connector,
        book: &CallBook,
        worker: usize,
        metrics: Rc<WorkerMetrics>,
    ) -> Rc<Self> {
        Rc::new(Self {
            pool: Pool::new(connector, Whom::Peer),
            page: Rc::new(book.page(worker)),
            kind,
            metrics,
            services: RefCell::default(),
            pruned: Cell::new(std::ptr::null()),
        })
    }

    /// The service of `table`, which is taken up if it is another than the last one.
    pub(crate) fn service(&self, snapshot: &Arc<Snapshot>, table: &Arc<ServiceTable>) -> Rc<Service> {
        let known = self.services.borrow().get(&table.name).cloned();
        let service = match known {
            Some(service) => service,
            None => {
                let fresh = Rc::new(self.fresh(table, snapshot.limits()));
                self.services.borrow_mut().insert(table.name.clone(), fresh.clone());
                fresh
            }
        };
        service.take_up(table, snapshot.limits(), &self.pool);
        if !std::ptr::eq(self.pruned.replace(Arc::as_ptr(snapshot)), Arc::as_ptr(snapshot)) {
            self.services.borrow_mut().retain(|name, _| snapshot.service(name.as_str()).is_some());
        }
        service
    }

    fn fresh(&self, table: &Arc<ServiceTable>, limits: &Limits) -> Service {
        let policy = &table.policy;
        let mut balancer = Balancer::new(&policy.balance, policy.eject.as_ref(), limits.in_flight);
        balancer.update(table, limits.in_flight, clock::now(), clock::unix_ms());
        let calls = Some(self.page.counts(&table.name));
        Service {
            account: Account::new(&self.metrics, self.kind, &table.name, "".into(), calls),
            name: table.name.clone(),
            kind: self.kind,
            metrics: self.metrics.clone(),
            page: self.page.clone(),
            balancer: RefCell::new(balancer),
            budget: RefCell::default(),
            table: RefCell::new(table.clone()),
            has_told: Cell::new(false),
        }
    }
}

impl Service {
    fn take_up(&self, table: &Arc<ServiceTable>, limits: &Limits, pool: &Pool) {
        if Arc::ptr_eq(&self.table.borrow(), table) {
            return;
        }
        let former = self.table.replace(table.clone());
        let now = clock::now();
        self.balancer.borrow_mut().update(table, limits.in_flight, now, clock::unix_ms());
        let takes = |endpoint: &&Endpoint| endpoint.state.takes_requests();
        let there: HashSet<SocketAddr, RandomState> =
            table.endpoints.iter().filter(takes).map(|endpoint| endpoint.address).collect();
        for gone in former.endpoints.iter().filter(takes).filter(|endpoint| !there.contains(&endpoint.address)) {
            pool.empty(&ServiceAddress::Tcp(gone.address));
        }
        if self.has_told.get() {
            self.tell(now);
        }
    }

    /// The account of a route that leads to it.
    pub(crate) fn account_of(&self, route: Arc<str>) -> Rc<Account> {
        Account::new(&self.metrics, self.kind, &self.name, route, Some(self.page.counts(&self.name)))
    }

    /// One instance for a request; those in `not` were tried already.
    pub(crate) fn pick(
        self: &Rc<Self>,
        key: Option<u64>,
        not: &[Slot],
        now: Instant,
        rng: &mut SmallRng,
    ) -> Result<Picked, PickError> {
        let mut balancer = self.balancer.borrow_mut();
        let slot = balancer.pick(key, not, now, rng)?;
        let endpoint = balancer.endpoint(slot).ok_or(PickError::NoEndpoint { known: 0 })?;
        let (id, address) = (endpoint.id.clone(), ServiceAddress::Tcp(endpoint.address));
        balancer.begin(slot, now);
        drop(balancer);
        self.account.add_in_flight(1);
        Ok(Picked { flight: Flight { service: self.clone(), slot, heard: false, is_stream: false }, id, address })
    }

    fn heard(&self, ejected: Option<Ejected>, now: Instant) {
        if let Some(ejected) = ejected {
            self.account.ejected();
            tracing::warn!(service = %self.name, instance = %ejected.id, cause = ejected.failure.word(),
                seconds = ejected.remaining.as_secs(), "instance left out");
            self.tell(now);
        } else if self.has_told.get() {
            self.tell(now);
        }
    }

    fn tell(&self, now: Instant) {
        let ejections = self.balancer.borrow().ejections(now);
        self.has_told.set(!ejections.is_empty());
        self.page.leave_out(&self.name, ejections);
    }
}

impl Flight {
    /// The head of an answer came now to what began then.
    pub(crate) fn answered(&mut self, began: Instant, now: Instant, failed: bool, rng: &mut impl Rng) {
        let latency = now.duration_since(began);
        self.heard = true;
        let ejected = self.service.balancer.borrow_mut().answered(self.slot, latency, failed, now, rng);
        self.service.heard(ejected, now);
    }

    /// It lasts: from now on it takes no place among the requests that the instance may have.
    pub(crate) fn becomes_stream(&mut self) {
        if !std::mem::replace(&mut self.is_stream, true) {
            self.service.balancer.borrow_mut().becomes_stream(self.slot);
        }
    }

    /// No head of an answer came.
    pub(crate) fn failed(&mut self, failure: Failure, rng: &mut impl Rng) {
        let now = clock::now();
        self.heard = true;
        let ejected = self.service.balancer.borrow_mut().failed(self.slot, failure, now, rng);
        self.service.heard(ejected, now);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.heard {
            // The draw decides on the length of an ejection, and nobody is left out for this.
            let mut rng = SmallRng::seed_from_u64(0);
            let _ = self.service.balancer.borrow_mut().failed(self.slot, Failure::Abandoned, clock::now(), &mut rng);
        }
        let mut balancer = self.service.balancer.borrow_mut();
        if self.is_stream {
            balancer.end_stream(self.slot);
        } else {
            balancer.end(self.slot);
        }
        drop(balancer);
        self.service.account.add_in_flight(-1);
    }
}
