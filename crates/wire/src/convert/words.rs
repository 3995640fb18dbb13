//! The closed words: reasons, states, codes, protocols, and a cause made of them.

use synego_model as model;
use synego_model::{Cause, InstanceState, Protocol, Reason};

use super::{Problems, checked, join};
use crate::pb;

/// Longest text of a cause, in bytes.
const MAX_CAUSE: usize = 1024;

impl From<Reason> for pb::Reason {
    fn from(reason: Reason) -> Self {
        // Numbers are equal by construction; a test walks all of them.
        Self::try_from(reason as i32).unwrap_or(Self::Unspecified)
    }
}

/// The reason of a number that travelled; `None` for 0 and for ones that this version does not know.
#[must_use]
pub fn reason(number: i32) -> Option<Reason> {
    Reason::from_number(number)
}

impl From<model::Code> for pb::Code {
    fn from(code: model::Code) -> Self {
        Self::try_from(code as i32).unwrap_or(Self::Unknown)
    }
}

impl From<model::Blame> for pb::Blame {
    fn from(blame: model::Blame) -> Self {
        match blame {
            model::Blame::Caller => Self::Caller,
            model::Blame::Upstream => Self::Upstream,
            model::Blame::Local => Self::Local,
        }
    }
}

impl From<model::Retry> for pb::Retry {
    fn from(retry: model::Retry) -> Self {
        match retry {
            model::Retry::Never => Self::Never,
            model::Retry::Later => Self::Later,
            model::Retry::OtherEndpoint => Self::OtherEndpoint,
        }
    }
}

impl From<InstanceState> for pb::InstanceState {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Starting => Self::Starting,
            InstanceState::Ready => Self::Ready,
            InstanceState::Degraded => Self::Degraded,
            InstanceState::Unhealthy => Self::Unhealthy,
            InstanceState::Draining => Self::Draining,
            InstanceState::Gone => Self::Gone,
        }
    }
}

/// The state of a number that travelled.
pub(crate) fn state(number: i32, path: &str, problems: &mut Problems) -> Option<InstanceState> {
    match pb::InstanceState::try_from(number) {
        Ok(pb::InstanceState::Starting) => Some(InstanceState::Starting),
        Ok(pb::InstanceState::Ready) => Some(InstanceState::Ready),
        Ok(pb::InstanceState::Degraded) => Some(InstanceState::Degraded),
        Ok(pb::InstanceState::Unhealthy) => Some(InstanceState::Unhealthy),
        Ok(pb::InstanceState::Draining) => Some(InstanceState::Draining),
        Ok(pb::InstanceState::Gone) => Some(InstanceState::Gone),
        Ok(pb::InstanceState::Unspecified) | Err(_) => {
            problems.add(path, format!("is {number}, expected a state"));
            None
        }
    }
}

impl From<Protocol> for pb::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http1,
            Protocol::Grpc => Self::Grpc,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

/// What a service speaks, of a number that travelled: both versions of HTTP are `Http` to callers.
pub(crate) fn protocol(number: i32, path: &str, problems: &mut Problems) -> Option<Protocol> {
    match pb::Protocol::try_from(number) {
        Ok(pb::Protocol::Unspecified | pb::Protocol::Http1 | pb::Protocol::Http2) => Some(Protocol::Http),
        Ok(pb::Protocol::Grpc) => Some(Protocol::Grpc),
        Ok(pb::Protocol::Tcp) => Some(Protocol::Tcp),
        Err(_) => {
            problems.add(path, format!("is {number}, expected a protocol"));
            None
        }
    }
}

impl From<&Cause> for pb::StateCause {
    fn from(cause: &Cause) -> Self {
        let mut message = cause.message.clone();
        message.truncate(message.floor_char_boundary(MAX_CAUSE));
        Self { reason: pb::Reason::from(cause.reason).into(), message, since_unix_ms: cause.since_unix_ms }
    }
}

checked! {
    pb::StateCause => Cause: cause;
}

/// Why something is in its state.
pub(crate) fn cause(message: &pb::StateCause, path: &str, problems: &mut Problems) -> Option<Cause> {
    let text = problems.text(&join(path, "message"), &message.message, MAX_CAUSE);
    if message.reason == 0 {
        problems.add(join(path, "reason"), "is not set");
        return None;
    }
    // A newer sidecar may know reasons that this version does not: its report still counts.
    let reason = reason(message.reason).unwrap_or(Reason::Internal);
    Some(Cause { reason, message: text, since_unix_ms: message.since_unix_ms })
}
