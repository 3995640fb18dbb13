//! What a service says of itself: the whole truth, in one message.

use synego_wire::pb;

/// Versions of the protocol that this SDK speaks.
const PROTOCOL: u32 = 1;

/// Longest version of a service, in bytes.
const MAX_VERSION: usize = 64;

/// Most routes that a service may ask for.
const MAX_ROUTES: usize = 256;

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
    /// Everything in it that the sidecar would refuse.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !synego_model::name::is_name(&self.service) {
            problems
                .push(format!("`{}` is not a name: expected a-z, 0-9 and -, first a letter, at most 63", self.service));
        }
        if self.version.len() > MAX_VERSION {
            problems.push(format!("version `{}` is longer than {MAX_VERSION} bytes", self.version));
        }
        if self.handlers.route.len() > MAX_ROUTES {
            problems.push(format!("{} routes, at most {MAX_ROUTES} are allowed", self.handlers.route.len()));
        }
        problems
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
