//! Master → sidecars: one task for each link takes reports in and sends out what the sidecar subscribed.
//!
//! There is no queue of updates: a link remembers the snapshot it sent last and, when there is room, sends the difference
//! to the newest one. So a slow sidecar costs nothing but its own lateness, and changes that come together travel
//! together.

mod task;

use std::sync::Arc;
use std::time::Duration;

use synego_model::{Announcement, Reason};
use synego_runtime::lifecycle::Stop;
use synego_runtime::tasks;
use synego_wire::convert::Invalid;
use synego_wire::convert::policy::SidecarSettings;
use synego_wire::convert::report::Joining;
use synego_wire::pb::from_master::Is as Down;
use synego_wire::pb::from_sidecar::Is as Up;
use synego_wire::{pb, status};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use self::task::{Guard, LinkTask};
use crate::admin::identity::door;
use crate::enrol::{Caller, speaks_for};
use crate::link::PROTOCOL;
use crate::master::{Ask, Linked, Shared};

/// Time for the first message of a link.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// Messages under way to one sidecar.
const OUTBOX: usize = 64;
/// Commands that wait for one link.
const COMMANDS: usize = 64;

/// The mesh API of one master.
pub(crate) struct MeshService {
    shared: Arc<Shared>,
    stop: Stop,
}

impl MeshService {
    pub(crate) fn new(shared: Arc<Shared>, stop: Stop) -> Self {
        Self { shared, stop }
    }

    /// Reads and checks who wants to link.
    async fn joining(&self, from: &mut Streaming<pb::FromSidecar>) -> Result<Joining, Status> {
        let first = tokio::time::timeout(JOIN_WITHIN, from.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no join within 5s"))??;
        let Some(Up::Join(join)) = first.and_then(|message| message.is) else {
            return Err(status::refusal(Reason::InvalidMessage, "the first message is no join"));
        };
        let joining = Joining::try_from(&join).map_err(|invalid| refused(&invalid))?;
        if !(joining.protocol_min..=joining.protocol_max).contains(&PROTOCOL) {
            let (min, max) = (joining.protocol_min, joining.protocol_max);
            let message = format!("the sidecar speaks {min} to {max}, this master {PROTOCOL} to {PROTOCOL}");
            return Err(status::refusal(Reason::ProtocolUnsupported, message));
        }
        let ours = self.shared.declared.borrow().declaration.mesh.clone();
        match &joining.mesh {
            Some(theirs) if *theirs != ours => {
                let message = format!("the sidecar belongs to {theirs}, this master to {ours}");
                Err(status::refusal(Reason::WrongMesh, message))
            }
            _ => Ok(joining),
        }
    }
}

#[tonic::async_trait]
impl pb::mesh_server::Mesh for MeshService {
    type LinkStream = ReceiverStream<Result<pb::FromMaster, Status>>;

    async fn link(&self, request: Request<Streaming<pb::FromSidecar>>) -> Result<Response<Self::LinkStream>, Status> {
        let caller = caller(&request)?;
        let mut from = request.into_inner();
        let joining = self.joining(&mut from).await.inspect_err(|_| self.shared.metrics.refused("join"))?;
        if self.shared.door.is_some() {
            let speaks = speaks_for(&caller, &joining.announcement.service);
            speaks.inspect_err(|_| self.shared.metrics.refused("join"))?;
        }
        let link = self.shared.new_link();
        // From here on the registry learns of the end, even when the sidecar goes away before it is answered.
        let guard = Guard { shared: Arc::clone(&self.shared), link, id: joining.announcement.id.clone() };
        let (reply, answer) = oneshot::channel();
        let announcement = Box::new(joining.announcement.clone());
        let unavailable = || Status::unavailable("this master is ending");
        self.shared.asks.send(Ask::Join(link, announcement, reply)).await.map_err(|_| unavailable())?;
        answer.await.map_err(|_| unavailable())?.map_err(|why| status::refusal(Reason::InstanceTaken, why))?;

        let (to, outbox) = mpsc::channel(OUTBOX);
        let (commands, commanded) = mpsc::channel(COMMANDS);
        let (end, ended) = oneshot::channel();
        let Announcement { id, service, .. } = joining.announcement.clone();
        self.shared.links.add(
            link,
            Linked { id: id.clone(), service: service.clone(), commands, end: Some(end), subscribed: None, taken: 0 },
        );
        let settings = self.shared.settings(&service);
        let _room = to.try_send(Ok(pb::FromMaster { is: Some(Down::Joined(joined(&self.shared, &settings))) }));
        tracing::info!(instance = %id, address = %joining.announcement.address, "sidecar linked");
        let task = LinkTask::new(guard, joining.announcement, settings, to, commanded);
        tasks::spawn("mesh-link", tasks::Kind::Connection, task.run(from, ended, self.stop.clone()));
        Ok(Response::new(ReceiverStream::new(outbox)))
    }

    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::Certificates>, Status> {
        let caller = caller(&request)?;
        door(&self.shared)?.enrol(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::Certificates>, Status> {
        let caller = caller(&request)?;
        door(&self.shared)?.renew(&caller, request.into_inner()).await.map(Response::new)
    }
}

/// Who asks, as the connection was accepted.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| Status::internal("the connection has no caller"))
}

fn joined(shared: &Shared, settings: &SidecarSettings) -> pb::Joined {
    let declared = shared.declared.borrow();
    let every = u32::try_from(declared.declaration.liveness.report.as_millis()).unwrap_or(u32::MAX);
    pb::Joined {
        protocol: PROTOCOL,
        mesh: declared.declaration.mesh.to_string(),
        master: shared.name.clone(),
        incarnation: shared.incarnation.clone(),
        report_every_ms: every.clamp(250, 10_000),
        ingress: shared.facts.ingress.map(|address| address.to_string()).unwrap_or_default(),
        settings: Some(settings.into()),
    }
}

fn refused(invalid: &Invalid) -> Status {
    status::refusal(Reason::InvalidMessage, invalid.to_string())
}
