//! Leads the service's process through its life: first start, reload after reload ([`reload`]), drains, and the end.

mod once_more;
mod reload;
pub(crate) mod retire;

use std::sync::Arc;
use std::time::Duration;

use synego_control_plane::attach::{AttachHandle, Attachments};
use synego_control_plane::order::{Order, Outcome, Step};
use synego_control_plane::uplink::{SidecarSettings, UplinkHandle};
use synego_data_plane::Tenure;
use synego_model::{Cause, HealthSpec, InstanceId, Listens};
use synego_runtime::Stop;
use synego_runtime::tasks::{self, Kind};
use synego_supervise::{OutputSink, ProcessSpec, ProcessState, Supervisor};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::generation::{Generation, Pids};
use crate::instance::{DrainStep, Wishes};
use crate::left;
use crate::orders::{Ordered, ReloadHow, Teller};
use crate::output::LevelOf;
use crate::proof::{self, ProbePlace, Proof};
use crate::sockets::Sockets;

/// How the processes of this sidecar are made.
pub(crate) struct Recipe {
    /// What all generations have in common; address, variables and trial are each one's own.
    pub(crate) spec: ProcessSpec,
    /// Where they listen.
    pub(crate) listens: Listens,
    pub(crate) sockets: Sockets,
    pub(crate) output: OutputSink,
    /// Outlives the drain.
    pub(crate) life: Stop,
}

/// Everything that leading takes.
pub(crate) struct Conductor {
    pub(crate) id: InstanceId,
    /// `None`: another is the parent of the process.
    pub(crate) recipe: Option<Recipe>,
    pub(crate) current: watch::Sender<Arc<Generation>>,
    pub(crate) wishes: watch::Sender<Wishes>,
    pub(crate) pids: Pids,
    pub(crate) attached: AttachHandle,
    pub(crate) settings: watch::Receiver<SidecarSettings>,
    pub(crate) linked: UplinkHandle,
    pub(crate) health: Option<HealthSpec>,
    pub(crate) place: ProbePlace,
    /// The one deadline of a drain.
    pub(crate) within: Duration,
    pub(crate) workers: usize,
    /// Which lines of the service are written down.
    pub(crate) levels: LevelOf,
    pub(crate) orders: mpsc::Receiver<Ordered>,
    /// The process of the current generation.
    pub(crate) supervisor: Option<Supervisor>,
    /// Whether the first generation is built already.
    pub(crate) is_built: bool,
    /// Whether it goes on after a process that has ended for good, which may be asked for once more.
    pub(crate) stays: bool,
    /// The last wish of the service for a successor that was obeyed.
    pub(crate) obeyed_wish: u64,
    /// Former generations that still finish what they have begun.
    pub(crate) retiring: Vec<JoinHandle<()>>,
}

/// How the leading ended: what is left to be ended.
pub(crate) struct Led {
    pub(crate) generation: Arc<Generation>,
    pub(crate) supervisor: Option<Supervisor>,
    pub(crate) retiring: Vec<JoinHandle<()>>,
    pub(crate) within: Duration,
}

impl Conductor {
    /// Starts the first generation.
    pub(crate) fn start(&mut self) {
        let first = self.current.borrow().as_ref().clone();
        if let Some((supervisor, state)) = self.launch(&first, false, 0) {
            self.supervisor = Some(supervisor);
            self.current.send_replace(Arc::new(Generation { process: Some(state), ..first }));
        }
    }

    /// Obeys until `stop`, or, unless it stays, until the process has ended for good.
    pub(crate) async fn run(mut self, stop: Stop) -> Led {
        loop {
            let current = Arc::clone(&self.current.borrow());
            let wishes = self.attached.attachments();
            let ordered = tokio::select! {
                () = stop.stopped() => break,
                () = current.finished(), if !self.stays => break,
                Some(ordered) = self.orders.recv() => ordered,
                number = wished(wishes, current.number, self.obeyed_wish), if self.recipe.is_some() => {
                    self.obeyed_wish = number;
                    tracing::info!(generation = current.number, "the service wants a successor");
                    let (order, how) = (Order::Reload { round: 0 }, ReloadHow { builds: false, in_place: false });
                    Ordered::Order { order, how, steps: Teller::nobody() }
                }
            };
            tokio::select! {
                // What is begun and not finished then ends with what it has started.
                () = stop.stopped() => break,
                () = self.obey(ordered) => {}
            }
        }
        let generation = Arc::clone(&self.current.borrow());
        Led { generation, supervisor: self.supervisor, retiring: self.retiring, within: self.within }
    }

