//! The metrics of the data plane as Prometheus sees them: the cells of all workers, summed.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use synego_model::Reason;
use synego_runtime::telemetry::LATENCY_BUCKETS;

use super::{CLASSES, HopKind, Hub, RouteCell};

/// The families of one hop, as they are filled.
#[derive(Default)]
struct Sums<'a> {
    requests: BTreeMap<[&'a str; 4], u64>,
    seconds: BTreeMap<[&'a str; 2], ([u64; LATENCY_BUCKETS.len() + 1], u64)>,
    in_flight: BTreeMap<&'a str, i64>,
    retries: BTreeMap<&'a str, u64>,
    ejections: BTreeMap<&'a str, u64>,
}

impl<'a> Sums<'a> {
    fn add(&mut self, cell: &'a RouteCell) {
        let (service, route) = (&*cell.service, &*cell.route);
        let classes = CLASSES.iter().zip(&cell.classes).map(|(class, count)| (*class, "", count));
        let reasons = Reason::ALL.iter().zip(&cell.reasons);
        let reasons = reasons.map(|(reason, count)| (class_of(reason.status()), reason.word(), count));
        for (class, reason, count) in classes.chain(reasons).filter(|(_, _, count)| count.load(Relaxed) > 0) {
            *self.requests.entry([service, route, class, reason]).or_default() += count.load(Relaxed);
        }
        if cell.buckets.iter().any(|bucket| bucket.load(Relaxed) > 0) {
            let (buckets, sum) = self.seconds.entry([service, route]).or_default();
            buckets.iter_mut().zip(&cell.buckets).for_each(|(sum, count)| *sum += count.load(Relaxed));
            *sum += cell.sum_us.load(Relaxed);
        }
        if route.is_empty() && !service.is_empty() {
            *self.in_flight.entry(service).or_default() += cell.in_flight.load(Relaxed);
            *self.retries.entry(service).or_default() += cell.retries.load(Relaxed);
            *self.ejections.entry(service).or_default() += cell.ejections.load(Relaxed);
        }
    }
}

fn class_of(status: u16) -> &'static str {
    CLASSES.get(usize::from(status / 100).saturating_sub(1)).copied().unwrap_or("5xx")
}

impl Collector for Hub {
    fn desc(&self) -> Vec<&Desc> {
        // The names depend on the hop alone and are ours: nothing to be checked against others.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = Vec::new();
        for hop in HopKind::ALL {
            let mut sums = Sums::default();
            routes.iter().filter(|cell| cell.hop == hop).for_each(|cell| sums.add(cell));
            families.extend(self.families(hop, &sums));
            families.push(self.denials(hop));
        }
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

impl Hub {
    fn denials(&self, hop: HopKind) -> MetricFamily {
        let denials = self.0.denials.lock().unwrap_or_else(PoisonError::into_inner);
        let of_hop = denials.iter().filter(|((kind, ..), _)| *kind == hop);
        let metrics = of_hop.map(|((_, service, caller, observed), count)| {
            let verdict = if *observed { "observed" } else { "refused" };
            counter(&[("service", service), ("caller", caller), ("verdict", verdict)], *count)
        });
        family(
            format!("synego_{}_denials_total", hop.word()),
            "Calls that access does not permit: refused, or only observed.",
            MetricType::COUNTER,
            metrics.collect(),
        )
    }

    fn families(&self, hop: HopKind, sums: &Sums<'_>) -> Vec<MetricFamily> {
        let cell = self.hop(hop);
        let connections = cell.connections.load(Relaxed);
        let refused = cell.refused_connections.load(Relaxed);
        let is_used = !sums.requests.is_empty() || connections > 0 || refused > 0;
        let requests = sums.requests.iter().map(|([service, route, class, reason], count)| {
            let labels = [("service", *service), ("route", *route), ("code_class", *class), ("reason", *reason)];
            counter(&labels, *count)
        });
        let seconds = sums.seconds.iter().map(|([service, route], (buckets, sum))| {
            histogram(&[("service", service), ("route", route)], buckets, *sum)
        });
        let of_service = |counts: &BTreeMap<&str, u64>| -> Vec<Metric> {
            counts.iter().map(|(service, count)| counter(&[("service", *service)], *count)).collect()
        };
        let name = |what: &str| format!("synego_{}_{what}", hop.word());
        vec![
            family(
                name("requests_total"),
                "Exchanges that ended, by status class, and by reason where the mesh answered.",
                MetricType::COUNTER,
                requests.collect(),
            ),
            family(
                name("exchange_seconds"),
                "Time from the head of a request to the end of its answer, in seconds.",
                MetricType::HISTOGRAM,
                seconds.collect(),
            ),
            family(
                name("in_flight"),
                "Requests in flight.",
                MetricType::GAUGE,
                sums.in_flight.iter().map(|(service, count)| gauge(&[("service", *service)], *count)).collect(),
            ),
            family(name("retries_total"), "Further tries.", MetricType::COUNTER, of_service(&sums.retries)),
            family(
                name("ejections_total"),
                "Instances left out because of failures.",
                MetricType::COUNTER,
                of_service(&sums.ejections),
            ),
            family(
                name("connections"),
                "Open connections of clients.",
                MetricType::GAUGE,
                if is_used { vec![gauge(&[], connections)] } else { Vec::new() },
            ),
            family(
                name("refused_connections_total"),
                "Connections refused because of a limit or broken rules.",
                MetricType::COUNTER,
                if is_used { vec![counter(&[], refused)] } else { Vec::new() },
            ),
        ]
    }
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

fn counter(pairs: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn gauge(pairs: &[(&str, &str)], value: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

/// - `counts`: for each bound, and one for what lies above the last, which the text format shows as `+Inf` by itself.
fn histogram(pairs: &[(&str, &str)], counts: &[u64], sum_us: u64) -> Metric {
    let mut seen = 0;
    let buckets = counts.iter().zip(LATENCY_BUCKETS).map(|(count, bound)| {
        seen += count;
        let mut bucket = Bucket::default();
        bucket.set_cumulative_count(seen);
        bucket.set_upper_bound(bound);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum_us as f64 / 1e6);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    metric
}

fn family(name: String, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name);
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
