//! Addresses: where something of ours listens, where something else is reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::problems::Problem;

fn bad(text: &str, expected: &str, help: &str) -> Problem {
    Problem::new("bad_address", format!("`{text}` is not an address"))
        .expected(format!("expected {expected}"))
        .help(help)
}

/// A port, or an IP address and a port; `localhost` is 127.0.0.1. The text is given back when it is one.
pub(crate) fn bind(text: &str) -> Result<String, Problem> {
    if socket(text, IpAddr::V4(Ipv4Addr::LOCALHOST)).is_some() {
        return Ok(text.to_owned());
    }
    Err(bad(
        text,
        "a port, or an IP address and a port such as `127.0.0.1:8080`, `[::1]:8080`",
        "one listens at an address of this machine; a bare port takes the usual ones, `0` a free one",
    ))
}

/// The socket address of a text that [`bind`] took; a bare port gets `host`.
pub(crate) fn socket(text: &str, host: IpAddr) -> Option<SocketAddr> {
    if let Some(port) = port(text) {
        return Some(SocketAddr::new(host, port));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self::port(port)?));
    }
    text.parse().ok()
}

fn port(text: &str) -> Option<u16> {
    // `+1` and `007` parse as numbers, but nobody writes a port so.
    let plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric { text.parse::<Ipv4Addr>().is_ok() } else { text.len() <= 253 && text.split('.').all(label) }
}

fn host_and_port(text: &str) -> bool {
    if text.starts_with('[') {
        return text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0);
    }
    text.rsplit_once(':').is_some_and(|(name, number)| host(name) && port(number).is_some_and(|port| port != 0))
}

/// `host:port` of something elsewhere.
pub(crate) fn reach(text: &str) -> Result<String, Problem> {
    if host_and_port(text) {
        return Ok(text.to_owned());
    }
    let help = if host(text) && port(text).is_none() {
        format!("write `{text}:3001`: the mesh port of that master")
    } else {
        "write such as `m1:3001`, `10.0.0.11:3001`, `[::1]:3001`".to_owned()
    };
    Err(bad(text, "`host:port`", &help))
}

/// Where a service is found: a port of this machine, `host:port` or `unix:/path`. A bare port becomes `127.0.0.1:PORT`.
pub(crate) fn target(text: &str) -> Result<String, Problem> {
    if let Some(number) = port(text).filter(|port| *port != 0) {
        return Ok(format!("127.0.0.1:{number}"));
    }
    if text.strip_prefix("unix:").is_some_and(|path| !path.is_empty()) || host_and_port(text) {
        return Ok(text.to_owned());
    }
    let bare = text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest));
    let nearest = bare.filter(|bare| host_and_port(bare)).map(str::to_owned);
    Err(bad(
        text,
        "a port, `host:port` or `unix:/path`",
        "write such as `127.0.0.1:9000`; scheme and path are no part of it",
    )
    .nearest(nearest))
}

/// An address range.
pub(crate) fn cidr(text: &str) -> Result<String, Problem> {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let sound = address.parse::<IpAddr>().is_ok_and(|address| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        bits.is_none_or(|bits| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
    });
    if sound {
        Ok(text.to_owned())
    } else {
        Err(bad(text, "a range such as `10.0.0.0/8`", "write such as `203.0.113.0/24`, or one address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_binds_what_its_key_says() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let shown = |text| socket(text, any).map(|address| address.to_string());
        assert_eq!(shown("8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(shown("localhost:8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(shown("[::1]:80").as_deref(), Some("[::1]:80"));
        for bad in ["", "65536", "08080", "+80", "example.com:80", "22:22", "1.2.3.4"] {
            assert!(bind(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_is_found_by_port_host_or_socket() {
        assert_eq!(target("9000").ok().as_deref(), Some("127.0.0.1:9000"));
        for good in ["10.0.0.9:7000", "db.internal:5432", "[::1]:80", "unix:/run/x.sock"] {
            assert_eq!(target(good).ok().as_deref(), Some(good));
        }
        for bad in ["0", "http://a:1/", "a", "a:0", "300.1.1.1:80", "unix:", "a b:1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
