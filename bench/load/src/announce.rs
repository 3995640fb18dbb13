//! Stands in for a thousand sidecars: announces services with routes and instances to a master over the real mesh
//! protocol, all of them at one address, and reports each as ready.
//!
//! One address keeps the connections of a proxy the same however many instances there are, so that a difference comes
//! from the tables alone. With `--flap` one more instance turns ready and not ready in turn, which makes a new snapshot
//! each time; the updates that the master sends for it are counted, as the proof that they took place.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use synego_wire::pb::from_master::Is as Down;
use synego_wire::pb::from_sidecar::Is as Up;
use synego_wire::pb::mesh_client::MeshClient;
use synego_wire::pb::{
    Announced as Said, FromSidecar, InstanceState, Join, Protocol, Reason, Report, StateCause, Subscribe,
};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::Outcome;

/// How often the counted updates are printed.
const TELL: Duration = Duration::from_millis(100);

/// What is announced.
#[derive(Args, Clone)]
pub(crate) struct Announced {
    /// The mesh address of the master
    #[arg(long)]
    master: String,
    /// Where all instances are
    #[arg(long)]
    address: String,
    /// Services, named bench-0, bench-1, …
    #[arg(long, default_value_t = 1)]
    services: u32,
    /// Routes of all services together: /r0, /r1, …
    #[arg(long, default_value_t = 1)]
    routes: u32,
    /// Instances of all services together
    #[arg(long, default_value_t = 1)]
    instances: u32,
    /// Milliseconds after which one more instance of bench-0 turns
    #[arg(long)]
    flap: Option<u64>,
}

/// Announces until it is ended, and prints `ready` once the master has taken all.
pub(crate) async fn run(announced: Announced) -> Outcome<()> {
    LocalSet::new()
        .run_until(async move {
            let (failed, mut failures) = mpsc::channel::<String>(1);
            let updates = Rc::new(Cell::new(0));
            let mut channels = Vec::new();
            for _ in 0..announced.services {
                channels.push(Endpoint::from_shared(format!("http://{}", announced.master))?.connect().await?);
            }
            // Instance 0, 1, … is the first one of service 0, 1, …, and announces its routes. These come last: a master
            // looks at all routes anew with each instance that comes.
            for instance in (0..announced.instances).rev() {
                let service = instance % announced.services;
                let Some(channel) = channels.get(service as usize) else { continue };
                let join = announced.join(service, &format!("bench-{service}-{instance}"), instance == service);
                start(channel, join, None, updates.clone(), &failed).await?;
            }
            if let (Some(flap), Some(channel)) = (announced.flap, channels.first()) {
                let join = announced.join(0, "bench-0-turns", false);
                start(channel, join, Some(Duration::from_millis(flap)), updates.clone(), &failed).await?;
            }
            println!("ready");
            let mut tell = tokio::time::interval(TELL);
            let mut told = 0;
            loop {
                tokio::select! {
                    Some(why) = failures.recv() => return Err(why.into()),
                    _ = tell.tick() => {
                        if told != updates.get() {
                            told = updates.get();
                            println!("updates {told}");
                        }
                    }
                }
            }
        })
        .await
}

impl Announced {
    fn join(&self, service: u32, instance: &str, with_routes: bool) -> Join {
        let routes = (0..self.routes).filter(|route| with_routes && route % self.services == service);
        Join {
            protocol_min: 1,
            protocol_max: 1,
            node: "bench".to_owned(),
            sidecar_version: env!("CARGO_PKG_VERSION").to_owned(),
            incarnation: format!("{}-{instance}", std::process::id()),
            announced: Some(Said {
                service: format!("bench-{service}"),
                instance: instance.to_owned(),
                address: self.address.clone(),
                protocol: Protocol::Http1.into(),
                route: routes.map(|route| format!("/r{route}")).collect(),
                routes_said: with_routes,
                ..Said::default()
            }),
            ..Join::default()
        }
    }
}

/// Links one instance, waits until it is taken, and keeps it linked.
async fn start(
    channel: &Channel,
    join: Join,
    flap: Option<Duration>,
    updates: Rc<Cell<u64>>,
    failed: &mpsc::Sender<String>,
) -> Outcome<()> {
    let service = join.announced.as_ref().map(|said| said.service.clone()).unwrap_or_default();
    let (to, outbox) = mpsc::channel(16);
    to.send(message(Up::Join(join))).await?;
    let mut from = MeshClient::new(channel.clone()).link(ReceiverStream::new(outbox)).await?.into_inner();
    let Some(Down::Joined(joined)) = from.message().await?.and_then(|message| message.is) else {
        return Err("the master did not take a link".into());
    };
    to.send(message(Up::Report(report(1, true)))).await?;
    if flap.is_some() {
        to.send(message(Up::Subscribe(Subscribe { active: true, service: vec![service] }))).await?;
    }
    let failed = failed.clone();
    let every = flap.unwrap_or(Duration::from_millis(joined.report_every_ms.into()));
    tokio::task::spawn_local(async move {
        let mut reports = tokio::time::interval(every);
        let mut sequence = 1;
        let why = loop {
            tokio::select! {
                heard = from.message() => match heard {
                    Ok(Some(message)) => {
                        if matches!(message.is, Some(Down::Snapshot(_) | Down::Delta(_))) {
                            updates.set(updates.get() + 1);
                        }
                    }
                    Ok(None) => break "the master ended a link".to_owned(),
                    Err(status) => break format!("a link broke: {status}"),
                },
                _ = reports.tick() => {
                    sequence += 1;
                    let is_ready = flap.is_none() || sequence % 2 == 0;
                    if to.send(message(Up::Report(report(sequence, is_ready)))).await.is_err() {
                        break "a link is closed".to_owned();
                    }
                }
            }
        };
        // Another link was first.
        let _ = failed.try_send(why);
    });
    Ok(())
}

fn message(is: Up) -> FromSidecar {
    FromSidecar { is: Some(is) }
}

fn report(sequence: u64, is_ready: bool) -> Report {
    let state = if is_ready { InstanceState::Ready } else { InstanceState::Unhealthy };
    let cause = (!is_ready).then(|| StateCause {
        reason: Reason::ProbeFailed.into(),
        message: "turned for a benchmark".to_owned(),
        ..StateCause::default()
    });
    Report { sequence, state: state.into(), cause, ..Report::default() }
}
