//! Generations of the service's process: the one that serves, and all that is known of a process by its generation.

use std::collections::BTreeMap;
use std::path::PathBuf;

use synego_control_plane::attach::Started;
use synego_data_plane::Tenure;
use synego_model::RunAs;
use synego_model::process::ServiceAddress;
use synego_runtime::tasks::{self, Kind};
use synego_supervise::{Phase, ProcessState};
use tokio::sync::watch;

/// One generation, as everyone sees it who has to do with the one that serves.
#[derive(Clone)]
pub(crate) struct Generation {
    /// Up by one with each reload; 0: the first.
    pub(crate) number: u32,
    /// Where it listens, unless its link says otherwise.
    pub(crate) address: ServiceAddress,
    /// Its variables.
    pub(crate) env: BTreeMap<String, String>,
    /// Its folder.
    pub(crate) cwd: PathBuf,
    /// As whom it runs.
    pub(crate) run_as: RunAs,
    /// Its process; `None`: another is its parent.
    pub(crate) process: Option<watch::Receiver<ProcessState>>,
    /// What is open on it.
    pub(crate) tenure: Tenure,
}

impl Generation {
    /// Requests and streams that are open on it.
    pub(crate) fn open(&self) -> (u32, u32) {
        (self.tenure.in_flight(), self.tenure.open_streams())
    }

    /// How its process is now.
    pub(crate) fn state(&self) -> Option<ProcessState> {
        self.process.as_ref().map(|process| process.borrow().clone())
    }

    /// Returns when its process has ended for good.
    pub(crate) async fn finished(&self) {
        match self.process.clone() {
            Some(mut process) => {
                if process.wait_for(|state| state.phase == Phase::Stopped).await.is_err() {
                    std::future::pending().await
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// Keeps the process ids of all generations that run: whoever attaches is told by its process.
#[derive(Debug, Clone)]
pub(crate) struct Pids(watch::Sender<Started>);

impl Pids {
    pub(crate) fn new() -> (Self, watch::Receiver<Started>) {
        let (started, listening) = watch::channel(Started::new());
        (Self(started), listening)
    }

    /// Follows the process of a generation until its supervisor is gone.
    pub(crate) fn follow(&self, number: u32, mut process: watch::Receiver<ProcessState>) {
        let started = self.0.clone();
        tasks::spawn("process-id", Kind::Connection, async move {
            loop {
                let pid = process.borrow_and_update().pid;
                let is_over = process.borrow().phase == Phase::Stopped;
                started.send_if_modified(|started| match pid {
                    0 => started.remove(&number).is_some(),
                    pid => started.insert(number, pid) != Some(pid),
                });
                if is_over || process.changed().await.is_err() {
                    break;
                }
            }
            started.send_if_modified(|started| started.remove(&number).is_some());
        });
    }
}
