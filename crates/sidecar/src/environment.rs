//! What the process beside the sidecar is told in its environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use synego_model::process::ServiceAddress;
use synego_model::{InstanceName, ServiceName};

/// Everything that the variables follow from.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    /// Where the process shall listen.
    pub(crate) address: &'a ServiceAddress,
    /// Name of the service.
    pub(crate) service: &'a ServiceName,
    /// Name of the instance.
    pub(crate) instance: &'a InstanceName,
    /// Socket of the service protocol.
    pub(crate) socket: &'a Path,
    /// The outbound that picks the service by `Host`.
    pub(crate) outbound: SocketAddr,
    /// A port of its own for each used service.
    pub(crate) used: &'a [(ServiceName, SocketAddr)],
}

/// The variables: `PORT` (or `SOCKET`), `SYNEGO_SERVICE`, `SYNEGO_INSTANCE`, `SYNEGO_SIDECAR`, `SYNEGO_OUTBOUND`, and
/// `SYNEGO_URL_<SERVICE>` for each used service.
#[must_use]
pub(crate) fn variables(told: &Told<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("SYNEGO_SERVICE".to_owned(), told.service.to_string()),
        ("SYNEGO_INSTANCE".to_owned(), told.instance.to_string()),
        ("SYNEGO_SIDECAR".to_owned(), format!("unix:{}", told.socket.display())),
        ("SYNEGO_OUTBOUND".to_owned(), format!("http://{}", told.outbound)),
    ]);
    tell_place(&mut variables, told.address);
    variables.extend(told.used.iter().map(|(service, address)| (url_variable(service), format!("http://{address}"))));
    variables
}

/// Says where to listen in `PORT` or `SOCKET`, and in nothing else.
pub(crate) fn tell_place(variables: &mut BTreeMap<String, String>, address: &ServiceAddress) {
    let (name, other, value) = match address {
        ServiceAddress::Tcp(address) => ("PORT", "SOCKET", address.port().to_string()),
        ServiceAddress::Unix(path) => ("SOCKET", "PORT", path.display().to_string()),
    };
    variables.remove(other);
    variables.insert(name.to_owned(), value);
}

/// The variable that holds the base URL of a service: `SYNEGO_URL_USER_API` for `user-api`.
#[must_use]
pub fn url_variable(service: &ServiceName) -> String {
    format!("SYNEGO_URL_{}", service.as_str().to_ascii_uppercase().replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_where_to_listen_and_where_the_others_are() {
        let name = |text: &str| text.parse::<ServiceName>().expect("a name");
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let variables = variables(&Told {
            address: &ServiceAddress::Tcp(address(9000)),
            service: &name("orders"),
            instance: &"orders-1".parse().expect("a name"),
            socket: Path::new("/run/s.sock"),
            outbound: address(4001),
            used: &[(name("user-api"), address(4003))],
        });
        let expected = [
            ("PORT", "9000"),
            ("SYNEGO_INSTANCE", "orders-1"),
            ("SYNEGO_OUTBOUND", "http://127.0.0.1:4001"),
            ("SYNEGO_SERVICE", "orders"),
            ("SYNEGO_SIDECAR", "unix:/run/s.sock"),
            ("SYNEGO_URL_USER_API", "http://127.0.0.1:4003"),
        ];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
