//! The ways to a running control plane: for its own process, and for the sidecars in it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use synego_identity::Acceptor;
use synego_model::{AccessLines, CallFigures, Declaration, Denial, EjectionReport, Snapshot};
use synego_runtime::lifecycle::Stop;
use tokio::sync::{mpsc, watch};

use super::{Ask, DownAsked, GatewayStatus, Notice, ServiceStatus, Shared};
use crate::link::{self, Carrier};
use crate::order::Commanded;
use crate::registry::Event;

/// A way to a running [`MasterControl`](super::MasterControl).
#[derive(Clone)]
pub struct MasterHandle {
    pub(crate) shared: Arc<Shared>,
}

impl MasterHandle {
    /// Every routing state: all services and all routes.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshot.subscribe()
    }

    /// How each service is, by name.
    #[must_use]
    pub fn services(&self) -> watch::Receiver<Arc<Vec<ServiceStatus>>> {
        self.shared.services.subscribe()
    }

    /// This master for sidecars of the same process.
    #[must_use]
    pub fn in_process(&self) -> InProcessMaster {
        InProcessMaster { name: self.shared.name.clone(), carriers: self.shared.carriers.clone() }
    }

    /// The admin API and `grpc.health.v1`, to be merged into the router of the admin port.
    pub fn admin_router(&self) -> axum::Router {
        crate::admin::router(Arc::clone(&self.shared))
    }

    /// Serves the admin API, and `pages` beside it, where other machines reach it, until `stop`: under TLS alone, and
    /// to those who say by a token or an operator's certificate who they are.
    pub async fn serve_admin_under_tls(
        &self,
        listener: tokio::net::TcpListener,
        acceptor: Acceptor,
        pages: axum::Router,
        stop: Stop,
    ) {
        let pages = crate::admin::guarded(pages, Arc::clone(&self.shared));
        crate::admin::serve_under_tls(listener, acceptor, self.admin_router().merge(pages), stop).await;
    }

    /// Tells what faces the world from this process.
    pub fn set_gateway(&self, gateway: Option<GatewayStatus>) {
        self.shared.gateway.send_replace(gateway);
        self.shared.turned.send_modify(|turns| *turns += 1);
    }

    /// Replaces what the assembly wants people to know.
    pub fn warn(&self, notices: Vec<Notice>) {
        self.shared.notices.send_replace(notices);
        self.shared.turned.send_modify(|turns| *turns += 1);
    }

    /// Tells what this master's own ingress sees as a caller: which instances it leaves out, what it called and what
    /// access refused since the last time. To be told each second; one that finds the registry busy is dropped.
    pub fn ingress_report(&self, ejections: Vec<EjectionReport>, calls: Vec<CallFigures>, denials: Vec<Denial>) {
        let _full = self.shared.asks.try_send(Ask::Event(Box::new(Event::Ingress(ejections, calls, denials))));
    }

    /// Puts another declaration in force.
    pub fn declare(&self, declaration: Declaration) {
        let declaration = Arc::new(declaration);
        self.shared.declared.send_modify(|declared| {
            declared.revision += 1;
            declared.declaration = declaration;
        });
    }

    /// Which exchanges get a line in the access log: hands over what is declared, and again whenever that changes.
    /// Ends with the control plane.
    pub async fn follow_access_lines(&self, mut take: impl FnMut(AccessLines)) {
        let mut declared = self.shared.declared.subscribe();
        loop {
            let lines = declared.borrow_and_update().declaration.access_lines;
            take(lines);
            if declared.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is declared, as it is now.
    #[must_use]
    pub fn declaration(&self) -> Arc<Declaration> {
        Arc::clone(&self.shared.declared.borrow().declaration)
    }

    /// Says who obeys orders for the machine that this master shares its process with, also while no sidecar runs there.
    pub fn set_machine(&self, node: &str, machine: Arc<dyn Commanded>) {
        *self.shared.machine.lock().unwrap_or_else(PoisonError::into_inner) = Some((node.to_owned(), machine));
    }

    /// Wishes to end everything that this process runs. `None` once it was taken; never taken: the wish is refused.
    #[must_use]
    pub fn downs(&self) -> Option<mpsc::Receiver<DownAsked>> {
        self.shared.downs_taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns once every declared service has as many instances ready as are wanted, or after `within`. A master that
    /// comes back waits for this before it takes requests: it does not know yet who is there.
    pub async fn settled(&self, within: Duration) {
        let mut services = self.services();
        let all_ready = services.wait_for(|all| all.iter().all(|service| service.ready >= service.wanted));
        let _ready_or_late = tokio::time::timeout(within, all_ready).await;
    }
}

/// A master in the same process: nothing of its links crosses the network.
#[derive(Clone, Debug)]
pub struct InProcessMaster {
    name: String,
    carriers: mpsc::Sender<Carrier>,
}

impl InProcessMaster {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A carrier to it; `None` when it ended.
    pub(crate) async fn carrier(&self) -> Option<Carrier> {
        let (ours, theirs) = link::in_memory();
        self.carriers.send(theirs).await.ok().map(|()| ours)
    }
}
