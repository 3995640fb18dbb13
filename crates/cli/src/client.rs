//! The admin API, as commands use it: one connection, each call bounded in time, each failure told with its cause.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use synego_identity::{Alpn, ConnectError, Connector, Stream};
use synego_model::Role;
use synego_model::process::ServiceAddress;
use synego_wire::pb;
use synego_wire::pb::admin_client::AdminClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tower::service_fn;

use crate::context::Context;
use crate::credentials::{self, Kept};
use crate::failure::Failure;
use crate::mesh::{Address, Target};

/// A connection to the admin API of one mesh.
#[derive(Debug)]
pub(crate) struct Mesh<'a> {
    context: &'a Context,
    target: Target,
    /// Who is known there, where somebody logged in.
    login: Option<Kept>,
    client: AdminClient<InterceptedService<Channel, Bearer>>,
}

/// Puts the token of whoever asks on each call, where there is one.
#[derive(Debug, Clone)]
struct Bearer(Option<AsciiMetadataValue>);

impl Bearer {
    fn new(token: Option<&str>) -> Result<Self, Failure> {
        let value = token.map(|token| format!("Bearer {token}").parse::<AsciiMetadataValue>()).transpose();
        let mut value = value.map_err(|_| Failure::misuse("this is no token: it holds what no header can"))?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self(value))
    }

    /// That of a login; one with a certificate has none.
    fn of(login: Option<&Kept>) -> Result<Self, Failure> {
        Self::new(login.map(|login| login.token.as_str()).filter(|token| !token.is_empty()))
    }
}

