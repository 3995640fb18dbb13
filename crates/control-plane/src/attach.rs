//! Service ↔ sidecar: the service protocol, served on a Unix socket to the process beside the sidecar.
//!
//! What the process says is kept in the `book`, which is pure; here are the socket, the tasks and the handle.

mod book;
mod peer;
mod service;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use synego_model::{Cause, InstanceName, InstanceState, MeshName, ServiceName};
use synego_runtime::lifecycle::{Drain, Stop};
use synego_runtime::serve::{ApiStream, BindAddr, Listener, Profile, bind, serve_connection};
use synego_runtime::telemetry::Metrics;
use synego_runtime::{clock, tasks};
use synego_wire::convert::attach::drain_to_wire;
pub use synego_wire::convert::attach::{
    Check, DrainCause, Feature, Handler, HandlerLoad, Handlers, Hello, Listener as ServiceListener, ListenerProtocol,
    Load, Model, Phase, State,
};
use synego_wire::pb;
use synego_wire::pb::to_service::Is;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::service::Routes;

use crate::metrics::AttachMetrics;
use crate::registry::At;
pub use crate::{LogLevel, OutputLine};

use book::Book;

/// How often lost streams, missing loads and ended processes are looked for.
const TICK: Duration = Duration::from_millis(250);
/// Largest message, in bytes.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Time that streams get to end by themselves.
const LINGER: Duration = Duration::from_secs(1);

/// Process ids by generation; a generation that does not run now is not in it.
pub type Started = BTreeMap<u32, u32>;

/// What each attached generation says of itself.
pub type Attachments = BTreeMap<u32, Attachment>;

/// Takes log lines of the service; `false`: dropped.
pub type LineSink = Arc<dyn Fn(OutputLine) -> bool + Send + Sync>;

/// What the service protocol runs on.
#[derive(Clone)]
pub struct AttachConfig {
    /// Name of the mesh.
    pub mesh: MeshName,
    /// The service beside this sidecar.
    pub service: ServiceName,
    /// Its instance.
    pub instance: InstanceName,
    /// Zone of the machine; may be empty.
    pub zone: String,
    /// Base URL of the outbound.
    pub outbound: String,
    /// Path of the socket; its folder is made, for this user alone.
    pub socket: PathBuf,
    /// Version of the sidecar program.
    pub version: String,
    /// How often a load is wanted.
    pub report_every: Duration,
    /// The processes that this sidecar started, by generation: then only they and what they started may attach, and which
    /// generation speaks is told by its process, not by its word. `None`: any process of this user.
    pub parent_of: Option<watch::Receiver<Started>>,
    /// How much the service is to log at first.
    pub log_level: LogLevel,
    /// Where its log lines go; `None`: they are not taken.
    pub output: Option<LineSink>,
    /// Where its metrics go.
    pub metrics: Metrics,
}

/// What the service says of itself, of the highest generation that is attached.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attachment {
    /// Whether its stream stands.
    pub attached: bool,
    /// What it said first; `None`: nothing counts, or not any more.
    pub hello: Option<Arc<Hello>>,
    /// What it handles now.
    pub handlers: Arc<Handlers>,
    /// Where it is in its life; `None` with `hello`.
    pub phase: Option<Phase>,
    /// What that makes of the instance; `None`: probes alone judge.
    pub said: Option<Said>,
    /// How much is going on; `None`: it said nothing of it.
    pub load: Option<Load>,
    /// Its last wish for a successor that counts.
    pub replace: Option<Wish>,
    /// Process id; 0: not known.
    pub pid: u32,
    /// Up by one with each reload.
    pub generation: u32,
}

/// A state and why, in the words of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The state.
    pub state: InstanceState,
    /// Why.
    pub cause: Option<Cause>,
}

/// "Start my successor, then drain me."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Up by one with each wish that counts: at most one in 60 s.
    pub number: u64,
    /// Why.
    pub cause: Cause,
}

/// What became of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainAnswer {
    /// Nothing is in flight in the service any more.
    Drained,
    /// The process ended.
    Ended,
    /// No stream stands.
    NotAttached,
    /// The service does not name the feature: nothing was sent.
    NotUnderstood,
    /// The time was over.
    NotInTime,
}

pub(crate) struct Shared {
    pub(crate) config: AttachConfig,
    pub(crate) metrics: AttachMetrics,
    book: Mutex<Book>,
    told: watch::Sender<Attachment>,
    /// The same for every generation.
    all: watch::Sender<Attachments>,
    began: Instant,
}

impl Shared {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> At {
        let ms = clock::now().saturating_duration_since(self.began).as_millis();
        At { ms: u64::try_from(ms).unwrap_or(u64::MAX), unix_ms: clock::unix_ms() }
    }

