//! The tables of each kind of item.

use synego_wire::pb;

use super::{balance_word, cause_line, conditions, is_done, service_cause};
use crate::output::{Cell, Column, Table, Tone, amount, time};

/// Services, one a row.
pub(crate) fn services(view: &pb::MeshView) -> Table {
    let mut table = Table::new(&[
        Column::name("SERVICE"),
        Column::stays("STATE"),
        Column::count("READY"),
        Column::text("VERSION"),
        Column::figure("REQ/S"),
        Column::figure("P99"),
        Column::figure("5XX"),
        Column::number("RESTARTS"),
        Column::sentence("CAUSE"),
        Column::text("USES").wide(),
        Column::text("ROUTES").wide(),
    ]);
    for service in &view.service {
        let served =
            service.instance.iter().any(|instance| instance.load.as_ref().is_some_and(|load| load.requests_total > 0));
        table.row(vec![
            Cell::new(&service.name),
            Cell::state(service.state()),
            Cell::new(count(service)),
            Cell::new(amount::or_dash(&service.version.join(" "))),
            Cell::new(amount::rate(service.requests_per_second)),
            Cell::new(amount::seconds(service.p99_seconds)),
            if served { errors(service.error_ratio) } else { Cell::new("–") },
            Cell::new(service.restarts.to_string()),
            Cell::new(why(service)),
            Cell::new(amount::or_dash(&service.uses.join(" "))),
            Cell::new(places(&service.route)),
        ]);
    }
    table
}

/// How many are ready of how many; of a job that is done there is nothing to say.
fn count(service: &pb::ServiceView) -> String {
    if is_done(service) {
        return "–".to_owned();
    }
    format!("{}/{}{}", service.ready, service.wanted, of_file(service))
}

/// ` (file: 2)`, where the machines have other numbers.
fn of_file(service: &pb::ServiceView) -> String {
    match service.scaled.as_slice() {
        [] => String::new(),
        [one] => format!(" (file: {})", one.file),
        [first, ..] => format!(" (file: {} on each)", first.file),
    }
}

/// Why a service is as it is, with the instance that is to blame.
pub(crate) fn why(service: &pb::ServiceView) -> String {
    match service_cause(service) {
        None => String::new(),
        Some((None, cause)) => cause_line(Some(cause)),
        Some((Some(instance), cause)) => format!("{} {}", instance.id, cause_line(Some(cause))),
    }
}

fn errors(ratio: f64) -> Cell {
    let text = amount::share(ratio);
    if ratio >= 0.01 { Cell::toned(text, Tone::Warn) } else { Cell::new(text) }
}

fn places(routes: &[String]) -> String {
    if routes.is_empty() { "inside".to_owned() } else { routes.join(" ") }
}

/// Instances, one a row; `services` names them too.
pub(crate) fn instances<'a>(of: impl IntoIterator<Item = &'a pb::ServiceView>, now: u64, with_service: bool) -> Table {
    let mut columns = vec![Column::name("INSTANCE"), Column::stays("STATE")];
    if with_service {
        columns.push(Column::text("SERVICE"));
    }
    columns.extend([
        Column::text("VERSION"),
        Column::figure("IN FLIGHT"),
        Column::figure("QUEUED"),
        Column::figure("REQ/S"),
        Column::figure("P99"),
        Column::figure("MEMORY"),
        Column::figure("UP"),
        Column::number("PID"),
        Column::figure("REPORT"),
        Column::number("RESTARTS"),
        Column::text("INBOUND").wide(),
        Column::text("LISTENS").wide(),
        Column::text("SDK").wide(),
        Column::text("HELD").wide(),
    ]);
    let mut table = Table::new(&columns);
    for service in of {
        for instance in &service.instance {
            instance_row(&mut table, service, instance, now, with_service);
        }
    }
    table
}

fn instance_row(
    table: &mut Table,
    service: &pb::ServiceView,
    instance: &pb::InstanceView,
    now: u64,
    with_service: bool,
) {
    let load = instance.load.unwrap_or_default();
    let mut cells = vec![Cell::new(&instance.id), Cell::state(instance.state())];
    if with_service {
        cells.push(Cell::new(&service.name));
    }
    cells.extend([
        Cell::new(amount::or_dash(&instance.version)),
        Cell::new(load.in_flight.to_string()),
        Cell::new(load.queued.to_string()),
        Cell::new(amount::rate(load.requests_per_second)),
        Cell::new(amount::seconds(load.p99_seconds)),
        Cell::new(amount::bytes(load.memory_bytes)),
        Cell::new(time::since(instance.started_unix_ms, now)),
        Cell::new(if instance.pid == 0 { "–".to_owned() } else { instance.pid.to_string() }),
        Cell::new(time::age(std::time::Duration::from_millis(instance.report_age_ms))),
        Cell::new(instance.restarts.to_string()),
        Cell::new(amount::or_dash(&instance.address)),
        Cell::new(amount::or_dash(&instance.listens)),
        Cell::new(amount::or_dash(&instance.sdk)),
        Cell::new(amount::or_dash(&instance.caps)),
    ]);
    table.row(cells);
    let cause = cause_line(instance.cause.as_ref());
    if !cause.is_empty() {
        let since = instance.cause.as_ref().map_or(0, |cause| cause.since_unix_ms);
        let ago = if since == 0 { String::new() } else { format!(", {} ago", time::since(since, now)) };
        table.note(format!("{cause}{ago}"));
    }
    for ejection in &instance.ejected_by {
        let left = time::age(std::time::Duration::from_millis(ejection.remaining_ms));
        table.note(format!("left out by {} for {left}: {}", ejection.instance, cause_line(ejection.cause.as_ref())));
    }
}

