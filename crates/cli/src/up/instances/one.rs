//! One instance from its turn to its end, and what others learn of it meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use synego_model::{InstanceState, ServiceName};
use synego_runtime::Stop;
use synego_runtime::tasks::{self, Kind};
use synego_sidecar::{Ended, Orders, Shared, Sidecar, SidecarConfig, UplinkStatus};
use synego_supervise::{OutputSink, ProcessState};
use tokio::sync::watch;

use super::lines::own_line;
use super::{Picture, Ready};

/// How long a service waits for those it uses to be ready.
pub(crate) const FOR_THE_USED: Duration = Duration::from_secs(30);

/// One instance on its way.
pub(super) struct One {
    pub(super) config: SidecarConfig,
    pub(super) id: String,
    pub(super) after: Vec<ServiceName>,
    /// How many instances of each service before it must be ready.
    pub(super) wanted: BTreeMap<ServiceName, usize>,
    /// Services that it uses and that start before it: they are given some time.
    pub(super) first: Vec<ServiceName>,
    /// Whether it builds for all instances of its service.
    pub(super) builds: bool,
    pub(super) built: Arc<watch::Sender<bool>>,
    pub(super) is_built: watch::Receiver<bool>,
    pub(super) ready: Arc<watch::Sender<Ready>>,
    pub(super) pictures: Arc<watch::Sender<BTreeMap<String, Picture>>>,
    pub(super) shared: Shared,
    pub(super) sink: OutputSink,
    /// By which it is told to reload or drain, once it runs.
    pub(super) orders: Arc<OnceLock<Orders>>,
}

impl One {
    pub(super) async fn run(mut self, stop: Stop) -> Result<Ended, String> {
        let has_build = self.config.process.as_ref().is_some_and(|process| process.build.is_some());
        let is_left = synego_sidecar::is_left(&self.id);
        tokio::select! {
            () = self.turn(has_build), if !is_left => {}
            () = std::future::ready(()), if is_left => {}
            () = stop.stopped() => return Ok(Ended::default()),
        }
        self.config.is_built = !self.builds;
        let service = self.config.service.clone();
        let sidecar = match Sidecar::bind(self.config, self.shared, self.sink.clone()).await {
            Ok(sidecar) => sidecar,
            Err(error) => {
                let problem = format!("{error:#}");
                tracing::error!(instance = self.id, cause = problem, "cannot bind the sidecar");
                self.sink.push(own_line(format!("the sidecar cannot start: {problem}")));
                stop.stopped().await;
                return Err(problem);
            }
        };
        // Bound once.
        let _first = self.orders.set(sidecar.orders());
        let watching = tasks::spawn(
            "instance-picture",
            Kind::Connection,
            follow(Followed {
                id: self.id,
                service,
                view: sidecar.view(),
                announcement: sidecar.announcement(),
                links: sidecar.links(),
                process: sidecar.process(),
                built: self.builds.then_some(self.built),
                ready: self.ready,
                pictures: self.pictures,
            }),
        );
        let ended = sidecar.serve(stop).await;
        watching.abort();
        Ok(ended)
    }

    /// Returns when those it comes after are ready (jobs: done), and its service is built.
    async fn turn(&mut self, has_build: bool) {
        let mut ready = self.ready.subscribe();
        let (after, wanted) = (&self.after, &self.wanted);
        let all = |ready: &Ready| {
            after.iter().all(|name| ready.get(name).map_or(0, BTreeSet::len) >= wanted.get(name).copied().unwrap_or(1))
        };
        // The sender is this very struct's: it cannot be gone.
        let _ = ready.wait_for(all).await;
        let mut pictures = self.pictures.subscribe();
        let first = &self.first;
        let settled = pictures.wait_for(|pictures| first.iter().all(|used| is_settled(used, pictures)));
        // It may well do without them: nothing is held back for long because something else does not start.
        let waited = async { settled.await.is_ok() };
        let _late = tokio::time::timeout(FOR_THE_USED, waited).await;
        if has_build && !self.builds {
            let _ = self.is_built.wait_for(|built| *built).await;
        }
    }
}

/// Whether an instance of a service takes requests (of a job: is done), or none of them will soon.
fn is_settled(service: &ServiceName, pictures: &BTreeMap<String, Picture>) -> bool {
    let mut views =
        pictures.values().filter(|picture| picture.service == *service).map(|picture| &picture.view).peekable();
    if views.peek().is_none() {
        return false;
    }
    let states: Vec<InstanceState> = views.map(|view| view.state).collect();
    states.iter().any(|state| state.takes_requests() || *state == InstanceState::Gone)
        || states.iter().all(|state| *state == InstanceState::Unhealthy)
}

struct Followed {
    id: String,
    service: ServiceName,
    view: watch::Receiver<synego_sidecar::View>,
    announcement: watch::Receiver<synego_model::Announcement>,
    process: watch::Receiver<Option<ProcessState>>,
    links: watch::Receiver<UplinkStatus>,
    built: Option<Arc<watch::Sender<bool>>>,
    ready: Arc<watch::Sender<Ready>>,
    pictures: Arc<watch::Sender<BTreeMap<String, Picture>>>,
}

/// Keeps what others wait for: who is ready, what is built, how it is.
async fn follow(mut of: Followed) {
    // A master that is lost keeps its place: whoever stands before it finds out by itself, and it may come back.
    let mut ingresses = BTreeMap::new();
    loop {
        let links = of.links.borrow_and_update().clone();
        for link in &links.masters {
            if let Some(ingress) = link.linked.as_ref().and_then(|linked| linked.ingress) {
                ingresses.insert(link.address.clone(), ingress);
            }
        }
        let view = of.view.borrow_and_update().clone();
        let announced = of.announcement.borrow_and_update().clone();
        let pid = of.process.borrow_and_update().as_ref().map_or(0, |process| process.pid);
        if let (Some(built), true) = (&of.built, pid != 0) {
            built.send_if_modified(|built| !std::mem::replace(built, true));
        }
        // What is gone and still tells of itself is a job that is done.
        let takes = view.state.takes_requests() || view.state == InstanceState::Gone;
        of.ready.send_if_modified(|ready| {
            let instances = ready.entry(of.service.clone()).or_default();
            if takes { instances.insert(of.id.clone()) } else { instances.remove(&of.id) }
        });
        let picture = Picture {
            service: of.service.clone(),
            view,
            listens: announced.listens,
            inbound: announced.address.to_string(),
            started_unix_ms: announced.started_unix_ms,
            is_linked: links.masters.iter().any(|master| master.linked.is_some()),
            link_error: links.masters.iter().find_map(|master| master.last_error.clone()).unwrap_or_default(),
            ingresses: ingresses.clone(),
        };
        of.pictures.send_modify(|pictures| {
            pictures.insert(of.id.clone(), picture);
        });
        tokio::select! {
            changed = of.view.changed() => if changed.is_err() { return },
            Ok(()) = of.announcement.changed() => {}
            Ok(()) = of.process.changed() => {}
            Ok(()) = of.links.changed() => {}
        }
    }
}
