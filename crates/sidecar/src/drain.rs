//! The end of a sidecar: callers are told, requests finish, the process ends, the outbound closes last.

use std::time::Duration;

use synego_control_plane::attach::{AttachHandle, DrainCause};
use synego_control_plane::uplink::UplinkHandle;
use synego_data_plane::Server;
use synego_runtime::clock;
use synego_supervise::{ExitOutcome, Phase};
use tokio::sync::watch;

use crate::conductor::{Led, retire};
use crate::instance::Wishes;
use crate::sidecar::Ended;

/// Time for the masters to take up that a job is done.
const LAST_WORD: Duration = Duration::from_secs(2);

fn was_nothing(exit: ExitOutcome) -> bool {
    exit.code.is_none() && exit.signal.is_none()
}

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
        let over = generation.state().filter(|state| state.phase == Phase::Stopped);
        let gave_up = over.as_ref().is_some_and(|state| state.cause.is_some() && state.exit.is_none_or(was_nothing));
        if over.is_some_and(|state| state.is_done()) {
            // Nobody calls it, and nothing is open: the masters shall hear of the end, and that is all. A short job may
            // end before there is a link.
            let told = async {
                let mut status = self.linked.status();
                let linked = status.wait_for(|status| status.masters.iter().any(|master| master.linked.is_some()));
                if linked.await.is_ok() {
                    self.linked.drain_known().await;
                }
            };
            let _late = tokio::time::timeout(LAST_WORD.min(within), told).await;
        } else {
            retire::refuse(&self.wishes, &self.linked, within).await;
        }
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
        Ended { exit, gave_up, cut_requests: outcome.cut_requests, cut_streams: outcome.cut_streams }
    }
}
