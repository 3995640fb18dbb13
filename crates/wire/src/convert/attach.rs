//! What a service says of itself on the service protocol, as checked facts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use synego_model::process::ServiceAddress;
use synego_model::{InstanceName, Place, Reason, ServiceName};

use super::{Problems, checked, from_ms, join, ms, words};
use crate::pb;

const MAX_SHORT: usize = 64;
const MAX_TEXT: usize = 256;
const MAX_HANDLERS: usize = 1000;
const MAX_ROUTES: usize = 256;
const MAX_CHECKS: usize = 32;
const MAX_NAMED: usize = 16;
const MAX_DAY_MS: u32 = 86_400_000;
/// Longest path of a Unix socket, in bytes: what the kernel takes.
const MAX_SOCKET: usize = 107;

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

checked! {
    pb::Hello => Hello: hello;
    pb::Handlers => Handlers: handlers;
    pb::State => State: state;
    pb::Load => Load: load;
    pb::Replace => Replace: replace;
}

fn hello(message: &pb::Hello, path: &str, problems: &mut Problems) -> Option<Hello> {
    let protocol_min = problems.range(&join(path, "protocol_min"), message.protocol_min, 1, u32::MAX);
    let lowest = message.protocol_min.max(1);
    let protocol_max = problems.range(&join(path, "protocol_max"), message.protocol_max, lowest, u32::MAX);
    let service = problems.parse(&join(path, "service"), &message.service);
    let instance = match message.instance.as_str() {
        "" => Some(None),
        text => problems.parse(&join(path, "instance"), text).map(Some),
    };
    let version = problems.text(&join(path, "version"), &message.version, MAX_SHORT);
    let sdk = problems.text(&join(path, "sdk"), &message.sdk, MAX_SHORT);
    let attachment_id = problems.text(&join(path, "attachment_id"), &message.attachment_id, MAX_SHORT);
    problems.count(&join(path, "listeners"), message.listeners.len(), 1, 8);
    let mut listeners = Vec::new();
    for (at, found) in message.listeners.iter().take(8).enumerate() {
        listeners.extend(listener(found, &join(path, &format!("listeners[{at}]")), problems));
    }
    let handlers = match &message.handlers {
        Some(found) => handlers(found, &join(path, "handlers"), problems),
        None => Some(Handlers::default()),
    };
    let state = match &message.state {
        Some(found) => state(found, &join(path, "state"), problems),
        None => Some(State::default()),
    };
    Some(Hello {
        protocol_min,
        protocol_max,
        features: message.features.iter().filter_map(|number| Feature::from_number(*number)).collect(),
        service: service?,
        instance: instance?,
        version,
        sdk,
        attachment_id,
        pid: message.pid,
        generation: message.generation,
        listeners,
        handlers: handlers?,
        state: state?,
    })
}

fn listener(message: &pb::Listener, path: &str, problems: &mut Problems) -> Option<Listener> {
    let protocol = match pb::Protocol::try_from(message.protocol) {
        Ok(pb::Protocol::Unspecified | pb::Protocol::Http1) => Some(ListenerProtocol::Http1),
        Ok(pb::Protocol::Http2) => Some(ListenerProtocol::Http2),
        Ok(pb::Protocol::Grpc) => Some(ListenerProtocol::Grpc),
        Ok(pb::Protocol::Tcp) => Some(ListenerProtocol::Tcp),
        Err(_) => {
            problems.add(join(path, "protocol"), format!("is {}, expected a protocol", message.protocol));
            None
        }
    };
    let at = join(path, "address");
    let address = match message.address.strip_prefix("unix:") {
        Some(socket) => {
            let fits = problems.count(&at, socket.len(), 1, MAX_SOCKET);
            if fits && socket.contains('\0') {
                problems.add(&at, "has a NUL in its path");
            }
            fits.then(|| ServiceAddress::Unix(socket.into()))
        }
        None => match message.address.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() && address.port() != 0 => Some(ServiceAddress::Tcp(address)),
            _ => {
                let shown = super::cut(&message.address);
                problems.add(at, format!("is `{shown}`, expected unix:PATH, 127.0.0.1:PORT or [::1]:PORT"));
                None
            }
        },
    };
    let keep_alive = (message.keep_alive_ms > 0).then(|| from_ms(message.keep_alive_ms));
    Some(Listener { protocol: protocol?, address: address?, keep_alive })
}

fn handlers(message: &pb::Handlers, path: &str, problems: &mut Problems) -> Option<Handlers> {
    let mut handlers = Vec::new();
    if problems.count(&join(path, "handler"), message.handler.len(), 0, MAX_HANDLERS) {
        for (at, found) in message.handler.iter().enumerate() {
            handlers.extend(handler(found, &join(path, &format!("handler[{at}]")), problems));
        }
    }
    let metrics_path = (!message.metrics_path.is_empty()).then(|| {
        let at = join(path, "metrics_path");
        if !message.metrics_path.starts_with('/') {
            problems.add(&at, "does not begin with /");
        }
        problems.text(&at, &message.metrics_path, MAX_TEXT)
    });
    let mut routes = Vec::new();
    if problems.count(&join(path, "route"), message.route.len(), 0, MAX_ROUTES) {
        for (at, place) in message.route.iter().enumerate() {
            routes.extend(problems.parse::<Place>(&join(path, &format!("route[{at}]")), place));
        }
    }
    Some(Handlers { handlers, metrics_path, routes })
}

