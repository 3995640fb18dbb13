//! The life of a running service: listen → attach → start → ready → serve → drain → stop.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use synego_model::process::ServiceAddress;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::attach::{Attacher, Declaration, LinkState};
use crate::checks::{self, Health, Phase};
use crate::client::Client;
use crate::codes::{Code, Reason};
use crate::environment::{Environment, SidecarAddress};
use crate::errors::Error;
use crate::handler::Handlers;
use crate::hooks::{Drain, DrainCause, Hooks};
use crate::interceptor::{Interceptor, Parts};
use crate::listen::{Bound, listeners};
use crate::load::Meter;
use crate::service::Service;

/// Time for the whole drain when the sidecar says none.
const DRAIN_LIMIT: Duration = Duration::from_secs(25);

/// How long a required sidecar may be missing.
const SIDECAR_LIMIT: Duration = Duration::from_secs(10);

/// Time that stop hooks, connections and the link have even when the drain took all of its own.
const LAST_LIMIT: Duration = Duration::from_secs(1);

/// A service that runs within a program; dropping it leaves the service running.
#[derive(Debug)]
pub struct Running {
    address: ServiceAddress,
    client: Client,
    stop: CancellationToken,
    life: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Where it listens, for HTTP and gRPC alike.
    #[must_use]
    pub fn address(&self) -> &ServiceAddress {
        &self.address
    }

    /// What calls other services in its name.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Begins the drain, as TERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until it is drained and stopped.
    ///
    /// # Errors
    /// The cause when it ended otherwise, or when a drain or stop hook failed.
    pub async fn stopped(self) -> Result<(), Error> {
        self.life.await.map_err(Error::foreign)?
    }
}

/// Everything that lives as long as the service.
struct Life {
    client: Client,
    health: watch::Sender<Health>,
    drains: mpsc::Receiver<Drain>,
    stop: CancellationToken,
    draining: CancellationToken,
    /// No new connection is taken any more, and the link says goodbye.
    closing: CancellationToken,
    in_flight: TaskTracker,
    server: JoinHandle<io::Result<()>>,
    link: Option<JoinHandle<()>>,
    /// Checks, lag, health: ends with this.
    beside: JoinSet<()>,
    on_drain: Hooks<Drain>,
    on_stop: Hooks<()>,
}

/// Runs a service until TERM or INT, or the sidecar's drain, has ended it.
pub(crate) async fn run(service: Service, environment: Environment) -> Result<(), Error> {
    let mut term = signal(SignalKind::terminate()).map_err(Error::foreign)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::foreign)?;
    let mut ask = async move || {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let running = tokio::select! {
        running = start(service, environment) => running?,
        // Nothing was promised to anybody yet.
        () = ask() => return Ok(()),
    };
    let stop = running.stop.clone();
    let mut stopped = std::pin::pin!(running.stopped());
    tokio::select! {
        result = &mut stopped => return result,
        () = ask() => stop.cancel(),
    }
    tokio::select! {
        result = &mut stopped => result,
        () = ask() => std::process::exit(143),
    }
}

/// Starts a service; returns once it is ready.
pub(crate) async fn start(mut service: Service, environment: Environment) -> Result<Running, Error> {
    let mut problems = service.declared_problems();
    problems.extend(environment.problems.iter().cloned());
    let handlers = Handlers::new(std::mem::take(&mut service.handlers)).unwrap_or_else(|conflicts| {
        problems.extend(conflicts);
        Handlers::default()
    });
    let mut declaration = Declaration {
        service: service.name.clone(),
        instance: environment.instance.clone(),
        version: service.version.clone(),
        generation: environment.generation,
        listeners: Vec::new(),
        handlers: handlers.declaration(&service.routes),
    };
    let health = watch::Sender::new(Health::new(&service.checks));
    let address = service.address(&environment);
    declaration.listeners = listeners(&address);
    problems.extend(declaration.problems(health.borrow().state()));
    if !problems.is_empty() {
        return Err(Error::new(Code::InvalidArgument, problems.join("; ")));
    }
    let bound = Bound::bind(&address).await?;
    let address = bound.address()?;
    declaration.listeners = listeners(&address);

    let (drain_sender, drains) = mpsc::channel(1);
    let meter = Arc::new(Meter::new(handlers.meters(), std::mem::take(&mut service.figures)));
    let (draining, closing, in_flight) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let (reporter, grpc_health) = grpc_health();
    service.client.take_environment(environment.clone());
    let interceptor = Interceptor::new(Parts {
        handlers,
        router: service.router.take(),
        grpc_health,
        client: service.client.clone(),
        health: health.subscribe(),
        in_flight: in_flight.clone(),
        draining: draining.clone(),
    });
    let server = bound.serve(interceptor.into_router(), closing.clone());
    tracing::info!(%address, "listening");

    let mut beside = JoinSet::new();
    beside.spawn(tell_grpc_health(reporter, health.subscribe()));
    let lag = meter.clone();
    beside.spawn(async move { lag.watch_lag().await });
    let attacher = Attacher {
        address: environment.sidecar.clone(),
        declaration,
        health: health.subscribe(),
        meter,
        client: service.client.clone(),
        drains: drain_sender,
        closing: closing.clone(),
    };
    let link = attach(attacher);
    let life = Life {
        client: service.client.clone(),
        health,
        drains,
        stop: CancellationToken::new(),
        draining,
        closing,
        in_flight,
        server,
        link,
        beside,
        on_drain: std::mem::take(&mut service.on_drain),
        on_stop: std::mem::take(&mut service.on_stop),
    };
    life.begin(service, address).await
}

