//! The board of `synego up`: every service of the mesh at one glance.

use std::time::Duration;

use synego_wire::pb::{self, InstanceState};
use unicode_width::UnicodeWidthStr as _;

use crate::output::paint::Paint;
use crate::output::table::{Drawing, Layout};
use crate::output::{Cell, Column, Table, Tone, amount, time};
use crate::view;

/// What the head of the board says beside the figures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// When this `up` began: milliseconds since 1970-01-01 UTC.
    pub(crate) begun_unix_ms: u64,
    /// How long it took until all was ready for the first time.
    pub(crate) took: Option<Duration>,
}

/// The whole board: head, an empty line, the table; each line with a newline.
pub(crate) fn draw(view: &pb::MeshView, progress: Progress, paint: Paint, width: usize, layout: &mut Layout) -> String {
    let url = url(view);
    let head = head(view, progress);
    let plain = paint.text(&head).width() + url.width();
    let gap = width.saturating_sub(plain).max(2);
    let url = paint.tone(Tone::Busy, &url);
    let bold = head.replacen(&view.mesh, &paint.tone(Tone::Strong, &view.mesh), 1);
    let first = if url.is_empty() { bold } else { format!("{bold}{}{url}", " ".repeat(gap)) };
    let table = table(view);
    let body = if table.is_empty() {
        "  no service: what the mesh answers is 404 no_route\n".to_owned()
    } else {
        table.draw_with(Drawing { paint, width: Some(width), wide: false }, layout)
    };
    format!("{first}\n\n{body}")
}

/// `shop · 4 services, 6 instances · all ready in 1.4 s`
pub(crate) fn head(view: &pb::MeshView, progress: Progress) -> String {
    let instances = view.service.iter().map(|service| service.instance.len()).sum();
    let wanting = view.service.iter().filter(|service| !is_ready(service)).count();
    let since = Duration::from_millis(view.unix_ms.saturating_sub(progress.begun_unix_ms));
    let state = match (view.service.len(), wanting, progress.took) {
        (0, _, _) => "a bare master".to_owned(),
        (_, 0, Some(took)) => format!("all ready in {}", time::age(took)),
        (_, 0, None) => "all ready".to_owned(),
        (all, wanting, _) if all == wanting => format!("none ready yet, {}", time::age(since)),
        (_, wanting, _) => format!("all but {wanting} ready, {}", time::age(since)),
    };
    let services = amount::count(view.service.len(), "service");
    format!("{} · {services}, {} · {state}", view.mesh, amount::count(instances, "instance"))
}

/// Where a person reaches the mesh: the gateway, or, where there is none, the master itself; empty: neither is here.
pub(crate) fn url(view: &pb::MeshView) -> String {
    match (&view.gateway, view.master.first()) {
        (Some(gateway), _) => gateway.url.clone(),
        (None, Some(master)) if !master.ingress.is_empty() => format!("http://{}", master.ingress),
        _ => String::new(),
    }
}

/// The head with where to reach it, for one line without a board.
pub(crate) fn summary(view: &pb::MeshView, progress: Progress) -> String {
    let (head, url) = (head(view, progress), url(view));
    if url.is_empty() { head } else { format!("{head} · {url}") }
}

/// Whether as many instances are ready as are wanted, or, of a job, are done.
pub(crate) fn is_ready(service: &pb::ServiceView) -> bool {
    (service.state() == InstanceState::Ready && service.ready >= service.wanted) || view::is_done(service)
}

fn table(view: &pb::MeshView) -> Table {
    let mut table = Table::new(&[
        Column::name("SERVICE"),
        Column::stays("STATE"),
        Column::count("READY"),
        Column::figure("REQ/S"),
        Column::figure("P99"),
        Column::sentence("WHERE"),
        Column::sentence("ROUTES"),
    ]);
    for service in &view.service {
        let routes = if service.route.is_empty() { "inside".to_owned() } else { service.route.join(" ") };
        table.row(vec![
            Cell::new(&service.name),
            Cell::state(service.state()),
            Cell::new(if view::is_done(service) {
                "–".to_owned()
            } else {
                format!("{}/{}", service.ready, service.wanted)
            }),
            Cell::new(amount::rate(service.requests_per_second)),
            Cell::new(amount::seconds(service.p99_seconds)),
            Cell::new(place(service, view.unix_ms)),
            Cell::new(routes),
        ]);
        if let Some(note) = note(service, view.unix_ms) {
            table.note(note);
        }
    }
    if let Some(gateway) = &view.gateway {
        gateway_row(&mut table, gateway);
    }
    table
}

/// Where the processes listen; while they start, since when.
fn place(service: &pb::ServiceView, now: u64) -> String {
    if view::is_done(service) {
        return "–".to_owned();
    }
    if service.ready == 0 && service.state() == InstanceState::Starting {
        let waiting = service.instance.iter().filter_map(|instance| instance.cause.as_ref());
        if let Some(cause) = waiting.min_by_key(|cause| cause.since_unix_ms) {
            let what = if cause.message.starts_with("build") { "build " } else { "for " };
            return format!("{what}{}", time::since(cause.since_unix_ms, now));
        }
    }
    let short = |listens: &str| match listens.strip_prefix("127.0.0.1:") {
        // The port is enough where the mesh chose it; an address that was given is shown whole.
        Some(port) if service.instance.iter().all(|instance| instance.pid != 0) => format!(":{port}"),
        _ => listens.to_owned(),
    };
    let listens: Vec<String> = service
        .instance
        .iter()
        .filter(|instance| !instance.listens.is_empty())
        .map(|instance| short(&instance.listens))
        .collect();
    amount::or_dash(&listens.join(" "))
}

