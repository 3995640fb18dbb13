//! Services: where they come from, what they use, and in which order they start.

use std::collections::{BTreeMap, BTreeSet};

use synego_model::text::{self, nearest};
use synego_model::{RestartSpec, RestartWhen};

use super::Whole;
use crate::keys::shape::number;
use crate::problems::{Problem, Problems};
use crate::tree::{Entry, Kind, Node};

/// Keys that only a process of ours has.
pub(crate) const OF_A_PROCESS: &[&str] = &[
    "build",
    "cwd",
    "env",
    "env_file",
    "pass_env",
    "user",
    "group",
    "files",
    "instances",
    "port",
    "socket",
    "ready",
    "after",
    "watch",
    "reload",
    "restart",
    "memory",
    "cpu",
];

pub(super) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    for service in whole.services() {
        origin(whole, service, problems);
        room(service, problems);
        nothing_moves(service, problems);
        found(service, problems);
        waits(service, problems);
        variables(service, problems);
        labels(service, problems);
        uses(whole, service, problems);
        after(whole, service, problems);
    }
    one_namespace(whole, problems);
    circles(whole, problems);
    lone(whole, problems);
}

/// A service is started or found.
fn origin(whole: &Whole<'_>, service: &Entry, problems: &mut Problems) {
    let said = |key: &str| service.value.entry(key).is_some();
    if said("run") || said("address") || service.value.has_bad() {
        return;
    }
    let name = &service.key;
    if whole.overlay == Some(service.span.file) && !whole.defined.contains(name) {
        let close = nearest(name, whole.defined.iter().map(String::as_str));
        let problem =
            Problem::new("overlay_orphan", format!("service `{name}` is new here and has neither `run` nor `address`"));
        let problem = match close {
            Some(close) => problem.expected(format!("nearest in {}: `{close}`", whole.base)).told_nearest(close),
            None => problem.expected("expected `run` or `address`"),
        };
        problems.error(service.span, problem.help("to change a service use its name; to add one, say how it runs"));
        return;
    }
    let problem = Problem::new("missing_key", format!("service `{name}` has neither `run` nor `address`"))
        .expected("expected one: `run` starts it, `address` finds it running")
        .help("write `run: node server.js`, or `address: 127.0.0.1:9000` if it runs already");
    problems.error(service.span, problem);
}

/// A fixed port has room for one, and so has a socket with a fixed path.
fn room(service: &Entry, problems: &mut Problems) {
    let Some(instances) = service.value.get("instances") else { return };
    let said = ["port", "socket"].into_iter().find_map(|key| Some((key, service.value.get(key)?)));
    let Some((key, place)) = said else { return };
    let (Some(fixed), Some(wanted)) = (place.text(), instances.text()) else { return };
    if fixed == "auto" || (key == "port" && fixed.parse::<u16>().is_err()) || matches!(wanted, "0" | "1") {
        return;
    }
    let wanted = match wanted.parse::<u64>() {
        Ok(count) => format!("{} instances", number(count)),
        Err(_) if wanted == "cores" => "an instance for each core".to_owned(),
        Err(_) => return,
    };
    let problem = Problem::new("port_shared", format!("{wanted} of `{}` cannot share the {key} {fixed}", service.key));
    let problem = if key == "port" {
        problem
            .expected("expected `auto` (the default), or `instances: 1`")
            .help("leave `port` out: each process is told its own in `PORT`; clients never see it")
    } else {
        problem
            .expected("expected `auto`, or `instances: 1`")
            .help("write `socket: auto`: each process is told its own in `SOCKET`; clients never see it")
    };
    problems.error(place.span, problem);
}

/// A reload needs room for one more instance, or leave to miss one.
fn nothing_moves(service: &Entry, problems: &mut Problems) {
    let Some(reload) = service.value.get("reload") else { return };
    let is_none = |key: &str| reload.get(key).and_then(Node::text) == Some("0");
    // Without the key it may not miss any.
    if is_none("max_surge") && reload.get("max_unavailable").and_then(Node::text).is_none_or(|count| count == "0") {
        let problem = Problem::new(
            "contradiction",
            format!("`{}` can never be reloaded: it may have no instance more than wanted, and none less", service.key),
        )
        .expected("expected `max_surge` or `max_unavailable` above 0")
        .help("leave `max_surge` out (1), or write `max_unavailable: 1`");
        problems.error(reload.span, problem);
    }
}

