//! What a registry is told, and what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use synego_model::{
    Announcement, CallFigures, Cause, Declaration, Denial, EjectionReport, HealthReport, InstanceId, InstanceState,
    ServiceName, Snapshot,
};

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Monotonic, in milliseconds from any beginning.
    pub ms: u64,
    /// Milliseconds since 1970-01-01 UTC, for people.
    pub unix_ms: u64,
}

/// One sidecar's link to this master; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u64);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The manifest says this from now on.
    Declared(Declaration),
    /// A sidecar linked and announced its instance.
    Linked(Link, Announcement),
    /// A linked sidecar announces this from now on.
    Announced(Link, Announcement),
    /// A linked sidecar reported.
    Reported(Link, HealthReport),
    /// A link ended.
    Unlinked(Link),
    /// What this master's own ingress sees as a caller.
    Ingress(Vec<EjectionReport>, Vec<CallFigures>, Vec<Denial>),
    /// So many instances of a service are wanted on a machine; `None`: as many as the manifest says.
    Scaled(ServiceName, String, Option<u32>),
    /// Time went on.
    Tick,
}

/// What follows.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Routing changed.
    Published {
        /// The new state.
        snapshot: Arc<Snapshot>,
        /// Services whose table changed, came or went.
        changed: BTreeSet<ServiceName>,
    },
    /// This link is to be ended: another one speaks for the instance now.
    Superseded(Link),
    /// This link is not taken, and why.
    Refused(Link, String),
    /// An instance came or changed its state.
    Turned {
        /// Which.
        id: InstanceId,
        /// Its state before; `None`: it is new.
        from: Option<InstanceState>,
        /// Its state now.
        to: InstanceState,
        /// Why.
        cause: Option<Cause>,
    },
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// A closed word, such as `route_taken`.
    pub code: String,
    /// In one sentence.
    pub message: String,
    /// The service that it is about.
    pub service: Option<ServiceName>,
}

/// How soon callers should know what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Only how busy instances are.
    Load,
    /// Who is there, in what state, or how it is reached and treated.
    Change,
}
