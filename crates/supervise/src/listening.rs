//! Where a process listens, as the kernel knows it: for the hint that it listens elsewhere than it was told.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::stat;

/// State `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The TCP addresses on which the processes of a group listen; sorted.
pub(crate) fn of_group(group: u32) -> Vec<SocketAddr> {
    let members = stat::all().filter(|found| found.group == group && !found.is_dead());
    let sockets: HashSet<String> = members.flat_map(|found| sockets_of(found.pid)).collect();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let mut found: Vec<SocketAddr> = tables.iter().flat_map(|table| listening(table, &sockets)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The inodes of the sockets that a process has open.
fn sockets_of(pid: u32) -> Vec<String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let target = std::fs::read_link(file.path()).ok()?;
            Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// Lines `sl local remote state tx:rx tr:when retransmits uid timeout inode …`, after a headline.
fn listening(table: &str, sockets: &HashSet<String>) -> Vec<SocketAddr> {
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter(|fields| fields.get(3) == Some(&LISTEN) && fields.get(9).is_some_and(|inode| sockets.contains(*inode)))
        .filter_map(|fields| address(fields.get(1)?))
        .collect()
}

/// `0100007F:1F90`: words of 32 bits as the machine stores them, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = (0..ip.len()).step_by(8).map(|at| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_of_the_process_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
               0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1\n\
               1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1\n\
               2: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 77 1\n";
        let found = listening(table, &HashSet::from(["77".to_owned()]));
        assert_eq!(found, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(address("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("xx"), None);
    }
}
