//! What this part of the program leaves of an instance for the next one, so that the instance stays the same to everybody.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use synego_model::InstanceId;
use synego_model::process::ServiceAddress;
use synego_runtime::keeper;
use synego_runtime::tasks::{self, Kind};
use tokio::sync::watch;

use crate::generation::Generation;
use crate::instance::{DrainStep, Wishes};

/// What the keeper's key of an instance begins with.
const KIND: &str = "instance ";

/// What the next part must know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Left {
    /// Names this run of the sidecar to the masters; the next part goes on under it.
    pub(crate) incarnation: String,
    /// The generation that serves.
    pub(crate) number: u32,
    /// Where it listens.
    address: String,
    /// Whether it takes no requests, because somebody drained it.
    #[serde(default)]
    pub(crate) drained: bool,
}

impl Left {
    /// What a former part left, if one did.
    pub(crate) fn of(id: &InstanceId) -> Option<Self> {
        serde_json::from_str(&keeper::claim(&key(id))?.note).ok()
    }

    /// Where the generation listens.
    pub(crate) fn address(&self) -> Option<ServiceAddress> {
        self.address.parse().ok()
    }
}

/// Whether a former part of this program left this instance running, so that there is nothing to wait for before it begins.
#[must_use]
pub fn is_left(id: &str) -> bool {
    keeper::is_left(&format!("{KIND}{id}"))
}

fn key(id: &InstanceId) -> String {
    format!("{KIND}{id}")
}

/// Under which name the process of a generation is kept.
pub(crate) fn process_name(id: &InstanceId, number: u32) -> String {
    format!("{id} {number}")
}

/// Keeps up what is left, with each generation that serves and each drain.
pub(crate) fn keep(
    id: &InstanceId,
    incarnation: String,
    mut current: watch::Receiver<Arc<Generation>>,
    mut wishes: watch::Receiver<Wishes>,
) {
    let note = move |current: &Generation, wishes: &Wishes| {
        let left = Left {
            incarnation: incarnation.clone(),
            number: current.number,
            address: current.address.to_string(),
            drained: wishes.drain != DrainStep::No,
        };
        // Text and numbers: nothing that could not be written.
        serde_json::to_string(&left).unwrap_or_default()
    };
    let mut last = note(&current.borrow_and_update(), &wishes.borrow_and_update());
    let Some(held) = keeper::hold(&key(id), &last, &[]) else { return };
    tasks::spawn("instance-note", Kind::Connection, async move {
        loop {
            let is_over = tokio::select! {
                changed = current.changed() => changed.is_err(),
                changed = wishes.changed() => changed.is_err(),
            };
            if is_over {
                return;
            }
            let now = note(&current.borrow_and_update(), &wishes.borrow_and_update());
            if now != last {
                held.note(now.clone());
                last = now;
            }
        }
    });
}

/// Ends what a former part left of an instance beside the process that serves: a generation that was on its way in or out.
pub(crate) fn end_others(id: &InstanceId, serving: u32, grace: std::time::Duration) {
    let (own, of_it) = (process_name(id, serving), format!("{id} "));
    synego_supervise::end_left(grace, |name| name.starts_with(&of_it) && name != own);
}
