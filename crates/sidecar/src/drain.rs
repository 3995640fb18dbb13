//! The end of a sidecar: callers are told, requests finish, the process ends, the outbound closes last.

use std::time::Duration;

use synego_control_plane::attach::{AttachHandle, DrainCause};
use synego_control_plane::uplink::UplinkHandle;
use synego_data_plane::Server;
use synego_runtime::clock;
use synego_supervise::Supervisor;
use tokio::sync::watch;

use crate::instance::DrainStep;
use crate::sidecar::Ended;

/// Time in which callers hear of a drain before new requests are refused: a report, a coalesced publication, and slack.
const ANNOUNCE: Duration = Duration::from_millis(300);
/// Time that the end of the process keeps for itself, of the whole drain.
const LAST_GRACE: Duration = Duration::from_secs(2);

/// The end of a sidecar, step by step.
pub(crate) struct Drain {
    pub(crate) within: Duration,
    pub(crate) step: watch::Sender<DrainStep>,
    pub(crate) inbound: Server,
    pub(crate) outbounds: Vec<Server>,
    pub(crate) attached: AttachHandle,
    pub(crate) linked: UplinkHandle,
}

impl Drain {
    pub(crate) async fn run(self, supervisor: Option<Supervisor>) -> Ended {
        let deadline = clock::now() + self.within;
        let left = || deadline.saturating_duration_since(clock::now());
        self.step.send_replace(DrainStep::Announced);
        self.linked.report_now();
        tokio::time::sleep(ANNOUNCE.min(self.within / 4)).await;
        self.step.send_replace(DrainStep::Refusing);
        let for_requests = left().saturating_sub(LAST_GRACE.min(self.within / 4));
        let (_, outcome) =
            tokio::join!(self.attached.drain(DrainCause::Stop, for_requests), self.inbound.drain(for_requests),);
        let exit = match supervisor {
            Some(supervisor) => Some(supervisor.stop(left()).await),
            None => None,
        };
        for outbound in self.outbounds {
            outbound.drain(Duration::ZERO).await;
        }
        Ended { exit, cut_requests: outcome.cut_requests, cut_streams: outcome.cut_streams }
    }
}
