//! What this machine knows of its services, as `synego status` shows a mesh.

use std::collections::BTreeMap;

use synego_model::{LocalService, NodeName};
use synego_wire::pb::{self, InstanceState};

use super::Picture;

/// All of it.
///
/// - `only`: names of services; none: all.
pub(super) fn mesh(
    name: &str,
    node: &NodeName,
    services: &[LocalService],
    pictures: &BTreeMap<String, Picture>,
    only: &[String],
) -> pb::MeshView {
    let wanted =
        services.iter().filter(|local| only.is_empty() || only.iter().any(|name| name == local.spec.name.as_str()));
    pb::MeshView {
        mesh: name.to_owned(),
        unix_ms: synego_runtime::clock::unix_ms(),
        service: wanted.map(|local| service(local, node, pictures)).collect(),
        node: vec![pb::NodeView {
            name: node.to_string(),
            zone: String::new(),
            instances: u32::try_from(pictures.len()).unwrap_or(u32::MAX),
        }],
        warning: vec![pb::Warning {
            code: "joined".to_owned(),
            message: "this machine joins masters elsewhere: only its own part is shown".to_owned(),
            service: String::new(),
        }],
        version: crate::version::NUMBER.to_owned(),
        ..Default::default()
    }
}

fn service(local: &LocalService, node: &NodeName, pictures: &BTreeMap<String, Picture>) -> pb::ServiceView {
    let own = pictures.iter().filter(|(_, picture)| picture.service == local.spec.name);
    let instance: Vec<pb::InstanceView> = own.map(|(id, picture)| instance(id, node, picture)).collect();
    let ready =
        instance.iter().filter(|one| matches!(one.state(), InstanceState::Ready | InstanceState::Degraded)).count();
    let wanted = local.instances();
    let state = match ready {
        0 => instance.first().map_or(InstanceState::Starting, pb::InstanceView::state),
        ready if ready < wanted => InstanceState::Degraded,
        _ => InstanceState::Ready,
    };
    pb::ServiceView {
        name: local.spec.name.to_string(),
        state: state.into(),
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
        version: if local.version.is_empty() { Vec::new() } else { vec![local.version.clone()] },
        protocol: pb::Protocol::from(local.spec.protocol).into(),
        restarts: instance.iter().map(|one| one.restarts).sum(),
        uses: local.spec.uses.iter().map(ToString::to_string).collect(),
        route: local.spec.routes.iter().flatten().map(|route| route.place.to_string()).collect(),
        declared: true,
        instance,
        ..Default::default()
    }
}

fn instance(id: &str, node: &NodeName, picture: &Picture) -> pb::InstanceView {
    let own = (InstanceState::from(picture.view.state), picture.view.cause.as_ref().map(pb::StateCause::from));
    // Ready is what others can reach: nobody can before a master knows of it.
    let (state, cause) = if picture.is_linked || own.0 != InstanceState::Ready {
        own
    } else {
        let message = match picture.link_error.as_str() {
            "" => "no master is linked yet".to_owned(),
            error => format!("no master is linked: {error}"),
        };
        let reason = pb::Reason::Starting.into();
        (InstanceState::Starting, Some(pb::StateCause { reason, message, since_unix_ms: picture.started_unix_ms }))
    };
    pb::InstanceView {
        id: id.to_owned(),
        node: node.to_string(),
        state: state.into(),
        cause,
        address: picture.inbound.clone(),
        listens: picture.listens.clone(),
        restarts: picture.view.restarts,
        pid: picture.view.pid,
        started_unix_ms: picture.started_unix_ms,
        ..Default::default()
    }
}