fn handler(message: &pb::Handler, path: &str, problems: &mut Problems) -> Option<Handler> {
    let pattern = join(path, "pattern");
    problems.count(&pattern, message.pattern.len(), 1, MAX_TEXT);
    if message.pattern.chars().any(char::is_control) {
        problems.add(pattern, "has control characters");
    }
    let model = match pb::Model::try_from(message.model) {
        Ok(pb::Model::Unspecified | pb::Model::Inline) => Some(Model::Inline),
        Ok(pb::Model::Thread) => Some(Model::Thread),
        Ok(pb::Model::Pool) => Some(Model::Pool),
        Err(_) => {
            problems.add(join(path, "model"), format!("is {}, expected a model", message.model));
            None
        }
    };
    let limit = problems.range(&join(path, "limit"), message.limit, 0, 65_535);
    if limit == 0 && matches!(model, Some(Model::Thread | Model::Pool)) {
        problems.add(join(path, "limit"), "is 0, which only an inline handler may have");
    }
    let queue_timeout = problems.range(&join(path, "queue_timeout_ms"), message.queue_timeout_ms, 0, MAX_DAY_MS);
    let timeout = problems.range(&join(path, "timeout_ms"), message.timeout_ms, 0, MAX_DAY_MS);
    Some(Handler {
        pattern: message.pattern.clone(),
        model: model?,
        own_process: message.isolation == i32::from(pb::Isolation::Process),
        limit,
        queue: problems.range(&join(path, "queue"), message.queue, 0, 65_535),
        queue_timeout: from_ms(queue_timeout),
        timeout: from_ms(timeout),
        streaming: message.streaming,
    })
}

fn state(message: &pb::State, path: &str, problems: &mut Problems) -> Option<State> {
    let phase = match pb::Phase::try_from(message.phase) {
        Ok(pb::Phase::Unspecified | pb::Phase::Starting) => Some(Phase::Starting),
        Ok(pb::Phase::Ready) => Some(Phase::Ready),
        Ok(pb::Phase::Degraded) => Some(Phase::Degraded),
        Ok(pb::Phase::Unhealthy) => Some(Phase::Unhealthy),
        Ok(pb::Phase::Draining) => Some(Phase::Draining),
        Ok(pb::Phase::Drained) => Some(Phase::Drained),
        Err(_) => {
            problems.add(join(path, "phase"), format!("is {}, expected a phase", message.phase));
            None
        }
    };
    let mut checks = Vec::new();
    if problems.count(&join(path, "check"), message.check.len(), 0, MAX_CHECKS) {
        for (at, found) in message.check.iter().enumerate() {
            let path = join(path, &format!("check[{at}]"));
            checks.push(Check {
                name: problems.text(&join(&path, "name"), &found.name, MAX_SHORT),
                ok: found.ok,
                required: found.required,
                cause: problems.text(&join(&path, "cause"), &found.cause, MAX_TEXT),
            });
        }
    }
    Some(State { phase: phase?, checks })
}

fn load(message: &pb::Load, path: &str, problems: &mut Problems) -> Option<Load> {
    let utilization = problems.share(&join(path, "utilization"), message.utilization);
    problems.count(&join(path, "handler"), message.handler.len(), 0, MAX_HANDLERS);
    if problems.count(&join(path, "named"), message.named.len(), 0, MAX_NAMED) {
        for (name, value) in &message.named {
            problems.count(&join(path, "named"), name.len(), 1, MAX_SHORT);
            problems.share(&join(path, &format!("named[{}]", super::cut(name))), *value);
        }
    }
    let handler = |found: &pb::HandlerLoad| HandlerLoad {
        index: found.index,
        running: found.running,
        waiting: found.waiting,
        saturated: found.saturated,
        killed_total: found.killed_total,
        timed_out_total: found.timed_out_total,
    };
    Some(Load {
        sequence: message.sequence,
        utilization,
        loop_lag: from_ms(message.loop_lag_ms),
        stuck: message.stuck,
        open_streams: message.open_streams,
        background: message.background,
        handlers: message.handler.iter().take(MAX_HANDLERS).map(handler).collect(),
        named: message.named.iter().take(MAX_NAMED).map(|(name, value)| (name.clone(), *value)).collect(),
    })
}

fn replace(message: &pb::Replace, path: &str, problems: &mut Problems) -> Option<Replace> {
    let cause = problems.text(&join(path, "cause"), &message.cause, MAX_TEXT);
    // Reasons that this version does not know, and none at all, still are a wish for a successor.
    let reason = words::reason(message.reason).unwrap_or(Reason::ReplaceWanted);
    Some(Replace { reason, cause })
}
