//! Free ports for processes that are told theirs.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use rand::Rng;

/// Ports given last; none of them is given again soon, since its process may not listen yet.
static GIVEN: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());
/// How many are remembered.
const REMEMBERED: usize = 1_000;
/// Where the search begins at the lowest: below lie ports that people choose.
const LOWEST: u16 = 10_000;
const TRIES: usize = 200;

/// A port of the loopback that nobody listens on, outside the range from which the kernel takes ports of outgoing
/// connections, and not given by this process lately.
///
/// # Errors
/// When none is found in 200 draws.
pub fn free_port() -> io::Result<u16> {
    let highest = ephemeral_begin().saturating_sub(1);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..TRIES {
        let port = match highest.checked_sub(LOWEST) {
            Some(room) if room >= 1_000 => rand::rng().random_range(LOWEST..=highest),
            // A machine set up otherwise: then the kernel chooses.
            _ => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
        };
        if !given.contains(&port) && is_free(port) {
            given.push_back(port);
            if given.len() > REMEMBERED {
                given.pop_front();
            }
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no free port found in {TRIES} tries")))
}

fn is_free(port: u16) -> bool {
    let v6 = match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        Ok(_) => true,
        // Without IPv6 nobody listens there either.
        Err(error) => error.kind() == io::ErrorKind::AddrNotAvailable,
    };
    v6 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_begin() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_never_given_twice() {
        let ports: Vec<u16> = (0..200).map(|_| free_port().unwrap()).collect();
        let mut unique = ports.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), ports.len());
        assert!(ports.iter().all(|port| *port >= 10_000 && *port < ephemeral_begin()));
    }

    #[test]
    fn a_port_on_which_someone_listens_is_not_free() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(taken.local_addr().unwrap().port()));
    }
}
