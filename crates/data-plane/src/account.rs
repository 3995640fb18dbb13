//! Under what the exchanges of one route are counted and written down, on one worker: looked up once, and shared by all of
//! them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use synego_model::{Reason, ServiceName};

use crate::calls::Counts;
use crate::metrics::{HopKind, RouteCell, WorkerMetrics};

/// The account of one route, or of a service that no route leads to.
pub(crate) struct Account {
    /// The place of the route, as label; empty where there are no routes.
    pub(crate) route: Arc<str>,
    pub(crate) service: ServiceName,
    exchanges: Arc<RouteCell>,
    /// What is counted of the service as a whole.
    whole: Arc<RouteCell>,
    /// What is reported of the service, where this hop calls it.
    calls: Option<Arc<Counts>>,
}

impl Account {
    /// - `route`: its place; empty: none.
    /// - `calls`: where its calls are counted for reports.
    pub(crate) fn new(
        metrics: &WorkerMetrics,
        hop: HopKind,
        service: &ServiceName,
        route: Arc<str>,
        calls: Option<Arc<Counts>>,
    ) -> Rc<Self> {
        let exchanges = metrics.cell(hop, service.as_str(), &route);
        let whole = metrics.cell(hop, service.as_str(), "");
        Rc::new(Self { route, service: service.clone(), exchanges, whole, calls })
    }

    /// An exchange ended.
    ///
    /// - `tries`: how often it was sent.
    /// - `failed`: whether its callee is to blame.
    pub(crate) fn ended(&self, status: u16, reason: Option<Reason>, duration: Duration, tries: u32, failed: bool) {
        self.exchanges.ended(status, reason, duration);
        if let (Some(calls), true) = (&self.calls, tries > 0) {
            calls.count(failed);
        }
        if tries > 1 {
            self.whole.retried(tries - 1);
        }
    }

    /// So many more requests to the service are in flight, or less.
    pub(crate) fn add_in_flight(&self, change: i64) {
        self.whole.add_in_flight(change);
    }

    /// An instance of the service was left out.
    pub(crate) fn ejected(&self) {
        self.whole.ejected();
    }
}
