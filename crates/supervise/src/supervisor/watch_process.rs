//! One start of the process and all that follows until it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use synego_model::Reason;
use synego_model::process::{ReadyBy, ServiceAddress};
use synego_runtime::{clock, keeper};
use tokio::sync::watch;

use super::course::{Course, Told, cause};
use crate::capture::Capture;
use crate::environment;
use crate::keep::{self, Adopted, Keep, Note};
use crate::launch::launch;
use crate::leader::Leader;
use crate::listening;
use crate::notify::{NotifySocket, Said};
use crate::probe::ProbeContext;
use crate::readiness::{self, Proof};
use crate::stat::{self, Usage};
use crate::state::{ExitOutcome, Phase, ProcessEvent};

/// Time between looks at the kernel's view of the process.
const LOOK: Duration = Duration::from_millis(500);
/// Time for the rest of a group whose leader ended by itself.
const REST_GRACE: Duration = Duration::from_secs(1);
/// Time for the last lines of an ended process.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(300);

/// How one start ended.
pub(super) enum End {
    /// It was told to.
    Told(ExitOutcome),
    /// It was told to start anew.
    Again,
    /// It failed.
    Failed(Failure),
}

/// A start that failed, or an end that nobody asked for.
pub(super) struct Failure {
    pub(super) reason: Reason,
    pub(super) message: String,
    pub(super) exit: Option<ExitOutcome>,
    /// Of the process that ended; 0: none was started.
    pub(super) pid: u32,
    pub(super) ready_for: Duration,
    pub(super) last_lines: Vec<String>,
}

impl Failure {
    pub(super) fn before_start(reason: Reason, message: String) -> Self {
        Self { reason, message, exit: None, pid: 0, ready_for: Duration::ZERO, last_lines: Vec::new() }
    }

    /// What is told of it, with the wait that follows.
    pub(super) fn event(&self, again_in: Duration) -> ProcessEvent {
        match (self.reason, self.exit) {
            (_, Some(exit)) => {
                ProcessEvent::Exited { exit, last_lines: self.last_lines.clone(), restart_in: Some(again_in) }
            }
            (Reason::BuildFailed, None) => ProcessEvent::BuildFailed { message: self.message.clone(), again_in },
            (_, None) => ProcessEvent::StartFailed { message: self.message.clone(), again_in },
        }
    }
}

/// What ended the watch.
enum Happened {
    Exited(ExitOutcome),
    NotReady,
    Told(Told),
    Left,
}

impl Course {
    /// Starts the process, or takes up one that runs, and watches it until it is over.
    pub(super) async fn watch_process(&mut self, adopted: Option<Adopted>) -> End {
        // A successor of this part takes it up once it is let go.
        let share = keeper::share();
        let started = match adopted {
            Some(adopted) => Ok(self.take_up(adopted)),
            None => {
                self.set(|state| (state.phase, state.cause) = (Phase::Starting, Some(cause(Reason::Starting, ""))));
                self.start().await
            }
        };
        let started = match started {
            Ok(started) => started,
            Err(message) => return End::Failed(Failure::before_start(Reason::StartFailed, message)),
        };
        let Started { mut leader, capture, notify, proof, context, mut note } = started;
        let began = clock::now();
        let (last_look, status) = (watch::Sender::new(String::new()), watch::Sender::new(String::new()));
        let mut ready_at: Option<Instant> = note.ready.then_some(began);
        let mut looks = Looks::new(leader.pid());

        let happened = {
            let ready = readiness::ready(&proof, context.as_ref(), &capture, notify.as_ref(), &last_look, &status);
            let limit = tokio::time::sleep(self.spec.ready.within);
            let told = self.told();
            let mut said = status.subscribe();
            let mut ticks = tokio::time::interval(LOOK);
            // The first tick comes at once, when the process may not even have become its program.
            ticks.reset();
            tokio::pin!(ready, limit, told);
            loop {
                tokio::select! {
                    () = keeper::yielding() => break Happened::Left,
                    exit = leader.exited() => break Happened::Exited(exit),
                    told = &mut told => break Happened::Told(told),
                    () = &mut ready, if ready_at.is_none() => {
                        let now = clock::now();
                        ready_at = Some(now);
                        note.ready = true;
                        leader.note(&note);
                        self.became_ready(now.duration_since(began));
                        self.look(&mut looks, true);
                    }
                    () = &mut limit, if ready_at.is_none() => break Happened::NotReady,
                    Ok(()) = said.changed() => {
                        let text = said.borrow_and_update().clone();
                        self.set(|state| state.status = text);
                    }
                    words = next_words(notify.as_ref()), if ready_at.is_some() => self.hear(words),
                    _ = ticks.tick() => self.look(&mut looks, ready_at.is_some()),
                }
            }
        };

        let pid = leader.pid();
        let ready_for = ready_at.map_or(Duration::ZERO, |at| clock::now().duration_since(at));
        match happened {
            Happened::Left => {
                drop((capture, share));
                // Whoever waits for its end waits for that of the successor.
                std::future::pending().await
            }
            Happened::Exited(exit) => {
                leader.sweep(self.spec.grace.min(REST_GRACE)).await;
                let last = capture.finish(LAST_LINES_WITHIN).await;
                let message = format!("{exit}{}", last.reason());
                let (exit, last_lines) = (Some(exit), last.all());
                End::Failed(Failure { reason: Reason::ProcessExited, message, exit, pid, ready_for, last_lines })
            }
            Happened::NotReady => {
                self.tell(ProcessEvent::NotReadyInTime);
                let missing = proof.missing(self.spec.address.as_ref(), &last_look.borrow());
                let within = synego_model::text::duration(self.spec.ready.within);
                let hint = self.listens_elsewhere(pid);
                let exit = self.end(leader, self.spec.grace).await;
                let last_lines = capture.finish(LAST_LINES_WITHIN).await.all();
                let message = format!("not ready after {within}: {missing}{hint}");
                let reason = Reason::NotReadyInTime;
                End::Failed(Failure { reason, message, exit: Some(exit), pid, ready_for, last_lines })
            }
            Happened::Told(Told::Stop(grace)) => {
                let exit = self.end(leader, grace).await;
                capture.finish(LAST_LINES_WITHIN).await;
                End::Told(exit)
            }
            Happened::Told(Told::Restart(grace)) => {
                self.end(leader, grace).await;
                capture.finish(LAST_LINES_WITHIN).await;
                self.begin_anew()
            }
        }
    }

