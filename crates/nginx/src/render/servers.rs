//! Server blocks: one for each host that the gateway names, each with the places that hold there.

use serde::Serialize;
use synego_model::gateway::{GatewaySpec, Listen, ListenProtocol};
use synego_model::{HostPattern, Network, PathPattern, Place, Segment};

use crate::quote::{safe, safe_path};

/// One server block, or two: for HTTP and for gRPC.
#[derive(Debug, Serialize)]
pub(super) struct Server {
    /// Value of `server_name`.
    names: String,
    /// For the comment: the hosts as the manifest writes them; empty: any.
    hosts: String,
    is_default: bool,
    /// Every request gets 404.
    is_refused: bool,
    http: Vec<Listening>,
    grpc: Vec<Listening>,
    /// Load balancers whose PROXY header is believed.
    http_introduced_by: Vec<String>,
    grpc_introduced_by: Vec<String>,
    places: Vec<Files>,
    has_root: bool,
}

#[derive(Debug, Serialize)]
struct Listening {
    address: String,
    /// Whether every connection begins with a PROXY header.
    is_introduced: bool,
}

/// Files at a place.
#[derive(Debug, Serialize)]
struct Files {
    kind: &'static str,
    /// The place as the manifest writes it.
    key: String,
    path: String,
    /// What `location` matches: the path and a slash.
    prefix: String,
    /// For `alias` (with a slash) or `root`.
    dir: String,
    /// The folder itself.
    root: String,
    index: String,
    list: bool,
    cache: String,
}

/// A file name that no folder has: `index` cannot be switched off.
const NO_INDEX: &str = ".no-index";

/// All server blocks: first the one for every host, or the refusal of those that are not named.
pub(super) fn servers(gateway: &GatewaySpec, problems: &mut Vec<String>) -> Vec<Server> {
    let listening = |protocol: ListenProtocol| -> Vec<Listening> {
        let wanted = gateway.listen.iter().filter(|listen| listen.protocol == protocol);
        let listening = |listen: &Listen| Listening {
            address: listen.address.to_string(),
            is_introduced: !listen.proxy_protocol.is_empty(),
        };
        wanted.map(listening).collect()
    };
    // Nginx believes a header by the address it came from, for all addresses of a server block alike.
    let introduced_by = |protocol: ListenProtocol| -> Vec<String> {
        let wanted = gateway.listen.iter().filter(|listen| listen.protocol == protocol);
        let mut ranges: Vec<String> =
            wanted.flat_map(|listen| &listen.proxy_protocol).map(Network::to_string).collect();
        ranges.sort();
        ranges.dedup();
        ranges
    };
    for listen in gateway.listen.iter().filter(|listen| listen.address.port() == 0) {
        problems.push(format!("gateway.listen.{}: a port other than 0 is needed", listen.name));
    }
    if gateway.listen.is_empty() {
        problems.push("gateway.listen: at least one address is needed".to_owned());
    }
    let all = all_files(gateway, problems);
    let mut blocks: Vec<HostPattern> = Vec::new();
    let hosts = || gateway.hosts.iter().filter(|host| **host != HostPattern::Any);
    let is_open = hosts().next().is_none();
    let of_places = all.iter().map(|(place, _)| &place.host).filter(|host| **host != HostPattern::Any);
    // A place of a host that is not served is never reached: its block would open that host.
    for host in hosts().chain(of_places.filter(|host| is_open || hosts().any(|served| covers(served, host)))) {
        if !blocks.contains(host) {
            blocks.push(host.clone());
        }
    }
    let block = |host: &HostPattern, is_default: bool, is_refused: bool| {
        let places = if is_refused { Vec::new() } else { files_of(host, &all) };
        Server {
            names: if is_default { "_".to_owned() } else { host.to_string() },
            hosts: host.to_string(),
            is_default,
            is_refused,
            http: listening(ListenProtocol::Http),
            grpc: listening(ListenProtocol::Grpc),
            http_introduced_by: introduced_by(ListenProtocol::Http),
            grpc_introduced_by: introduced_by(ListenProtocol::Grpc),
            has_root: places.iter().any(|files| files.path == "/"),
            places,
        }
    };
    let first = block(&HostPattern::Any, true, !is_open);
    std::iter::once(first).chain(blocks.iter().map(|host| block(host, false, false))).collect()
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &HostPattern, inner: &HostPattern) -> bool {
    match (outer, inner) {
        (HostPattern::Any, _) => true,
        (_, HostPattern::Any) => false,
        (HostPattern::Suffix(wide), HostPattern::Suffix(narrow)) => {
            wide == narrow || narrow.strip_suffix(wide.as_str()).is_some_and(|rest| rest.ends_with('.'))
        }
        (HostPattern::Exact(_), HostPattern::Suffix(_)) => false,
        (_, HostPattern::Exact(host)) => outer.matches(host),
    }
}

