//! The services of this machine while they run: reloaded in turn, drained, and made more or fewer.

mod ordered;
mod scaled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use synego_manifest::Manifest;
use synego_model::{InstanceId, InstanceName, LocalService, ServiceName, Target};
use synego_runtime::tasks::{self, Kind};
use synego_runtime::{Stop, Stopper, keeper};
use synego_sidecar::order::{Order, Outcome};
use synego_sidecar::{Ended, Orders};
use synego_supervise::{OutputSink, RestartPolicy, StopBy};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::ordered::Local;
use super::lines::show;
use super::one::One;
use super::turns::Turns;
use super::{Gone, Ground, Picture, Ready, config, log_level, process};
use crate::failure::Failure;

/// One service of this machine, running.
pub(super) struct Running {
    pub(super) local: LocalService,
    /// Services of this machine that must be ready before it starts.
    pub(super) after: Vec<ServiceName>,
    /// How many of their instances.
    pub(super) before: BTreeMap<ServiceName, usize>,
    /// Services of this machine that it uses and that start before it.
    pub(super) first: Vec<ServiceName>,
    pub(super) end: Stopper,
    pub(super) life: Stop,
    pub(super) built: Arc<watch::Sender<bool>>,
    pub(super) turns: Turns,
    pub(super) members: Vec<Member>,
}

/// One instance of it.
pub(super) struct Member {
    index: usize,
    id: String,
    end: Stopper,
    orders: Arc<OnceLock<Orders>>,
    sink: OutputSink,
    task: JoinHandle<(String, Result<Ended, String>)>,
}

/// All services of this machine.
pub(crate) struct Fleet {
    ground: Ground,
    manifest: Mutex<Manifest>,
    ready: Arc<watch::Sender<Ready>>,
    pictures: Arc<watch::Sender<BTreeMap<String, Picture>>>,
    running: Mutex<Vec<Running>>,
    /// Whether one of the instances tells what this process says.
    is_told: AtomicBool,
    this: Weak<Self>,
}

