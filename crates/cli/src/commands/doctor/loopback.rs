//! What other users of this machine can do by way of the loopback: whoever reaches a sidecar's outbound there calls in the
//! name of its service, and whoever reaches a service's own port comes in around its sidecar.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;

use synego_wire::pb;

use super::Finding;
use crate::output::amount;

/// Most users that are named.
const NAMED: usize = 4;

/// - `view`: of the mesh that runs here, if one does.
pub(super) fn check(view: Option<&pb::MeshView>) -> Finding {
    let users = others();
    let outbounds = view.map_or_else(BTreeSet::new, outbounds);
    let what = match outbounds.len() {
        0 => "outbounds on the loopback".to_owned(),
        1 => format!("the outbound {}", outbounds.iter().next().map_or("", String::as_str)),
        count => format!("{count} outbounds on the loopback"),
    };
    if users.is_empty() {
        return Finding::passed("loopback", format!("{what}: nobody but this user and root runs anything here"));
    }
    let mut named: Vec<String> = users.iter().take(NAMED).cloned().collect();
    if users.len() > NAMED {
        named.push(format!("{} more", users.len() - NAMED));
    }
    let by = named.join(", ");
    let ports = view.map_or(0, ports);
    let cause = match ports {
        0 => format!("{what} can be used by other users' processes, as the service: {by}"),
        _ => {
            let instances = amount::count(ports, "instance");
            let own = format!("the ports of {instances}, around their sidecars");
            format!("{what} can be used by other users' processes, as the service, and {own}: {by}")
        }
    };
    let help = match ports {
        0 => "a machine, container or network namespace of its own for each user (docs/security.md)",
        _ => {
            "`socket: auto` closes the ports; for the rest a machine, container or network namespace for each user \
              (docs/security.md)"
        }
    };
    Finding::warning("loopback", cause, help)
}

/// How many instances that run here listen on a port.
fn ports(view: &pb::MeshView) -> usize {
    let instances = view.service.iter().flat_map(|service| &service.instance).filter(|instance| instance.pid != 0);
    let on_loopback = |listens: &str| listens.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    let here = instances.filter(|instance| std::path::Path::new(&format!("/proc/{}", instance.pid)).exists());
    here.filter(|instance| on_loopback(&instance.listens)).count()
}

/// The outbounds of the services that run here, as far as this user may see their variables.
fn outbounds(view: &pb::MeshView) -> BTreeSet<String> {
    let instances = view.service.iter().flat_map(|service| &service.instance).filter(|instance| instance.pid != 0);
    let told = instances.filter_map(|instance| {
        let block = std::fs::read(format!("/proc/{}/environ", instance.pid)).ok()?;
        let mut pairs = block.split(|byte| *byte == 0).filter_map(|pair| std::str::from_utf8(pair).ok());
        pairs.find_map(|pair| pair.strip_prefix("SYNEGO_OUTBOUND=")).map(ToOwned::to_owned)
    });
    told.collect()
}

/// Users with processes on this machine, but for this one and root: by name where it has one.
fn others() -> BTreeSet<String> {
    let own = rustix::process::geteuid().as_raw();
    let mut uids = BTreeSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_process =
            process.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        if let (true, Ok(found)) = (is_process, process.metadata()) {
            uids.insert(found.uid());
        }
    }
    let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    uids.into_iter().filter(|uid| *uid != own && *uid != 0).map(|uid| name_of(uid, &known)).collect()
}

fn name_of(uid: u32, passwd: &str) -> String {
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("user {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_as_the_machine_names_it() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n";
        assert_eq!(name_of(33, passwd), "www-data");
        assert_eq!(name_of(1000, passwd), "user 1000");
    }
}