    async fn start(&self) -> Result<Started, String> {
        let spec = &self.spec;
        let pattern = self.pattern()?;
        let proof = Proof::of(spec);
        let mut env = environment::of(spec)?;
        let notify = match proof {
            Proof::Notify => {
                let socket = NotifySocket::bind(&spec.run_dir, &spec.name)
                    .map_err(|error| format!("cannot make the notify socket in {}: {error}", spec.run_dir.display()))?;
                env.insert("NOTIFY_SOCKET".to_owned(), socket.path().to_string_lossy().into_owned());
                Some(socket)
            }
            _ => None,
        };
        let unix_ms = clock::unix_ms();
        let note = {
            let state = self.state.borrow();
            let path = notify.as_ref().map(|notify| notify.path().to_owned());
            let (starts, restarts) = (state.starts, state.restarts);
            Note { started_unix_ms: unix_ms, ready: false, notify: path, starts, restarts }
        };
        let keep = spec.keep.as_deref().map(keep::key);
        let keep = keep.map(|key| Keep { key, note: note.clone(), notify: notify.as_ref() });
        let (leader, pipes) = launch(&spec.command, &spec.cwd, &env, keep).await?;
        let pid = leader.pid();
        let capture = Capture::begin(pipes, pid, false, &self.output, pattern);
        self.set(|state| {
            (state.pid, state.started_unix_ms) = (pid, unix_ms);
            (state.status, state.memory_bytes, state.cpu_cores) = (String::new(), 0, None);
        });
        self.tell(ProcessEvent::Started { pid, unix_ms });
        tracing::info!(instance = spec.name, pid, command = %spec.command, "process started");
        let context = self.context(env);
        Ok(Started { leader, capture, notify, proof, context, note })
    }

    /// Goes on with a process that a former part of this program started.
    fn take_up(&self, adopted: Adopted) -> Started {
        let spec = &self.spec;
        let Adopted { leader, pipes, notify, note } = adopted;
        // It was started with a pattern and variables that could be used; whatever became of them since, it lives.
        let pattern = self.pattern().ok().flatten();
        let env = environment::of(spec).unwrap_or_else(|_| spec.env.clone());
        let capture = Capture::begin(pipes, leader.pid(), false, &self.output, pattern);
        tracing::info!(instance = spec.name, pid = leader.pid(), ready = note.ready, "process taken over");
        let context = self.context(env);
        Started { leader, capture, notify, proof: Proof::of(spec), context, note }
    }

