//! Listeners and folders: what each must say, and addresses that cannot be taken twice.

use std::net::SocketAddr;

use super::Whole;
use crate::address::socket;
use crate::manifest::{ANY, LOOPBACK};
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node, Span};

pub(super) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    let listeners = whole.tree.at(&["gateway", "listen"]).map(Node::entries).unwrap_or_default();
    for listener in listeners {
        listen(listener, problems);
    }
    for section in ["static", "spa"] {
        for place in whole.tree.at(&["gateway", section]).map(Node::entries).unwrap_or_default() {
            if place.value.entry("dir").is_none() && !matches!(place.value.kind, Kind::Bad) {
                let problem = Problem::new(
                    "missing_key",
                    format!("`{}` of `gateway.{section}` does not say its folder", place.key),
                )
                .expected("expected `dir`")
                .help(format!("write `{section}: {{ {}: ./public }}`", place.key));
                problems.error(place.span, problem);
            }
        }
    }
    files(whole, problems);
    addresses(whole, listeners, problems);
}

/// The master serves routes alone: folders beside it would never be seen.
fn files(whole: &Whole<'_>, problems: &mut Problems) {
    let Some(gateway) = whole.tree.get("gateway") else { return };
    if gateway.get("engine").and_then(Node::text) != Some("master") {
        return;
    }
    for section in ["static", "spa"] {
        if let Some(entry) = gateway.entry(section).filter(|entry| !entry.value.entries().is_empty()) {
            let problem = Problem::new(
                "contradiction",
                format!("`engine: master` serves no files: `{section}` would never be seen"),
            )
            .expected("expected `engine: nginx`, or no folders")
            .help("leave `engine` out: Nginx serves where it is found");
            problems.error(entry.span, problem);
        }
    }
}

fn listen(entry: &Entry, problems: &mut Problems) {
    if matches!(entry.value.kind, Kind::Bad) {
        return;
    }
    if entry.value.entry("address").is_none() {
        let problem = Problem::new("missing_key", format!("listener `{}` does not say where", entry.key))
            .expected("expected `address`")
            .help(format!("write `listen: {{ {}: 8080 }}`", entry.key));
        problems.error(entry.span, problem);
    }
    let protocol = entry.value.entry("protocol").is_some();
    match entry.key.as_str() {
        _ if protocol => {}
        "http" | "grpc" => {}
        "https" | "grpcs" => {
            let problem =
                Problem::new("not_yet", format!("a listener `{}` is not honoured by this version yet", entry.key))
                    .expected("it will say: an address with TLS")
                    .help("leave it out: what is not honoured is refused, never ignored; `http` and `grpc` are");
            problems.error(entry.span, problem);
        }
        name => {
            let address = entry.value.get("address").and_then(Node::text).unwrap_or("8080");
            let problem = Problem::new("missing_key", format!("listener `{name}` does not say what is spoken there"))
                .expected("expected `protocol`; the names `http` and `grpc` imply it")
                .help(format!("write `listen: {{ {name}: {{ address: {address}, protocol: http }} }}`"));
            problems.error(entry.span, problem);
        }
    }
}

/// No two of ours listen at one address; port 0 takes a free one and meets nobody.
fn addresses(whole: &Whole<'_>, listeners: &[Entry], problems: &mut Problems) {
    let mut taken: Vec<(SocketAddr, String, Option<Span>)> = Vec::new();
    let remote = whole.tree.at(&["masters", "join"]).is_some_and(|join| !join.items().is_empty());
    for (key, port) in [("ingress", 3000), ("mesh", 3001), ("admin", 3002)] {
        let said = whole.tree.at(&["masters", key]);
        // Masters elsewhere leave their usual ports here free.
        let usual = || (!remote).then(|| SocketAddr::new(LOOPBACK, port));
        let address = said.map_or_else(usual, |node| socket(node.text()?, LOOPBACK));
        taken.extend(address.map(|address| (address, format!("`masters.{key}`"), said.map(|node| node.span))));
    }
    for listener in listeners {
        let node = listener.value.get("address");
        let address = node.and_then(|node| socket(node.text()?, ANY));
        taken.extend(
            address.map(|address| (address, format!("`gateway.listen.{}`", listener.key), node.map(|node| node.span))),
        );
    }
    if whole.tree.at(&["gateway", "listen"]).is_none() {
        taken.push((SocketAddr::new(ANY, 8080), "`gateway.listen.http`".to_owned(), None));
    }
    for service in whole.services().filter(|service| service.value.get("run").is_some()) {
        let node = service.value.get("port");
        let address = node.and_then(|node| socket(node.text()?, LOOPBACK));
        taken.extend(
            address.map(|address| (address, format!("`services.{}.port`", service.key), node.map(|node| node.span))),
        );
    }
    for (index, (address, name, span)) in taken.iter().enumerate() {
        let meets = |(other, _, _): &&(SocketAddr, String, Option<Span>)| {
            let any = other.ip().is_unspecified() || address.ip().is_unspecified();
            other.port() == address.port() && address.port() != 0 && (any || other.ip() == address.ip())
        };
        let Some((_, first, first_span)) = taken.iter().take(index).find(meets) else { continue };
        let Some(place) = span.or(*first_span) else { continue };
        let origin = first_span.map_or_else(|| "its default".to_owned(), |span| problems.place(span));
        let problem =
            Problem::new("address_taken", format!("{name} and {first} cannot both have the port {}", address.port()))
                .expected(format!("also of {first} ({origin})"))
                .help(if name.starts_with("`services.") {
                    "leave `port` out: each process is told a free one in `PORT`"
                } else {
                    "give one of them another port; `0` takes a free one"
                });
        problems.error(place, problem);
    }
}
