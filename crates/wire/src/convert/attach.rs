//! What a service says of itself on the service protocol, as facts; `check` makes them of what came.

mod check;

use std::collections::BTreeMap;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{InstanceName, Place, Reason, ServiceName};

use super::ms;
use crate::pb;

/// Something that counts only when both sides name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// Settings may come while the process runs.
    LiveConfig,
    /// `Drain` is understood, and `DRAINED` is said.
    InPlaceDrain,
    /// Handlers change while the process runs.
    HotHandlers,
    /// Handlers may run in processes of their own.
    ProcessPool,
    /// The service has metrics of its own.
    Metrics,
    /// Log lines are sent on the link.
    Logs,
}

impl Feature {
    /// The feature of a number that travelled; `None`: one of a newer version.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        match pb::Feature::try_from(number) {
            Ok(pb::Feature::LiveConfig) => Some(Self::LiveConfig),
            Ok(pb::Feature::InPlaceDrain) => Some(Self::InPlaceDrain),
            Ok(pb::Feature::HotHandlers) => Some(Self::HotHandlers),
            Ok(pb::Feature::ProcessPool) => Some(Self::ProcessPool),
            Ok(pb::Feature::Metrics) => Some(Self::Metrics),
            Ok(pb::Feature::Logs) => Some(Self::Logs),
            Ok(pb::Feature::Unspecified) | Err(_) => None,
        }
    }
}

impl From<Feature> for pb::Feature {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::LiveConfig => Self::LiveConfig,
            Feature::InPlaceDrain => Self::InPlaceDrain,
            Feature::HotHandlers => Self::HotHandlers,
            Feature::ProcessPool => Self::ProcessPool,
            Feature::Metrics => Self::Metrics,
            Feature::Logs => Self::Logs,
        }
    }
}

/// The first message of an attachment: everything the sidecar needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Lowest version of the protocol that the service speaks.
    pub protocol_min: u32,
    /// Highest version of the protocol that the service speaks.
    pub protocol_max: u32,
    /// What it can do beyond the required; ones of newer versions are left out.
    pub features: Vec<Feature>,
    /// Its name.
    pub service: ServiceName,
    /// Name of its instance; `None`: the sidecar's choice.
    pub instance: Option<InstanceName>,
    /// Its version; may be empty.
    pub version: String,
    /// Its SDK; may be empty.
    pub sdk: String,
    /// From the last attachment of this process; may be empty.
    pub attachment_id: String,
    /// Process id as the service sees it; 0: not said.
    pub pid: u32,
    /// Up by one with each reload.
    pub generation: u32,
    /// Where it listens; at least one.
    pub listeners: Vec<Listener>,
    /// What it handles.
    pub handlers: Handlers,
    /// How it is.
    pub state: State,
}

/// What is spoken at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// gRPC over HTTP/2 by prior knowledge.
    Grpc,
    /// Bytes.
    Tcp,
}

/// One address where the service listens for its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there.
    pub protocol: ListenerProtocol,
    /// Where: a loopback address or a Unix socket.
    pub address: ServiceAddress,
    /// How long the service keeps an idle connection; `None`: not known.
    pub keep_alive: Option<Duration>,
}

/// All handlers of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Handlers {
    /// The handlers.
    pub handlers: Vec<Handler>,
    /// Path of the service's own metrics.
    pub metrics_path: Option<String>,
    /// Places that the service asks to be routed to it.
    pub routes: Vec<Place>,
}

/// In which way a handler's calls run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Model {
    /// On the server's own loop or scheduler.
    #[default]
    Inline,
    /// A thread for each call.
    Thread,
    /// A resident worker for each call at once.
    Pool,
}

/// One handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handler {
    /// `METHOD /path`, a gRPC path or `POST /rpc/name`; the metric label.
    pub pattern: String,
    /// How its calls run.
    pub model: Model,
    /// Whether its workers live in processes of their own.
    pub own_process: bool,
    /// Calls at once; 0: no cap.
    pub limit: u32,
    /// Calls that may wait.
    pub queue: u32,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// How long one may run; zero: the request's own deadline alone.
    pub timeout: Duration,
    /// Whether it streams.
    pub streaming: bool,
}

/// Where the service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// Not ready yet.
    #[default]
    Starting,
    /// Takes requests.
    Ready,
    /// Takes requests, but something is not well.
    Degraded,
    /// Wants none for now.
    Unhealthy,
    /// Finishes what runs.
    Draining,
    /// Nothing is in flight any more.
    Drained,
}

/// How the service is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its own checks.
    pub checks: Vec<Check>,
}

/// One health check that the service does itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Whether it passes.
    pub ok: bool,
    /// Whether the service is unhealthy without it, else degraded.
    pub required: bool,
    /// Why it fails.
    pub cause: String,
}

/// How much is going on in the service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Load {
    /// Up by one with each message.
    pub sequence: u64,
    /// Share of what the service can do, 0 to 1.
    pub utilization: f64,
    /// 99th percentile of its loop's lag in the period.
    pub loop_lag: Duration,
    /// Runs that ignored their time limit.
    pub stuck: u32,
    /// Streams that are open.
    pub open_streams: u32,
    /// Work in flight that no request began.
    pub background: u32,
    /// The handlers that have something to tell.
    pub handlers: Vec<HandlerLoad>,
    /// The service's own figures, 0 to 1 each.
    pub named: BTreeMap<String, f64>,
}

/// How much is going on in one handler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HandlerLoad {
    /// Index into [`Handlers::handlers`].
    pub index: u32,
    /// Calls that run.
    pub running: u32,
    /// Calls that wait.
    pub waiting: u32,
    /// Whether its line is full.
    pub saturated: bool,
    /// Runs that were killed since the process began.
    pub killed_total: u64,
    /// Runs that lasted too long since the process began.
    pub timed_out_total: u64,
}

/// "Start my successor, then drain me."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    /// Why, as a closed word.
    pub reason: Reason,
    /// Why, for people.
    pub cause: String,
}

/// Why a drain begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DrainCause {
    /// The mesh or this instance stops.
    Stop,
    /// A successor took over.
    Reload,
    /// Fewer instances are wanted.
    ScaleDown,
    /// A person asked for it.
    Operator,
}

impl From<DrainCause> for pb::DrainCause {
    fn from(cause: DrainCause) -> Self {
        match cause {
            DrainCause::Stop => Self::Stop,
            DrainCause::Reload => Self::Reload,
            DrainCause::ScaleDown => Self::ScaleDown,
            DrainCause::Operator => Self::Operator,
        }
    }
}

/// A drain as it travels.
#[must_use]
pub fn drain_to_wire(cause: DrainCause, within: Duration) -> pb::Drain {
    pb::Drain { cause: pb::DrainCause::from(cause).into(), deadline_ms: ms(within).min(600_000) }
}
