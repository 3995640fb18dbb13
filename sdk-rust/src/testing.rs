//! A mesh within one test: real services, real requests over loopback, and an in-memory sidecar beside each service that
//! speaks the real protocol.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), synego_sdk::Error> {
//! use synego_sdk::{Ctx, Error, Service, testing::TestMesh};
//!
//! let shop = Service::new("shop").handle("GET /total", async |ctx: Ctx| {
//!     let price: u64 = ctx.call("prices", "quote", &"tea").await?;
//!     Ok::<_, Error>((2 * price).to_string())
//! });
//! let mesh = TestMesh::new().service(shop).stub("prices", "quote", 900).start().await?;
//! assert_eq!(mesh.get("http://shop/total").await?.text().await?, "1800");
//! mesh.stop().await
//! # }
//! ```

mod outbound;
pub(crate) mod sidecar;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use synego_model::process::ServiceAddress;
use synego_wire::pb;
use tokio_util::sync::CancellationToken;

use self::outbound::{Destination, Outbound};
use self::sidecar::Sidecar;
use crate::attach::Link;
use crate::client::{Call, Client};
use crate::codes::Code;
use crate::environment::{Environment, SidecarAddress};
use crate::errors::Error;
use crate::hooks::DrainCause;
use crate::lifecycle::{self, Running};
use crate::service::Service;

pub use synego_wire::pb::{Hello, Load, LogLevel, Phase};

/// Longest wait for a condition.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// What a mesh of a test is made of.
#[derive(Default)]
#[must_use = "a mesh does nothing until it is started"]
pub struct TestMesh {
    services: Vec<Service>,
    stubs: Vec<(String, String, Value)>,
}

impl TestMesh {
    /// An empty mesh.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service; services start in the order in which they are added.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Answers calls by name to a service that is not there: `name` of `service` always gives `answer`.
    pub fn stub(mut self, service: &str, name: &str, answer: impl Serialize) -> Self {
        let answer = serde_json::to_value(answer).unwrap_or(Value::Null);
        self.stubs.push((service.to_owned(), name.to_owned(), answer));
        self
    }

    /// Starts all of it; returns once every service is attached and ready.
    ///
    /// # Errors
    /// Those of [`Service::start`]; [`Code::DeadlineExceeded`] when a service does not attach within 10 s.
    pub async fn start(self) -> Result<Mesh, Error> {
        let destinations = Arc::new(RwLock::new(HashMap::<String, Destination>::new()));
        for (service, name, answer) in self.stubs {
            let mut destinations = destinations.write().unwrap_or_else(PoisonError::into_inner);
            destinations.entry(service).or_default().stubs.insert(crate::handler::rpc_path(&name), answer);
        }
        let closing = CancellationToken::new();
        let outbound = Outbound::start(destinations.clone(), closing.clone()).await?;
        let environment = Environment { outbound: Some(outbound.clone()), ..Environment::default() };
        let client = Client::new(environment.clone());
        let mut mesh = Mesh { members: HashMap::new(), client, _closing: closing.clone().drop_guard() };
        for service in self.services {
            let name = service.name.clone();
            let instance = format!("{name}-1");
            let sidecar = Sidecar::new(&name, &instance, &outbound);
            let pipes = sidecar.serve_pipes(closing.clone());
            let environment = Environment { instance, sidecar: SidecarAddress::Pipe(pipes), ..environment.clone() };
            let running = lifecycle::start(service, environment).await?;
            {
                let mut destinations = destinations.write().unwrap_or_else(PoisonError::into_inner);
                // Nothing here names a socket to a service: it listens on a port.
                if let ServiceAddress::Tcp(address) = running.address() {
                    destinations.entry(name.clone()).or_default().address = Some(*address);
                }
            }
            mesh.members.insert(name.clone(), Member { sidecar, running });
            mesh.until_phase(&name, Phase::Ready).await?;
        }
        Ok(mesh)
    }
}

struct Member {
    sidecar: Sidecar,
    running: Running,
}

/// A mesh that runs. Dropping it ends its sidecars, and its services once they are dropped with the runtime;
/// [`Mesh::stop`] ends them in good order.
pub struct Mesh {
    members: HashMap<String, Member>,
    client: Client,
    _closing: tokio_util::sync::DropGuard,
}

impl Mesh {
    /// What calls services from outside of all of them.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// `GET http://SERVICE/path` from outside.
    pub fn get(&self, url: impl Into<String>) -> Call {
        self.client.get(url)
    }

    /// `POST http://SERVICE/path` from outside.
    pub fn post(&self, url: impl Into<String>) -> Call {
        self.client.post(url)
    }

