//! The first hop: Nginx, or the world itself, to an instance of the service that a route names. Runs in the master.

use std::net::IpAddr;
use std::sync::Arc;

use synego_identity::{Acceptor, Connector};
use synego_model::{HostPattern, Limits, Protocol, Reason};
use synego_runtime::logs::AccessLog;

use crate::calls::CallBook;
use crate::fields::Fields;
use crate::hop::answer::Refusal;
use crate::hop::head::Head;
use crate::hop::station::{Station, To, Way};
use crate::router::Asked;
use crate::snapshot::SnapshotReader;
use crate::upstreams::Upstreams;

/// Streams at once, bytes of a stream's window and of a connection's for clients at the border.
const AT_THE_BORDER: (u32, u64, u64) = (100, 64 * 1024, 1024 * 1024);
/// Connections at once from one client address that is no listed proxy.
const PER_CLIENT: u32 = 100;

/// How an ingress serves.
#[derive(Clone)]
pub struct IngressConfig {
    /// Who it is, for the access log and so that its listeners share what they know: `master@vm1`.
    pub name: Arc<str>,
    /// Routes, endpoints, policies, limits.
    pub snapshot: SnapshotReader,
    /// Takes connections.
    pub acceptor: Acceptor,
    /// Makes connections to sidecars.
    pub connector: Connector,
    /// One line for each exchange.
    pub access: AccessLog,
    /// What is called and who is left out, for reports.
    pub calls: CallBook,
    /// Proxies whose word on the client is believed.
    pub trusted: Vec<Network>,
    /// Hosts that are served; none: any. Others get 404 `no_route`.
    pub hosts: Vec<HostPattern>,
}

/// A range of addresses: a network and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address in it.
    pub address: IpAddr,
    /// Bits that all its addresses have in common.
    pub prefix: u8,
}

impl Network {
    /// This machine: 127.0.0.0/8 and ::1.
    #[must_use]
    pub fn loopback() -> Vec<Self> {
        vec![
            Self { address: [127, 0, 0, 0].into(), prefix: 8 },
            Self { address: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), prefix: 128 },
        ]
    }

    /// Whether `ip` lies in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (own, other, width) = match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (u128::from(own.to_bits()), u128::from(other.to_bits()), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        let host_bits = 128_u32.min(u32::from(u8::saturating_sub(width, self.prefix)));
        own.checked_shr(host_bits) == other.checked_shr(host_bits)
    }
}

/// The table of an ingress on one worker.
pub(crate) struct Ingress {
    pub(crate) upstreams: std::rc::Rc<Upstreams>,
    pub(crate) trusted: Vec<Network>,
    pub(crate) hosts: Vec<HostPattern>,
}

impl Ingress {
    /// Clients outside get less than peers.
    pub(crate) fn at_the_border(limits: Limits) -> Limits {
        let (streams, window, connection_window) = AT_THE_BORDER;
        Limits {
            streams: limits.streams.min(streams),
            window: limits.window.min(window),
            connection_window: limits.connection_window.min(connection_window),
            ..limits
        }
    }

    pub(crate) fn per_client() -> crate::hop::accept::PerClient {
        crate::hop::accept::PerClient::limited(PER_CLIENT)
    }

    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(ip))
    }

    /// By host, path, method, headers and query.
    pub(crate) fn route(&self, station: &Station, head: &Head, fields: &Fields) -> Result<Way, Refusal> {
        let host = head.host();
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.matches(host)) {
            return Err(Refusal::new(Reason::NoRoute, format!("the host {host} is not served here")));
        }
        let published = station.snapshot.published();
        let asked = Asked { host, path: head.path(), query: head.query(), method: &head.method, fields };
        let route = published.router.find(&asked).ok_or_else(|| {
            Refusal::new(Reason::NoRoute, format!("no route for {} {host}{}", head.method, head.path()))
        })?;
        let name = &route.service;
        let table = published
            .snapshot
            .service(name.as_str())
            .ok_or_else(|| Refusal::new(Reason::NoReadyEndpoint, format!("no ready endpoint for {name}, 0 known")))?;
        if table.protocol == Protocol::Tcp {
            return Err(Refusal::new(Reason::NoRoute, format!("{name} speaks tcp, which no route can reach")));
        }
        Ok(Way {
            route: route.label.clone(),
            service: table.name.clone(),
            policy: route.policy.as_ref().unwrap_or(&table.policy).clone(),
            to: To::Service(self.upstreams.service(&published.snapshot, table)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let loopback = Network::loopback();
        let local = |ip: &str| loopback.iter().any(|network| network.contains(ip.parse().expect("an address")));
        assert!(local("127.0.0.1") && local("127.9.8.7") && local("::1"));
        assert!(!local("128.0.0.1") && !local("::2") && !local("10.0.0.1"));
        let all = Network { address: [0, 0, 0, 0].into(), prefix: 0 };
        assert!(all.contains([1, 2, 3, 4].into()) && !all.contains(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)));
    }
}
