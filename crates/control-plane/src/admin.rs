//! The admin API: what people and tools ask of a master.

mod apply;
mod audit;
mod down;
mod gate;
pub(crate) mod identity;
pub(crate) mod lifecycle;
mod logins;
mod logs;
mod port;
mod view;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use synego_model::Reason;
use synego_runtime::tasks;
use synego_wire::{pb, status};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub use audit::Audit;
pub use logins::LoginBook;
pub(crate) use port::serve_under_tls;

pub use apply::{ApplyAsked, ManifestText, NoPlanner, Planned, PlannedChange, Planner, Refusal};
pub use down::{DownAsked, DownOutcome, DownStep};
pub(crate) use view::view;

use self::gate::Asker;
use crate::link::MAX_MESSAGE;
use crate::master::{Ask, Shared};

/// Shortest and longest time between two views, and the one that is taken when none was said; milliseconds.
const EVERY_MS: (u32, u32, u32) = (100, 60_000, 1_000);

/// The admin API as a router, for the server of the admin port.
pub(crate) fn router(shared: Arc<Shared>) -> axum::Router {
    let health = shared.health.router();
    let gate = axum::middleware::from_fn_with_state(Arc::clone(&shared), gate::pass);
    let server = pb::admin_server::AdminServer::new(AdminService { shared })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    // Without tonic's fallback: on a port of several APIs an unknown path is a plain 404.
    Routes::new(server).prepare().into_axum_router().reset_fallback().route_layer(gate).merge(health)
}

/// The pages that a process has beside its APIs, for a port that other machines reach: without saying who asks nobody sees
/// more of them than whether the process is there.
pub(crate) fn guarded(pages: axum::Router, shared: Arc<Shared>) -> axum::Router {
    pages.route_layer(axum::middleware::from_fn_with_state(shared, gate::page))
}

