//! Handshakes as metrics: made and refused, by side and cause.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, Opts};
use synego_runtime::telemetry::Metrics;

use crate::own::Own;
use crate::refused::Side;

/// Shows the handshakes of `own` as `synego_tls_handshakes_total` and `synego_tls_refused_total`.
///
/// - `holder`: who it is in this process, such as `users-1@vm1`: several of one service have one identity.
pub fn count_handshakes(metrics: &Metrics, holder: &str, own: &Own) {
    match Handshakes::new(holder, own) {
        Ok(handshakes) => metrics.register(handshakes),
        Err(error) => tracing::error!(cause = %error, "metric left out"),
    }
}

struct Handshakes {
    own: Own,
    made: IntCounterVec,
    refused: IntCounterVec,
}

impl Handshakes {
    fn new(holder: &str, own: &Own) -> prometheus::Result<Self> {
        let made = Opts::new("synego_tls_handshakes_total", "Handshakes that were made, by side.");
        let refused = Opts::new(
            "synego_tls_refused_total",
            "Handshakes that were refused, by the side that refused and the cause.",
        );
        Ok(Self {
            own: own.clone(),
            made: IntCounterVec::new(made.const_label("holder", holder), &["side"])?,
            refused: IntCounterVec::new(refused.const_label("holder", holder), &["side", "cause"])?,
        })
    }
}

impl Collector for Handshakes {
    fn desc(&self) -> Vec<&Desc> {
        [self.made.desc(), self.refused.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The counts are kept by the handle; here they are only written down.
        self.made.reset();
        for (side, count) in self.own.handshakes() {
            self.made.with_label_values(&[side.word()]).inc_by(count);
        }
        self.refused.reset();
        for side in [Side::Accepting, Side::Connecting] {
            // A series that is there before the first refusal can be alerted on.
            self.refused.with_label_values(&[side.word(), "no_certificate"]).inc_by(0);
        }
        for (side, cause, count) in self.own.refusals() {
            self.refused.with_label_values(&[side.word(), cause.word()]).inc_by(count);
        }
        [self.made.collect(), self.refused.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use synego_model::{Identity, MeshName};

    use super::*;
    use crate::refused::{Cause, Refused};

    #[test]
    fn refused_handshakes_are_counted_by_side_and_cause() {
        let own = Own::new(Identity::master(MeshName::new("shop").expect("a name")));
        let metrics = Metrics::new("test");
        count_handshakes(&metrics, "master@here", &own);
        let refused = |cause| Refused {
            cause,
            side: Side::Accepting,
            address: "127.0.0.1:1".parse().expect("an address"),
            expected: String::new(),
            came: None,
            detail: String::new(),
        };
        own.refused(&refused(Cause::Expired));
        own.refused(&refused(Cause::Expired));
        own.met(Side::Connecting, None);
        for _ in 0..2 {
            let text = metrics.render();
            for line in [
                "synego_tls_refused_total{cause=\"expired\",holder=\"master@here\",side=\"accepting\"} 2",
                "synego_tls_refused_total{cause=\"no_certificate\",holder=\"master@here\",side=\"accepting\"} 0",
                "synego_tls_handshakes_total{holder=\"master@here\",side=\"connecting\"} 1",
            ] {
                assert!(text.contains(line), "{line} in {text}");
            }
        }
    }
}
