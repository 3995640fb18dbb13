//! The listeners of a master's ingress.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use synego_data_plane::{CallBook, DenialBook, Hop, IngressConfig, Network, Server, SnapshotReader, WorkersHandle};
use synego_identity::{Acceptor, Connector};
use synego_model::HostPattern;
use synego_model::gateway::Listen;
use synego_runtime::logs::AccessLog;

/// What every listener of the ingress shares.
pub(crate) struct Ingress {
    pub(crate) workers: WorkersHandle,
    pub(crate) name: Arc<str>,
    pub(crate) snapshot: SnapshotReader,
    pub(crate) access: AccessLog,
    pub(crate) calls: CallBook,
    pub(crate) denials: DenialBook,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) connector: Connector,
}

impl Ingress {
    /// Serves behind Nginx, which runs on this machine.
    pub(crate) fn serve(&self, address: SocketAddr) -> anyhow::Result<Server> {
        self.serve_as(address, Network::loopback(), Vec::new(), Vec::new())
    }

    /// Serves facing the world itself.
    pub(crate) fn serve_world(&self, listen: &Listen) -> anyhow::Result<Server> {
        self.serve_as(listen.address, Vec::new(), listen.proxy_protocol.clone(), self.hosts.clone())
    }

    fn serve_as(
        &self,
        address: SocketAddr,
        trusted: Vec<Network>,
        introduced_by: Vec<Network>,
        hosts: Vec<HostPattern>,
    ) -> anyhow::Result<Server> {
        let hop = Hop::Ingress(IngressConfig {
            name: self.name.clone(),
            snapshot: self.snapshot.clone(),
            acceptor: Acceptor::plain(),
            connector: self.connector.clone(),
            access: self.access.clone(),
            calls: self.calls.clone(),
            denials: self.denials.clone(),
            trusted,
            introduced_by,
            hosts,
        });
        self.workers.serve(address, hop).with_context(|| format!("ingress {address}"))
    }
}
