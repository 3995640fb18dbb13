//! One start of the process and all that follows until it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use synego_model::Reason;
use synego_model::process::{ReadyBy, ServiceAddress};
use synego_runtime::{clock, keeper};
use tokio::sync::watch;

use super::course::{Course, Told, cause, what_starts};
use super::looks::{LOOK, Looks, grows_far, whole_mib};
use crate::caps::Held;
use crate::capture::Capture;
use crate::environment;
use crate::keep::{self, Adopted, Keep, Note};
use crate::launch::{Start, launch_held};
use crate::leader::Leader;
use crate::listening;
use crate::notify::{NotifySocket, Said};
use crate::probe::ProbeContext;
use crate::readiness::{self, Proof};
use crate::rights::rights;
use crate::stat;
use crate::state::{ExitOutcome, Phase, ProcessEvent};

/// Time for the rest of a group whose leader ended by itself.
const REST_GRACE: Duration = Duration::from_secs(1);
/// Time for a process that has too much memory to end by itself; less, if it takes still more.
const OVER_GRACE: Duration = Duration::from_secs(5);
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
    /// It has so much memory; bytes.
    OverMemory(u64),
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
                let what = what_starts(&self.spec);
                self.set(|state| (state.phase, state.cause) = (Phase::Starting, Some(cause(Reason::Starting, what))));
                self.start().await
            }
        };
        let started = match started {
            Ok(started) => started,
            Err(message) => return End::Failed(Failure::before_start(Reason::StartFailed, message)),
        };
        let Started { mut leader, mut held, capture, notify, proof, context } = started;
        let began = clock::now();
        let (last_look, status) = (watch::Sender::new(String::new()), watch::Sender::new(String::new()));
        let mut ready_at: Option<Instant> = leader.was_ready().then_some(began);
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
                        leader.became_ready();
                        self.became_ready(now.duration_since(began));
                        self.look(&mut looks, &mut leader, &mut held, true);
                    }
                    () = &mut limit, if ready_at.is_none() => break Happened::NotReady,
                    Ok(()) = said.changed() => {
                        let text = said.borrow_and_update().clone();
                        self.set(|state| state.status = text);
                    }
                    words = next_words(notify.as_ref()), if ready_at.is_some() => self.hear(words),
                    _ = ticks.tick() => {
                        if let Some(used) = self.look(&mut looks, &mut leader, &mut held, ready_at.is_some()) {
                            break Happened::OverMemory(used);
                        }
                    }
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
                let was_short = is_kill(exit) && held.kernel_killed();
                leader.sweep(self.spec.grace.min(REST_GRACE)).await;
                let last = capture.finish(LAST_LINES_WITHIN).await;
                let (reason, message) = if was_short {
                    let message = format!("{exit} by the kernel, for want of memory{}", last.reason());
                    (Reason::OutOfMemory, message)
                } else {
                    (Reason::ProcessExited, format!("{exit}{}", last.reason()))
                };
                let (exit, last_lines) = (Some(exit), last.all());
                End::Failed(Failure { reason, message, exit, pid, ready_for, last_lines })
            }
            Happened::OverMemory(used) => {
                let cap = held.watched().unwrap_or(used);
                let message = format!("it has {}, and may have {}", whole_mib(used), synego_model::text::size(cap));
                self.set(|state| state.cause = Some(cause(Reason::OutOfMemory, &message)));
                tracing::warn!(instance = self.spec.name, pid, used, cap, "process has too much memory");
                self.set(|state| state.phase = Phase::Stopping);
                let cut = async {
                    tokio::select! {
                        () = self.stop.cut() => {}
                        () = grows_far(pid, cap) => {}
                    }
                };
                let exit = leader.end(self.spec.stop_by, self.spec.grace.min(OVER_GRACE), cut).await;
                let last = capture.finish(LAST_LINES_WITHIN).await;
                let (message, last_lines) = (format!("{message}{}", last.reason()), last.all());
                let exit = Some(exit);
                End::Failed(Failure { reason: Reason::OutOfMemory, message, exit, pid, ready_for, last_lines })
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
                let owner = rights(&spec.run_as)?.map(|rights| rights.owner());
                let socket = NotifySocket::bind(&spec.run_dir, &spec.name, owner)
                    .map_err(|error| format!("cannot make the notify socket in {}: {error}", spec.run_dir.display()))?;
                env.insert("NOTIFY_SOCKET".to_owned(), socket.path().to_string_lossy().into_owned());
                Some(socket)
            }
            _ => None,
        };
        let unix_ms = clock::unix_ms();
        let note = {
            let state = self.state.borrow();
            let notify = notify.as_ref().map(|notify| notify.path().to_owned());
            let (starts, restarts) = (state.starts, state.restarts);
            Note { started_unix_ms: unix_ms, notify, starts, restarts, ..Note::default() }
        };
        let keep = spec.keep.as_deref().map(keep::key);
        let keep = keep.map(|key| Keep { key, note, notify: notify.as_ref() });
        let start = Start { command: &spec.command, cwd: &spec.cwd, env: &env, run_as: &spec.run_as };
        let hold = |pid, mark: &str| Held::hold(spec.caps, &self.group(mark), pid);
        let (leader, held, pipes) = launch_held(start, keep, hold).await?;
        let pid = leader.pid();
        let capture = Capture::begin(pipes, pid, false, &self.output, pattern);
        self.set(|state| {
            (state.pid, state.started_unix_ms) = (pid, unix_ms);
            (state.status, state.memory_bytes, state.cpu_cores) = (String::new(), 0, None);
            held.words().clone_into(&mut state.caps);
        });
        self.tell(ProcessEvent::Started { pid, unix_ms });
        tracing::info!(instance = spec.name, pid, command = %spec.command, "process started");
        let context = self.context(env);
        Ok(Started { leader, held, capture, notify, proof, context })
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
        let held = Held::again(spec.caps, &self.group(&note.mark));
        self.set(|state| held.words().clone_into(&mut state.caps));
        let context = self.context(env);
        Started { leader, held, capture, notify, proof: Proof::of(spec), context }
    }

    /// The name of the control group of a start.
    fn group(&self, mark: &str) -> String {
        format!("{}-{mark}", self.spec.name)
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
            ProbeContext { service, address, env, cwd: spec.cwd.clone(), run_as: spec.run_as.clone() }
        })
    }

    fn became_ready(&self, after: Duration) {
        self.set(|state| (state.phase, state.cause) = (Phase::Ready, None));
        self.tell(ProcessEvent::Ready { after });
        tracing::info!(instance = self.spec.name, after_ms = after.as_millis(), "process ready");
    }

    /// For a process that was told a port and listens on another one.
    fn listens_elsewhere(&self, pid: u32) -> String {
        let found = listening::of_group(pid);
        let told = match &self.spec.address {
            _ if found.is_empty() => return String::new(),
            None => return String::new(),
            Some(ServiceAddress::Tcp(told)) if found.iter().any(|found| found.port() == told.port()) => {
                return String::new();
            }
            Some(ServiceAddress::Tcp(_)) => "",
            Some(ServiceAddress::Unix(_)) => ", not on the socket that `SOCKET` names",
        };
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        format!("; the process listens on {}{told}", found.join(", "))
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

    /// Takes the kernel's view: stopped or not, memory, CPU. How much memory it has, if that is too much.
    fn look(&self, looks: &mut Looks, leader: &mut Leader, held: &mut Held, was_ready: bool) -> Option<u64> {
        let stat = stat::of(looks.pid)?;
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
        if held.watched().is_none() && !looks.are_due() {
            return None;
        }
        let all = leader.all();
        let resident = all.iter().map(|found| found.memory_bytes).sum();
        if looks.are_due() {
            let cores = looks.cores(all.iter().map(|found| found.cpu_ticks).sum());
            // No news worth waking anyone for.
            self.state.send_if_modified(|state| {
                (state.memory_bytes, state.cpu_cores) = (resident, cores.or(state.cpu_cores));
                false
            });
        }
        held.look(&all, resident)
    }
}

struct Started {
    leader: Leader,
    held: Held,
    capture: Capture,
    notify: Option<NotifySocket>,
    proof: Proof,
    context: Option<ProbeContext>,
}

async fn next_words(notify: Option<&NotifySocket>) -> Vec<Said> {
    match notify {
        Some(notify) => notify.next().await,
        None => std::future::pending().await,
    }
}

/// Whether it was killed, or passes on that what it started was.
fn is_kill(exit: ExitOutcome) -> bool {
    !exit.killed && (exit.signal == Some(9) || exit.code == Some(137))
}