/// A wait that is longer than the longest.
fn waits(service: &Entry, problems: &mut Problems) {
    let Some(restart) = service.value.get("restart") else { return };
    let time = |key: &str| restart.get(key).and_then(Node::text).and_then(crate::value::duration);
    let usual = RestartSpec::default();
    let (first, longest) = (time("backoff").unwrap_or(usual.backoff), time("max").unwrap_or(usual.max));
    if first > longest {
        let (first, longest) = (text::duration(first), text::duration(longest));
        let problem = Problem::new(
            "contradiction",
            format!("the first wait before a restart ({first}) is longer than the longest ({longest})"),
        )
        .expected(format!("expected `backoff` at most {longest}"))
        .help(format!("write `max: {first}` or more, or a smaller `backoff`"));
        problems.error(restart.span, problem);
    }
}

/// What is found running has no process of ours.
fn found(service: &Entry, problems: &mut Problems) {
    if service.value.get("address").is_none() || service.value.get("run").is_some() {
        return;
    }
    for entry in service.value.entries() {
        if OF_A_PROCESS.contains(&entry.key.as_str())
            && !entry.value.inherited
            && !matches!(entry.value.kind, Kind::Bad)
        {
            let problem = Problem::new(
                "contradiction",
                format!("`{}` is found running: `{}` would not reach it", service.key, entry.key),
            )
            .expected("expected none beside `address`")
            .help(format!("leave `{}` out; or say `run` instead of `address`, then Synego starts it", entry.key));
            problems.error(entry.span, problem);
        }
    }
}

/// Variables that are ours, and values that are variables of a shell.
fn variables(service: &Entry, problems: &mut Problems) {
    for entry in service.value.get("env").map(Node::entries).unwrap_or_default() {
        if entry.value.inherited {
            continue;
        }
        if entry.key == "PORT" || entry.key.starts_with("SYNEGO_") {
            let help = match (entry.key.as_str(), entry.value.text()) {
                ("PORT", Some(port)) => {
                    format!("write `port: {port}` to fix it; better leave it out, `PORT` is then a free one")
                }
                _ => "leave it out: the service is told by Synego itself".to_owned(),
            };
            let problem = Problem::new("reserved_variable", format!("`{}` is set by Synego", entry.key))
                .expected("expected another name")
                .help(help);
            problems.error(entry.span, problem);
        }
    }
}

fn labels(service: &Entry, problems: &mut Problems) {
    for entry in service.value.get("labels").map(Node::entries).unwrap_or_default() {
        let long = |text: &str| text.len() > 63;
        if long(&entry.key) || entry.value.text().is_some_and(long) {
            let problem = Problem::new("out_of_range", format!("a label of `{}` is longer than 63 bytes", service.key))
                .expected("expected at most 63 bytes for name and value each")
                .help("labels name groups; what is long belongs into `env`");
            problems.error(entry.span, problem);
        }
    }
}

/// All names that `uses` may say, with the words for them.
fn names<'a>(whole: &'a Whole<'_>) -> BTreeMap<&'a str, (&'static str, &'a Entry)> {
    let of = |section: &str, noun: &'static str| {
        let entries = whole.tree.get(section).map(Node::entries).unwrap_or_default();
        entries.iter().map(move |entry| (entry.key.as_str(), (noun, entry)))
    };
    of("resources", "resource").chain(of("services", "service")).collect()
}

fn uses(whole: &Whole<'_>, service: &Entry, problems: &mut Problems) {
    let known = names(whole);
    for used in service.value.get("uses").map(Node::entries).unwrap_or_default() {
        if known.contains_key(used.key.as_str()) || matches!(used.value.kind, Kind::Bad) {
            continue;
        }
        let problem =
            Problem::new("unknown_name", format!("`{}` uses `{}`, which no file defines", service.key, used.key));
        let problem = near(problem, &used.key, &known, "a service or resource of this mesh", problems);
        problems.error(
            used.span,
            problem
                .help(format!("a process outside the mesh is named too: `{}: {{ address: 10.0.0.9:7000 }}`", used.key)),
        );
    }
}

