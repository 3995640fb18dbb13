//! What the sidecar reports of its instance, each second and at once on a change.

use std::sync::{Arc, OnceLock};

use synego_control_plane::attach::Attachments;
use synego_control_plane::credential::CredentialHandle;
use synego_control_plane::uplink::UplinkHandle;
use synego_data_plane::{CallBook, DenialBook, LoadMeter, Parking};
use synego_model::{HealthReport, InstanceLoad};
use synego_supervise::stat;
use tokio::sync::watch;

use crate::generation::Generation;
use crate::instance::View;

/// Where the figures of a report come from.
pub(crate) struct Sources {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) meter: LoadMeter,
    pub(crate) calls: CallBook,
    pub(crate) denials: DenialBook,
    /// The generation that serves; figures of its process change without waking anyone.
    pub(crate) current: watch::Receiver<Arc<Generation>>,
    pub(crate) attachments: watch::Receiver<Attachments>,
    /// Where requests wait.
    pub(crate) parking: Parking,
    /// Who it is; `None`: the mesh runs without certificates.
    pub(crate) credential: Option<CredentialHandle>,
    /// Set as soon as there is one; a report before that tells no age.
    pub(crate) uplink: Arc<OnceLock<UplinkHandle>>,
}

impl Sources {
    /// The report now. Takes the figures of calls since the last one out of the book.
    pub(crate) fn report(&self) -> HealthReport {
        let view = self.view.borrow().clone();
        HealthReport {
            state: view.state,
            cause: view.cause,
            load: self.load(view.pid),
            restarts: view.restarts,
            ejections: self.calls.ejections(),
            calls: self.calls.take_figures(),
            denials: self.denials.take(),
            snapshot_age_ms: self.uplink.get().map_or(0, |uplink| uplink.snapshot_age().as_millis() as u64),
            identity: self.credential.as_ref().map(CredentialHandle::report),
        }
    }

    fn load(&self, pid: u32) -> InstanceLoad {
        let current = self.current.borrow().clone();
        let mut load = self.meter.load();
        load.queued = self.parking.waiting();
        let attachments = self.attachments.borrow();
        let attachment = match &current.process {
            Some(_) => attachments.get(&current.number),
            None => attachments.last_key_value().map(|(_, last)| last),
        };
        if let Some(said) = attachment.and_then(|attachment| attachment.load.as_ref()) {
            load.utilization = Some(said.utilization);
        }
        match &current.process {
            Some(process) => {
                let process = process.borrow();
                load.memory_bytes = process.memory_bytes;
                load.cpu_cores = process.cpu_cores;
            }
            None if pid > 0 => load.memory_bytes = stat::usage(pid).map_or(0, |usage| usage.memory_bytes),
            None => {}
        }
        load
    }
}
