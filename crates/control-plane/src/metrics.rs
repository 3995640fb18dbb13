//! The metrics of the control plane, one struct for each component.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};
use synego_model::{InstanceName, ServiceName};
use synego_runtime::telemetry::Metrics;

/// Registers what could be made; a name that is refused is a mistake of the program, told in the log, never its end.
fn registered<C: Collector + Clone + 'static>(metrics: &Metrics, made: prometheus::Result<C>) -> Option<C> {
    match made {
        Ok(collector) => {
            metrics.register(collector.clone());
            Some(collector)
        }
        Err(error) => {
            tracing::error!(cause = %error, "metric left out");
            None
        }
    }
}

/// What a master counts.
#[derive(Debug)]
pub(crate) struct MasterMetrics {
    instances: Option<IntGaugeVec>,
    services: Option<IntGauge>,
    epoch: Option<IntGauge>,
    links: Option<IntGauge>,
    reports: Option<IntCounter>,
    published: Option<IntCounterVec>,
    refused: Option<IntCounterVec>,
}

impl MasterMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauge = |name: &str, help: &str| registered(metrics, IntGauge::new(name, help));
        let counters = |name: &str, help: &str, label: &str| {
            registered(metrics, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        Self {
            instances: registered(
                metrics,
                IntGaugeVec::new(Opts::new("synego_registry_instances", "Instances by state."), &["state"]),
            ),
            services: gauge("synego_registry_services", "Services that are known."),
            epoch: gauge("synego_registry_epoch", "Version of the routing state."),
            links: gauge("synego_mesh_links", "Sidecars that are linked."),
            reports: registered(metrics, IntCounter::new("synego_mesh_reports_total", "Reports taken from sidecars.")),
            published: counters("synego_mesh_published_total", "Updates sent to sidecars, by kind.", "kind"),
            refused: counters("synego_mesh_refused_total", "What was refused, by what: joins, updates.", "what"),
        }
    }

    pub(crate) fn registry(&self, registry: &crate::registry::Registry, links: usize) {
        use synego_model::InstanceState::{Degraded, Draining, Gone, Ready, Starting, Unhealthy};
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let mut states = [Starting, Ready, Degraded, Unhealthy, Draining, Gone].map(|state| (state, 0));
        for found in registry.instances() {
            states.iter_mut().filter(|(state, _)| *state == found.state).for_each(|(_, there)| *there += 1);
        }
        for (state, there) in states {
            self.instances.iter().for_each(|gauges| gauges.with_label_values(&[state.word()]).set(count(there)));
        }
        let set = |gauge: &Option<IntGauge>, value| gauge.iter().for_each(|gauge| gauge.set(value));
        set(&self.services, count(registry.snapshot().services().count()));
        set(&self.epoch, i64::try_from(registry.snapshot().epoch().0).unwrap_or(i64::MAX));
        set(&self.links, count(links));
    }

    pub(crate) fn reported(&self) {
        self.reports.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn published(&self, kind: &str) {
        self.published.iter().for_each(|counters| counters.with_label_values(&[kind]).inc());
    }

    pub(crate) fn refused(&self, what: &str) {
        self.refused.iter().for_each(|counters| counters.with_label_values(&[what]).inc());
    }
}

fn of_instance(name: &str, help: &str, service: &ServiceName, instance: &str) -> Opts {
    Opts::new(name, help).const_label("service", service.as_str()).const_label("instance", instance)
}

/// What a sidecar counts of its links to masters.
#[derive(Debug)]
pub(crate) struct UplinkMetrics {
    linked: Option<IntGauge>,
    age: Option<IntGauge>,
    taken: Option<IntCounter>,
    refused: Option<IntCounter>,
    lost: Option<IntCounter>,
    lines_dropped: Option<IntCounter>,
}

impl UplinkMetrics {
    pub(crate) fn new(metrics: &Metrics, service: &ServiceName, instance: &str) -> Self {
        let gauge = |name, help| registered(metrics, IntGauge::with_opts(of_instance(name, help, service, instance)));
        let counter =
            |name, help| registered(metrics, IntCounter::with_opts(of_instance(name, help, service, instance)));
        Self {
            linked: gauge("synego_uplink_linked_masters", "Masters to which a link stands."),
            age: gauge(
                "synego_uplink_snapshot_age_seconds",
                "Time since the snapshot in force was known to be current.",
            ),
            taken: counter("synego_uplink_taken_total", "Snapshots and deltas put in force."),
            refused: counter("synego_uplink_refused_total", "Broken updates that were kept out."),
            lost: counter("synego_uplink_lost_total", "Links that ended."),
            lines_dropped: counter("synego_uplink_lines_dropped_total", "Lines of output that did not fit on a link."),
        }
    }

    pub(crate) fn status(&self, linked: usize, age: std::time::Duration) {
        self.linked.iter().for_each(|gauge| gauge.set(i64::try_from(linked).unwrap_or(i64::MAX)));
        self.age.iter().for_each(|gauge| gauge.set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
    }

    pub(crate) fn taken(&self) {
        self.taken.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn refused(&self) {
        self.refused.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn lost(&self) {
        self.lost.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn line_dropped(&self) {
        self.lines_dropped.iter().for_each(IntCounter::inc);
    }
}

/// What a sidecar counts of the process beside it.
#[derive(Debug)]
pub(crate) struct AttachMetrics {
    attached: Option<IntGauge>,
    refused: Option<IntCounter>,
    lines: Option<IntCounter>,
    lines_dropped: Option<IntCounter>,
}

impl AttachMetrics {
    pub(crate) fn new(metrics: &Metrics, service: &ServiceName, instance: &InstanceName) -> Self {
        let opts = |name, help| of_instance(name, help, service, instance.as_str());
        let counter = |name, help| registered(metrics, IntCounter::with_opts(opts(name, help)));
        Self {
            attached: registered(
                metrics,
                IntGauge::with_opts(opts("synego_attach_attached", "Streams of the service protocol that stand.")),
            ),
            refused: counter("synego_attach_refused_total", "Attachments and messages that were refused."),
            lines: counter("synego_attach_lines_total", "Log lines taken from the service."),
            lines_dropped: counter("synego_attach_lines_dropped_total", "Log lines of the service that were dropped."),
        }
    }

    pub(crate) fn attached(&self, count: usize) {
        self.attached.iter().for_each(|gauge| gauge.set(i64::try_from(count).unwrap_or(i64::MAX)));
    }

    pub(crate) fn refused(&self) {
        self.refused.iter().for_each(IntCounter::inc);
    }

    pub(crate) fn line(&self, taken: bool) {
        let counter = if taken { &self.lines } else { &self.lines_dropped };
        counter.iter().for_each(IntCounter::inc);
    }
}

/// What the door of a mesh counts.
#[derive(Debug)]
pub(crate) struct DoorMetrics {
    issued: Option<IntCounterVec>,
    refused: Option<IntCounterVec>,
}

impl DoorMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counters = |name: &str, help: &str, label: &str| {
            registered(metrics, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        Self {
            issued: counters("synego_ca_issued_total", "Certificates issued, by what for: enrol, renew.", "what"),
            refused: counters(
                "synego_ca_refused_total",
                "Certificates not issued, by cause: token, locked_out, issue.",
                "cause",
            ),
        }
    }

    pub(crate) fn issued(&self, what: &str) {
        self.issued.iter().for_each(|counters| counters.with_label_values(&[what]).inc());
    }

    pub(crate) fn refused(&self, cause: &str) {
        self.refused.iter().for_each(|counters| counters.with_label_values(&[cause]).inc());
    }
}

/// What one keeper of a certificate counts.
#[derive(Debug)]
pub(crate) struct CredentialMetrics {
    ends: Option<IntGauge>,
    renewed: Option<IntCounterVec>,
}

impl CredentialMetrics {
    /// `holder`: whose certificate it is, such as `users-1@vm1`.
    pub(crate) fn new(metrics: &Metrics, holder: &str) -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("holder", holder);
        let ends = opts("synego_identity_not_after_seconds", "When the certificate in force ends; seconds since 1970.");
        let renewed = opts("synego_identity_renewals_total", "Renewals of the certificate, by outcome: done, failed.");
        Self {
            ends: registered(metrics, IntGauge::with_opts(ends)),
            renewed: registered(metrics, IntCounterVec::new(renewed, &["outcome"])),
        }
    }

    pub(crate) fn ends(&self, not_after_unix_ms: u64) {
        let seconds = i64::try_from(not_after_unix_ms / 1000).unwrap_or(i64::MAX);
        self.ends.iter().for_each(|gauge| gauge.set(seconds));
    }

    pub(crate) fn renewed(&self, outcome: &str) {
        self.renewed.iter().for_each(|counters| counters.with_label_values(&[outcome]).inc());
    }
}
