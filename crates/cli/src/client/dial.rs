//! The way to a master: over a Unix socket, a loopback address, or TLS to another machine.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use synego_identity::{Alpn, ConnectError, Connector, Stream};
use synego_model::Role;
use synego_model::process::ServiceAddress;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::credentials::Kept;
use crate::failure::Failure;
use crate::mesh::{Address, Target};

/// Longest headers taken of an answer: a refused manifest comes with all its diagnostics in them.
const HEADERS: u32 = 400 * 1024;

/// Opens a channel to a master.
///
/// # Errors
/// With the innermost cause.
pub(super) async fn open(address: &Address, login: Option<&Kept>, limit: Duration) -> Result<Channel, io::Error> {
    // The address is only a name here: the connector decides where to.
    let endpoint = Endpoint::from_static("http://admin.synego").http2_max_header_list_size(HEADERS);
    let connector = login.map_or_else(|| Ok(Connector::plain()), Kept::connector);
    let connector = connector.map_err(|failure| io::Error::other(failure.cause.join("; ")))?;
    let address = address.clone();
    let connect = move |_| {
        let (address, connector) = (address.clone(), connector.clone());
        async move { dial(&address, &connector, limit).await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector(service_fn(connect)).await.map_err(|error| io_cause(&error))
}

async fn dial(address: &Address, connector: &Connector, limit: Duration) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let places: Vec<ServiceAddress> = match address {
        Address::Unix(path) => vec![ServiceAddress::Unix(path.clone())],
        Address::Tcp(host) => tokio::net::lookup_host(host).await?.map(ServiceAddress::Tcp).collect(),
    };
    for place in places {
        let connected = match &place {
            ServiceAddress::Tcp(address) if connector.is_mutual() => {
                connector.connect(address, &Role::Master, Some(Alpn::Http2), limit).await
            }
            // Nothing of ours crosses a network as it is.
            ServiceAddress::Tcp(address) if !address.ip().is_loopback() => return Err(io::Error::other(NOT_KNOWN)),
            near => connector.connect_service(near, limit).await,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(ConnectError::Refused { source, .. }) => last = source,
            Err(ConnectError::TimedOut { .. }) => last = io::ErrorKind::TimedOut.into(),
            Err(ConnectError::Handshake(refused)) => last = io::Error::other(refused.to_string()),
        }
    }
    Err(last)
}

/// The innermost I/O error of a chain.
fn io_cause(error: &(dyn Error + 'static)) -> io::Error {
    let mut last = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            last = Some(io::Error::new(io.kind(), io.to_string()));
        }
        next = error.source();
    }
    last.unwrap_or_else(|| io::Error::other(error.to_string()))
}

/// Why nobody is asked who is on another machine and not known here.
const NOT_KNOWN: &str = "it is on another machine, and nothing is kept here by which it would be known";

/// Why there is no way there, and what to do.
pub(super) fn unreachable(target: &Target, login: Option<&Kept>, error: &io::Error) -> Failure {
    let address = &target.address;
    let text = error.to_string();
    let failure = Failure::new(format!("cannot reach {target}"));
    if text == NOT_KNOWN {
        return failure.cause(format!("{address}: {text}")).help(format!(
            "make a token where the master runs, `synego login --out FILE`, and keep it here: `synego login --admin \
             {address} --token-file FILE`"
        ));
    }
    if login.is_some_and(Kept::is_under_tls) && error.kind() == io::ErrorKind::Other {
        return failure.cause(text).help(format!(
            "if its root was rotated meanwhile, log in anew: `synego login --admin {address} --token-file FILE`, or \
             `--certificate FILE`"
        ));
    }
    let cause = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!("nothing listens at {address}"),
        io::ErrorKind::PermissionDenied => format!("{address} belongs to another user"),
        io::ErrorKind::TimedOut => format!("{address} took no connection in time"),
        _ => format!("{address}: {error}"),
    };
    failure.cause(cause).help("start it with `synego up`, or name a running one: `--admin HOST:3002`")
}
