//! The admin API of a machine that only joins masters elsewhere: what this machine itself knows and can do.

mod lines;
mod view;

use std::collections::BTreeMap;
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
use synego_sidecar::order::{MAX_DRAIN, MAX_INSTANCES, Order, Step};
use synego_sidecar::{CredentialHandle, JournalLines, Output};
use synego_wire::convert::output::LinesWanted;
use synego_wire::pb::{self};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use self::lines::{Source, lines};
use super::instances::{DRAIN, Fleet, Ground, Instances, Picture};
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
    instances: &Instances,
    ground: &Ground,
    own: JournalLines,
    host: &Host,
) -> Result<Served, Failure> {
    let (asks, downs) = mpsc::channel(1);
    let local = Local {
        mesh: manifest.declaration.mesh.to_string(),
        node: ground.node.clone(),
        services: manifest.local.clone(),
        pictures: instances.pictures(),
        fleet: instances.fleet(),
        own,
        credentials: ground.credentials.clone(),
        asks,
    };
    let address = BindAddr::Unix(ground.runtime_dir.join(SOCKET));
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
    /// What this process says of itself.
    own: JournalLines,
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
        view::mesh(&self.mesh, &self.node, &self.services, &self.pictures.borrow(), only)
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
            let next = view::mesh(&state.1, &state.2, &state.3, &state.0.borrow_and_update(), &state.4);
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
        let takes = |id: &str, service: &String| {
            let named = request.instance.iter().any(|name| name == id || id.split('@').next() == Some(name.as_str()));
            (request.service.is_empty() || request.service.contains(service)) && (request.instance.is_empty() || named)
        };
        let wanted = LinesWanted::from(pb::LinesWanted {
            recent: request.recent.min(MOST_LINES),
            follow: request.follow,
            since_us: request.since_us,
            until_us: request.until_us,
            level: request.level,
            request_id: request.request_id.clone(),
            grep: request.grep.clone(),
            access: request.access,
            mesh: request.mesh,
        });
        let mut sources: Vec<Source> = Vec::new();
        for (id, sink) in self.fleet.sinks() {
            let service = service_of(&id, &services);
            if takes(&id, &service) {
                let journal = JournalLines { access_of: Some(id.clone()), program: None, ..self.own.clone() };
                let lines = Box::new(Output::new(id.clone(), sink, journal));
                sources.push(Source { instance: id, service, lines });
            }
        }
        if request.mesh && request.service.is_empty() && request.instance.is_empty() {
            sources.push(Source {
                instance: "mesh".to_owned(),
                service: String::new(),
                lines: Box::new(self.own.clone()),
            });
        }
        Ok(Response::new(lines(sources, wanted)))
    }

    async fn set_log_level(
        &self,
        _: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<pb::SetLogLevelAnswer>, Status> {
        Err(elsewhere())
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
