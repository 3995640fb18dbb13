//! What a sidecar tells the masters of itself before its service has said anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

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
        address: config.advertise.unwrap_or_else(|| reachable(inbound, &config.masters, config.host)),
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
        caps: String::new(),
    }
}

/// An address that no machine has (RFC 5737): the way to it is the way to everywhere else.
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The address at which others reach a socket that is bound to every interface: where the master of this process is reached,
/// else that of the interface which leads to the first master elsewhere.
fn reachable(bound: SocketAddr, masters: &[MasterAddress], host: Option<IpAddr>) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let way = match host {
        Some(host) if !host.is_unspecified() => Some(host),
        Some(_) => way_to(ELSEWHERE),
        None => masters.iter().find_map(|master| match master {
            MasterAddress::Tcp(address) => way_to(address),
            MasterAddress::InProcess(_) => None,
        }),
    };
    SocketAddr::new(way.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), bound.port())
}

/// The own address on the way there. Connecting a datagram socket sends nothing; it only asks the routing table.
fn way_to(there: impl ToSocketAddrs) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(there).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_where_the_machine_is_reached_and_not_its_loopback() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 4000));
        let host = IpAddr::from([10, 0, 0, 11]);
        assert_eq!(reachable(everywhere, &[], Some(host)), SocketAddr::new(host, 4000));
        let near = MasterAddress::Tcp("127.0.0.1:3001".into());
        assert_eq!(reachable(everywhere, &[near], None), SocketAddr::from(([127, 0, 0, 1], 4000)));
        let one = SocketAddr::from(([10, 0, 0, 12], 4000));
        assert_eq!(reachable(one, &[], Some(host)), one, "what is bound to one address is reached there");
    }
}
