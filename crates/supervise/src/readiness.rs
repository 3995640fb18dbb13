//! The proof that a started process is ready.

use std::time::Duration;

use synego_model::process::{ReadyBy, ServiceAddress};
use synego_model::{HealthSpec, Probe, RestartWhen};
use tokio::sync::watch;

use crate::capture::Capture;
use crate::notify::{NotifySocket, Said};
use crate::probe::{self, ProbeContext};
use crate::spec::ProcessSpec;

/// Time between looks at a process that is not ready yet; doubled up to `SLOWEST`.
const SOON: Duration = Duration::from_millis(10);
const SLOWEST: Duration = Duration::from_millis(200);
/// Time for one look at an open port.
const PORT_LOOK: Duration = Duration::from_secs(1);

/// What proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It says so on its notify socket.
    Notify,
    /// A line of its output.
    Log(String),
    /// A look that must succeed once.
    Probe(Probe, Duration),
    /// Its start.
    Started,
    /// Its end with code 0: it is a job.
    Done,
}

impl Proof {
    /// As the manifest says it; else its health probe; else, of a job, its end; else its open port; without a port its
    /// start.
    pub(crate) fn of(spec: &ProcessSpec) -> Self {
        let port = || if spec.address.is_some() { Self::Probe(Probe::Tcp, PORT_LOOK) } else { Self::Started };
        let timeout = spec.health.as_ref().map_or(PORT_LOOK, |health| health.timeout);
        match (&spec.ready.by, &spec.health) {
            (Some(ReadyBy::Port), _) => port(),
            (Some(ReadyBy::Notify), _) => Self::Notify,
            (Some(ReadyBy::Log(pattern)), _) => Self::Log(pattern.clone()),
            (Some(ReadyBy::Probe(probe)), _) => Self::Probe(probe.clone(), timeout),
            (None, Some(HealthSpec { probe, timeout, .. })) => Self::Probe(probe.clone(), *timeout),
            (None, None) if spec.restart.when == RestartWhen::Never => Self::Done,
            (None, None) => port(),
        }
    }

    /// For the sentence `not ready after 30s: …`.
    pub(crate) fn missing(&self, address: Option<&ServiceAddress>, last_look: &str) -> String {
        match self {
            Self::Notify => "it did not say READY=1 on NOTIFY_SOCKET".to_owned(),
            Self::Log(pattern) => format!("no line of its output matches `{pattern}`"),
            Self::Probe(Probe::Tcp, _) => {
                format!("nothing listens on {}", address.map_or_else(|| "its port".to_owned(), ToString::to_string))
            }
            Self::Probe(..) => last_look.to_owned(),
            Self::Started => "it was not started".to_owned(),
            Self::Done => "it is a job, and has not ended".to_owned(),
        }
    }
}

/// Returns once the process is ready.
///
/// - `context`: `None` only for a process without address.
/// - `last_look`: gets what the last failed look said.
/// - `status`: gets what the process says of itself.
pub(crate) async fn ready(
    proof: &Proof,
    context: Option<&ProbeContext>,
    capture: &Capture,
    notify: Option<&NotifySocket>,
    last_look: &watch::Sender<String>,
    status: &watch::Sender<String>,
) {
    match (proof, context, notify) {
        (Proof::Started, ..) => {}
        (Proof::Log(_), ..) => capture.matched().await,
        (Proof::Notify, _, Some(notify)) => loop {
            let said = notify.next().await;
            for said in &said {
                if let Said::Status(text) = said {
                    status.send_replace(text.clone());
                }
            }
            if said.contains(&Said::Ready) {
                return;
            }
        },
        (Proof::Probe(probe, timeout), Some(context), _) => {
            let mut pause = SOON;
            while let Err(problem) = probe::run(probe, context, *timeout).await {
                last_look.send_replace(problem);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(SLOWEST);
            }
        }
        // A probe without an address, or no socket to hear from: it can never prove itself.
        (Proof::Probe(..), None, _) | (Proof::Notify, _, None) => std::future::pending().await,
        // Its end is told by the kernel.
        (Proof::Done, ..) => std::future::pending().await,
    }
}
