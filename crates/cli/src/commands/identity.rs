//! `synego identity`: who each instance is by its certificate, and whom it has met.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use synego_wire::pb;

use crate::client::Mesh;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::time::{age, rfc3339};
use crate::output::{Answer, Cell, Column, Table, Tone};

/// Most peers and causes that are named in a line.
const NAMED: usize = 6;

const EXAMPLES: &str = "\
Examples:
  synego identity
  synego identity users-1
  synego identity -o json | jq '.items[] | select(.renewal_error != null)'";

/// Show who each instance is: id, serial, issuer, expiry, next renewal, peers seen
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// One instance, with or without its machine
    #[arg(add = ArgValueCompleter::new(complete::instances))]
    instance: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let found = mesh.identity(args.instance.iter().cloned().collect()).await?;
        if let (Some(name), true) = (&args.instance, found.instance.is_empty()) {
            return Err(Failure::new(format!("the mesh `{}` has no instance `{name}`", found.mesh))
                .help("`synego get instances` lists them"));
        }
        let items = found.instance.iter().map(|one| item(one, &found)).collect();
        let epoch = (found.epoch != 0).then_some(found.epoch);
        let answer = Answer::new("identity", "instance").of_mesh(&found.mesh, epoch).items(items);
        context.answer(answer, || match (&args.instance, found.instance.as_slice()) {
            (Some(_), [one]) => single(context, one, &found),
            _ => context.table(table(context, &found)),
        });
        let fails = found.instance.iter().any(|one| is_failing(one, found.unix_ms));
        Ok(if fails { FAILED } else { DONE })
    })
}

/// Whether its certificate has ended, or is not renewed.
fn is_failing(one: &pb::InstanceIdentity, now: u64) -> bool {
    one.identity.as_ref().is_some_and(|id| id.not_after_unix_ms <= now || !id.renewal_error.is_empty())
}

fn item(one: &pb::InstanceIdentity, all: &pb::IdentityAnswer) -> Value {
    let time = |unix_ms: u64| if unix_ms == 0 { Value::Null } else { rfc3339(unix_ms).into() };
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let Some(id) = &one.identity else {
        return json!({"instance": one.instance, "id": null});
    };
    let peers: Vec<Value> = id
        .peer
        .iter()
        .map(|peer| json!({"id": peer.id, "handshakes": peer.handshakes, "last": time(peer.last_unix_ms)}))
        .collect();
    let refused: Vec<Value> = id
        .refused
        .iter()
        .map(|one| json!({"cause": one.cause, "side": one.side, "handshakes": one.handshakes}))
        .collect();
    json!({
        "instance": one.instance,
        "id": id.id,
        "serial": text(&id.serial),
        "issuer": text(&id.issuer),
        "expires_at": time(id.not_after_unix_ms),
        "renews_at": time(id.renew_unix_ms),
        "expired": id.not_after_unix_ms <= all.unix_ms,
        "renewal_error": text(&id.renewal_error),
        "trusted": id.trusted,
        "peers": peers,
        "refused": refused,
    })
}

/// Which of the mesh's roots issued it: `root 2 of 2`.
fn issuer(id: &pb::IdentityReport, all: &pb::IdentityAnswer) -> String {
    match all.root.iter().position(|root| root.fingerprint == id.issuer) {
        Some(index) => format!("root {} of {}", index + 1, all.root.len()),
        // Only a master knows how many there are.
        None if all.root.is_empty() => format!("root {}", short(&id.issuer)),
        None => "an unknown root".to_owned(),
    }
}

/// The first three bytes of a serial number, as people compare them.
fn short(serial: &str) -> String {
    let digits: Vec<char> = serial.chars().take(6).collect();
    digits.chunks(2).map(|pair| pair.iter().collect::<String>()).collect::<Vec<_>>().join(":")
}

fn ends(id: &pb::IdentityReport, now: u64) -> String {
    match id.not_after_unix_ms.checked_sub(now) {
        Some(left) if left > 0 => format!("in {}", age(Duration::from_millis(left))),
        _ => format!("{} ago", age(Duration::from_millis(now.saturating_sub(id.not_after_unix_ms)))),
    }
}

fn renews(id: &pb::IdentityReport, now: u64) -> String {
    match id.renew_unix_ms.checked_sub(now) {
        Some(left) if left > 0 => format!("in {}", age(Duration::from_millis(left))),
        _ => "now".to_owned(),
    }
}

