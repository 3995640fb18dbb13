//! `allow` and `deny`: callers that exist, paths that are some, and rules that can have an effect.

use synego_model::PathPattern;
use synego_model::access::INGRESS;
use synego_model::name::is_name;
use synego_model::text::nearest;

use super::Whole;
use crate::address::socket;
use crate::long::bad_place;
use crate::manifest::LOOPBACK;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node};

const LISTS: [&str; 2] = ["allow", "deny"];

pub(super) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    admin(whole, problems);
    for service in whole.services() {
        reserved(service, problems);
        let routes = service.value.get("routes").map(Node::items).unwrap_or_default();
        for owner in std::iter::once(&service.value).chain(routes) {
            for list in LISTS {
                for rule in owner.get(list).map(Node::items).unwrap_or_default() {
                    if !rule.inherited {
                        self::rule(whole, service, list, rule, problems);
                    }
                }
            }
        }
    }
    // What `defaults` says is judged once, for no service in particular.
    for list in LISTS {
        for rule in whole.tree.at(&["defaults", list]).map(Node::items).unwrap_or_default() {
            caller(whole, list, rule, problems);
            path(rule, problems);
        }
    }
}

/// Tokens of people must not cross a network as they are, and without certificates there is no TLS.
fn admin(whole: &Whole<'_>, problems: &mut Problems) {
    let Some(node) = whole.tree.at(&["masters", "admin"]) else { return };
    let Some(address) = node.text().and_then(|text| socket(text, LOOPBACK)) else { return };
    let is_off = whole.tree.at(&["identity", "mtls"]).and_then(Node::text) == Some("off");
    if address.ip().is_loopback() || !is_off {
        return;
    }
    let port = address.port();
    let message = format!("the admin API at {address} could be reached from other machines, and without TLS");
    let problem = Problem::new("bad_address", message)
        .expected("expected a port, or an address of the loopback, where `identity: { mtls: off }`")
        .help(format!("write `admin: {port}`, and from elsewhere `ssh -L {port}:127.0.0.1:{port} HOST`"));
    problems.error(node.span, problem);
}

/// Rules call what comes from outside so.
fn reserved(service: &Entry, problems: &mut Problems) {
    if service.key == INGRESS {
        let problem = Problem::new("bad_name", format!("no service can be called `{INGRESS}`"))
            .expected("expected another name")
            .help(format!("`allow` and `deny` name what comes from outside `{INGRESS}`"));
        problems.error(service.span, problem);
    }
}

fn rule(whole: &Whole<'_>, service: &Entry, list: &str, rule: &Node, problems: &mut Problems) {
    let known = caller(whole, list, rule, problems);
    path(rule, problems);
    bytes(service, rule, problems);
    let (Some(name), true, "allow") = (known, !service.value.has_bad(), list) else { return };
    let mut callers = whole.services().filter(|entry| name != INGRESS && entry.key == name);
    let Some(caller) = callers.next() else { return };
    let uses = caller.value.get("uses").is_some_and(|uses| uses.get(&service.key).is_some());
    if uses || caller.value.has_bad() {
        return;
    }
    let problem =
        Problem::new("rule_without_use", format!("`{name}` does not use `{}`, so this permits nothing", service.key))
            .expected(format!("expected `{}` in `uses` of `{name}` ({})", service.key, problems.place(caller.span)))
            .help("`uses` is the permission, `allow` narrows it: add the use, or leave the rule out");
    problems.warn(rule.get("caller").map_or(rule.span, |node| node.span), problem);
}

/// The caller that a rule names, if it names one that there is.
fn caller<'a>(whole: &Whole<'_>, list: &str, rule: &'a Node, problems: &mut Problems) -> Option<&'a str> {
    if rule.has_bad() || !matches!(rule.kind, Kind::Map(_)) {
        return None;
    }
    let Some(node) = rule.get("caller") else {
        let problem = Problem::new("missing_key", format!("a rule of `{list}` has no `caller`"))
            .expected("expected a service, or `ingress`")
            .help("write `{ caller: orders, method: [GET] }`");
        problems.error(rule.span, problem);
        return None;
    };
    let name = node.text().filter(|name| is_name(name))?;
    if name == INGRESS || whole.services().any(|service| service.key == name) {
        return Some(name);
    }
    let names = whole.services().map(|service| service.key.as_str()).chain([INGRESS]);
    let close = nearest(name, names.filter(|_| !problems.many()));
    let problem = Problem::new("unknown_name", format!("`{list}` names `{name}`, which is no service of this file"));
    let problem = match close {
        Some(close) => problem.expected(format!("nearest: `{close}`")).told_nearest(close),
        None => problem.expected("expected a service of this mesh, or `ingress`"),
    };
    problems.error(
        node.span,
        problem.help("name the service in the manifest, or write `ingress` for what comes from outside"),
    );
    None
}

fn path(rule: &Node, problems: &mut Problems) {
    let Some(node) = rule.get("path") else { return };
    if let Some(Err(bad)) = node.text().filter(|text| text.starts_with('/')).map(str::parse::<PathPattern>) {
        problems.error(node.span, bad_place(node.text().unwrap_or_default(), &bad));
    }
}

/// Bytes have neither methods nor paths.
fn bytes(service: &Entry, rule: &Node, problems: &mut Problems) {
    if service.value.get("protocol").and_then(Node::text) != Some("tcp") {
        return;
    }
    for key in ["method", "path"] {
        if let Some(entry) = rule.entry(key) {
            let problem = Problem::new("contradiction", format!("`{}` speaks bytes, which have no {key}", service.key))
                .expected("expected a caller alone beside `protocol: tcp`")
                .help(format!("leave `{key}` out"));
            problems.error(entry.span, problem);
        }
    }
}
