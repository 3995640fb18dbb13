//! What a running sidecar passes on from one of its parts to another, for as long as it runs.

use std::sync::Arc;

use synego_control_plane::uplink::SidecarSettings;
use synego_data_plane::WorkersHandle;
use synego_runtime::Readiness;
use synego_supervise::ProcessState;
use tokio::sync::watch;

use crate::generation::Generation;
use crate::instance::View;

/// Logs what the manifest wants logged, as far as a master has said so.
pub(crate) async fn follow_access_lines(mut settings: watch::Receiver<SidecarSettings>, workers: WorkersHandle) {
    loop {
        let lines = settings.borrow_and_update().access_lines;
        lines.into_iter().for_each(|lines| workers.log_lines(lines));
        if settings.changed().await.is_err() {
            return;
        }
    }
}

/// Ready while the instance takes requests.
pub(crate) async fn follow_readiness(mut view: watch::Receiver<View>, readiness: Readiness) {
    let mut guard = Some(readiness.guard("instance"));
    loop {
        let takes = view.borrow_and_update().state.takes_requests();
        if takes {
            guard = None;
        } else if guard.is_none() {
            guard = Some(readiness.guard("instance"));
        }
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// Shows the process of the generation that serves, to those who look from outside.
pub(crate) async fn show(mut current: watch::Receiver<Arc<Generation>>, shown: watch::Sender<Option<ProcessState>>) {
    loop {
        let generation = current.borrow_and_update().clone();
        let Some(mut process) = generation.process.clone() else {
            if current.changed().await.is_err() {
                return;
            }
            continue;
        };
        loop {
            let now = process.borrow_and_update().clone();
            shown.send_replace(Some(now));
            tokio::select! {
                changed = current.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                changed = process.changed() => if changed.is_err() {
                    // It has ended; only another generation brings news.
                    if current.changed().await.is_err() {
                        return;
                    }
                    break;
                },
            }
        }
    }
}