    fn pattern(&self) -> Result<Option<Regex>, String> {
        match &self.spec.ready.by {
            Some(ReadyBy::Log(pattern)) => {
                Regex::new(pattern).map(Some).map_err(|error| format!("`{pattern}` is no pattern: {error}"))
            }
            _ => Ok(None),
        }
    }

    fn context(&self, env: BTreeMap<String, String>) -> Option<ProbeContext> {
        let spec = &self.spec;
        spec.address.clone().map(|address| {
            let service = env.get("SYNEGO_SERVICE").unwrap_or(&spec.name).clone();
            ProbeContext { service, address, env, cwd: spec.cwd.clone() }
        })
    }

    fn became_ready(&self, after: Duration) {
        self.set(|state| (state.phase, state.cause) = (Phase::Ready, None));
        self.tell(ProcessEvent::Ready { after });
        tracing::info!(instance = self.spec.name, after_ms = after.as_millis(), "process ready");
    }

    /// For a process that was told a port and listens on another one.
    fn listens_elsewhere(&self, pid: u32) -> String {
        let Some(ServiceAddress::Tcp(told)) = self.spec.address else { return String::new() };
        let found = listening::of_group(pid);
        if found.is_empty() || found.iter().any(|found| found.port() == told.port()) {
            return String::new();
        }
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        format!("; the process listens on {}", found.join(", "))
    }

    async fn end(&self, leader: Leader, grace: Duration) -> ExitOutcome {
        self.set(|state| state.phase = Phase::Stopping);
        leader.end(self.spec.stop_by, grace, self.stop.cut()).await
    }

    fn hear(&self, words: Vec<Said>) {
        for word in words {
            match word {
                Said::Status(text) => self.set(|state| state.status = text),
                Said::Stopping => self.set(|state| {
                    (state.phase, state.cause) =
                        (Phase::Stopping, Some(cause(Reason::SaidByService, "it said STOPPING=1")));
                }),
                Said::Ready => {}
            }
        }
    }

    /// Takes the kernel's view: stopped or not, memory, CPU.
    fn look(&self, looks: &mut Looks, was_ready: bool) {
        let Some(stat) = stat::of(looks.pid) else { return };
        let phase = self.state.borrow().phase;
        if stat.is_paused() && !looks.is_paused {
            looks.is_paused = true;
            tracing::warn!(instance = self.spec.name, pid = looks.pid, "process is stopped by a signal");
            self.set(|state| {
                state.phase = if phase == Phase::Ready { Phase::Paused } else { phase };
                state.cause = Some(cause(Reason::ProcessStopped, "stopped by a signal, such as STOP"));
            });
        } else if !stat.is_paused() && looks.is_paused {
            looks.is_paused = false;
            self.set(|state| {
                state.phase = if phase == Phase::Paused { Phase::Ready } else { phase };
                state.cause = (!was_ready).then(|| cause(Reason::Starting, ""));
            });
        }
        if let Some((memory, cores)) = looks.usage() {
            // No news worth waking anyone for.
            self.state.send_if_modified(|state| {
                (state.memory_bytes, state.cpu_cores) = (memory, cores.or(state.cpu_cores));
                false
            });
        }
    }
}

struct Started {
    leader: Leader,
    capture: Capture,
    notify: Option<NotifySocket>,
    proof: Proof,
    context: Option<ProbeContext>,
    note: Note,
}

async fn next_words(notify: Option<&NotifySocket>) -> Vec<Said> {
    match notify {
        Some(notify) => notify.next().await,
        None => std::future::pending().await,
    }
}

/// What earlier looks saw.
struct Looks {
    pid: u32,
    is_paused: bool,
    last: Option<(Instant, Usage)>,
}

impl Looks {
    fn new(pid: u32) -> Self {
        Self { pid, is_paused: false, last: None }
    }

    /// Memory, and CPU over the time since the last look; at most once a second.
    fn usage(&mut self) -> Option<(u64, Option<f64>)> {
        let now = clock::now();
        if self.last.is_some_and(|(at, _)| now.duration_since(at) < 2 * LOOK - LOOK / 5) {
            return None;
        }
        let usage = stat::usage(self.pid)?;
        let cores = self.last.map(|(at, before)| {
            let ticks = usage.cpu_ticks.saturating_sub(before.cpu_ticks) as f64;
            ticks / rustix::param::clock_ticks_per_second() as f64 / now.duration_since(at).as_secs_f64()
        });
        self.last = Some((now, usage));
        Some((usage.memory_bytes, cores))
    }
}
