//! The end of a sidecar: callers are told, requests finish, the process ends, the outbound closes last.

use std::time::Duration;

use synego_control_plane::attach::{AttachHandle, DrainCause};
use synego_control_plane::uplink::UplinkHandle;
use synego_data_plane::Server;
use synego_runtime::clock;
use tokio::sync::watch;

use crate::conductor::{Led, retire};
use crate::instance::Wishes;
use crate::sidecar::Ended;

/// The end of a sidecar, step by step.
pub(crate) struct Drain {
    pub(crate) led: Led,
    pub(crate) wishes: watch::Sender<Wishes>,
    pub(crate) inbound: Server,
    pub(crate) outbounds: Vec<Server>,
    pub(crate) attached: AttachHandle,
    pub(crate) linked: UplinkHandle,
}

impl Drain {
    pub(crate) async fn run(self) -> Ended {
        let Led { generation, supervisor, retiring, within } = self.led;
        let deadline = clock::now() + within;
        let left = || deadline.saturating_duration_since(clock::now());
        retire::refuse(&self.wishes, &self.linked, within).await;
        let for_requests = left().saturating_sub(retire::last_grace(within));
        let (_, outcome) = tokio::join!(
            retire::finish(&generation, &self.attached, DrainCause::Stop, for_requests),
            self.inbound.drain(for_requests),
        );
        let exit = match supervisor {
            Some(supervisor) => Some(supervisor.stop(left()).await),
            None => None,
        };
        for former in retiring {
            let abort = former.abort_handle();
            if tokio::time::timeout(left().max(Duration::from_millis(1)), former).await.is_err() {
                // Its process is killed with it.
                abort.abort();
            }
        }
        for outbound in self.outbounds {
            outbound.drain(Duration::ZERO).await;
        }
        Ended { exit, cut_requests: outcome.cut_requests, cut_streams: outcome.cut_streams }
    }
}