/// Links to the sidecar, or says once that there is none.
fn attach(attacher: Attacher) -> Option<JoinHandle<()>> {
    if matches!(attacher.address, SidecarAddress::Off) {
        attacher.client.link_state().send_replace(LinkState::Off);
        tracing::warn!("no sidecar: the service runs alone, and calls by name go to SYNEGO_URL_<SERVICE> alone");
        return None;
    }
    attacher.client.link_state().send_replace(LinkState::Connecting { attempt: 1 });
    Some(tokio::spawn(attacher.run()))
}

fn grpc_health() -> (HealthReporter, Router) {
    let reporter = HealthReporter::new();
    let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
    (reporter, tonic::service::Routes::new(service).into_axum_router())
}

/// Says over `grpc.health.v1` what the service says of itself.
async fn tell_grpc_health(reporter: HealthReporter, mut health: watch::Receiver<Health>) {
    loop {
        let is_serving = health.borrow_and_update().is_serving();
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        if health.changed().await.is_err() {
            return;
        }
    }
}

impl Life {
    /// Start hooks and first checks; then ready.
    async fn begin(mut self, service: Service, address: ServiceAddress) -> Result<Running, Error> {
        if let Err(error) = self.get_ready(service).await {
            tracing::error!(%error, "did not start");
            let _ = self.close().await;
            return Err(error);
        }
        self.health.send_modify(|health| health.phase = Phase::Ready);
        tracing::info!(%address, "ready");
        let (client, stop) = (self.client.clone(), self.stop.clone());
        Ok(Running { address, client, stop, life: tokio::spawn(self.serve()) })
    }

    async fn get_ready(&mut self, service: Service) -> Result<(), Error> {
        if service.is_sidecar_required {
            let mut link = self.client.link();
            tokio::time::timeout(SIDECAR_LIMIT, link.attached())
                .await
                .map_err(|_| Error::said(Reason::SidecarUnreachable, "the required sidecar is missing for 10 s"))??;
        }
        let hooks = service.on_start.run((), Instant::now() + DRAIN_LIMIT);
        hooks.await.map_err(|cause| Error::new(Code::Internal, "a start hook failed").because(cause))?;
        checks::run_all(&service.checks, &self.health).await;
        let (checks, health) = (service.checks, self.health.clone());
        self.beside.spawn(async move { checks::watch_all(&checks, &health).await });
        Ok(())
    }

    /// Until the drain, and through it.
    async fn serve(mut self) -> Result<(), Error> {
        let drain = tokio::select! {
            Some(drain) = self.drains.recv() => Some(drain),
            () = self.stop.cancelled() => None,
            ended = &mut self.server => {
                let cause = ended.map_err(Error::foreign)?.err();
                return Err(cause.map_or_else(|| Error::foreign("the server ended"), Error::foreign));
            }
        };
        let is_asked = drain.is_some();
        let drain = drain.unwrap_or_else(|| Drain { cause: DrainCause::Stop, deadline: Instant::now() + DRAIN_LIMIT });
        tracing::info!(cause = ?drain.cause, within_ms = drain.left().as_millis() as u64, "draining");
        let result = self.drain(drain, is_asked).await;
        tracing::info!(in_flight = self.in_flight.len(), "drained");
        if is_asked {
            // Whoever asked ends the process now; a process that nobody ends, ends itself.
            let _ = tokio::time::timeout_at(drain.deadline, self.stop.cancelled()).await;
        }
        let last = drain.deadline.max(Instant::now() + LAST_LIMIT);
        let stop = std::mem::take(&mut self.on_stop).run((), last).await;
        let failed = |cause| Error::new(Code::Internal, "a stop hook failed").because(cause);
        result.and(stop.map_err(failed)).and(self.close().await)
    }

    /// Finishes what runs. The sidecar refuses new requests, not the service; without one the listener closes first.
    async fn drain(&mut self, drain: Drain, is_asked: bool) -> Result<(), Error> {
        let say = |phase| self.health.send_modify(|health| health.phase = phase);
        if !is_asked {
            // Nobody knows of it yet.
            say(Phase::Draining);
        }
        self.draining.cancel();
        let is_alone = matches!(*self.client.link_state().borrow(), LinkState::Off | LinkState::Refused(_));
        if is_alone {
            self.closing.cancel();
        }
        let hooks = std::mem::take(&mut self.on_drain).run(drain, drain.deadline).await;
        if is_asked {
            say(Phase::Draining);
        }
        self.in_flight.close();
        let _ = tokio::time::timeout_at(drain.deadline, self.in_flight.wait()).await;
        say(Phase::Drained);
        hooks.map_err(|cause| Error::new(Code::Internal, "a drain hook failed").because(cause))
    }

    /// Ends listener, connections and link.
    async fn close(mut self) -> Result<(), Error> {
        self.closing.cancel();
        if let Some(link) = &mut self.link {
            let _ = tokio::time::timeout(LAST_LIMIT, &mut *link).await;
            link.abort();
        }
        let _ = tokio::time::timeout(LAST_LIMIT, &mut self.server).await;
        self.server.abort();
        self.client.link_state().send_replace(LinkState::Closed);
        self.beside.shutdown().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
