//! The calls of the admin API, one for each thing that a command asks.

use std::time::Duration;

use synego_wire::pb;
use tonic::Streaming;

use super::Mesh;
use crate::failure::Failure;

impl Mesh<'_> {
    /// What the mesh is and how it is, now.
    pub(crate) async fn view(&mut self, services: &[String]) -> Result<pb::MeshView, Failure> {
        let request = pb::GetRequest { service: services.to_vec(), every_ms: 0 };
        let mut client = self.client.clone();
        self.call("Get", request.clone(), async move { client.get(request).await.map(tonic::Response::into_inner) })
            .await
    }

    /// The same now and after each change.
    pub(crate) async fn watch(
        &mut self,
        services: &[String],
        every: Duration,
    ) -> Result<Streaming<pb::MeshView>, Failure> {
        let every_ms = u32::try_from(every.as_millis()).unwrap_or(u32::MAX).clamp(100, 60_000);
        let request = pb::GetRequest { service: services.to_vec(), every_ms };
        let mut client = self.client.clone();
        self.call("Watch", request.clone(), async move { client.watch(request).await.map(tonic::Response::into_inner) })
            .await
    }

    /// What a manifest would change, or changes it. A refusal comes as its own result, not as a failure.
    pub(crate) async fn apply(&mut self, request: pb::ApplyRequest) -> Result<Applied, Failure> {
        let mut client = self.client.clone();
        let said = self.context.globals.verbose > 1;
        let shown = if said { request.clone() } else { pb::ApplyRequest::default() };
        let call = async move {
            match client.apply(request).await {
                Ok(result) => Ok(Applied::Answered(result.into_inner())),
                Err(status) => match synego_wire::status::detail::<pb::ApplyResult>(&status) {
                    Some(result) => {
                        let reason =
                            synego_wire::status::to_fault(&status).map(|fault| fault.reason).unwrap_or_default();
                        Ok(Applied::Refused { reason, message: status.message().to_owned(), result })
                    }
                    None => Err(status),
                },
            }
        };
        self.call("Apply", shown, call).await
    }

    /// Lines of the services' output.
    pub(crate) async fn logs(&mut self, request: pb::LogsRequest) -> Result<Streaming<pb::LogsBatch>, Failure> {
        let mut client = self.client.clone();
        self.call("Logs", request.clone(), async move { client.logs(request).await.map(tonic::Response::into_inner) })
            .await
    }

    /// Changes how much a service, or the mesh itself, writes down.
    pub(crate) async fn set_log_level(
        &mut self,
        request: pb::SetLogLevelRequest,
    ) -> Result<pb::SetLogLevelAnswer, Failure> {
        let mut client = self.client.clone();
        let asked = request.clone();
        let call = async move { client.set_log_level(request).await.map(tonic::Response::into_inner) };
        self.call("SetLogLevel", asked, call).await
    }

    /// Ends what the process at the other side runs.
    pub(crate) async fn down(&mut self, request: pb::DownRequest) -> Result<Streaming<pb::DownProgress>, Failure> {
        let mut client = self.client.clone();
        self.call("Down", request, async move { client.down(request).await.map(tonic::Response::into_inner) }).await
    }

    /// Replaces processes by new generations.
    pub(crate) async fn reload(&mut self, request: pb::ReloadRequest) -> Result<Streaming<pb::LifecycleStep>, Failure> {
        let (mut client, asked) = (self.client.clone(), request.clone());
        self.call("Reload", asked, async move { client.reload(request).await.map(tonic::Response::into_inner) }).await
    }

    /// Takes instances out of service, or puts them back.
    pub(crate) async fn drain(&mut self, request: pb::DrainRequest) -> Result<Streaming<pb::LifecycleStep>, Failure> {
        let (mut client, asked) = (self.client.clone(), request.clone());
        self.call("Drain", asked, async move { client.drain(request).await.map(tonic::Response::into_inner) }).await
    }

    /// Runs another number of instances.
    pub(crate) async fn scale(&mut self, request: pb::ScaleRequest) -> Result<Streaming<pb::LifecycleStep>, Failure> {
        let (mut client, asked) = (self.client.clone(), request.clone());
        self.call("Scale", asked, async move { client.scale(request).await.map(tonic::Response::into_inner) }).await
    }

    /// Who asks.
    pub(crate) async fn who_am_i(&mut self) -> Result<pb::WhoAmIAnswer, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.who_am_i(pb::WhoAmIRequest {}).await.map(tonic::Response::into_inner) };
        self.call("WhoAmI", (), call).await
    }

    /// A new token for TCP.
    pub(crate) async fn issue_login(&mut self, request: pb::IssueLoginRequest) -> Result<pb::IssuedLogin, Failure> {
        let mut client = self.client.clone();
        let asked = request.clone();
        let call = async move { client.issue_login(request).await.map(tonic::Response::into_inner) };
        // What is answered is a secret: it must not be shown by `-vv`.
        let shown = self.call("IssueLogin", asked, async { call.await.map(Hidden) });
        shown.await.map(|secret| secret.0)
    }

    /// The tokens that are good.
    pub(crate) async fn list_logins(&mut self) -> Result<pb::LoginList, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.list_logins(pb::ListLoginsRequest {}).await.map(tonic::Response::into_inner) };
        self.call("ListLogins", (), call).await
    }

    /// Makes a token worthless.
    pub(crate) async fn revoke_login(&mut self, id: &str) -> Result<pb::RevokedLogin, Failure> {
        let mut client = self.client.clone();
        let request = pb::RevokeLoginRequest { id: id.to_owned() };
        let asked = request.clone();
        let call = async move { client.revoke_login(request).await.map(tonic::Response::into_inner) };
        self.call("RevokeLogin", asked, call).await
    }

    /// A new join token.
    pub(crate) async fn token_create(&mut self, request: pb::TokenCreateRequest) -> Result<pb::TokenCreated, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.token_create(request).await.map(|made| Hidden(made.into_inner())) };
        self.call("TokenCreate", (), call).await.map(|made| made.0)
    }

    /// The join tokens.
    pub(crate) async fn token_list(&mut self) -> Result<Vec<pb::TokenView>, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.token_list(pb::TokenListRequest {}).await.map(tonic::Response::into_inner) };
        self.call("TokenList", (), call).await.map(|all| all.token)
    }

    /// Ends a join token.
    pub(crate) async fn token_revoke(&mut self, id: &str) -> Result<pb::TokenView, Failure> {
        let request = pb::TokenRevokeRequest { id: id.to_owned() };
        let mut client = self.client.clone();
        let call = async move { client.token_revoke(request).await.map(tonic::Response::into_inner) };
        self.call("TokenRevoke", id, call).await
    }

    /// How the certificate authority is.
    pub(crate) async fn ca_status(&mut self) -> Result<pb::CaView, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.ca_status(pb::CaStatusRequest {}).await.map(tonic::Response::into_inner) };
        self.call("CaStatus", (), call).await
    }

    /// Begins, hastens or gives up a rotation.
    pub(crate) async fn ca_rotate(&mut self, request: pb::CaRotateRequest) -> Result<pb::CaView, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.ca_rotate(request).await.map(tonic::Response::into_inner) };
        let view = self.call("CaRotate", request, call).await?;
        // The next one comes into force soon: whoever began it is not to be locked out by it.
        self.learn().await.map(|()| view)
    }

    /// A certificate for an operator.
    pub(crate) async fn issue_operator(
        &mut self,
        request: pb::IssueOperatorRequest,
    ) -> Result<pb::IssuedOperator, Failure> {
        let mut client = self.client.clone();
        let asked = request.clone();
        let call = async move { client.issue_operator(request).await.map(tonic::Response::into_inner) };
        self.call("IssueOperator", asked, call).await
    }

    /// Certificate and key of the root that issues.
    pub(crate) async fn ca_export(&mut self) -> Result<pb::CaPem, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.ca_export(pb::CaExportRequest {}).await.map(|pem| Hidden(pem.into_inner())) };
        self.call("CaExport", (), call).await.map(|pem| pem.0)
    }

    /// Goes over to another root.
    pub(crate) async fn ca_import(&mut self, pem: pb::CaPem) -> Result<pb::CaView, Failure> {
        let mut client = self.client.clone();
        let call = async move { client.ca_import(pem).await.map(tonic::Response::into_inner) };
        let view = self.call("CaImport", (), call).await?;
        self.learn().await.map(|()| view)
    }

    /// Who these instances are, or all.
    pub(crate) async fn identity(&mut self, instance: Vec<String>) -> Result<pb::IdentityAnswer, Failure> {
        let request = pb::IdentityRequest { instance };
        let mut client = self.client.clone();
        let asked = request.clone();
        self.call("Identity", asked, async move { client.identity(request).await.map(tonic::Response::into_inner) })
            .await
    }
}

/// A secret on its way: `-vv` shows that it came, and nothing of it.
struct Hidden<T>(T);

impl<T> std::fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// What became of a manifest.
#[derive(Debug)]
pub(crate) enum Applied {
    /// It was compared or taken.
    Answered(pb::ApplyResult),
    /// It was refused whole.
    Refused {
        /// Why, as a closed word.
        reason: String,
        /// For people.
        message: String,
        /// What would change, and what is wrong.
        result: pb::ApplyResult,
    },
}