impl Fleet {
    pub(super) fn new(
        ground: Ground,
        manifest: Manifest,
        pictures: watch::Sender<BTreeMap<String, Picture>>,
        running: Vec<Running>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            ground,
            manifest: Mutex::new(manifest),
            ready: Arc::new(watch::Sender::new(Ready::new())),
            pictures: Arc::new(pictures),
            running: Mutex::new(running),
            is_told: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// Starts as many instances of each service as the manifest says.
    pub(super) fn begin(&self) -> Result<(), Failure> {
        for service in self.lock().iter_mut() {
            let kept = scaled::kept(&service.local.spec.name);
            for index in 0..kept.unwrap_or(service.local.instances()) {
                let member = self.member(service, index)?;
                service.members.push(member);
            }
        }
        Ok(())
    }

    /// Starts one instance.
    fn member(&self, service: &Running, index: usize) -> Result<Member, Failure> {
        let name = format!("{}-{}", service.local.spec.name, index + 1);
        let instance: InstanceName = name.parse().map_err(|error| Failure::new(format!("{error}")))?;
        let id = InstanceId::new(&instance, &self.ground.node).to_string();
        let mut shared = self.ground.shared.clone();
        let sink = OutputSink::new(service.local.spec.name.as_str(), id.as_str(), shared.journal.writer());
        // One of them tells for all what this process says.
        shared.program = self.ground.program.clone().filter(|_| !self.is_told.swap(true, Ordering::Relaxed));
        show(&sink, id.clone(), self.ground.lines.clone());
        let orders = Arc::new(OnceLock::new());
        let local =
            Arc::new(Local { fleet: self.this.clone(), service: service.local.spec.name.clone(), id: id.clone() });
        let manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let one = One {
            config: config(&manifest, &service.local, index, instance, &self.ground, local),
            id: id.clone(),
            after: service.after.clone(),
            wanted: service.before.clone(),
            first: service.first.clone(),
            // One build serves all instances of the service.
            builds: !*service.built.borrow() && index == 0,
            built: service.built.clone(),
            is_built: service.built.subscribe(),
            ready: self.ready.clone(),
            pictures: self.pictures.clone(),
            shared,
            sink: sink.clone(),
            orders: orders.clone(),
        };
        let (end, life) = service.life.child();
        let of = id.clone();
        let task = tasks::spawn("instance-of-up", Kind::Connection, async move { (of, Box::pin(one.run(life)).await) });
        Ok(Member { index, id, end, orders, sink, task })
    }

    /// Ends what a former part of this program left of instances that are not there any more.
    pub(super) fn end_left(&self) {
        let ids: BTreeSet<String> = self.ids().into_iter().map(|(_, id)| id).collect();
        let is_gone = |id: Option<&str>| id.is_some_and(|id| id.contains('@') && !ids.contains(id));
        synego_supervise::end_left(super::DRAIN, |name| is_gone(name.split(' ').next()));
        keeper::forget(|key| !key.starts_with("ingress ") && is_gone(key.split(' ').nth(1)));
    }

    /// Returns when every instance has left its connections to the successor of this part.
    pub(crate) async fn left(&self) {
        let members = self.take_all().into_iter().flat_map(|service| service.members);
        let tasks: Vec<_> = members.map(|member| member.task).collect();
        // One that panicked was reported by its task.
        let _ended = futures_util::future::join_all(tasks).await;
    }

    /// Everything that runs; from now on nothing is started any more.
    pub(super) fn take_all(&self) -> Vec<Running> {
        std::mem::take(&mut *self.lock())
    }

    /// The output of each instance.
    pub(crate) fn sinks(&self) -> BTreeMap<String, OutputSink> {
        let running = self.lock();
        let members = running.iter().flat_map(|service| &service.members);
        members.map(|member| (member.id.clone(), member.sink.clone())).collect()
    }

    /// The instances there are, with their services.
    pub(crate) fn ids(&self) -> Vec<(ServiceName, String)> {
        let running = self.lock();
        let of = |service: &Running| -> Vec<(ServiceName, String)> {
            service.members.iter().map(|member| (service.local.spec.name.clone(), member.id.clone())).collect()
        };
        running.iter().flat_map(of).collect()
    }

    /// Takes up what the changed file of this machine says of the services that run: how they are ended and watched at
    /// once, how they are run by a reload, how many by starting and ending some. A number that was scaled stays.
    pub(crate) fn take_up(&self, manifest: &Manifest) {
        let (mut rolled, mut resized) = (Vec::new(), Vec::new());
        *self.manifest.lock().unwrap_or_else(PoisonError::into_inner) = manifest.clone();
        for service in self.lock().iter_mut() {
            let name = service.local.spec.name.clone();
            let Some(now) = manifest.local.iter().find(|local| local.spec.name == name) else { continue };
            let before = std::mem::replace(&mut service.local, now.clone());
            service.turns.set(now.reload);
            let orders: Vec<Orders> =
                service.members.iter().filter_map(|member| member.orders.get()).cloned().collect();
            if now.stop != before.stop {
                let by = StopBy::of(&now.stop.signal).unwrap_or_default();
                orders.iter().for_each(|orders| orders.set_stop(now.stop.within, by));
            }
            if now.log_level != before.log_level {
                orders.iter().for_each(|orders| orders.set_log_level(log_level(now)));
            }
            if now.restart != before.restart {
                orders.iter().for_each(|orders| orders.set_restart(RestartPolicy::of(now.restart)));
            }
            let is_run = |local: &LocalService| {
                let (env, files) = (local.env.clone(), local.env_files.clone());
                let (run_as, ready) = (local.run_as.clone(), local.ready.clone());
                (local.target.clone(), local.cwd.clone(), env, files, run_as, ready, local.caps)
            };
            let is_changed = is_run(&before) != is_run(now);
            if let (Some(process), Target::Run { listens, .. }, true) =
                (process(now, &self.ground), &now.target, is_changed)
            {
                orders.iter().for_each(|orders| orders.set_process(process.clone(), listens.clone()));
                rolled.push(name.clone());
            }
            if now.instances() != before.instances() && service.members.len() == before.instances() {
                resized.push(name);
            }
        }
        for service in rolled {
            drop(tasks::spawn("roll", Kind::Connection, self.reload(service, "its manifest changed")));
        }
        for service in resized {
            // Whoever applied sees it in `status`.
            drop(self.scale(&service, None));
        }
    }

    /// Reloads all instances of a service, in turn.
    pub(crate) fn reload(&self, service: ServiceName, why: &'static str) -> impl Future<Output = ()> + use<> {
        let round = synego_runtime::clock::unix_us();
        let ids = self.ids().into_iter().filter(|(name, _)| *name == service);
        let all: Vec<_> = ids.map(|(name, id)| (self.order(&name, &id, Order::Reload { round }), id)).collect();
        async move {
            tracing::info!(%service, why, "it is reloaded");
            let ends = all.into_iter().map(|(mut steps, id)| async move {
                while let Some(step) = steps.recv().await {
                    if step.outcome == Outcome::Failed {
                        tracing::warn!(instance = id, why, cause = step.message, "the reload failed");
                    }
                }
            });
            futures_util::future::join_all(ends).await;
        }
    }

    /// What is watched of each service.
    pub(crate) fn watched(&self) -> BTreeMap<ServiceName, synego_model::WatchSpec> {
        let running = self.lock();
        let of = |service: &Running| Some((service.local.spec.name.clone(), service.local.watch.clone()?));
        running.iter().filter_map(of).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Drains and ends all instances; what is left after `within` is cut off.
    pub(super) async fn end(self, within: Duration, told: mpsc::Sender<Gone>) {
        self.end.stop();
        let in_haste = AtomicBool::new(false);
        let cut = async {
            tokio::time::sleep(within).await;
            // Without any time nothing was promised.
            in_haste.store(!within.is_zero(), Ordering::Relaxed);
            self.end.cut();
            std::future::pending::<()>().await;
        };
        let ends = async {
            for member in self.members {
                let gone = match member.task.await {
                    Ok((instance, Ok(ended))) => Gone {
                        instance,
                        cut: (ended.cut_requests, ended.cut_streams),
                        in_haste: in_haste.load(Ordering::Relaxed),
                        exit: ended.exit.map(|exit| exit.to_string()).unwrap_or_default(),
                    },
                    Ok((instance, Err(problem))) => Gone { instance, cut: (0, 0), in_haste: false, exit: problem },
                    Err(_) => continue,
                };
                // Whoever wanted to know may have gone.
                let _ = told.send(gone).await;
            }
        };
        tokio::select! {
            () = ends => {}
            () = cut => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::next_wave;
    use super::*;
    use synego_model::ReloadSpec;

    fn running(name: &str, uses: &[&str]) -> Running {
        let text = format!("services: {{ {name}: {{ run: \"true\" }} }}");
        let file = synego_manifest::LoadedFile {
            name: "synego.yaml".into(),
            path: "/synego.yaml".into(),
            text,
            role: synego_manifest::FileRole::Base,
        };
        let manifest = synego_manifest::load_files(&[file], &BTreeMap::new(), 1).manifest.expect("a manifest");
        let mut local = manifest.local.into_iter().next().expect("a service");
        local.spec.uses = uses.iter().map(|name| name.parse().expect("a name")).collect();
        let (end, life) = Stopper::new();
        Running {
            local,
            after: Vec::new(),
            before: BTreeMap::new(),
            first: Vec::new(),
            end,
            life,
            built: Arc::new(watch::Sender::new(false)),
            turns: Turns::new(ReloadSpec::default()),
            members: Vec::new(),
        }
    }

    fn waves(mut services: Vec<Running>) -> Vec<Vec<String>> {
        let mut waves = Vec::new();
        while !services.is_empty() {
            waves.push(next_wave(&mut services).iter().map(|service| service.local.spec.name.to_string()).collect());
        }
        waves
    }

    #[test]
    fn callers_end_before_those_they_call() {
        let services =
            vec![running("inventory", &[]), running("orders", &["users", "inventory"]), running("users", &[])];
        assert_eq!(waves(services), [vec!["orders"], vec!["inventory", "users"]]);
    }

    #[test]
    fn services_that_call_each_other_end_together() {
        let services =
            vec![running("a", &["b"]), running("b", &["a"]), running("front", &["a"]), running("own", &["own"])];
        assert_eq!(waves(services), [vec!["front", "own"], vec!["a", "b"]]);
    }
}
