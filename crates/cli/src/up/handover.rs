//! `synego up` from one part of the program to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use synego_manifest::{Outcome, Sources};
use synego_model::InstanceState;
use synego_runtime::keeper;
use synego_sidecar::Workers;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::instances::{Instances, Picture};
use crate::failure::{DONE, Failure};

/// Time in which a part that takes over becomes as good as its predecessor.
const AS_WELL: Duration = Duration::from_secs(5);

/// What the keeper knows the manifest of this machine by.
const MANIFEST: &str = "manifest";

/// The manifest that a former part of this program went by; `None`: there was none, or no part. Its files may have been
/// changed since: that is for `apply` to take up.
pub(crate) fn in_force() -> Option<Outcome> {
    let cores = u32::try_from(synego_runtime::config::cores()).unwrap_or(u32::MAX);
    let outcome = Sources::of(&keeper::claim(MANIFEST)?.note)?.load(cores);
    outcome.manifest.is_some().then_some(outcome)
}

/// Has the next part of this program go by this manifest.
pub(crate) fn keep_in_force(outcome: &Outcome) {
    if let Some(sources) = outcome.sources() {
        // It is in force to the end of the program.
        std::mem::forget(keeper::hold(MANIFEST, &sources.text(), &[]));
    }
}

/// Finishes what is open on ports that a successor of this part serves.
pub(super) async fn leave(
    instances: &Instances,
    master: Option<JoinHandle<()>>,
    workers: Workers,
) -> Result<u8, Failure> {
    keeper::leaving().await;
    instances.fleet().left().await;
    if let Some(master) = master {
        // What it failed with was reported by its task.
        let _ended = master.await;
    }
    workers.shutdown().await;
    Ok(DONE)
}

/// Tells the keeper that this part serves; one that takes over, once the instances are as ready as they become.
pub(super) async fn tell_keeper(mut pictures: watch::Receiver<BTreeMap<String, Picture>>, instances: usize) {
    if keeper::is_successor() {
        // A job that is done takes none, and neither does one that was drained: they are as they were.
        let is_well = |state: InstanceState| {
            state.takes_requests() || matches!(state, InstanceState::Gone | InstanceState::Draining)
        };
        let all = |pictures: &BTreeMap<String, Picture>| {
            pictures.len() >= instances
                && pictures.values().all(|picture| picture.is_linked && is_well(picture.view.state))
        };
        let _late = tokio::time::timeout(AS_WELL, pictures.wait_for(all)).await.is_err();
    }
    keeper::ready();
}
