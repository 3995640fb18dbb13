//! What `reload`, `drain` and `scale` share: who is meant, and the steps as they come.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use synego_wire::pb;
use tonic::Streaming;

use crate::client::Mesh;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::amount;
use crate::view;

/// One instance that is meant, and its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meant {
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) node: String,
}

/// The instances that words and machines name: `users`, `users@vm2`, `users-1`, `users-1@vm2`; no word: all.
///
/// # Errors
/// For the first word that names none, with the nearest one that does.
pub(crate) fn meant(view: &pb::MeshView, words: &[String], nodes: &[String]) -> Result<Vec<Meant>, Failure> {
    // A job that is done has a sidecar that may be asked to run it once more.
    let is_done = |instance: &pb::InstanceView| view::cause_word(instance.cause.as_ref()) == Some("job_done");
    let living = |one: &&pb::InstanceView| one.state() != pb::InstanceState::Gone || is_done(one);
    let all: Vec<Meant> = view
        .service
        .iter()
        .flat_map(|service| service.instance.iter().filter(living).map(move |instance| (service, instance)))
        .map(|(service, instance)| Meant {
            service: service.name.clone(),
            id: instance.id.clone(),
            node: instance.node.clone(),
        })
        .collect();
    let is = |word: &str, one: &Meant| {
        let short = one.id.split('@').next().unwrap_or_default();
        word == one.service || word == one.id || word == short || word == format!("{}@{}", one.service, one.node)
    };
    for (what, word) in
        words.iter().map(|word| ("service or instance", word)).chain(nodes.iter().map(|n| ("machine", n)))
    {
        let found = if what == "machine" {
            all.iter().any(|one| one.node == *word)
        } else {
            all.iter().any(|one| is(word, one))
        };
        if found {
            continue;
        }
        if view.service.iter().any(|service| service.name == *word) {
            return Err(Failure::new(format!("no instance of `{word}` runs")).help("`synego status` shows why"));
        }
        let names = all.iter().flat_map(|one| [one.service.as_str(), one.id.as_str(), one.node.as_str()]);
        let near = synego_model::text::nearest(word, names).map(|near| format!("nearest: `{near}`"));
        return Err(Failure::new(format!("the mesh `{}` has no {what} `{word}`", view.mesh))
            .cause(near.unwrap_or_default())
            .help("`synego get instances` lists them"));
    }
    let named = |one: &Meant| words.is_empty() || words.iter().any(|word| is(word, one));
    let there = |one: &Meant| nodes.is_empty() || nodes.contains(&one.node);
    Ok(all.into_iter().filter(|one| named(one) && there(one)).collect())
}

/// Follows the steps to their end, telling each on the way; the last one of each instance, by its id.
///
/// # Errors
/// When the call fails on the way.
pub(crate) async fn follow(
    context: &Context,
    mesh: &Mesh<'_>,
    mut steps: Streaming<pb::LifecycleStep>,
) -> Result<Vec<pb::LifecycleStep>, Failure> {
    let mut last: BTreeMap<String, pb::LifecycleStep> = BTreeMap::new();
    while let Some(step) = steps.next().await {
        let step = step.map_err(|status| mesh.failed(&status))?;
        let before = last.insert(step.instance.clone(), step.clone());
        let said = before.as_ref().map(words);
        // What ended is listed in the result; on the way only what is new is worth a line.
        if !is_last(&step) && said.as_deref() != Some(&words(&step)) {
            context.screen.note(&words(&step));
        }
    }
    Ok(last.into_values().collect())
}

fn is_last(step: &pb::LifecycleStep) -> bool {
    ["done", "failed", "skipped"].contains(&step.outcome.as_str())
}

/// `users-1@vm1 draining: 2 requests, 1 stream`
fn words(step: &pb::LifecycleStep) -> String {
    let open = open(step);
    let more = [open.as_str(), step.message.as_str()].into_iter().filter(|part| !part.is_empty());
    let more = more.collect::<Vec<_>>().join("; ");
    let colon = if more.is_empty() { "" } else { ": " };
    format!("{} {}{colon}{more}", step.instance, step.outcome)
}

/// What is still open, in words; empty: nothing.
pub(crate) fn open(step: &pb::LifecycleStep) -> String {
    let counts = [(step.open_requests, "request"), (step.open_streams, "stream")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    counts.map(|(count, what)| amount::count(count as usize, what)).collect::<Vec<_>>().join(", ")
}

/// Tells what failed, with what its process printed last.
pub(crate) fn complain(context: &Context, steps: &[pb::LifecycleStep]) {
    for step in steps.iter().filter(|step| step.outcome == "failed") {
        let lines: String = step.line.iter().map(|line| format!("  | {line}\n")).collect();
        context.screen.complain(format!("{} failed: {}\n{lines}", step.instance, step.message).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> pb::MeshView {
        let instance = |name: &str, node: &str| pb::InstanceView {
            id: format!("{name}@{node}"),
            node: node.into(),
            state: pb::InstanceState::Ready.into(),
            ..Default::default()
        };
        let service = |name: &str, instance| pb::ServiceView { name: name.into(), instance, ..Default::default() };
        let users = vec![instance("users-1", "vm1"), instance("users-2", "vm1"), instance("users-1", "vm2")];
        let service = vec![service("users", users), service("idle", Vec::new())];
        pb::MeshView { mesh: "shop".into(), service, ..Default::default() }
    }

    fn ids(words: &[&str], nodes: &[&str]) -> Result<Vec<String>, String> {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let found = meant(&view(), &owned(words), &owned(nodes)).map_err(|failure| failure.what)?;
        Ok(found.into_iter().map(|one| one.id).collect())
    }

    #[test]
    fn a_word_is_a_service_an_instance_or_either_on_one_machine() {
        assert_eq!(ids(&["users"], &[]).expect("found").len(), 3);
        assert_eq!(ids(&["users@vm2"], &[]), Ok(vec!["users-1@vm2".to_owned()]));
        assert_eq!(ids(&["users-1"], &[]).expect("found"), ["users-1@vm1", "users-1@vm2"]);
        assert_eq!(ids(&["users-2@vm1"], &[]), Ok(vec!["users-2@vm1".to_owned()]));
        assert_eq!(ids(&[], &["vm1"]).expect("found").len(), 2);
        assert_eq!(ids(&["users"], &["vm3"]), Err("the mesh `shop` has no machine `vm3`".to_owned()));
        assert_eq!(ids(&["user"], &[]), Err("the mesh `shop` has no service or instance `user`".to_owned()));
        assert_eq!(ids(&["idle"], &[]), Err("no instance of `idle` runs".to_owned()));
    }
}