struct AdminService {
    shared: Arc<Shared>,
}

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl pb::admin_server::Admin for AdminService {
    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::MeshView>, Status> {
        let request = request.into_inner();
        look(&self.shared, request.service).await.map(Response::new)
    }

    type WatchStream = Answers<pb::MeshView>;

    async fn watch(&self, request: Request<pb::GetRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let (shortest, longest, usual) = EVERY_MS;
        let every = if request.every_ms == 0 { usual } else { request.every_ms.clamp(shortest, longest) };
        // One view under way: a slow reader sees fewer of them, never old ones.
        let (to, views) = mpsc::channel(1);
        let watching = watch(Arc::clone(&self.shared), request.service, Duration::from_millis(u64::from(every)), to);
        tasks::spawn("admin-watch", tasks::Kind::Connection, watching);
        Ok(Response::new(Box::pin(ReceiverStream::new(views))))
    }

    async fn apply(&self, request: Request<pb::ApplyRequest>) -> Result<Response<pb::ApplyResult>, Status> {
        let asker = request.extensions().get::<Asker>().cloned();
        apply::apply(&self.shared, asker.as_ref(), request.into_inner()).await.map(Response::new)
    }

    type LogsStream = Answers<pb::LogsBatch>;

    async fn logs(&self, request: Request<pb::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(Response::new(logs::logs(&self.shared, request.into_inner())?))
    }

    type DownStream = Answers<pb::DownProgress>;

    async fn down(&self, request: Request<pb::DownRequest>) -> Result<Response<Self::DownStream>, Status> {
        down::down(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn who_am_i(&self, request: Request<pb::WhoAmIRequest>) -> Result<Response<pb::WhoAmIAnswer>, Status> {
        let asker = request.extensions().get::<Asker>();
        let asker = asker.ok_or_else(|| status::refusal(Reason::Internal, "nobody said who asks"))?;
        Ok(Response::new(pb::WhoAmIAnswer {
            mesh: self.shared.declared.borrow().declaration.mesh.to_string(),
            who: asker.who.clone(),
            role: pb::AdminRole::from(asker.right).into(),
            expires_unix_ms: asker.expires_unix_ms,
            root: self.shared.door.as_ref().map(|door| door.authority.trust().root).unwrap_or_default(),
        }))
    }

    async fn issue_login(&self, request: Request<pb::IssueLoginRequest>) -> Result<Response<pb::IssuedLogin>, Status> {
        let root = self.shared.door.as_ref().and_then(|door| door.authority.issuer().ok());
        self.shared.logins.issue(&request.into_inner(), root).await.map(Response::new)
    }

    async fn list_logins(&self, _: Request<pb::ListLoginsRequest>) -> Result<Response<pb::LoginList>, Status> {
        self.shared.logins.list().await.map(Response::new)
    }

    async fn revoke_login(
        &self,
        request: Request<pb::RevokeLoginRequest>,
    ) -> Result<Response<pb::RevokedLogin>, Status> {
        self.shared.logins.revoke(&request.into_inner().id).await.map(Response::new)
    }

    async fn token_create(
        &self,
        request: Request<pb::TokenCreateRequest>,
    ) -> Result<Response<pb::TokenCreated>, Status> {
        identity::token_create(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn token_list(&self, _: Request<pb::TokenListRequest>) -> Result<Response<pb::TokenListAnswer>, Status> {
        identity::token_list(&self.shared).await.map(Response::new)
    }

    async fn token_revoke(&self, request: Request<pb::TokenRevokeRequest>) -> Result<Response<pb::TokenView>, Status> {
        identity::token_revoke(&self.shared, &request.into_inner().id).await.map(Response::new)
    }

    async fn ca_status(&self, _: Request<pb::CaStatusRequest>) -> Result<Response<pb::CaView>, Status> {
        identity::ca_status(&self.shared).await.map(Response::new)
    }

    async fn ca_rotate(&self, request: Request<pb::CaRotateRequest>) -> Result<Response<pb::CaView>, Status> {
        identity::ca_rotate(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn ca_export(&self, _: Request<pb::CaExportRequest>) -> Result<Response<pb::CaPem>, Status> {
        identity::ca_export(&self.shared).map(Response::new)
    }

    async fn ca_import(&self, request: Request<pb::CaPem>) -> Result<Response<pb::CaView>, Status> {
        identity::ca_import(&self.shared, &request.into_inner()).await.map(Response::new)
    }

    async fn identity(&self, request: Request<pb::IdentityRequest>) -> Result<Response<pb::IdentityAnswer>, Status> {
        identity::identity(&self.shared, &request.into_inner().instance).await.map(Response::new)
    }

    async fn issue_operator(
        &self,
        request: Request<pb::IssueOperatorRequest>,
    ) -> Result<Response<pb::IssuedOperator>, Status> {
        let door = identity::door(&self.shared)?;
        self.shared.logins.issue_operator(&door.authority, &request.into_inner()).await.map(Response::new)
    }

    type ReloadStream = Answers<pb::LifecycleStep>;

    async fn reload(&self, request: Request<pb::ReloadRequest>) -> Result<Response<Self::ReloadStream>, Status> {
        lifecycle::reload(&self.shared, request.into_inner()).map(Response::new)
    }

    type DrainStream = Answers<pb::LifecycleStep>;

    async fn drain(&self, request: Request<pb::DrainRequest>) -> Result<Response<Self::DrainStream>, Status> {
        lifecycle::drain(&self.shared, request.into_inner()).map(Response::new)
    }

    type ScaleStream = Answers<pb::LifecycleStep>;

    async fn scale(&self, request: Request<pb::ScaleRequest>) -> Result<Response<Self::ScaleStream>, Status> {
        lifecycle::scale(&self.shared, request.into_inner()).map(Response::new)
    }
}

/// The view of now.
async fn look(shared: &Shared, services: Vec<String>) -> Result<pb::MeshView, Status> {
    let (reply, answer) = oneshot::channel();
    let ending = || Status::unavailable("this master is ending");
    shared.asks.send(Ask::View(services, reply)).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}

async fn watch(
    shared: Arc<Shared>,
    services: Vec<String>,
    every: Duration,
    to: mpsc::Sender<Result<pb::MeshView, Status>>,
) {
    let mut turned = shared.turned.subscribe();
    loop {
        turned.mark_unchanged();
        let view = look(&shared, services.clone()).await;
        let over = view.is_err();
        if to.send(view).await.is_err() || over {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = to.closed() => return,
        }
        tokio::select! {
            changed = turned.changed() => if changed.is_err() { return },
            () = to.closed() => return,
        }
    }
}