/// The places that hold for `host`; of several with one path, that of the most exact host.
fn files_of(host: &HostPattern, all: &[(Place, FilesOf)]) -> Vec<Files> {
    let mut there: Vec<&(Place, FilesOf)> = all.iter().filter(|(place, _)| covers(&place.host, host)).collect();
    there.sort_by_key(|(place, _)| std::cmp::Reverse(place.host.rank()));
    let mut found: Vec<Files> = Vec::new();
    for (place, of) in there {
        let path = place.path.to_string();
        if !found.iter().any(|files| files.path == path) {
            found.push(files(place, path, of));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What a place serves; checked.
struct FilesOf {
    kind: &'static str,
    dir: String,
    index: String,
    list: bool,
    cache: String,
}

fn files(place: &Place, path: String, of: &FilesOf) -> Files {
    let is_root = path == "/";
    Files {
        kind: of.kind,
        key: place.to_string(),
        prefix: if is_root { "/".to_owned() } else { format!("{path}/") },
        dir: if is_root { of.dir.clone() } else { format!("{}/", of.dir.trim_end_matches('/')) },
        root: of.dir.clone(),
        index: of.index.clone(),
        list: of.list,
        cache: of.cache.clone(),
        path,
    }
}

fn all_files(gateway: &GatewaySpec, problems: &mut Vec<String>) -> Vec<(Place, FilesOf)> {
    let mut all = Vec::new();
    let mut add = |kind: &'static str, place: &Place, dir, index: &str, list, cache: String| {
        let key = format!("gateway.{kind} {place}");
        let parts = (literal(&key, &place.path), safe_path(&key, dir), file_name(&key, index));
        match parts {
            (Ok(()), Ok(dir), Ok(index)) => all.push((place.clone(), FilesOf { kind, dir, index, list, cache })),
            (path, dir, index) => problems.extend([path.err(), dir.err(), index.err()].into_iter().flatten()),
        }
    };
    for place in &gateway.static_places {
        let cache = match place.cache.as_secs() {
            0 => "no-cache".to_owned(),
            seconds => format!("public, max-age={seconds}"),
        };
        let index = if place.index.is_empty() { NO_INDEX } else { &place.index };
        add("static", &place.place, &place.dir, index, place.list, cache);
    }
    for place in &gateway.spa_places {
        add("spa", &place.place, &place.dir, &place.index, false, String::new());
    }
    all
}

/// A path of files has no parameters, and nothing that is syntax (which its type refuses already).
fn literal(key: &str, path: &PathPattern) -> Result<(), String> {
    for segment in &path.segments {
        match segment {
            Segment::Literal(text) => safe(key, text).map(drop)?,
            Segment::Param(name) => return Err(format!("{key}: `:{name}` is a parameter, and files have none")),
        }
    }
    Ok(())
}

fn file_name(key: &str, index: &str) -> Result<String, String> {
    if index.is_empty() || index.contains('/') {
        return Err(format!("{key}: `{index}` is not the name of a file"));
    }
    safe(key, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_covers_those_that_are_narrower() {
        let host = |text: &str| text.parse::<HostPattern>().unwrap();
        assert!(covers(&HostPattern::Any, &host("a.com")));
        assert!(covers(&host("*.a.com"), &host("b.a.com")));
        assert!(covers(&host("*.a.com"), &host("*.b.a.com")));
        assert!(covers(&host("*.a.com"), &host("*.a.com")));
        assert!(!covers(&host("*.a.com"), &host("a.com")));
        assert!(!covers(&host("*.a.com"), &host("*.ba.com")));
        assert!(!covers(&host("a.com"), &HostPattern::Any));
        assert!(!covers(&host("a.com"), &host("*.a.com")));
    }
}
