//! The admin API of a machine that only joins masters elsewhere: what this machine itself knows and can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use synego_manifest::Manifest;
use synego_master::{DownAsked, DownOutcome, DownStep};
use synego_model::{LocalService, NodeName, ServiceName};
use synego_runtime::admin::{self, BindAddr};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Host, Stopper};
use synego_sidecar::CredentialHandle;
use synego_sidecar::order::{MAX_DRAIN, MAX_INSTANCES, Order, Step};
use synego_supervise::OutputSink;
use synego_wire::pb::{self, InstanceState};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::instances::{DRAIN, Fleet, Instances, Picture, told};
use crate::failure::Failure;
use crate::mesh::SOCKET;

/// Most recent lines of an instance that are given at once.
const MOST_LINES: u32 = 10_000;

/// The running admin API.
pub(crate) struct Served {
    downs: Mutex<Option<mpsc::Receiver<DownAsked>>>,
    end: Stopper,
    task: JoinHandle<()>,
}

impl Served {
    /// Where `synego down` arrives; once.
    pub(crate) fn downs(&self) -> Option<mpsc::Receiver<DownAsked>> {
        self.downs.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        self.end.stop();
        // It has nothing to say about its end.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
        self.end.cut();
    }
}

/// Serves it on the socket of the runtime folder.
///
/// # Errors
/// When the socket cannot be taken.
pub(crate) async fn serve(
    manifest: &Manifest,
    node: &NodeName,
    instances: &Instances,
    credentials: BTreeMap<ServiceName, CredentialHandle>,
    runtime_dir: &Path,
    host: &Host,
) -> Result<Served, Failure> {
    let (asks, downs) = mpsc::channel(1);
    let local = Local {
        mesh: manifest.declaration.mesh.to_string(),
        node: node.clone(),
        services: manifest.local.clone(),
        pictures: instances.pictures(),
        fleet: instances.fleet(),
        credentials,
        asks,
    };
    let address = BindAddr::Unix(runtime_dir.join(SOCKET));
    let listener = admin::bind(&address)
        .await
        .map_err(|error| Failure::new(format!("cannot listen on {address}")).cause(error.to_string()))?;
    let routes = Routes::new(pb::admin_server::AdminServer::new(local)).prepare().into_axum_router();
    let router = routes.merge(admin::router(host.metrics(), host.readiness()));
    let (end, life) = host.stop().outliving();
    let task = tasks::spawn("admin", Kind::Critical, async move { admin::serve(vec![listener], router, life).await });
    Ok(Served { downs: Mutex::new(Some(downs)), end, task })
}

/// What this machine knows.
struct Local {
    mesh: String,
    node: NodeName,
    services: Vec<LocalService>,
    pictures: watch::Receiver<BTreeMap<String, Picture>>,
    fleet: Arc<Fleet>,
    credentials: BTreeMap<ServiceName, CredentialHandle>,
    asks: mpsc::Sender<DownAsked>,
}

impl Local {
    /// The instances that are named.
    fn meant(&self, services: &[String], instances: &[String]) -> Result<Vec<(ServiceName, String)>, Status> {
        let is = |(service, id): &(ServiceName, String)| {
            let short = id.split('@').next().unwrap_or_default();
            let named = instances.iter().any(|name| name == id || name == short);
            let all = services.is_empty() && instances.is_empty();
            all || named || services.iter().any(|name| name == service.as_str())
        };
        let found: Vec<_> = self.fleet.ids().into_iter().filter(is).collect();
        if found.is_empty() { Err(Status::not_found("nothing of it runs on this machine")) } else { Ok(found) }
    }

    /// Orders the same of each, and tells the steps of all.
    fn ordered(&self, meant: Vec<(ServiceName, String)>, order: &Order) -> Answers<pb::LifecycleStep> {
        let all = meant.into_iter().map(|(service, id)| {
            let steps = self.fleet.order(&service, &id, order.clone());
            stepped(id, steps)
        });
        Box::pin(stream::select_all(all))
    }

    fn view(&self, only: &[String]) -> pb::MeshView {
        view(&self.mesh, &self.node, &self.services, &self.pictures.borrow(), only)
    }
}