fn near(
    problem: Problem,
    name: &str,
    known: &BTreeMap<&str, (&'static str, &Entry)>,
    what: &str,
    problems: &Problems,
) -> Problem {
    // Finding the nearest of many words takes its time: who has made that many mistakes has to look anyway.
    let words = known.keys().copied().filter(|_| !problems.many());
    match nearest(name, words).and_then(|close| known.get(close)) {
        Some((noun, entry)) => problem
            .expected(format!("nearest: {noun} `{}` ({})", entry.key, problems.place(entry.span)))
            .told_nearest(&entry.key),
        None => problem.expected(format!("expected {what}")),
    }
}

fn after(whole: &Whole<'_>, service: &Entry, problems: &mut Problems) {
    let services: BTreeMap<_, _> = names(whole).into_iter().filter(|(_, (noun, _))| *noun == "service").collect();
    for item in service.value.get("after").map(Node::items).unwrap_or_default() {
        let Some(name) = item.text() else { continue };
        if services.contains_key(name) || !synego_model::name::is_name(name) {
            continue;
        }
        let problem =
            Problem::new("unknown_name", format!("`{}` starts after `{name}`, which no file defines", service.key));
        let problem = near(problem, name, &services, "a service of this mesh", problems);
        problems
            .error(item.span, problem.help("`after` waits for services of this mesh; resources are named in `uses`"));
    }
}

/// Services and resources are named in one breath, so they share their names.
fn one_namespace(whole: &Whole<'_>, problems: &mut Problems) {
    let Some(services) = whole.tree.get("services") else { return };
    for resource in whole.tree.get("resources").map(Node::entries).unwrap_or_default() {
        if let Some(service) = services.entry(&resource.key) {
            let problem = Problem::new("duplicate_key", format!("`{}` is a service and a resource", resource.key))
                .expected(format!("the service stands at {}", problems.place(service.span)))
                .help("`uses` names both kinds: give one of them another name");
            problems.error(resource.span, problem);
        }
    }
}

/// Services that wait for each other never start.
fn circles(whole: &Whole<'_>, problems: &mut Problems) {
    let waits: BTreeMap<&str, Vec<(&str, &Node)>> = whole
        .services()
        .map(|service| {
            let items = service.value.get("after").map(Node::items).unwrap_or_default();
            (service.key.as_str(), items.iter().filter_map(|item| Some((item.text()?, item))).collect())
        })
        .collect();
    let mut done = BTreeSet::new();
    for start in waits.keys() {
        // Depth first, each service once: `way` leads from `start` to where the walk is, with the next item to try.
        let mut way: Vec<(&str, usize)> = vec![(start, 0)];
        while let Some((name, next)) = way.last_mut() {
            let step = waits.get(name).and_then(|items| items.get(*next));
            *next += 1;
            match step {
                None => {
                    done.insert(*name);
                    way.pop();
                }
                Some((to, _)) if done.contains(to) => {}
                Some((to, _)) => match way.iter().position(|(name, _)| name == to) {
                    Some(begin) => circle(way.get(begin..).unwrap_or_default(), &waits, problems),
                    None => way.push((to, 0)),
                },
            }
        }
    }
}

/// Reports the circle that the services of `way` make, at the item with which its first one begins it.
fn circle(way: &[(&str, usize)], waits: &BTreeMap<&str, Vec<(&str, &Node)>>, problems: &mut Problems) {
    let Some((first, next)) = way.first() else { return };
    let Some((_, item)) = waits.get(first).and_then(|items| items.get(next.saturating_sub(1))) else { return };
    let names: Vec<&str> = way.iter().map(|(name, _)| *name).chain([*first]).collect();
    let problem = Problem::new("after_circle", format!("`{first}` waits for itself: `{}`", names.join("` → `")))
        .expected("expected an order in which all can start")
        .help("leave one `after` out; `uses` may be a circle, `after` may not");
    problems.error(item.span, problem);
}

/// A lone service answers `/`; with a second one somebody must say so.
fn lone(whole: &Whole<'_>, problems: &mut Problems) {
    let tcp = |service: &&Entry| service.value.get("protocol").and_then(Node::text) == Some("tcp");
    let runs = |service: &&Entry| service.value.get("run").or_else(|| service.value.get("address")).is_some();
    let job = |service: &&Entry| {
        let when = service.value.get("restart").and_then(|restart| restart.get("when"));
        when.and_then(Node::text) == Some(RestartWhen::Never.word())
    };
    let faced: Vec<&Entry> = whole.services().filter(runs).filter(|service| !tcp(service) && !job(service)).collect();
    let [first, second, ..] = faced.as_slice() else { return };
    if faced.iter().any(|service| service.value.entry("routes").is_some() || service.value.has_bad()) {
        return;
    }
    let problem = Problem::new(
        "routes_needed",
        format!("`{}` and `{}` both leave `routes` out: who answers `/`?", first.key, second.key),
    )
    .expected("a lone service gets `/`; of several, one must say it")
    .help(format!("write `routes: [/]` in `{}` to keep it there; `routes: []` keeps a service inside", first.key));
    problems.error(second.span, problem);
}
