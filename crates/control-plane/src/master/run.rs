//! The running of a master's control plane: its one task, its links' server, and their end.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use synego_identity::Acceptor;
use synego_runtime::lifecycle::{Drain, Stop};
use synego_runtime::serve::{Profile, serve_connection};
use synego_runtime::{clock, tasks};
use synego_wire::pb;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;

use super::{Ask, Declared, MasterControl, Shared, TICK, now};
use crate::enrol::Caller;
use crate::link::{Carrier, MAX_MESSAGE};
use crate::publish::MeshService;
use crate::registry::{At, Effect, Event, Pending, Registry};

/// Time that links get to end by themselves.
const LINGER: Duration = Duration::from_secs(1);
/// Shortest time between two snapshots: changes that come together are published together.
const COALESCE: Duration = Duration::from_millis(20);
/// The same where only figures of load changed, which each sidecar reports once a second.
const COALESCE_LOAD: Duration = Duration::from_millis(500);
/// A wait after an accept that failed for lack of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl MasterControl {
    /// Runs until `stop`: takes links on `listeners` and inside the process, and keeps the registry.
    ///
    /// After `stop` the registry rests at once: the end of the links then is our own doing and blames nobody, so that
    /// an ingress that still drains keeps its last snapshot.
    pub async fn run(mut self, listeners: Vec<TcpListener>, acceptor: Acceptor, stop: Stop) {
        let drain = Drain::new();
        let router = mesh_router(&self.shared, &stop);
        for listener in listeners {
            let accepting = accept(listener, acceptor.clone(), router.clone(), drain.clone(), stop.clone());
            tasks::spawn("mesh-accept", tasks::Kind::Critical, accepting);
        }
        if let Some(door) = &self.shared.door {
            let shared = Arc::clone(&self.shared);
            let asking = move || {
                let shared = Arc::clone(&shared);
                async move { crate::admin::identity::reported(&shared).await }
            };
            tasks::spawn("authority", tasks::Kind::Critical, door.authority.clone().run(asking, stop.clone()));
        }
        let mut declared = self.shared.declared.subscribe();
        let began = clock::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.publish_at();
            tokio::select! {
                biased;
                () = stop.stopped() => break,
                () = sleep_until(due), if due.is_some() => self.publish(),
                Ok(()) = declared.changed() => self.declared(&mut declared, now(began)),
                _ = ticks.tick() => {
                    self.apply(Event::Tick, now(began));
                    self.shared.metrics.registry(&self.registry, self.shared.links.count());
                }
                Some(carrier) = self.carriers.recv() => serve(carrier, &router, &drain, &stop),
                Some(ask) = self.asks.recv() => self.answer(ask, now(began)),
            }
        }
        self.shared.health.not_serving().await;
        // Whoever still asks learns that no one answers any more.
        drop(self);
        let _idle_or_late = tokio::time::timeout(LINGER, drain.idle()).await;
    }

    fn declared(&mut self, declared: &mut watch::Receiver<Declared>, at: At) {
        let declaration = declared.borrow_and_update().declaration.as_ref().clone();
        if let Some(door) = &self.shared.door {
            door.authority.set_life(declaration.life);
        }
        self.apply(Event::Declared(declaration), at);
    }

    fn answer(&mut self, ask: Ask, at: At) {
        match ask {
            Ask::Event(event) => {
                if matches!(*event, Event::Reported(..)) {
                    self.shared.metrics.reported();
                }
                self.apply(*event, at);
            }
            Ask::Join(link, announcement, reply) => {
                let refusal = self.apply(Event::Linked(link, *announcement), at);
                let answer = refusal.map_or(Ok(()), Err);
                if reply.send(answer).is_err() {
                    // The sidecar was gone before it was taken.
                    self.apply(Event::Unlinked(link), at);
                }
            }
            Ask::View(services, reply) => {
                // People see the routing state beside the instances: it is to be that of the same moment.
                self.publish();
                let _gone = reply.send(crate::admin::view(&self.registry, &self.shared, &services, at));
            }
            Ask::Identities(reply) => {
                let _gone = reply.send(crate::admin::identity::known(&self.registry));
            }
        }
    }

    /// Takes an event in and does what follows, but for the snapshot; returns why a link was refused, if one was.
    fn apply(&mut self, event: Event, at: At) -> Option<String> {
        let effects = self.registry.take(event, at);
        self.untold |= !effects.is_empty();
        let mut refusal = None;
        for effect in effects {
            match effect {
                Effect::Published { .. } => {}
                Effect::Superseded(link) => self.shared.links.end(link, "another sidecar speaks for it now"),
                Effect::Refused(_, why) => refusal = Some(why),
                Effect::Turned { id, from, to, cause } => {
                    let from = from.map_or("new", |state| state.word());
                    let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
                    tracing::info!(instance = %id, from, to = to.word(), cause, "instance turned");
                }
            }
        }
        self.shared.turned.send_modify(|turns| *turns += 1);
        refusal
    }

    /// When what changed is to be published: at once after a while of silence, else with what comes meanwhile.
    fn publish_at(&self) -> Option<Instant> {
        let wait = match self.registry.pending() {
            Some(Pending::Load) if !self.untold => COALESCE_LOAD,
            None if !self.untold => return None,
            _ => COALESCE,
        };
        Some(self.published.map_or_else(clock::now, |last| last + wait))
    }

    /// Puts in force what was taken in since the last time.
    fn publish(&mut self) {
        let published = self.registry.publish();
        if let Some(Effect::Published { snapshot, changed }) = &published {
            tracing::debug!(epoch = snapshot.epoch().0, services = changed.len(), "snapshot published");
            self.shared.snapshot.send_replace(Arc::clone(snapshot));
        }
        if published.is_some() || std::mem::take(&mut self.untold) {
            self.untold = false;
            self.published = Some(clock::now());
            self.tell_services(&self.registry);
        }
    }

    fn tell_services(&self, registry: &Registry) {
        let services = registry.services();
        self.shared.services.send_if_modified(|told| {
            let turned = **told != services;
            if turned {
                *told = Arc::new(services);
            }
            turned
        });
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

fn mesh_router(shared: &Arc<Shared>, stop: &Stop) -> axum::Router {
    let service = MeshService::new(Arc::clone(shared), stop.clone());
    let server = pb::mesh_server::MeshServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Routes::new(server).prepare().into_axum_router().merge(shared.health.router())
}

async fn accept(listener: TcpListener, acceptor: Acceptor, router: axum::Router, drain: Drain, stop: Stop) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(cause = %error, "the mesh port cannot be served");
            return;
        }
    };
    let places = Arc::new(tokio::sync::Semaphore::new(Profile::mesh().connections));
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stop.stopped() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.stopped() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(cause = %error, "cannot accept a link");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, router, drain, stop) = (acceptor.clone(), router.clone(), drain.clone(), stop.clone());
        tasks::spawn("mesh-connection", tasks::Kind::Connection, async move {
            let _guard = (place, drain.guard());
            match acceptor.accept(stream).await {
                Ok((stream, peer)) => {
                    let router = router.layer(Extension(Caller::Peer(peer)));
                    serve_connection(stream, router, &Profile::mesh(), stop).await;
                }
                Err(error) => tracing::debug!(cause = %error, "link not accepted"),
            }
        });
    }
}

fn serve(carrier: Carrier, router: &axum::Router, drain: &Drain, stop: &Stop) {
    let (router, guard, stop) = (router.clone().layer(Extension(Caller::InProcess)), drain.guard(), stop.clone());
    tasks::spawn("mesh-in-process", tasks::Kind::Connection, async move {
        let _guard = guard;
        serve_connection(carrier, router, &Profile::mesh(), stop).await;
    });
}