/// Why it is not ready, in one line.
fn note(service: &pb::ServiceView, now: u64) -> Option<String> {
    if service.state() == InstanceState::Ready {
        return None;
    }
    let (instance, cause) = view::service_cause(service)?;
    let is_course = view::cause_word(Some(cause)) == Some("starting");
    if is_course && (cause.message.is_empty() || cause.message.starts_with("build")) {
        return None;
    }
    let who = if service.instance.len() > 1 { instance.map(|instance| format!("{} ", instance.id)) } else { None };
    let ago = if cause.since_unix_ms == 0 {
        String::new()
    } else {
        format!(", {} ago", time::since(cause.since_unix_ms, now))
    };
    let hint = match view::cause_word(Some(cause)) {
        // Without a process of ours it is somebody else's to start.
        Some("connect_failed" | "probe_failed") if service.instance.iter().all(|instance| instance.pid == 0) => {
            " · is it running?"
        }
        _ => "",
    };
    Some(format!("{}{}{ago}{hint}", who.unwrap_or_default(), view::cause_line(Some(cause))))
}

fn gateway_row(table: &mut Table, gateway: &pb::GatewayView) {
    let engine = if gateway.nginx_version.is_empty() {
        format!("by the {}", gateway.engine)
    } else {
        format!("{} {}", gateway.engine, gateway.nginx_version)
    };
    let listen: Vec<String> = gateway
        .listen
        .iter()
        .map(|listen| listen.rsplit(' ').next().unwrap_or(listen).replace("0.0.0.0:", ":").replace("[::]:", ":"))
        .collect();
    let mut files = Vec::new();
    for (word, places) in [("static", &gateway.static_place), ("spa", &gateway.spa_place)] {
        if !places.is_empty() {
            files.push(format!("{word} {}", places.len()));
        }
    }
    table.row(vec![
        Cell::new("gateway"),
        Cell::state(gateway.state()),
        Cell::default(),
        Cell::default(),
        Cell::default(),
        Cell::new(format!("{engine} on {}", listen.join(" "))),
        Cell::new(files.join(" · ")),
    ]);
    let cause = view::cause_line(gateway.cause.as_ref());
    if !cause.is_empty() {
        table.note(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, state: InstanceState, ready: u32, listens: &[&str], routes: &[&str]) -> pb::ServiceView {
        pb::ServiceView {
            name: name.into(),
            state: state.into(),
            ready,
            wanted: u32::try_from(listens.len()).expect("few"),
            route: routes.iter().map(|route| (*route).to_owned()).collect(),
            instance: listens
                .iter()
                .enumerate()
                .map(|(index, listens)| pb::InstanceView {
                    id: format!("{name}-{}@local", index + 1),
                    listens: (*listens).into(),
                    pid: 7,
                    state: state.into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }
    }

    #[test]
    fn the_board_shows_what_runs_where_and_why_not() {
        let mut users =
            service("users", InstanceState::Ready, 2, &["127.0.0.1:41203", "127.0.0.1:41207"], &["/api/users"]);
        users.requests_per_second = 12.4;
        users.p99_seconds = 0.008;
        let mut orders = service("orders", InstanceState::Starting, 0, &[""], &["/shop.v1.Orders"]);
        orders.instance[0].cause =
            Some(pb::StateCause { reason: 90, message: "building".into(), since_unix_ms: 6_900 });
        let mut legacy = service("legacy", InstanceState::Unhealthy, 0, &["127.0.0.1:9000"], &["old.example.com/"]);
        legacy.instance[0].pid = 0;
        legacy.instance[0].cause =
            Some(pb::StateCause { reason: 10, message: "connection refused".into(), since_unix_ms: 6_000 });
        let view = pb::MeshView {
            mesh: "shop".into(),
            unix_ms: 10_000,
            service: vec![
                users,
                orders,
                service("inventory", InstanceState::Ready, 1, &["127.0.0.1:41215"], &[]),
                legacy,
            ],
            gateway: Some(pb::GatewayView {
                engine: "nginx".into(),
                nginx_version: "1.22.1".into(),
                listen: vec!["http 0.0.0.0:8080".into()],
                state: InstanceState::Ready.into(),
                static_place: vec!["/static".into()],
                spa_place: vec!["/".into()],
                url: "http://localhost:8080".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let paint = Paint { colour: false, unicode: true };
        let progress = Progress { begun_unix_ms: 9_000, took: None };
        assert_eq!(draw(&view, progress, paint, 100, &mut Layout::default()), include_str!("board/golden.txt"));
    }

    #[test]
    fn the_head_tells_how_long_it_took() {
        let mut view = pb::MeshView { mesh: "hello".into(), unix_ms: 3_000, ..Default::default() };
        let progress = Progress { begun_unix_ms: 1_000, took: Some(Duration::from_millis(1_430)) };
        assert_eq!(head(&view, progress), "hello · 0 services, 0 instances · a bare master");
        view.service.push(service("web", InstanceState::Ready, 1, &["127.0.0.1:1"], &["/"]));
        assert_eq!(head(&view, progress), "hello · 1 service, 1 instance · all ready in 1.4 s");
        view.service.push(service("api", InstanceState::Starting, 0, &[""], &[]));
        assert_eq!(head(&view, progress), "hello · 2 services, 2 instances · all but 1 ready, 2.0 s");
    }
}
