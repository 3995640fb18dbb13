//! Metrics of the data plane: each worker writes cells of its own, a collector sums them when somebody looks.

mod collect;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use synego_model::Reason;
use synego_runtime::telemetry::LATENCY_BUCKETS;

/// Pairs of service and route that a worker tells apart for a hop; more are counted as `other`.
const MAX_ROUTES: usize = 1000;
/// Classes of statuses: 1xx to 5xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One of the three hops of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HopKind {
    /// Nginx, or the world, to the mesh.
    Ingress,
    /// A service to its sidecar.
    Outbound,
    /// A peer to the service.
    Inbound,
}

impl HopKind {
    const ALL: [Self; 3] = [Self::Ingress, Self::Outbound, Self::Inbound];

    /// The word, as in logs and the names of metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What all workers of a process count.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Cells>);

#[derive(Default)]
struct Cells {
    routes: Mutex<Vec<Arc<RouteCell>>>,
    /// Calls that access refused or only observed, by hop, callee and caller.
    denials: Mutex<BTreeMap<Denied, u64>>,
    hops: [HopCell; 3],
}

/// Hop, callee, caller, and whether the call passed all the same.
type Denied = (HopKind, Box<str>, Box<str>, bool);

/// Figures of a hop over all workers; they change with connections and failures, not with each request.
#[derive(Default)]
struct HopCell {
    connections: AtomicI64,
    refused_connections: AtomicU64,
}

/// What one worker counts of one route.
pub(crate) struct RouteCell {
    hop: HopKind,
    service: Box<str>,
    route: Box<str>,
    classes: [AtomicU64; CLASSES.len()],
    reasons: Vec<AtomicU64>,
    buckets: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    sum_us: AtomicU64,
    in_flight: AtomicI64,
    retries: AtomicU64,
    ejections: AtomicU64,
}

type Routes = HashMap<Box<str>, HashMap<Box<str>, Arc<RouteCell>, RandomState>, RandomState>;

/// What one worker counts of one hop.
#[derive(Default)]
struct Hop {
    routes: RefCell<Routes>,
    /// How many cells `routes` holds.
    count: Cell<usize>,
    /// All that found no room there.
    other: OnceCell<Arc<RouteCell>>,
}

/// One worker's part.
pub(crate) struct WorkerMetrics {
    hub: Hub,
    hops: [Hop; 3],
}

impl RouteCell {
    fn new(hop: HopKind, service: &str, route: &str) -> Self {
        Self {
            hop,
            service: service.into(),
            route: route.into(),
            classes: Default::default(),
            reasons: Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            buckets: Default::default(),
            sum_us: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
        }
    }

    /// An exchange ended.
    pub(crate) fn ended(&self, status: u16, reason: Option<Reason>, duration: Duration) {
        let index = reason.and_then(|reason| Reason::ALL.iter().position(|known| *known == reason));
        match index.and_then(|index| self.reasons.get(index)) {
            Some(count) => add(count, 1),
            None => {
                let class = usize::from((status / 100).clamp(1, 5) - 1);
                self.classes.get(class).into_iter().for_each(|count| add(count, 1));
            }
        }
        let seconds = duration.as_secs_f64();
        let bucket = LATENCY_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(LATENCY_BUCKETS.len());
        self.buckets.get(bucket).into_iter().for_each(|count| add(count, 1));
        add(&self.sum_us, duration.as_micros() as u64);
    }

    /// So many more requests are in flight, or less.
    pub(crate) fn add_in_flight(&self, change: i64) {
        self.in_flight.store(self.in_flight.load(Relaxed) + change, Relaxed);
    }

    /// So many tries after the first.
    pub(crate) fn retried(&self, tries: u32) {
        add(&self.retries, u64::from(tries));
    }

    /// An instance was left out.
    pub(crate) fn ejected(&self) {
        add(&self.ejections, 1);
    }
}

/// A cell has one writer: reading it and writing it back loses nothing and needs no bus lock.
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

impl WorkerMetrics {
    pub(crate) fn new(hub: Hub) -> Rc<Self> {
        Rc::new(Self { hub, hops: Default::default() })
    }

