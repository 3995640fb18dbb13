//! Whether the ports of the manifest are free, or those of the mesh that runs already.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use synego_manifest::Manifest;

use super::Finding;
use super::mesh::Seen;
use crate::failure::Failure;

/// Programs whose ports are the mesh's own.
const OURS: [&str; 4] = ["synego", "synego-master", "synego-sidecar", "nginx"];

pub(super) fn check(manifest: Option<&Manifest>, seen: &Result<Seen, Failure>) -> Vec<Finding> {
    let Some(manifest) = manifest else { return vec![Finding::skipped("ports", "no manifest says which")] };
    let wanted = wanted(manifest);
    let holders = Holders::look();
    let mut taken = Vec::new();
    for (key, address) in &wanted {
        let Err(error) = std::net::TcpListener::bind(address) else { continue };
        let port = address.port();
        let finding = match (error.kind(), holders.of(port)) {
            // What the mesh has is not in its way.
            (std::io::ErrorKind::AddrInUse, Some((_, name))) if seen.is_ok() && OURS.contains(&name.as_str()) => {
                continue;
            }
            (std::io::ErrorKind::AddrInUse, holder) => {
                let who = holder.map_or_else(|| "another user".to_owned(), |(pid, name)| format!("pid {pid} ({name})"));
                Finding::failed("ports", format!("{port} is taken by {who}"), format!("stop it, or {}", remedy(key)))
            }
            (std::io::ErrorKind::PermissionDenied, _) => {
                let cause = format!("{port} (`{key}`) needs a privilege: it is below 1024");
                let help = "another port, or `sysctl net.ipv4.ip_unprivileged_port_start=80`";
                Finding::failed("ports", cause, help)
            }
            _ => Finding::failed("ports", format!("{address} (`{key}`): {error}"), "is it an address of this machine?"),
        };
        taken.push(finding);
    }
    taken.extend(outgoing(&wanted));
    if taken.is_empty() {
        let whose = if seen.is_ok() { "free, or the mesh's own" } else { "free" };
        taken.push(Finding::passed("ports", format!("all {} are {whose}", wanted.len())));
    }
    taken
}

/// The ports that the manifest fixes, with their keys.
fn wanted(manifest: &Manifest) -> Vec<(String, SocketAddr)> {
    let listens =
        manifest.gateway.listen.iter().map(|listen| (format!("gateway.listen.{}", listen.name), listen.address));
    let masters = &manifest.masters;
    let own = [("masters.ingress", masters.ingress), ("masters.mesh", masters.mesh), ("masters.admin", masters.admin)];
    let own = own.into_iter().map(|(key, address)| (key.to_owned(), address));
    // A machine that only joins runs no master.
    let own = own.filter(|_| masters.join.is_empty());
    listens.chain(own).filter(|(_, address)| address.port() != 0).collect()
}

fn remedy(key: &str) -> String {
    match key.rsplit_once('.') {
        Some(("gateway.listen", _)) => "`gateway: { listen: PORT }`".to_owned(),
        Some((folder, name)) => format!("`{folder}: {{ {name}: PORT }}`"),
        None => "another port".to_owned(),
    }
}

/// A port that the kernel may give to an outgoing connection is not always free when it is wanted.
fn outgoing(wanted: &[(String, SocketAddr)]) -> Option<Finding> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u16>().ok());
    let range = numbers.next()?..=numbers.next()?;
    let within: Vec<String> = wanted
        .iter()
        .map(|(_, address)| address.port())
        .filter(|port| range.contains(port))
        .map(|port| port.to_string())
        .collect();
    let cause =
        format!("{} may be taken by an outgoing connection ({}–{})", within.join(", "), range.start(), range.end());
    let help =
        format!("`sysctl net.ipv4.ip_local_reserved_ports={}`, or ports below {}", within.join(","), range.start());
    (!within.is_empty()).then(|| Finding::warning("ports", cause, help))
}

/// Who listens where, as far as this user may see it.
struct Holders {
    /// Inode of the socket, by port.
    sockets: HashMap<u16, Vec<u64>>,
}

impl Holders {
    fn look() -> Self {
        let mut sockets: HashMap<u16, Vec<u64>> = HashMap::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
                if let Some((port, inode)) = listening(line) {
                    sockets.entry(port).or_default().push(inode);
                }
            }
        }
        Self { sockets }
    }

    /// Process id and name of who has `port`; `None`: nobody, or somebody whose files this user may not see.
    fn of(&self, port: u16) -> Option<(u32, String)> {
        let names: Vec<PathBuf> =
            self.sockets.get(&port)?.iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
        std::fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid = process.file_name().to_str()?.parse::<u32>().ok()?;
            let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
            files.find(|file| std::fs::read_link(file.path()).is_ok_and(|target| names.contains(&target)))?;
            let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        })
    }
}

/// Port and inode of a line of `/proc/net/tcp`, if it is a socket that listens.
fn listening(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    Some((port, fields.get(9)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found_by_its_socket() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (pid, _) = Holders::look().of(port).expect("this very process");
        assert_eq!(pid, std::process::id());
        drop(listener);
        assert_eq!(Holders::look().of(port), None);
    }

    #[test]
    fn the_remedy_names_the_key_of_the_port() {
        assert_eq!(remedy("gateway.listen.http"), "`gateway: { listen: PORT }`");
        assert_eq!(remedy("masters.admin"), "`masters: { admin: PORT }`");
    }
}
