//! Where the inbound sends requests: what the service said over its link, else the address it was given.

use std::sync::Arc;
use std::time::Duration;

use synego_control_plane::attach::{Attachment, ListenerProtocol, ServiceListener};
use synego_data_plane::{Gate, InboundTarget, Tenure};
use synego_model::process::ServiceAddress;
use synego_model::{Cause, InstanceState, Policy, Protocol};

/// How long a process keeps an idle connection when it does not say: that of Node.js, the shortest in common use.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Everything that the target follows from.
pub(crate) struct Basis<'a> {
    /// Where the process was told to listen.
    pub(crate) address: &'a ServiceAddress,
    /// What it speaks there, unless its link says otherwise.
    pub(crate) protocol: Protocol,
    /// What it said over its link.
    pub(crate) attachment: &'a Attachment,
    /// The state of the instance.
    pub(crate) state: InstanceState,
    /// Why it is in it.
    pub(crate) cause: Option<Cause>,
    /// Whether callers have been told that it drains, so that new requests are refused.
    pub(crate) refuses: bool,
    /// Whether requests wait until it takes them again.
    pub(crate) parks: bool,
    /// What is open on the process.
    pub(crate) tenure: Tenure,
    /// How its requests are treated.
    pub(crate) policy: Arc<Policy>,
    /// Who may call it.
    pub(crate) gate: Arc<Gate>,
}

/// The target now.
pub(crate) fn of(basis: Basis<'_>) -> InboundTarget {
    let listeners = basis.attachment.hello.as_ref().map(|hello| hello.listeners.as_slice()).unwrap_or_default();
    let said = |protocol: ListenerProtocol| listeners.iter().find(|listener| listener.protocol == protocol);
    let own = |protocol: Protocol| (listeners.is_empty() && basis.protocol == protocol).then(|| basis.address.clone());
    let address = |listener: Option<&ServiceListener>| listener.map(|listener| listener.address.clone());
    let http1 = said(ListenerProtocol::Http1);
    let http2 = said(ListenerProtocol::Http2);
    InboundTarget {
        // A listener for both names HTTP/2 beside HTTP/1.1 at one address.
        http: address(http1.or(http2)).or_else(|| own(Protocol::Http)),
        http2: http2.is_some_and(|second| http1.is_none_or(|first| first.address == second.address)),
        grpc: address(said(ListenerProtocol::Grpc).or(http2)).or_else(|| own(Protocol::Grpc)),
        tcp: address(said(ListenerProtocol::Tcp)).or_else(|| own(Protocol::Tcp)),
        keep_alive: Some(http1.and_then(|listener| listener.keep_alive).unwrap_or(KEEP_ALIVE)),
        ready: !basis.parks && (basis.state.takes_requests() || basis.state == InstanceState::Draining),
        draining: basis.refuses,
        parks: basis.parks,
        tenure: basis.tenure,
        cause: basis.cause,
        policy: basis.policy,
        gate: basis.gate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_says_nothing_is_reached_where_it_was_told_to_listen() {
        let address: ServiceAddress = "127.0.0.1:9000".parse().expect("an address");
        for (protocol, is) in [(Protocol::Http, 0), (Protocol::Grpc, 1), (Protocol::Tcp, 2)] {
            let target = of(Basis {
                address: &address,
                protocol,
                attachment: &Attachment::default(),
                state: InstanceState::Ready,
                cause: None,
                refuses: false,
                parks: false,
                tenure: Tenure::default(),
                policy: Arc::default(),
                gate: Arc::default(),
            });
            let found = [&target.http, &target.grpc, &target.tcp].map(|place| place.as_ref() == Some(&address));
            let mut expected = [false; 3];
            expected[is] = true;
            assert_eq!(found, expected, "{protocol:?}");
            assert!(target.ready && !target.draining);
        }
    }
}
