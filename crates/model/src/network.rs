//! Ranges of addresses: who is a proxy of ours, who may be believed.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a range of addresses: expected such as `10.0.0.0/8`, or one address")]
pub struct BadNetwork(String);

/// A range of addresses: a network and the length of its prefix in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
            Self { address: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
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

impl FromStr for Network {
    type Err = BadNetwork;
    /// An address and, after a slash, the length of its prefix; without one, the address alone.
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).ok().filter(|prefix| *prefix <= most);
        Ok(Self { address, prefix: prefix.ok_or_else(bad)? })
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;
    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let loopback = Network::loopback();
        let local = |ip: &str| ip.parse().is_ok_and(|ip| loopback.iter().any(|network| network.contains(ip)));
        assert!(local("127.0.0.1") && local("127.9.8.7") && local("::1"));
        assert!(!local("128.0.0.1") && !local("::2") && !local("10.0.0.1"));
        let all = Network { address: [0, 0, 0, 0].into(), prefix: 0 };
        assert!(all.contains([1, 2, 3, 4].into()) && !all.contains(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn a_network_is_written_as_it_was_read() {
        let shown = |text: &str| text.parse::<Network>().map(|network| network.to_string()).ok();
        assert_eq!(shown("10.0.0.0/8").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(shown("203.0.113.7").as_deref(), Some("203.0.113.7/32"));
        assert_eq!(shown("fd00::/8").as_deref(), Some("fd00::/8"));
        for bad in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "a/8", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
