//! What a sidecar tells the masters of itself before its service has said anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use synego_control_plane::uplink::{self, MasterAddress};
use synego_model::process::ServiceAddress;
use synego_model::{Announcement, InstanceId};

use crate::config::SidecarConfig;

/// The announcement of a fresh sidecar.
///
/// - `inbound`: where it listens for peers; `address`: where its process was told to listen.
pub(crate) fn announcement(
    config: &SidecarConfig,
    id: &InstanceId,
    inbound: SocketAddr,
    address: &ServiceAddress,
) -> Announcement {
    Announcement {
        service: config.service.clone(),
        id: id.clone(),
        node: config.node.clone(),
        zone: config.zone.clone(),
        incarnation: uplink::new_incarnation(),
        address: config.advertise.unwrap_or_else(|| reachable(inbound, &config.masters)),
        protocol: config.protocol,
        version: config.version.clone(),
        labels: config.labels.clone(),
        routes: config.routes.clone(),
        uses: config.uses.clone(),
        pid: 0,
        generation: 0,
        started_unix_ms: 0,
        sdk: String::new(),
        handlers: Vec::new(),
        listens: address.to_string(),
    }
}

/// The address at which others reach a socket that is bound to every interface: that of the interface which leads to the
/// first master. Connecting a datagram socket sends nothing; it only asks the routing table.
fn reachable(bound: SocketAddr, masters: &[MasterAddress]) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let way = masters.iter().find_map(|master| match master {
        MasterAddress::Tcp(address) => {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
            socket.connect(address).ok()?;
            Some(socket.local_addr().ok()?.ip())
        }
        MasterAddress::InProcess(_) => None,
    });
    SocketAddr::new(way.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), bound.port())
}