/// Who is known at an address.
fn login_at(address: &Address) -> Result<Option<Kept>, Failure> {
    match address {
        Address::Unix(_) => Ok(None),
        Address::Tcp(address) => credentials::of(address),
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl<'a> Mesh<'a> {
    /// Connects to the mesh that the flags, the manifest or this machine name.
    ///
    /// # Errors
    /// When it is not known which, or it cannot be reached.
    pub(crate) async fn find(context: &'a Context) -> Result<Self, Failure> {
        Self::connect(context, crate::mesh::find(context)?).await
    }

    /// Connects to `target`.
    ///
    /// # Errors
    /// When it cannot be reached in time.
    pub(crate) async fn connect(context: &'a Context, target: Target) -> Result<Self, Failure> {
        Self::connect_as(context, target, None).await
    }

    /// Connects to `target` as the one of this login; `None`: the one that is kept for the address, if any.
    ///
    /// # Errors
    /// When it cannot be reached in time.
    pub(crate) async fn connect_as(
        context: &'a Context,
        target: Target,
        login: Option<&Kept>,
    ) -> Result<Self, Failure> {
        let limit = context.globals.timeout;
        let login_of = |address: &Address| if login.is_some() { Ok(login.cloned()) } else { login_at(address) };
        let own = login_of(&target.address)?;
        let error = match open(&target.address, own.as_ref(), limit).await {
            Ok(channel) => {
                let client = AdminClient::with_interceptor(channel, Bearer::of(own.as_ref())?);
                let mut mesh = Self { context, client, target, login: own };
                // Roots turn: who asks now and then knows the next one before the last one goes.
                if login.is_none() {
                    mesh.learn().await?;
                }
                return Ok(mesh);
            }
            Err(error) => error,
        };
        for other in &target.others {
            let own = login_of(other)?;
            let Ok(channel) = open(other, own.as_ref(), limit).await else { continue };
            let found = Target { mesh: target.mesh.clone(), address: other.clone(), others: Vec::new() };
            let client = AdminClient::with_interceptor(channel, Bearer::of(own.as_ref())?);
            let mut mesh = Self { context, client, target: found, login: own };
            // Another mesh may listen there.
            if mesh.view(&[]).await.is_ok_and(|view| Some(&view.mesh) == target.mesh.as_ref()) {
                return Ok(mesh);
            }
        }
        Err(unreachable(&target, own.as_ref(), &error))
    }

    /// Keeps the roots that the mesh has now, where its masters are known by them.
    async fn learn(&mut self) -> Result<(), Failure> {
        let (Some(mut login), Address::Tcp(address)) = (self.login.clone(), self.target.address.clone()) else {
            return Ok(());
        };
        if !login.is_under_tls() {
            return Ok(());
        }
        let me = self.who_am_i().await?;
        if login.learn(&me.root) {
            credentials::keep(&address, login.clone())?;
            self.login = Some(login);
        }
        Ok(())
    }

    /// Where it is connected to.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

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

    async fn call<T: std::fmt::Debug>(
        &self,
        name: &str,
        request: impl std::fmt::Debug,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Failure> {
        let begun = synego_runtime::clock::now();
        let result = tokio::time::timeout(self.context.globals.timeout, call).await;
        let took = synego_runtime::clock::now().duration_since(begun);
        let verbose = self.context.globals.verbose;
        if verbose > 0 {
            self.context.screen.complain(&format!(
                "{name} at {} took {:.1} ms",
                self.target.address,
                took.as_secs_f64() * 1e3
            ));
        }
        if verbose > 1 {
            self.context.screen.complain(&format!("  asked {request:?}\n  got {result:?}"));
        }
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => Err(self.failed(&status)),
            Err(_) => {
                Err(Failure::new(format!("{} did not answer in {:?}", self.target, self.context.globals.timeout))
                    .help("a longer time: `--timeout 60s`"))
            }
        }
    }

    /// A status as a failure.
    pub(crate) fn failed(&self, status: &Status) -> Failure {
        let reason =
            synego_wire::status::to_fault(status).map(|fault| fault.reason).filter(|reason| !reason.is_empty());
        let explain = reason.as_ref().map(|reason| format!("`synego explain {reason}`"));
        let failure = match status.code() {
            Code::Unavailable | Code::Cancelled => Failure::new(format!("{} went away", self.target)),
            Code::Unimplemented => Failure::new(format!("{} does not know this call", self.target))
                .help("its version may be older: `synego version`"),
            _ => Failure::new(format!("{} refused", self.target)),
        };
        let failure = failure.cause(match &reason {
            Some(reason) => format!("{reason}: {}", status.message()),
            None => status.message().to_owned(),
        });
        explain.into_iter().fold(failure, Failure::help)
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

/// Longest headers taken of an answer: a refused manifest comes with all its diagnostics in them.
const HEADERS: u32 = 400 * 1024;

async fn open(address: &Address, login: Option<&Kept>, limit: Duration) -> Result<Channel, io::Error> {
    // The address is only a name here: the connector decides where to.
    let endpoint = Endpoint::from_static("http://admin.synego").http2_max_header_list_size(HEADERS);
    let connector = login.map_or_else(|| Ok(Connector::plain()), Kept::connector);
    let connector = connector.map_err(|failure| io::Error::other(failure.cause.join("; ")))?;
    let address = address.clone();
    let connect = move |_| {
        let (address, connector) = (address.clone(), connector.clone());
        async move { dial(&address, &connector, limit).await.map(TokioIo::new) }
    };
    endpoint.connect_with_connector(service_fn(connect)).await.map_err(|error| io_cause(&error))
}

async fn dial(address: &Address, connector: &Connector, limit: Duration) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let places: Vec<ServiceAddress> = match address {
        Address::Unix(path) => vec![ServiceAddress::Unix(path.clone())],
        Address::Tcp(host) => tokio::net::lookup_host(host).await?.map(ServiceAddress::Tcp).collect(),
    };
    for place in places {
        let connected = match &place {
            ServiceAddress::Tcp(address) if connector.is_mutual() => {
                connector.connect(address, &Role::Master, Some(Alpn::Http2), limit).await
            }
            // Nothing of ours crosses a network as it is.
            ServiceAddress::Tcp(address) if !address.ip().is_loopback() => return Err(io::Error::other(NOT_KNOWN)),
            near => connector.connect_service(near, limit).await,
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(ConnectError::Refused { source, .. }) => last = source,
            Err(ConnectError::TimedOut { .. }) => last = io::ErrorKind::TimedOut.into(),
            Err(ConnectError::Handshake(refused)) => last = io::Error::other(refused.to_string()),
        }
    }
    Err(last)
}

/// The innermost I/O error of a chain.
fn io_cause(error: &(dyn Error + 'static)) -> io::Error {
    let mut last = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            last = Some(io::Error::new(io.kind(), io.to_string()));
        }
        next = error.source();
    }
    last.unwrap_or_else(|| io::Error::other(error.to_string()))
}

/// Why nobody is asked who is on another machine and not known here.
const NOT_KNOWN: &str = "it is on another machine, and nothing is kept here by which it would be known";

fn unreachable(target: &Target, login: Option<&Kept>, error: &io::Error) -> Failure {
    let address = &target.address;
    let text = error.to_string();
    let failure = Failure::new(format!("cannot reach {target}"));
    if text == NOT_KNOWN {
        return failure.cause(format!("{address}: {text}")).help(format!(
            "make a token where the master runs, `synego login --out FILE`, and keep it here: `synego login --admin \
             {address} --token-file FILE`"
        ));
    }
    if login.is_some_and(Kept::is_under_tls) && error.kind() == io::ErrorKind::Other {
        return failure.cause(text).help(format!(
            "if its root was rotated meanwhile, log in anew: `synego login --admin {address} --token-file FILE`, or \
             `--certificate FILE`"
        ));
    }
    let cause = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!("nothing listens at {address}"),
        io::ErrorKind::PermissionDenied => format!("{address} belongs to another user"),
        io::ErrorKind::TimedOut => format!("{address} took no connection in time"),
        _ => format!("{address}: {error}"),
    };
    failure.cause(cause).help("start it with `synego up`, or name a running one: `--admin HOST:3002`")
}
