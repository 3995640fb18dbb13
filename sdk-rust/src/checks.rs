//! The service's own health: where it is in its life, and the checks that it does itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use synego_wire::pb;
use tokio::sync::watch;

use crate::hooks::{Outcome, Reported};

/// How often a check runs, and how long one run may last.
const EVERY: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(1);

/// Failures in a row that make a check fail, and passes in a row that make it pass again.
const DOWN: u32 = 3;
const UP: u32 = 2;

/// What a failed check means for the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it the service is unhealthy and gets no requests.
    Required,
    /// Without it the service is degraded and goes on.
    Optional,
}

/// Where the service is in its own life; what its checks say comes on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Ready,
    Draining,
    Drained,
}

type Probe = Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = Reported> + Send>> + Send + Sync>;

/// A check as declared.
#[derive(Clone)]
pub(crate) struct Check {
    pub(crate) name: String,
    pub(crate) need: Need,
    probe: Probe,
}

impl Check {
    pub(crate) fn new<F, Fut>(name: String, need: Need, probe: F) -> Self
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        let probe: Probe = Arc::new(move |limit| {
            let run = probe(limit);
            Box::pin(async move { run.await.report() })
        });
        Self { name, need, probe }
    }

    /// Runs once; the cause when it does not pass.
    async fn run(&self) -> Result<(), String> {
        match tokio::time::timeout(LIMIT, (self.probe)(LIMIT)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(cause)) => Err(cause.to_string()),
            Err(_) => Err("no answer in 1 s".to_owned()),
        }
    }
}

/// What is known of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    pub(crate) need: Need,
    pub(crate) is_ok: bool,
    pub(crate) cause: String,
    /// Results in a row that speak against `is_ok`; `None` before the first.
    against: Option<u32>,
}

impl Verdict {
    pub(crate) fn new(name: String, need: Need) -> Self {
        Self { name, need, is_ok: true, cause: String::new(), against: None }
    }

    /// Takes one result; whether what is known changed.
    pub(crate) fn take(&mut self, result: Result<(), String>) -> bool {
        let before = (self.is_ok, self.cause.clone());
        let passed = result.is_ok();
        match self.against {
            None => {
                self.is_ok = passed;
                self.against = Some(0);
            }
            Some(_) if passed == self.is_ok => self.against = Some(0),
            Some(so_far) => {
                let enough = if passed { UP } else { DOWN };
                let is_turned = so_far + 1 >= enough;
                self.against = Some(if is_turned { 0 } else { so_far + 1 });
                self.is_ok = if is_turned { passed } else { self.is_ok };
            }
        }
        self.cause = match result {
            Err(mut cause) if !self.is_ok => {
                cause.truncate(cause.floor_char_boundary(256));
                cause
            }
            _ if self.is_ok => String::new(),
            _ => std::mem::take(&mut self.cause),
        };
        before != (self.is_ok, self.cause.clone())
    }
}

/// Phase and checks together: what `State` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) phase: Phase,
    pub(crate) checks: Vec<Verdict>,
}

impl Health {
    pub(crate) fn new(checks: &[Check]) -> Self {
        let checks = checks.iter().map(|check| Verdict::new(check.name.clone(), check.need)).collect();
        Self { phase: Phase::Starting, checks }
    }

    /// The phase to say: a ready service is only as well as its checks.
    pub(crate) fn said_phase(&self) -> pb::Phase {
        let fails = |need| self.checks.iter().any(|check| !check.is_ok && check.need == need);
        match self.phase {
            Phase::Starting => pb::Phase::Starting,
            Phase::Ready if fails(Need::Required) => pb::Phase::Unhealthy,
            Phase::Ready if fails(Need::Optional) => pb::Phase::Degraded,
            Phase::Ready => pb::Phase::Ready,
            Phase::Draining => pb::Phase::Draining,
            Phase::Drained => pb::Phase::Drained,
        }
    }

    /// Whether requests are wanted.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.said_phase(), pb::Phase::Ready | pb::Phase::Degraded)
    }

    pub(crate) fn state(&self) -> pb::State {
        let check = self.checks.iter().map(|check| pb::Check {
            name: check.name.clone(),
            ok: check.is_ok,
            required: check.need == Need::Required,
            cause: check.cause.clone(),
        });
        pb::State { phase: self.said_phase().into(), check: check.collect() }
    }
}

/// Runs every check once and takes the results.
pub(crate) async fn run_all(checks: &[Check], health: &watch::Sender<Health>) {
    let results = futures_util::future::join_all(checks.iter().map(Check::run)).await;
    health.send_if_modified(|health| {
        let mut is_changed = false;
        for (verdict, result) in health.checks.iter_mut().zip(results) {
            is_changed |= verdict.take(result);
        }
        is_changed
    });
}

/// Runs every check again and again until it is dropped.
pub(crate) async fn watch_all(checks: &[Check], health: &watch::Sender<Health>) {
    if checks.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        run_all(checks, health).await;
    }
}
