//! How it all ends: Nginx first, then the services, the master last, each step told to whoever asked for it.

use std::sync::Arc;
use std::time::Duration;

use synego_master::{DownAsked, DownOutcome, DownStep};
use synego_runtime::Stopper;
use synego_runtime::tasks::{self, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::console::{Console, Line};
use super::edge::Nginx;
use super::instances::{DRAIN, Gone, Instances};
use super::joined;

/// Of the whole drain, the share that Nginx has before the services behind it drain too.
const EDGE_SHARE: u32 = 4;

/// The `synego down` that is being obeyed.
pub(super) type Asked = Arc<std::sync::Mutex<Option<DownAsked>>>;

/// Stops the process when `synego down` asks for it, and keeps what was asked.
pub(super) fn listen_for_down(downs: Option<mpsc::Receiver<DownAsked>>, stopper: Stopper) -> Asked {
    let kept = Asked::default();
    if let Some(mut downs) = downs {
        let into = kept.clone();
        tasks::spawn("down", Kind::Connection, async move {
            while let Some(asked) = downs.recv().await {
                if let Ok(mut kept) = into.lock() {
                    kept.get_or_insert(asked);
                }
                stopper.stop();
            }
        });
    }
    kept
}

/// What has to be ended, in its order.
pub(super) struct Parts {
    pub(super) nginx: Option<Nginx>,
    pub(super) instances: Instances,
    pub(super) end_master: Stopper,
    pub(super) served: Option<JoinHandle<()>>,
    pub(super) local_admin: Option<joined::Served>,
}

impl Parts {
    /// Nginx first, so that nothing new comes; then the services, callers before those they call; the master last.
    pub(super) async fn end(self, console: &mut Console<'_>, shown: &mut mpsc::Receiver<Line>, down: Asked) {
        let asked = down.lock().ok().and_then(|mut kept| kept.take());
        let within = match &asked {
            Some(asked) if asked.now => Duration::ZERO,
            Some(asked) => asked.within,
            None => DRAIN,
        };
        let (said, mut steps) = mpsc::channel::<String>(64);
        let now = if within.is_zero() {
            "ending now".to_owned()
        } else {
            format!("draining, at most {} s; Ctrl-C ends now", within.as_secs())
        };
        // The channel is empty and open.
        let _ = said.send(now).await;
        let told = asked.map(|asked| asked.steps);
        let ending = async move {
            let deadline = synego_runtime::clock::now() + within;
            let left = || deadline.saturating_duration_since(synego_runtime::clock::now());
            // It takes nothing new from the start; WebSockets that go by it end with the instances behind it.
            let mut edge = std::pin::pin!(end_edge(self.nginx, left(), told.clone()));
            let edge_ended = tokio::time::timeout(within / EDGE_SHARE, &mut edge).await.is_ok();
            let rest_of_edge = async {
                if !edge_ended {
                    edge.await;
                }
            };
            let (gone, mut ends) = mpsc::channel::<Gone>(64);
            let telling = async {
                while let Some(gone) = ends.recv().await {
                    let is_cut = gone.in_haste || gone.cut != (0, 0);
                    let outcome = if is_cut { DownOutcome::CutOff } else { DownOutcome::Ended };
                    step(told.as_ref(), &gone.instance, outcome, gone.cut).await;
                    // The console is there until the last step.
                    let _ = said.send(words(&gone)).await;
                }
            };
            tokio::join!(self.instances.end(left(), gone), telling, rest_of_edge);
            if self.served.is_some() {
                step(told.as_ref(), "master", DownOutcome::Ended, (0, 0)).await;
            }
            drop(told);
            if let Some(admin) = self.local_admin {
                admin.end().await;
            }
            self.end_master.stop();
            if let Some(served) = self.served {
                let ended = tokio::time::timeout(left().max(Duration::from_secs(2)), served).await;
                if ended.is_err() {
                    self.end_master.cut();
                }
            }
        };
        tokio::join!(ending, console.drain(shown, &mut steps));
    }
}

/// Ends Nginx: it refuses new connections and finishes those that are open.
async fn end_edge(nginx: Option<Nginx>, within: Duration, told: Option<mpsc::Sender<DownStep>>) {
    if let Some(nginx) = nginx {
        step(told.as_ref(), "gateway", DownOutcome::Draining, (0, 0)).await;
        nginx.end(within).await;
        step(told.as_ref(), "gateway", DownOutcome::Ended, (0, 0)).await;
    }
}

fn words(gone: &Gone) -> String {
    let cut = match gone.cut {
        (0, 0) if gone.in_haste => ", cut off".to_owned(),
        (0, 0) => String::new(),
        (requests, streams) => format!(", cut off {requests} requests and {streams} streams"),
    };
    let exit = if gone.exit.is_empty() { String::new() } else { format!(" ({})", gone.exit) };
    format!("{} ended{exit}{cut}", gone.instance)
}

async fn step(told: Option<&mpsc::Sender<DownStep>>, instance: &str, outcome: DownOutcome, open: (u32, u32)) {
    if let Some(told) = told {
        let step = DownStep { instance: instance.to_owned(), outcome, open_requests: open.0, open_streams: open.1 };
        // Whoever asked may not care any more.
        let _ = told.send(step).await;
    }
}