/// Endpoints, one a row.
pub(crate) fn endpoints(view: &pb::MeshView) -> Table {
    let mut table = Table::new(&[
        Column::name("ENDPOINT"),
        Column::stays("STATE"),
        Column::text("SERVICE"),
        Column::text("ADDRESS"),
        Column::text("VERSION"),
        Column::text("ZONE"),
    ]);
    for service in &view.service {
        for instance in &service.instance {
            table.row(vec![
                Cell::new(&instance.id),
                Cell::state(instance.state()),
                Cell::new(&service.name),
                Cell::new(amount::or_dash(&instance.address)),
                Cell::new(amount::or_dash(&instance.version)),
                Cell::new(amount::or_dash(&instance.zone)),
            ]);
        }
    }
    table
}

/// Routes, in the order in which they win.
pub(crate) fn routes(view: &pb::MeshView) -> Table {
    let mut table = Table::new(&[
        Column::name("ROUTE"),
        Column::stays("SERVICE"),
        Column::text("ONLY FOR"),
        Column::number("TIMEOUT"),
        Column::text("FROM"),
    ]);
    for route in &view.route {
        let own = route.policy.as_ref();
        let timeout = own.or_else(|| {
            view.service
                .iter()
                .find(|service| service.name == route.service)
                .and_then(|service| service.policy.as_ref())
        });
        table.row(vec![
            Cell::new(&route.place),
            Cell::new(&route.service),
            Cell::new(amount::or_dash(&conditions(route))),
            Cell::new(timeout.map_or_else(|| "–".to_owned(), |policy| duration(policy.timeout_ms))),
            Cell::new(amount::or_dash(&route.origin)),
        ]);
    }
    table
}

/// Policies: of each service, then of each route that has its own.
pub(crate) fn policies(policies: &[(String, pb::Policy)]) -> Table {
    let mut table = Table::new(&[
        Column::name("POLICY OF"),
        Column::count("TIMEOUT"),
        Column::number("TRY"),
        Column::number("CONNECT"),
        Column::number("IDLE"),
        Column::number("RETRIES"),
        Column::text("BALANCE"),
        Column::text("EJECT"),
    ]);
    for (of, policy) in policies {
        let eject = policy.eject.as_ref().map_or_else(
            || "never".to_owned(),
            |eject| format!("after {} failures, {}", eject.failures, duration(eject.first_ms)),
        );
        table.row(vec![
            Cell::new(of),
            Cell::new(duration(policy.timeout_ms)),
            Cell::new(duration(policy.try_timeout_ms)),
            Cell::new(duration(policy.connect_ms)),
            Cell::new(duration(policy.idle_ms)),
            Cell::new(policy.retries.to_string()),
            Cell::new(balance_word(policy.balance.as_ref())),
            Cell::new(eject),
        ]);
    }
    table
}

/// Machines, one a row.
pub(crate) fn nodes(view: &pb::MeshView) -> Table {
    let mut table = Table::new(&[Column::name("NODE"), Column::text("ZONE"), Column::number("INSTANCES")]);
    for node in &view.node {
        let cells = [node.name.clone(), amount::or_dash(&node.zone), node.instances.to_string()];
        table.row(cells.iter().map(Cell::new).collect());
    }
    table
}

/// Masters, one a row.
pub(crate) fn masters(view: &pb::MeshView, now: u64) -> Table {
    let mut table = Table::new(&[
        Column::name("MASTER"),
        Column::text("INGRESS"),
        Column::text("MESH"),
        Column::text("ADMIN"),
        Column::figure("UP"),
    ]);
    for master in &view.master {
        table.row(vec![
            Cell::new(&master.name),
            Cell::new(amount::or_dash(&master.ingress)),
            Cell::new(amount::or_dash(&master.mesh)),
            Cell::new(amount::or_dash(&master.admin)),
            Cell::new(time::since(master.started_unix_ms, now)),
        ]);
    }
    table
}

fn duration(ms: u32) -> String {
    synego_model::text::duration(std::time::Duration::from_millis(ms.into()))
}
