//! Where the inbound sends requests: what the service said over its link, else the address it was given.

use std::time::Duration;

use synego_control_plane::attach::{Attachment, ListenerProtocol};
use synego_data_plane::InboundTarget;
use synego_model::Reason;
use synego_model::process::ServiceAddress;

/// How long a process keeps an idle connection when it does not say: that of Node.js, the shortest in common use.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The target in this state.
///
/// - `address`: where the process was told to listen.
/// - `is_http`: whether it speaks HTTP/1.1 there, unless its link says otherwise.
/// - `refusal`: why the inbound refuses requests now; `None`: it takes them.
pub(crate) fn of(
    address: &ServiceAddress,
    is_http: bool,
    attachment: &Attachment,
    refusal: Option<Reason>,
) -> InboundTarget {
    let listeners = attachment.hello.as_ref().map(|hello| hello.listeners.as_slice()).unwrap_or_default();
    let of = |wanted: &[ListenerProtocol]| {
        let found = listeners.iter().find(|listener| wanted.contains(&listener.protocol));
        found.map(|listener| (listener.address.clone(), listener.keep_alive))
    };
    let http1 = of(&[ListenerProtocol::Http1]);
    let http2 = of(&[ListenerProtocol::Http2]);
    let grpc = of(&[ListenerProtocol::Grpc]);
    let tcp = of(&[ListenerProtocol::Tcp]);
    let keep_alive = http1.as_ref().and_then(|(_, keep_alive)| *keep_alive).unwrap_or(KEEP_ALIVE);
    let own = |is_wanted: bool| (listeners.is_empty() && is_wanted).then(|| address.clone());
    let plain = |listener: Option<(ServiceAddress, Option<Duration>)>| listener.map(|(address, _)| address);
    InboundTarget {
        http1: plain(http1).or_else(|| own(is_http)),
        http2: plain(http2),
        grpc: plain(grpc).or_else(|| own(!is_http)),
        tcp: plain(tcp).or_else(|| Some(address.clone())),
        keep_alive,
        refusal,
    }
}
