//! Names for the shell to complete, taken from the running mesh; a mesh that does not answer at once gives none.

use std::ffi::OsStr;
use std::time::Duration;

use clap::Parser as _;
use clap_complete::CompletionCandidate;
use synego_wire::pb;

use crate::args::Args;
use crate::client::Mesh;
use crate::context::Context;

/// Longest wait for the mesh while a person holds the Tab key.
const PATIENCE: Duration = Duration::from_millis(300);

/// Names of services.
pub(crate) fn services(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |view| view.service.iter().map(|service| service.name.clone()).collect())
}

/// Ids of instances.
pub(crate) fn instances(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |view| {
        view.service.iter().flat_map(|service| service.instance.iter().map(|instance| instance.id.clone())).collect()
    })
}

/// Names of whatever `get` shows.
pub(crate) fn anything(current: &OsStr) -> Vec<CompletionCandidate> {
    candidates(current, |view| {
        let services = view.service.iter().map(|service| service.name.clone());
        let instances =
            view.service.iter().flat_map(|service| service.instance.iter().map(|instance| instance.id.clone()));
        let routes = view.route.iter().map(|route| route.place.clone());
        services.chain(instances).chain(routes).chain(view.node.iter().map(|node| node.name.clone())).collect()
    })
}

/// What `explain` knows without a mesh.
pub(crate) fn explainable(current: &OsStr) -> Vec<CompletionCandidate> {
    let reasons = synego_model::Reason::ALL.iter().map(|reason| reason.word().to_owned());
    let codes = synego_manifest::diagnostic_codes().map(str::to_owned);
    matching(current, reasons.chain(codes).chain(synego_manifest::key_paths()))
}

fn candidates(current: &OsStr, names: impl FnOnce(&pb::MeshView) -> Vec<String>) -> Vec<CompletionCandidate> {
    let Ok(mut args) = Args::try_parse_from(["synego", "version"]) else { return Vec::new() };
    args.globals.timeout = PATIENCE;
    let context = Context::new(args.globals);
    let view = context.block_on(async { Mesh::find(&context).await?.view(&[]).await });
    view.map(|view| matching(current, names(&view))).unwrap_or_default()
}

fn matching(current: &OsStr, names: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let begun = current.to_string_lossy();
    names.into_iter().filter(|name| name.starts_with(&*begun)).map(CompletionCandidate::new).collect()
}