fn view(
    mesh: &str,
    node: &NodeName,
    services: &[LocalService],
    pictures: &BTreeMap<String, Picture>,
    only: &[String],
) -> pb::MeshView {
    let wanted =
        services.iter().filter(|local| only.is_empty() || only.iter().any(|name| name == local.spec.name.as_str()));
    pb::MeshView {
        mesh: mesh.to_owned(),
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

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::admin_server::Admin for Local {
    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::MeshView>, Status> {
        Ok(Response::new(self.view(&request.into_inner().service)))
    }

    type WatchStream = Answers<pb::MeshView>;

    async fn watch(&self, request: Request<pb::GetRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let every = Duration::from_millis(if request.every_ms == 0 {
            1000
        } else {
            request.every_ms.clamp(100, 60_000).into()
        });
        let first = self.view(&request.service);
        let state =
            (self.pictures.clone(), self.mesh.clone(), self.node.clone(), self.services.clone(), request.service);
        let later = stream::unfold(state, move |mut state| async move {
            tokio::time::sleep(every).await;
            state.0.changed().await.ok()?;
            let next = view(&state.1, &state.2, &state.3, &state.0.borrow_and_update(), &state.4);
            Some((Ok(next), state))
        });
        Ok(Response::new(Box::pin(stream::once(async move { Ok(first) }).chain(later))))
    }

    async fn apply(&self, _request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResult>, Status> {
        Err(elsewhere())
    }

    async fn who_am_i(&self, _request: Request<pb::WhoAmIRequest>) -> Result<Response<pb::WhoAmIAnswer>, Status> {
        // Only the socket leads here, and it lets in nobody but its user.
        Ok(Response::new(pb::WhoAmIAnswer {
            mesh: self.mesh.clone(),
            who: "the user of this process".to_owned(),
            role: pb::AdminRole::Write.into(),
            expires_unix_ms: 0,
            root: Vec::new(),
        }))
    }

    async fn issue_operator(
        &self,
        _request: Request<pb::IssueOperatorRequest>,
    ) -> Result<Response<pb::IssuedOperator>, Status> {
        Err(elsewhere())
    }

    async fn issue_login(&self, _request: Request<pb::IssueLoginRequest>) -> Result<Response<pb::IssuedLogin>, Status> {
        Err(elsewhere())
    }

    async fn list_logins(&self, _request: Request<pb::ListLoginsRequest>) -> Result<Response<pb::LoginList>, Status> {
        Err(elsewhere())
    }

    async fn revoke_login(
        &self,
        _request: Request<pb::RevokeLoginRequest>,
    ) -> Result<Response<pb::RevokedLogin>, Status> {
        Err(elsewhere())
    }

    type LogsStream = Answers<pb::LogsBatch>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let services: BTreeMap<String, String> =
            self.pictures.borrow().iter().map(|(id, picture)| (id.clone(), picture.service.to_string())).collect();
        let chosen: Vec<(String, String, OutputSink)> = self
            .fleet
            .sinks()
            .into_iter()
            .map(|(id, sink)| (id.clone(), service_of(&id, &services), sink))
            .filter(|(id, service, _)| {
                let named = request.instance.iter().any(|name| name == id || id.split('@').next() == Some(name));
                (request.service.is_empty() || request.service.contains(service))
                    && (request.instance.is_empty() || named)
            })
            .collect();
        Ok(Response::new(lines(chosen, request.recent.min(MOST_LINES), request.follow)))
    }

    async fn identity(&self, request: Request<pb::IdentityRequest>) -> Result<Response<pb::IdentityAnswer>, Status> {
        let wanted = request.into_inner().instance;
        let takes = |id: &str| {
            wanted.is_empty() || wanted.iter().any(|name| name == id || id.split('@').next() == Some(name.as_str()))
        };
        let pictures = self.pictures.borrow();
        let own = pictures.iter().filter(|(id, _)| takes(id)).map(|(id, picture)| pb::InstanceIdentity {
            instance: id.clone(),
            identity: self.credentials.get(&picture.service).map(|credential| (&credential.report()).into()),
        });
        Ok(Response::new(pb::IdentityAnswer {
            mesh: self.mesh.clone(),
            epoch: 0,
            instance: own.collect(),
            root: Vec::new(),
            unix_ms: synego_runtime::clock::unix_ms(),
        }))
    }

    async fn token_create(&self, _: Request<pb::TokenCreateRequest>) -> Result<Response<pb::TokenCreated>, Status> {
        Err(elsewhere())
    }

    async fn token_list(&self, _: Request<pb::TokenListRequest>) -> Result<Response<pb::TokenListAnswer>, Status> {
        Err(elsewhere())
    }

    async fn token_revoke(&self, _: Request<pb::TokenRevokeRequest>) -> Result<Response<pb::TokenView>, Status> {
        Err(elsewhere())
    }

    async fn ca_status(&self, _: Request<pb::CaStatusRequest>) -> Result<Response<pb::CaView>, Status> {
        Err(elsewhere())
    }

    async fn ca_rotate(&self, _: Request<pb::CaRotateRequest>) -> Result<Response<pb::CaView>, Status> {
        Err(elsewhere())
    }

    async fn ca_export(&self, _: Request<pb::CaExportRequest>) -> Result<Response<pb::CaPem>, Status> {
        Err(elsewhere())
    }

    async fn ca_import(&self, _: Request<pb::CaPem>) -> Result<Response<pb::CaView>, Status> {
        Err(elsewhere())
    }

    type ReloadStream = Answers<pb::LifecycleStep>;

    async fn reload(&self, request: Request<pb::ReloadRequest>) -> Result<Response<Self::ReloadStream>, Status> {
        let request = request.into_inner();
        let meant = self.meant(&request.service, &request.instance)?;
        // One wish after the other: their times differ.
        let round = synego_runtime::clock::unix_us();
        Ok(Response::new(self.ordered(meant, &Order::Reload { round })))
    }

    type DrainStream = Answers<pb::LifecycleStep>;

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        let request = request.into_inner();
        let meant = self.meant(&request.service, &request.instance)?;
        let within = Duration::from_millis(request.within_ms.into()).min(MAX_DRAIN);
        let order = match request.undo {
            true => Order::Undrain,
            false => Order::Drain { within: (!within.is_zero()).then_some(within) },
        };
        Ok(Response::new(self.ordered(meant, &order)))
    }

    type ScaleStream = Answers<pb::LifecycleStep>;

    async fn scale(&self, request: Request<pb::ScaleRequest>) -> Result<Response<Self::ScaleStream>, Status> {
        let request = request.into_inner();
        let service: ServiceName =
            request.service.parse().map_err(|error| Status::invalid_argument(format!("service: {error}")))?;
        let instances = (!request.as_in_file).then_some(request.instances.min(MAX_INSTANCES));
        let steps = self.fleet.scale(&service, instances);
        Ok(Response::new(stepped(format!("{service}@{}", self.node), steps)))
    }

    type DownStream = Answers<pb::DownProgress>;

    async fn down(&self, request: Request<pb::DownRequest>) -> Result<Response<Self::DownStream>, Status> {
        let request = request.into_inner();
        let within =
            if request.within_ms == 0 { DRAIN } else { Duration::from_millis(request.within_ms.min(600_000).into()) };
        let (steps, told) = mpsc::channel(64);
        let asked = DownAsked { within, now: request.now, steps };
        self.asks.try_send(asked).map_err(|_| Status::failed_precondition("it is ending already"))?;
        let progress = stream::unfold(told, |mut told| async move {
            let step: DownStep = told.recv().await?;
            Some((Ok(progress(step)), told))
        });
        Ok(Response::new(Box::pin(progress)))
    }
}

/// The steps of one order, as people are told.
fn stepped(name: String, steps: mpsc::Receiver<Step>) -> Answers<pb::LifecycleStep> {
    Box::pin(stream::unfold((steps, name), |(mut steps, name)| async move {
        let step = steps.recv().await?.told(&name);
        Some((Ok(step), (steps, name)))
    }))
}

fn elsewhere() -> Status {
    Status::failed_precondition("this machine runs no master: ask one that does, `--admin HOST:3002`")
}

fn service_of(id: &str, services: &BTreeMap<String, String>) -> String {
    let of_name = || id.split('@').next().and_then(|name| name.rsplit_once('-')).map(|(service, _)| service.to_owned());
    services.get(id).cloned().or_else(of_name).unwrap_or_default()
}

fn progress(step: DownStep) -> pb::DownProgress {
    let outcome = match step.outcome {
        DownOutcome::Draining => "draining",
        DownOutcome::Ended => "ended",
        DownOutcome::CutOff => "cut_off",
    };
    pb::DownProgress {
        instance: step.instance,
        outcome: outcome.to_owned(),
        open_streams: step.open_streams,
        open_requests: step.open_requests,
    }
}

/// The recent lines in one batch, then, when it goes on, each new one.
fn lines(chosen: Vec<(String, String, OutputSink)>, recent: u32, follow: bool) -> Answers<pb::LogsBatch> {
    let mut kept = Vec::new();
    let mut following = Vec::new();
    for (instance, service, sink) in chosen {
        let (last, next) = sink.follow(usize::try_from(recent).unwrap_or(usize::MAX));
        let named = move |line: &synego_supervise::OutputLine| pb::LogsLine {
            instance: instance.clone(),
            service: service.clone(),
            line: Some(told(line)),
        };
        kept.extend(last.iter().map(|line| named(line)));
        following.push(Box::pin(stream::unfold((next, named), |(mut next, named)| async move {
            loop {
                match next.recv().await {
                    Ok(line) => {
                        return Some((
                            Ok(pb::LogsBatch { line: vec![named(&line)], recent_complete: false }),
                            (next, named),
                        ));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })));
    }
    kept.sort_by_key(|line| line.line.as_ref().map_or(0, |line| line.unix_us));
    let first = stream::once(async move { Ok(pb::LogsBatch { line: kept, recent_complete: true }) });
    if follow { Box::pin(first.chain(stream::select_all(following))) } else { Box::pin(first) }
}