    /// Access refused a call, or would have.
    pub(crate) fn denied(&self, hop: HopKind, service: &str, caller: &str, observed: bool) {
        let mut denials = self.hub.0.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (hop, service.into(), caller.into(), observed);
        let full = denials.len() >= MAX_ROUTES && !denials.contains_key(&key);
        let key = if full { (hop, "other".into(), "other".into(), observed) } else { key };
        *denials.entry(key).or_default() += 1;
    }

    pub(crate) fn connections(&self, hop: HopKind, change: i64) {
        self.hub.hop(hop).connections.fetch_add(change, Relaxed);
    }

    pub(crate) fn connection_refused(&self, hop: HopKind) {
        self.hub.hop(hop).refused_connections.fetch_add(1, Relaxed);
    }

    /// Where exchanges of a route are counted; with an empty one what is counted of a service as a whole. To be looked up
    /// once, not for each exchange.
    pub(crate) fn cell(&self, hop: HopKind, service: &str, route: &str) -> Arc<RouteCell> {
        let [ingress, outbound, inbound] = &self.hops;
        let cells = match hop {
            HopKind::Ingress => ingress,
            HopKind::Outbound => outbound,
            HopKind::Inbound => inbound,
        };
        if let Some(cell) = cells.routes.borrow().get(service).and_then(|routes| routes.get(route)) {
            return cell.clone();
        }
        if cells.count.get() >= MAX_ROUTES {
            return cells.other.get_or_init(|| self.fresh(hop, "other", "other")).clone();
        }
        cells.count.set(cells.count.get() + 1);
        let cell = self.fresh(hop, service, route);
        cells.routes.borrow_mut().entry(service.into()).or_default().insert(route.into(), cell.clone());
        cell
    }

    /// A cell that is told when somebody looks.
    fn fresh(&self, hop: HopKind, service: &str, route: &str) -> Arc<RouteCell> {
        let cell = Arc::new(RouteCell::new(hop, service, route));
        self.hub.0.routes.lock().unwrap_or_else(PoisonError::into_inner).push(cell.clone());
        cell
    }
}

impl Hub {
    fn hop(&self, hop: HopKind) -> &HopCell {
        let [ingress, outbound, inbound] = &self.0.hops;
        match hop {
            HopKind::Ingress => ingress,
            HopKind::Outbound => outbound,
            HopKind::Inbound => inbound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use synego_runtime::telemetry::Metrics;

    #[test]
    fn what_workers_count_is_summed_when_somebody_looks() {
        let (hub, metrics) = (Hub::default(), Metrics::new("test"));
        metrics.register(hub.clone());
        for _ in 0..2 {
            let worker = WorkerMetrics::new(hub.clone());
            let route = worker.cell(HopKind::Ingress, "users", "/users");
            route.ended(200, None, Duration::from_millis(3));
            route.ended(200, Some(Reason::DeadlineExceeded), Duration::ZERO);
            let service = worker.cell(HopKind::Ingress, "users", "");
            service.add_in_flight(1);
            service.retried(1);
        }
        let text = metrics.render();
        for line in [
            r#"synego_ingress_requests_total{service="users",route="/users",code_class="2xx",reason=""} 2"#,
            r#"synego_ingress_requests_total{service="users",route="/users",code_class="5xx",reason="deadline_exceeded"} 2"#,
            r#"synego_ingress_exchange_seconds_bucket{service="users",route="/users",le="0.005"} 4"#,
            r#"synego_ingress_exchange_seconds_count{service="users",route="/users"} 4"#,
            r#"synego_ingress_in_flight{service="users"} 2"#,
            r#"synego_ingress_retries_total{service="users"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("synego_outbound"));
    }

    #[test]
    fn routes_beyond_the_bound_are_counted_as_other() {
        let hub = Hub::default();
        let worker = WorkerMetrics::new(hub.clone());
        for route in 0..MAX_ROUTES + 50 {
            worker.cell(HopKind::Inbound, "users", &route.to_string()).ended(200, None, Duration::ZERO);
        }
        assert_eq!(hub.0.routes.lock().expect("lock").len(), MAX_ROUTES + 1);
    }
}