    /// Changes the book, then tells what follows where it differs.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Book, At) -> T) -> T {
        let at = self.now();
        let mut book = self.book();
        let outcome = change(&mut book, at);
        let all = book.attachments(at);
        let next = all.last_key_value().map(|(_, last)| last.clone()).unwrap_or_default();
        self.metrics.attached(book.streams());
        self.all.send_if_modified(|told| {
            let turned = *told != all;
            *told = all;
            turned
        });
        // Told under the lock, so that what is told last is what was true last.
        self.told.send_if_modified(|told| {
            let turned = *told != next;
            *told = next;
            turned
        });
        outcome
    }
}

/// The service protocol of one sidecar, to be [`run`](AttachServer::run).
pub struct AttachServer {
    shared: Arc<Shared>,
    listener: Listener,
}

impl AttachServer {
    /// Takes the socket, in a folder that is there; a dead one is replaced.
    ///
    /// # Errors
    /// When another process answers on it, or it cannot be made.
    pub async fn bind(config: AttachConfig) -> io::Result<(Self, AttachHandle)> {
        let listener = bind(&BindAddr::Unix(config.socket.clone())).await?;
        let metrics = AttachMetrics::new(&config.metrics, &config.service, &config.instance);
        let book = Book::new(config.report_every, config.log_level);
        let told = watch::Sender::new(Attachment::default());
        let all = watch::Sender::new(Attachments::new());
        let shared = Arc::new(Shared { config, metrics, book: Mutex::new(book), told, all, began: clock::now() });
        let handle = AttachHandle { shared: Arc::clone(&shared) };
        Ok((Self { shared, listener }, handle))
    }

    /// Serves until `stop`, then ends the streams and removes the socket.
    pub async fn run(self, stop: Stop) {
        let Self { shared, listener } = self;
        let drain = Drain::new();
        let service = service::SidecarService::new(Arc::clone(&shared), stop.clone());
        let server = pb::sidecar_server::SidecarServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let router = Routes::new(server).prepare().into_axum_router();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.stopped() => break,
                _ = ticks.tick() => shared.change(|book, at| book.tick(at, peer::lives)),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let peer = peer::Peer { pid: pid_of(&stream) };
                        let router = router.clone().layer(axum::Extension(peer));
                        let (guard, stop) = (drain.guard(), stop.clone());
                        tasks::spawn("attach-connection", tasks::Kind::Connection, async move {
                            let _guard = guard;
                            serve_connection(stream, router, &Profile::admin(), stop).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(cause = %error, "cannot accept a connection of the service");
                        tokio::time::sleep(TICK).await;
                    }
                },
            }
        }
        drop(listener);
        let _idle_or_late = tokio::time::timeout(LINGER, drain.idle()).await;
    }
}

fn pid_of(stream: &ApiStream) -> u32 {
    let ApiStream::Unix(stream) = stream else { return 0 };
    let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
    pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0)
}

/// A way to a running [`AttachServer`].
#[derive(Clone)]
pub struct AttachHandle {
    shared: Arc<Shared>,
}

impl AttachHandle {
    /// What each generation of the service says of itself.
    #[must_use]
    pub fn attachments(&self) -> watch::Receiver<Attachments> {
        self.shared.all.subscribe()
    }

    /// What the service says of itself, by its highest generation.
    #[must_use]
    pub fn attachment(&self) -> watch::Receiver<Attachment> {
        self.shared.told.subscribe()
    }

    /// Path of the socket, for `SYNEGO_SIDECAR`.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.shared.config.socket
    }

    /// Changes how much the service logs.
    pub fn set_log_level(&self, level: LogLevel) {
        self.shared.change(|book, _| book.set_log_level(level));
    }

    /// Asks the service to finish what runs, and waits for its word, at most `within`. New requests must be kept away
    /// from it before.
    ///
    /// - `generation`: which of them; `None`: the highest.
    pub async fn drain(&self, generation: Option<u32>, cause: DrainCause, within: Duration) -> DrainAnswer {
        let mut told = self.attachments();
        let message = pb::ToService { is: Some(Is::Drain(drain_to_wire(cause, within))) };
        let generation = match self.shared.change(|book, _| book.send_drain(generation, message)) {
            Ok(generation) => generation,
            Err(answer) => return answer,
        };
        let over = told.wait_for(|now| now.get(&generation).is_none_or(|own| own.phase == Some(Phase::Drained)));
        match tokio::time::timeout(within, over).await {
            Ok(Ok(now)) if now.contains_key(&generation) => DrainAnswer::Drained,
            Ok(_) => DrainAnswer::Ended,
            Err(_) => DrainAnswer::NotInTime,
        }
    }
}
