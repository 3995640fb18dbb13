//! The admin API, as commands use it: one connection, each call bounded in time, each failure told with its cause.

mod bearer;
mod calls;
mod dial;

use synego_wire::pb::admin_client::AdminClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};

use self::bearer::Bearer;
pub(crate) use self::calls::Applied;
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

/// Who is known at an address.
fn login_at(address: &Address) -> Result<Option<Kept>, Failure> {
    match address {
        Address::Unix(_) => Ok(None),
        Address::Tcp(address) => credentials::of(address),
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
        let error = match dial::open(&target.address, own.as_ref(), limit).await {
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
            let Ok(channel) = dial::open(other, own.as_ref(), limit).await else { continue };
            let found = Target { mesh: target.mesh.clone(), address: other.clone(), others: Vec::new() };
            let client = AdminClient::with_interceptor(channel, Bearer::of(own.as_ref())?);
            let mut mesh = Self { context, client, target: found, login: own };
            // Another mesh may listen there.
            if mesh.view(&[]).await.is_ok_and(|view| Some(&view.mesh) == target.mesh.as_ref()) {
                return Ok(mesh);
            }
        }
        Err(dial::unreachable(&target, own.as_ref(), &error))
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