    /// Where a service listens itself.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub fn address(&self, service: &str) -> Result<&ServiceAddress, Error> {
        Ok(self.member(service)?.running.address())
    }

    /// Breaks the link of a service, as the crash of its sidecar does; the service attaches again by itself.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub async fn drop_link(&self, service: &str) -> Result<(), Error> {
        self.member(service)?.sidecar.end(tonic::Status::unavailable("the sidecar is gone")).await;
        Ok(())
    }

    /// Refuses the service on its link with a final status.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub async fn refuse(&self, service: &str, code: Code, message: &str) -> Result<(), Error> {
        let status = tonic::Status::new(tonic::Code::from_i32(code as i32), message);
        self.member(service)?.sidecar.end(status).await;
        Ok(())
    }

    /// Tells a service that a successor of its sidecar took over.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub async fn move_link(&self, service: &str) -> Result<(), Error> {
        self.member(service)?.sidecar.send(pb::to_service::Is::Moved(pb::Moved {})).await;
        Ok(())
    }

    /// Asks a service to drain within `limit`.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub async fn drain(&self, service: &str, cause: DrainCause, limit: Duration) -> Result<(), Error> {
        let cause = match cause {
            DrainCause::Stop => pb::DrainCause::Stop,
            DrainCause::Reload => pb::DrainCause::Reload,
            DrainCause::ScaleDown => pb::DrainCause::ScaleDown,
            DrainCause::Operator => pb::DrainCause::Operator,
        };
        let drain = pb::Drain { cause: cause.into(), deadline_ms: limit.as_millis() as u32 };
        self.member(service)?.sidecar.send(pb::to_service::Is::Drain(drain)).await;
        Ok(())
    }

    /// Sends settings with this log level; returns their revision, which the service answers with `Applied`.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub async fn log_level(&self, service: &str, level: LogLevel) -> Result<u64, Error> {
        Ok(self.member(service)?.sidecar.settings(level).await)
    }

    /// Waits until a service has applied settings of this revision.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`] after 10 s; [`Code::NotFound`] when the mesh has no such service.
    pub async fn until_applied(&self, service: &str, revision: u64) -> Result<(), Error> {
        let mut seen = self.member(service)?.sidecar.seen();
        within(service, "applied", seen.wait_for(|seen| seen.applied >= revision)).await
    }

    /// Waits until a service says this phase.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`] after 10 s; [`Code::NotFound`] when the mesh has no such service.
    pub async fn until_phase(&self, service: &str, phase: Phase) -> Result<(), Error> {
        let mut seen = self.member(service)?.sidecar.seen();
        within(service, phase.as_str_name(), seen.wait_for(|seen| seen.phase == phase)).await
    }

    /// Waits until a service has attached this often.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`] after 10 s; [`Code::NotFound`] when the mesh has no such service.
    pub async fn until_attached(&self, service: &str, times: usize) -> Result<(), Error> {
        let mut seen = self.member(service)?.sidecar.seen();
        within(service, "attached", seen.wait_for(|seen| seen.hellos.len() >= times)).await
    }

    /// Waits for a report for which `is_wanted` holds, and gives it.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`] after 10 s; [`Code::NotFound`] when the mesh has no such service.
    pub async fn until_load(&self, service: &str, is_wanted: impl Fn(&Load) -> bool) -> Result<Load, Error> {
        let mut seen = self.member(service)?.sidecar.seen();
        let is_wanted = |seen: &sidecar::Seen| seen.load.as_ref().is_some_and(&is_wanted);
        within(service, "a load", seen.wait_for(is_wanted)).await?;
        Ok(seen.borrow().load.clone().unwrap_or_default())
    }

    /// Every `Hello` that a service has said, the last one last.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub fn hellos(&self, service: &str) -> Result<Vec<Hello>, Error> {
        Ok(self.member(service)?.sidecar.seen().borrow().hellos.clone())
    }

    /// Every phase that a service has said, in order.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub fn phases(&self, service: &str) -> Result<Vec<Phase>, Error> {
        Ok(self.member(service)?.sidecar.seen().borrow().phases.clone())
    }

    /// The link of a service, as the service sees it.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub fn link(&self, service: &str) -> Result<Link, Error> {
        Ok(self.member(service)?.running.client().link())
    }

    /// Begins the stop of one service as TERM does.
    ///
    /// # Errors
    /// [`Code::NotFound`] when the mesh has no such service.
    pub fn begin_stop(&self, service: &str) -> Result<(), Error> {
        self.member(service)?.running.stop();
        Ok(())
    }

    /// Stops one service as TERM does, and waits for its end.
    ///
    /// # Errors
    /// What ended it otherwise; [`Code::NotFound`] when the mesh has no such service.
    pub async fn stop_service(&mut self, service: &str) -> Result<(), Error> {
        let member = self.members.remove(service).ok_or_else(|| unknown(service))?;
        member.running.stop();
        member.running.stopped().await
    }

    /// Stops all services, and waits for their end.
    ///
    /// # Errors
    /// The first failure of a service's end.
    pub async fn stop(mut self) -> Result<(), Error> {
        let mut result = Ok(());
        let members: Vec<_> = self.members.drain().map(|(_, member)| member).collect();
        for member in &members {
            member.running.stop();
        }
        for member in members {
            result = result.and(member.running.stopped().await);
        }
        result
    }

    fn member(&self, service: &str) -> Result<&Member, Error> {
        self.members.get(service).ok_or_else(|| unknown(service))
    }
}

fn unknown(service: &str) -> Error {
    Error::new(Code::NotFound, format!("the mesh has no service `{service}`"))
}

async fn within<T, E>(service: &str, what: &str, wait: impl Future<Output = Result<T, E>>) -> Result<(), Error> {
    let late = || Error::new(Code::DeadlineExceeded, format!("{service} was not {what} within {WAIT_LIMIT:?}"));
    tokio::time::timeout(WAIT_LIMIT, wait).await.map_err(|_| late())?.map(drop).map_err(|_| late())
}
