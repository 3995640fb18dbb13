//! The listeners by which the own process reaches others.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use synego_control_plane::uplink::UplinkHandle;
use synego_data_plane::{CallBook, DenialBook, Hop, OutboundConfig, Permits, Server, SnapshotReader, Wanted};
use synego_identity::Acceptor;
use synego_model::ServiceName;

use crate::config::SidecarConfig;
use crate::sidecar::{Shared, peers};

/// The outbound's listeners: one that picks by name, one of its own for each used service.
pub(crate) struct Outbound<'a> {
    pub(crate) config: &'a SidecarConfig,
    pub(crate) shared: &'a Shared,
    pub(crate) name: Arc<str>,
    pub(crate) snapshot: SnapshotReader,
    pub(crate) calls: CallBook,
    pub(crate) permits: Arc<ArcSwap<Permits>>,
    pub(crate) denials: DenialBook,
    pub(crate) link: Arc<OnceLock<UplinkHandle>>,
}

impl Outbound<'_> {
    pub(crate) fn serve(&self, fixed_service: Option<ServiceName>, address: SocketAddr) -> anyhow::Result<Server> {
        let hop = Hop::Outbound(OutboundConfig {
            name: self.name.clone(),
            caller: self.config.service.clone(),
            fixed_service,
            snapshot: self.snapshot.clone(),
            wanted: Arc::new(Names(self.link.clone())),
            acceptor: Acceptor::plain(),
            connector: peers(self.config),
            access: self.shared.journal.writer(),
            calls: self.calls.clone(),
            permits: self.permits.clone(),
            denials: self.denials.clone(),
        });
        self.shared.workers.serve(address, hop).with_context(|| format!("outbound {address}"))
    }
}

/// Asks the control plane for services that a request names.
struct Names(Arc<OnceLock<UplinkHandle>>);

impl Wanted for Names {
    fn want(&self, service: &ServiceName) {
        if let Some(uplink) = self.0.get() {
            uplink.want(service);
        }
    }

    fn known(&self, service: &ServiceName) -> Option<bool> {
        self.0.get()?.known(service)
    }
}