/// The last part of an id: `orders`, `ingress` for a master.
fn name_of(id: &str) -> &str {
    match id.rsplit('/').next() {
        Some("master") | None => "ingress",
        Some(name) => name,
    }
}

fn seen(id: &pb::IdentityReport) -> String {
    let mut named: Vec<String> =
        id.peer.iter().take(NAMED).map(|peer| format!("{} ({})", name_of(&peer.id), peer.handshakes)).collect();
    if id.peer.len() > NAMED {
        named.push(format!("{} more", id.peer.len() - NAMED));
    }
    if named.is_empty() { "nobody yet".to_owned() } else { named.join(", ") }
}

fn refused(id: &pb::IdentityReport) -> String {
    let named: Vec<String> =
        id.refused.iter().take(NAMED).map(|one| format!("{} {}", one.handshakes, one.cause)).collect();
    named.join(", ")
}

fn single(context: &Context, one: &pb::InstanceIdentity, all: &pb::IdentityAnswer) -> String {
    let Some(id) = &one.identity else {
        return format!("{} has said nothing of a certificate yet\n", one.instance);
    };
    let paint = context.screen.out;
    let now = all.unix_ms;
    let is_over = id.not_after_unix_ms <= now;
    let end = if is_over {
        paint.tone(Tone::Bad, &format!("ended {}", ends(id, now)))
    } else {
        format!("ends {}, renews {}", ends(id, now), renews(id, now))
    };
    let serial = if context.drawing().wide { id.serial.clone() } else { short(&id.serial) };
    let mut text =
        format!("{}   serial {serial}   issued by {}   {end}\n", paint.tone(Tone::Strong, &id.id), issuer(id, all));
    text.push_str(&format!("seen: {}", seen(id)));
    if !id.refused.is_empty() {
        text.push_str(&format!(" · refused: {}", refused(id)));
    }
    text.push('\n');
    if !id.renewal_error.is_empty() {
        text.push_str(&format!("{} not renewed: {}\n", paint.tone(Tone::Warn, "warning:"), id.renewal_error));
    }
    text
}

fn table(context: &Context, all: &pb::IdentityAnswer) -> Table {
    let mut table = Table::new(&[
        Column::name("INSTANCE"),
        Column::stays("ID"),
        Column::stays("ENDS"),
        Column::text("RENEWS"),
        Column::text("SERIAL"),
        Column::text("ISSUER"),
        Column::sentence("SEEN"),
        Column::sentence("REFUSED"),
    ]);
    let now = all.unix_ms;
    for one in &all.instance {
        let Some(id) = &one.identity else {
            let mut cells = vec![Cell::new("–"); 8];
            cells[0] = Cell::new(&one.instance);
            table.row(cells);
            continue;
        };
        let tone = match (id.not_after_unix_ms <= now, id.renewal_error.is_empty()) {
            (true, _) => Tone::Bad,
            (false, false) => Tone::Warn,
            (false, true) => Tone::Good,
        };
        let serial = if context.drawing().wide { id.serial.clone() } else { short(&id.serial) };
        table.row(vec![
            Cell::new(&one.instance),
            Cell::new(&id.id),
            Cell::toned(ends(id, now), tone),
            Cell::new(if id.renewal_error.is_empty() { renews(id, now) } else { "failing".to_owned() }),
            Cell::new(serial),
            Cell::new(issuer(id, all)),
            Cell::new(seen(id)),
            Cell::new(refused(id)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_shortened_to_what_people_compare() {
        assert_eq!([short("4fa109bbcc"), short("4f"), short("")], ["4f:a1:09", "4f", ""]);
    }

    #[test]
    fn a_peer_is_named_by_the_last_part_of_its_id() {
        assert_eq!(["spiffe://shop/svc/orders", "spiffe://shop/master"].map(name_of), ["orders", "ingress"]);
    }

    #[test]
    fn an_ended_or_unrenewed_certificate_fails() {
        let of = |not_after_unix_ms, error: &str| pb::InstanceIdentity {
            instance: "users-1@vm1".into(),
            identity: Some(pb::IdentityReport {
                not_after_unix_ms,
                renewal_error: error.into(),
                ..pb::IdentityReport::default()
            }),
        };
        assert!(!is_failing(&of(11, ""), 10));
        assert!(is_failing(&of(10, ""), 10) && is_failing(&of(11, "no master"), 10));
    }
}