    async fn obey(&mut self, ordered: Ordered) {
        let (order, how, steps) = match ordered {
            Ordered::Order { order, how, steps } => (order, how, steps),
            Ordered::Stop(within, by) => {
                self.within = within;
                if let Some(recipe) = &mut self.recipe {
                    (recipe.spec.grace, recipe.spec.stop_by) = (within, by);
                }
                return;
            }
            Ordered::Restart(policy) => {
                if let Some(recipe) = &mut self.recipe {
                    recipe.spec.restart.clone_from(&policy);
                }
                if let Some(supervisor) = &self.supervisor {
                    supervisor.set_policy(policy);
                }
                return;
            }
            Ordered::Level(level) => return self.levels.set_own(level),
            Ordered::Process(process, listens) => {
                if let Some(recipe) = &mut self.recipe {
                    let spec = &mut recipe.spec;
                    (spec.command, spec.build, spec.cwd) = (process.command, process.build, process.cwd);
                    (spec.user_env, spec.env_files) = (process.env, process.env_files);
                    (spec.ready, spec.stop_by) = (process.ready, process.stop_by);
                    (spec.restart, spec.caps, spec.run_as) = (process.restart, process.caps, process.run_as);
                    recipe.listens = listens;
                }
                return;
            }
        };
        match order {
            Order::Reload { .. } => self.reload(how, steps).await,
            Order::Drain { within } => self.drain(within.unwrap_or(self.within), steps).await,
            Order::Undrain => self.undrain(steps).await,
            Order::Scale { .. } => {
                let message = "this sidecar runs one instance: the number is its machine's, `synego up`, to say";
                steps.tell(Step::of(Outcome::Failed, message)).await;
            }
        }
    }

    /// What people are told beside the state.
    fn note(&self, notice: Option<Cause>) {
        self.wishes.send_modify(|wishes| wishes.notice = notice);
    }

    fn proof(&self) -> Proof {
        let settings = self.settings.borrow();
        Proof {
            attachments: self.attached.attachments(),
            health: proof::health_in_force(self.health.as_ref(), &settings, true),
            place: self.place.clone(),
            within: self.recipe.as_ref().map_or(Duration::ZERO, |recipe| recipe.spec.ready.within),
        }
    }

    fn launch(
        &self,
        generation: &Generation,
        trial: bool,
        restarts: u32,
    ) -> Option<(Supervisor, watch::Receiver<ProcessState>)> {
        let (recipe, spec) = (self.recipe.as_ref()?, self.spec(generation, trial, restarts)?);
        let (supervisor, state) = Supervisor::start(spec, recipe.output.clone(), recipe.life.clone());
        self.pids.follow(generation.number, state.clone());
        Some((supervisor, state))
    }

    /// What is started for a generation, with its sockets opened to it; `None`: another starts its process.
    fn spec(&self, generation: &Generation, trial: bool, restarts: u32) -> Option<ProcessSpec> {
        let recipe = self.recipe.as_ref()?;
        let mut spec = recipe.spec.clone();
        spec.env.clone_from(&generation.env);
        spec.address = Some(generation.address.clone());
        (spec.trial, spec.restarts) = (trial, restarts);
        spec.keep = Some(left::process_name(&self.id, generation.number));
        if trial || self.is_built {
            // It was built before.
            spec.build = None;
        }
        if let Err(problem) = recipe.sockets.open_to(&spec.run_as) {
            // Where it has to, the start itself fails for the same reason.
            tracing::warn!(instance = spec.name, cause = problem, "its sockets are not opened to the process");
        }
        Some(spec)
    }

    async fn drain(&mut self, within: Duration, steps: Teller) {
        let current = Arc::clone(&self.current.borrow());
        let number = current.number;
        retire::refuse(&self.wishes, &self.linked, within).await;
        current.tenure.leave(within);
        tasks::spawn("drain", Kind::Connection, async move {
            let generations = (number, number);
            let idle = retire::told_while(&current, &steps, generations, current.tenure.idle(within)).await;
            let open = current.open();
            let step = match idle {
                true => Step::of(Outcome::Done, "it takes no request until `synego drain --undo`, or its next start"),
                false => Step::of(Outcome::Failed, "the time is over, and it still has requests or streams"),
            };
            steps.tell(Step { generations, open, ..step }).await;
        });
    }

    async fn undrain(&mut self, steps: Teller) {
        let current = self.current.borrow().as_ref().clone();
        let generations = (current.number, current.number);
        let was = self.wishes.borrow().drain != DrainStep::No;
        // Streams that come now stay.
        self.current.send_replace(Arc::new(Generation { tenure: Tenure::new(self.workers), ..current }));
        self.wishes.send_modify(|wishes| wishes.drain = DrainStep::No);
        self.linked.report_now();
        let message = if was { "" } else { "it was not drained" };
        steps.tell(Step { generations, ..Step::of(Outcome::Done, message) }).await;
    }
}

/// Returns when the service wishes a successor that it was not given yet: the number of that wish.
async fn wished(mut attachments: watch::Receiver<Attachments>, generation: u32, obeyed: u64) -> u64 {
    let wish = |all: &Attachments| {
        let wish = all.get(&generation).and_then(|found| found.replace.as_ref());
        wish.map(|wish| wish.number).filter(|wish| *wish > obeyed)
    };
    let wished = attachments.wait_for(|all| wish(all).is_some()).await.ok().and_then(|all| wish(&all));
    match wished {
        Some(number) => number,
        None => std::future::pending().await,
    }
}
