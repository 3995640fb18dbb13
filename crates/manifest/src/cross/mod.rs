//! What no single value can tell: names that must exist, keys at odds, places with two owners.

mod access;
mod gateway;
mod policy;
mod routes;
mod secrets;
mod services;

use crate::problems::Problems;
use crate::tree::{Entry, Kind, Node};

pub(crate) use secrets::inline;
pub(crate) use services::OF_A_PROCESS;

/// What the checks see: the whole tree, and what the base file alone defines.
pub(crate) struct Whole<'a> {
    /// Merged, filled, in long form; `defaults` laid under every service.
    pub(crate) tree: &'a Node,
    /// First and last index of the files that belong to an overlay; none without one.
    pub(crate) overlay: Option<u16>,
    /// Names of services that base and included files define.
    pub(crate) defined: &'a [String],
    /// What the base file is called.
    pub(crate) base: &'a str,
}

impl Whole<'_> {
    /// The services that are mappings.
    fn services(&self) -> impl Iterator<Item = &Entry> {
        let services = self.tree.get("services").map(Node::entries).unwrap_or_default();
        services.iter().filter(|entry| matches!(entry.value.kind, Kind::Map(_)))
    }
}

/// Reports everything that is at odds.
pub(crate) fn check(whole: &Whole<'_>, problems: &mut Problems) {
    services::check(whole, problems);
    access::check(whole, problems);
    routes::check(whole, problems);
    policy::check(whole, problems);
    gateway::check(whole, problems);
}
