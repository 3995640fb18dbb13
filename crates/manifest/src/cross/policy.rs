//! Times and bounds that cannot hold together.

use std::time::Duration;

use synego_model::text;

use super::Whole;
use super::routes::{bad_header, is_token};
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Node};
use crate::value;

pub(super) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    if let Some(policy) = whole.tree.at(&["defaults", "policy"]) {
        one(policy, None, problems);
    }
    for service in whole.services() {
        let own = service.value.get("policy");
        if let Some(policy) = own {
            one(policy, None, problems);
        }
        for item in service.value.get("routes").map(Node::items).unwrap_or_default() {
            if let Some(policy) = item.get("policy") {
                one(policy, own, problems);
            }
        }
    }
    masters(whole, problems);
    limits(whole, problems);
}

fn time(node: Option<&Node>) -> Option<Duration> {
    value::duration(node?.text()?)
}

/// One `policy`; `outer` is what holds where it says nothing.
fn one(policy: &Node, outer: Option<&Node>, problems: &mut Problems) {
    let own = |key: &str| policy.get(key).filter(|node| !node.inherited);
    let either = |key: &str| policy.get(key).or_else(|| outer.and_then(|outer| outer.get(key)));
    // Who shortens `timeout` alone shortens the try with it; only who says the try can be at odds.
    if let Some(said) = own("try_timeout") {
        let whole = time(either("timeout")).or_else(|| either("timeout").is_none().then_some(Duration::from_secs(30)));
        if let (Some(part), Some(whole)) = (time(Some(said)), whole)
            && part > whole
        {
            let (part, whole) = (text::duration(part), text::duration(whole));
            let problem = Problem::new(
                "contradiction",
                format!("one try ({part}) may last longer than the whole request ({whole})"),
            )
            .expected(format!("expected at most {whole}"))
            .help("leave `try_timeout` out: it is then the smaller of 10s and `timeout`");
            problems.error(said.span, problem);
        }
    }
    if let Some(eject) = own("eject") {
        let (first, max) = (eject.get("first"), eject.get("max"));
        let (from, to) =
            (time(first).unwrap_or(Duration::from_secs(30)), time(max).unwrap_or(Duration::from_secs(300)));
        if let Some(said) = first.or(max).filter(|node| from > to && !node.inherited) {
            let (from, to) = (text::duration(from), text::duration(to));
            let problem =
                Problem::new("contradiction", format!("the first ejection ({from}) is longer than the longest ({to})"))
                    .expected("expected `first` at most `max`")
                    .help(format!("write `max: {from}`"));
            problems.error(said.span, problem);
        }
    }
    if let Some(header) = own("balance").and_then(|balance| balance.at(&["hash", "header"]))
        && let Some(name) = header.text()
        && !is_token(name)
    {
        problems.error(header.span, bad_header(name));
    }
}

/// Silence is judged in steps: a report, suspicion, the end.
fn masters(whole: &Whole<'_>, problems: &mut Problems) {
    let Some(masters) = whole.tree.get("masters") else { return };
    let steps = [("report", 1), ("suspect", 3), ("gone", 10)].map(|(key, usual)| {
        let node = masters.get(key);
        (key, node, time(node).unwrap_or(Duration::from_secs(usual)))
    });
    for pair in steps.windows(2) {
        let [(first, first_node, from), (second, second_node, to)] = pair else { continue };
        if from < to {
            continue;
        }
        let Some(said) = second_node.or(*first_node) else { continue };
        let (from, to) = (text::duration(*from), text::duration(*to));
        let problem = Problem::new("contradiction", format!("`{second}` ({to}) is not longer than `{first}` ({from})"))
            .expected("expected `report` < `suspect` < `gone`")
            .help("leave the three out: 1s, 3s and 10s");
        problems.error(said.span, problem);
    }
}

/// A part cannot be larger than its whole.
fn limits(whole: &Whole<'_>, problems: &mut Problems) {
    let Some(limits) = whole.tree.get("limits") else { return };
    for (part, whole, usual) in [("header", "headers", (16_u64, 64_u64)), ("window", "connection_window", (256, 2048))]
    {
        let size = |key: &str, usual: u64| match limits.get(key) {
            Some(node) => value::size(node.text().unwrap_or_default()),
            None => Some(usual << 10),
        };
        let (Some(small), Some(large)) = (size(part, usual.0), size(whole, usual.1)) else { continue };
        let entry: Option<&Entry> = limits.entry(part).or_else(|| limits.entry(whole));
        if let Some(entry) = entry.filter(|_| small > large) {
            let (small, large) = (text::size(small), text::size(large));
            let problem =
                Problem::new("contradiction", format!("`{part}` ({small}) is larger than `{whole}` ({large})"))
                    .expected(format!("expected `{part}` at most `{whole}`"))
                    .help(format!("write `{whole}: {small}` too"));
            problems.error(entry.value.span, problem);
        }
    }
}
