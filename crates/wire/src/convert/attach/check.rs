//! The checks of what a service says: every range of `sidecar.proto`, all mistakes at once.

use std::net::SocketAddr;

use synego_model::process::ServiceAddress;
use synego_model::{Place, Reason};

use super::super::{Problems, checked, cut, from_ms, join, words};
use super::{
    Check, Feature, Handler, HandlerLoad, Handlers, Hello, Listener, ListenerProtocol, Load, Model, Phase, Replace,
    State,
};
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
                let shown = cut(&message.address);
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
            problems.share(&join(path, &format!("named[{}]", cut(name))), *value);
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
