//! Whether the mesh is well: its masters, services, clocks, certificates and permissions.

use std::time::Duration;

use synego_wire::pb;
use synego_wire::pb::InstanceState;

use super::Finding;
use crate::client::Mesh;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::amount;
use crate::output::time::age;
use crate::version;

/// How far clocks may be apart before it is told, and before certificates are refused for it; milliseconds.
const APART_MS: (u64, u64) = (5_000, 60_000);
/// Shortest life of a root that is left before it is told.
const ROOT_LEFT: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most that are named in a line.
const NAMED: usize = 4;

/// The mesh as it was seen once.
pub(super) struct Seen {
    pub(super) view: pb::MeshView,
    /// When it was seen by this machine's clock: milliseconds since 1970-01-01 UTC.
    at_unix_ms: u64,
    where_: String,
    identity: Result<pb::IdentityAnswer, Failure>,
    authority: Result<pb::CaView, Failure>,
}

/// Looks at the mesh that this folder or machine names.
pub(super) fn look(context: &Context) -> Result<Seen, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let before = context.now();
        let view = mesh.view(&[]).await?;
        let at_unix_ms = before + (context.now().saturating_sub(before)) / 2;
        let identity = mesh.identity(Vec::new()).await;
        let authority = mesh.ca_status().await;
        let where_ = mesh.target().address.to_string();
        Ok(Seen { view, at_unix_ms, where_, identity, authority })
    })
}

pub(super) fn check(context: &Context, seen: &Result<Seen, Failure>) -> Vec<Finding> {
    let seen = match seen {
        Ok(seen) => seen,
        Err(failure) => {
            let why = failure.cause.first().unwrap_or(&failure.what).clone();
            let names =
                ["mesh", "masters", "services", "versions", "clocks", "access", "identity", "handshakes", "authority"];
            let first = Finding::skipped("mesh", format!("{why}: its checks wait until it runs"));
            let rest = names[1..].iter().map(|name| Finding::skipped(name, "no mesh runs"));
            return std::iter::once(first).chain(rest).collect();
        }
    };
    let view = &seen.view;
    let mut findings = vec![
        Finding::passed("mesh", format!("`{}` at {}, epoch {}", view.mesh, seen.where_, view.epoch)),
        masters(view),
        services(view),
        versions(view),
        clocks(seen),
        access(view),
    ];
    findings.extend([identity(seen), handshakes(seen), authority(context, seen)]);
    // What the mesh itself wants to be known, but for what was told above.
    let warnings = view.warning.iter().map(|warning| {
        let service = if warning.service.is_empty() { String::new() } else { format!("{}: ", warning.service) };
        let help = format!("`synego explain {}`", warning.code);
        Finding::warning("warnings", format!("{service}{}", warning.message), help)
    });
    findings.extend(warnings);
    findings
}

fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

fn masters(view: &pb::MeshView) -> Finding {
    let names: Vec<String> = view.master.iter().map(|master| master.name.clone()).collect();
    match names.len() {
        0 => {
            Finding::failed("masters", "no master is known here", "is one up? `synego get masters` where it should be")
        }
        _ => Finding::passed("masters", named(&names)),
    }
}

fn services(view: &pb::MeshView) -> Finding {
    let is_late = |service: &&pb::ServiceView| service.ready < service.wanted;
    let late: Vec<String> = view
        .service
        .iter()
        .filter(is_late)
        .map(|service| {
            let cause = service.cause.as_ref().map(|cause| cause.message.as_str()).filter(|cause| !cause.is_empty());
            let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
            format!("{} {} of {}{cause}", service.name, service.ready, service.wanted)
        })
        .collect();
    let nobody = view.service.iter().any(|service| service.wanted > 0 && service.ready == 0);
    if late.is_empty() {
        let instances: usize = view.service.iter().map(|service| service.instance.len()).sum();
        let what =
            format!("{}, {} ready", amount::count(view.service.len(), "service"), amount::count(instances, "instance"));
        return Finding::passed("services", what);
    }
    let finding = if nobody { Finding::failed } else { Finding::warning };
    finding("services", named(&late), "`synego status SERVICE` and `synego logs SERVICE` say more".to_owned())
}

fn versions(view: &pb::MeshView) -> Finding {
    let own = version::LINE.split_whitespace().next().unwrap_or_default();
    if view.version.is_empty() || own == view.version {
        return Finding::passed("versions", format!("this program and the master are {own}"));
    }
    let cause = format!("the master is {}, this program {own}", view.version);
    Finding::warning("versions", cause, "restart the older one from the newer binary")
}

