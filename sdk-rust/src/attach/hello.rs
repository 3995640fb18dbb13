//! What a service says of itself: the whole truth, in one message.

use synego_wire::pb;

/// Versions of the protocol that this SDK speaks.
const PROTOCOL: u32 = 1;

/// What a declaration holds beside state; it does not change while the process lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Declaration {
    pub(crate) service: String,
    pub(crate) instance: String,
    pub(crate) version: String,
    pub(crate) generation: u32,
    pub(crate) listeners: Vec<pb::Listener>,
    pub(crate) handlers: pb::Handlers,
}

impl Declaration {
    /// Everything in it that a sidecar would refuse, found the way a sidecar finds it.
    pub(crate) fn problems(&self, state: pb::State) -> Vec<String> {
        match synego_wire::convert::attach::Hello::try_from(&self.hello("", state)) {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                invalid.mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.message)).collect()
            }
        }
    }

    pub(crate) fn hello(&self, attachment_id: &str, state: pb::State) -> pb::Hello {
        pb::Hello {
            protocol_min: PROTOCOL,
            protocol_max: PROTOCOL,
            features: vec![pb::Feature::LiveConfig.into(), pb::Feature::InPlaceDrain.into()],
            service: self.service.clone(),
            instance: self.instance.clone(),
            version: self.version.clone(),
            sdk: concat!("rust/", env!("CARGO_PKG_VERSION")).to_owned(),
            attachment_id: attachment_id.to_owned(),
            pid: std::process::id(),
            generation: self.generation,
            listeners: self.listeners.clone(),
            handlers: Some(self.handlers.clone()),
            state: Some(state),
        }
    }
}