fn clocks(seen: &Seen) -> Finding {
    let apart = seen.view.unix_ms.abs_diff(seen.at_unix_ms);
    let (told, refused) = APART_MS;
    if apart < told {
        return Finding::passed("clocks", format!("this machine and the master are {apart} ms apart at most"));
    }
    let cause = format!("this machine and the master are {} apart", age(Duration::from_millis(apart)));
    let help = "let both be set: `timedatectl set-ntp true`";
    match apart < refused {
        true => Finding::warning("clocks", cause, help),
        false => Finding::failed("clocks", format!("{cause}: certificates look expired, or not begun"), help),
    }
}

fn access(view: &pb::MeshView) -> Finding {
    match view.access.as_str() {
        "open" => Finding::warning("access", "everybody may call everybody (`access: open`)", "`access: enforce`"),
        "observe" => Finding::warning(
            "access",
            "what is not permitted is only reported (`access: observe`)",
            "add the `uses` that `synego status` names, then `access: enforce`",
        ),
        _ => Finding::passed("access", "a service calls what its `uses` names and nothing else"),
    }
}

/// What a check cannot see, as a finding.
fn unseen(check: &'static str, failure: &Failure) -> Finding {
    Finding::skipped(check, failure.cause.first().unwrap_or(&failure.what).clone())
}

fn identity(seen: &Seen) -> Finding {
    let answer = match &seen.identity {
        Ok(answer) => answer,
        Err(failure) => return unseen("identity", failure),
    };
    let mut bad = Vec::new();
    let mut without = Vec::new();
    for one in &answer.instance {
        match &one.identity {
            None if is_up(&seen.view, &one.instance) => without.push(one.instance.clone()),
            None => {}
            Some(id) if id.not_after_unix_ms <= answer.unix_ms => bad.push(format!("{} has ended", one.instance)),
            Some(id) if !id.renewal_error.is_empty() => bad.push(format!("{}: {}", one.instance, id.renewal_error)),
            Some(_) => {}
        }
    }
    if !bad.is_empty() {
        return Finding::failed("identity", named(&bad), "`synego identity INSTANCE`; a new token lets it in again");
    }
    if !without.is_empty() {
        let cause = format!("no certificate is reported by {}", named(&without));
        return Finding::warning("identity", cause, "are they started with `--mtls off`?");
    }
    Finding::passed("identity", format!("{} alive and renewed", amount::count(answer.instance.len(), "certificate")))
}

fn is_up(view: &pb::MeshView, instance: &str) -> bool {
    let mut all = view.service.iter().flat_map(|service| &service.instance);
    all.any(|one| one.id == instance && one.state() != InstanceState::Gone)
}

fn handshakes(seen: &Seen) -> Finding {
    let Ok(answer) = &seen.identity else { return Finding::skipped("handshakes", "not seen either") };
    let mut refused: Vec<(u64, String)> = Vec::new();
    for one in &answer.instance {
        for refusal in one.identity.iter().flat_map(|id| &id.refused) {
            let text = format!("{} × {} at {} ({})", refusal.handshakes, refusal.cause, one.instance, refusal.side);
            refused.push((refusal.handshakes, text));
        }
    }
    if refused.is_empty() {
        return Finding::passed("handshakes", "none was refused");
    }
    refused.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let names: Vec<String> = refused.into_iter().map(|(_, text)| text).collect();
    let help = "their log lines say who was expected, who came and what to do (docs/security.md)";
    Finding::warning("handshakes", format!("refused since the start: {}", named(&names)), help)
}

fn authority(context: &Context, seen: &Seen) -> Finding {
    let view = match &seen.authority {
        Ok(view) => view,
        Err(failure) => return unseen("authority", failure),
    };
    let Some(root) = view.root.iter().find(|root| root.issues) else {
        return Finding::failed("authority", "no root issues certificates", "`synego ca status`");
    };
    let left = Duration::from_millis(root.not_after_unix_ms.saturating_sub(view.unix_ms));
    let until = context.clock.at(root.not_after_unix_ms, context.now());
    if left < ROOT_LEFT {
        let cause = format!("the root ends {until}, in {}", age(left));
        return Finding::warning("authority", cause, "`synego ca rotate`");
    }
    if view.step_number != 0 {
        let waiting: Vec<String> = view.waiting.iter().map(|one| one.holder.clone()).collect();
        let waits = if waiting.is_empty() { String::new() } else { format!(", waiting for {}", named(&waiting)) };
        return Finding::passed(
            "authority",
            format!("a rotation is at step {} of {}{waits}", view.step_number, view.steps),
        );
    }
    Finding::passed("authority", format!("one root, until {until}"))
}
