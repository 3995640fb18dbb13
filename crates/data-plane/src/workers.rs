//! Thread per core: each worker is one OS thread with a runtime, listeners, connections and figures of its own.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use synego_model::{AccessLines, Protocol, ServiceName};
use synego_runtime::telemetry::Metrics;
use synego_runtime::{keeper, tasks};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::account::Account;
use crate::hop::accept::{self, PerClient};
use crate::hop::connection;
use crate::hop::ending::Ending;
use crate::hop::line;
use crate::hop::station::{Station, Table};
use crate::inbound::{self, Inbound, InboundConfig};
use crate::ingress::{Ingress, IngressConfig};
use crate::metrics::{HopKind, Hub, WorkerMetrics};
use crate::outbound::{Outbound, OutboundConfig};
use crate::server::{Server, State};
use crate::tcp;
use crate::upstreams::Upstreams;

/// Connections at once of one server, where the file limit allows them.
const MAX_CONNECTIONS: u64 = 10_000;
/// Files that are not for clients' connections.
const OTHER_FILES: u64 = 100;

/// In place of a share of exchanges that are logged: none is, not even one that failed.
pub(crate) const NO_LINES: u8 = u8::MAX;

/// How many workers, and what they share.
pub struct WorkersConfig {
    /// Threads, at least 1; the number of cores is right.
    pub count: usize,
    /// Open files that the process may have; clients get half of them, less 100, at most 10,000 for each server.
    pub file_limit: u64,
    /// Where the workers' metrics are shown.
    pub metrics: Metrics,
}

/// The worker threads of a process.
pub struct Workers {
    handle: WorkersHandle,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Starts servers on the workers. Cheap to clone.
#[derive(Clone)]
pub struct WorkersHandle {
    commands: Arc<[mpsc::UnboundedSender<Command>]>,
    max_connections: u32,
    log_share: Arc<AtomicU8>,
}

/// What a server does.
#[derive(Clone)]
pub enum Hop {
    /// The world, or Nginx, to services by routes.
    Ingress(IngressConfig),
    /// A service to other services.
    Outbound(OutboundConfig),
    /// Peers to a service; by its protocol as HTTP or as bytes.
    Inbound(InboundConfig),
}

impl Hop {
    /// What the keeper knows its sockets by.
    fn key(&self, address: SocketAddr) -> String {
        match self {
            Self::Ingress(config) => format!("ingress {} {address}", config.name),
            Self::Inbound(config) => format!("inbound {} {address}", config.name),
            Self::Outbound(config) => {
                let service = config.fixed_service.as_ref().map_or("", ServiceName::as_str);
                format!("outbound {} {address} {service}", config.name)
            }
        }
    }
}

enum Command {
    Serve { server: Arc<State>, listener: TcpListener, hop: Box<Hop>, per_client: PerClient, max_connections: u32 },
    Stop,
}

/// Whom each caller of this thread calls, by hop and name of the caller.
type Callers = HashMap<(HopKind, Arc<str>), Weak<Upstreams>>;

/// What one thread keeps.
struct Worker {
    index: usize,
    metrics: Rc<WorkerMetrics>,
    log_share: Arc<AtomicU8>,
    /// Listeners of the same caller share whom it calls.
    upstreams: RefCell<Callers>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the machine allows no more threads.
    pub fn start(config: WorkersConfig) -> io::Result<Self> {
        let hub = Hub::default();
        config.metrics.register(hub.clone());
        let log_share = Arc::new(AtomicU8::new(100));
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for index in 0..config.count.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (hub, log_share) = (hub.clone(), log_share.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            threads.push(tasks::thread("data-plane", tasks::Kind::Critical, move || {
                let (metrics, upstreams) = (WorkerMetrics::new(hub), RefCell::default());
                let worker = Worker { index, metrics, log_share, upstreams };
                LocalSet::new().block_on(&runtime, worker.run(receiver));
            })?);
            commands.push(sender);
        }
        let max_connections = (config.file_limit / 2).saturating_sub(OTHER_FILES).clamp(OTHER_FILES, MAX_CONNECTIONS);
        let max_connections = u32::try_from(max_connections).unwrap_or(u32::MAX);
        Ok(Self { handle: WorkersHandle { commands: commands.into(), max_connections, log_share }, threads })
    }

    /// By which servers are started.
    #[must_use]
    pub fn handle(&self) -> WorkersHandle {
        self.handle.clone()
    }

    /// Ends the threads; what their servers still do is cut off, so drain them first.
    pub async fn shutdown(self) {
        for commands in &*self.handle.commands {
            let _ = commands.send(Command::Stop);
        }
        let threads = self.threads;
        let joined = tasks::spawn_blocking("join-workers", move || {
            for thread in threads {
                // A panic was logged and counted where it happened.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}

impl WorkersHandle {
    /// How many workers there are: what a [`crate::LoadMeter`] wants to know.
    #[must_use]
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Sets which exchanges get a line in the access logs, from now on; where a share does, all hops of one trace decide
    /// alike. At first all do.
    pub fn log_lines(&self, lines: AccessLines) {
        self.log_share.store(lines.percent().unwrap_or(NO_LINES), Relaxed);
    }

    /// Starts a server on every worker. The keeper of the process, where it has one, holds its sockets; what a former part
    /// left there is taken over, and no connection is taken before [`Server::open`].
    ///
    /// - `address`: port 0 takes a free one, the same for all workers.
    ///
    /// # Errors
    /// When the address is taken or cannot be had; nothing was started then.
    pub fn serve(&self, address: SocketAddr, hop: Hop) -> io::Result<Server> {
        let make = || synego_identity::listen_shared(address, self.commands.len());
        let sockets = keeper::claim_sockets(&hop.key(address), make)?;
        let address = sockets.all.first().map_or(Ok(address), TcpListener::local_addr)?;
        let server = Server::new(address, self.commands.len(), sockets.held);
        if !sockets.left {
            server.open();
        }
        let (limits, per_client) = match &hop {
            Hop::Ingress(config) => (config.snapshot.load(), Ingress::per_client()),
            Hop::Outbound(config) => (config.snapshot.load(), PerClient::default()),
            Hop::Inbound(config) => (config.snapshot.load(), PerClient::default()),
        };
        let max_connections = limits.limits().connections.unwrap_or(self.max_connections);
        // There may be more sockets than workers, of a part that had more: none of their queues is left alone.
        for (commands, listener) in self.commands.iter().cycle().zip(sockets.all) {
            let command = Command::Serve {
                server: server.0.clone(),
                listener,
                hop: Box::new(hop.clone()),
                per_client: per_client.clone(),
                max_connections,
            };
            commands.send(command).map_err(|_| io::Error::other("the workers have ended"))?;
        }
        Ok(server)
    }
}

impl Worker {
    async fn run(self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(Command::Serve { server, listener, hop, per_client, max_connections }) = commands.recv().await {
            let listener = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(address = %server.address, cause = %error, "cannot serve");
                    continue;
                }
            };
            let bytes = matches!(&*hop, Hop::Inbound(config) if config.protocol == Protocol::Tcp);
            let station = Rc::new(self.station(*hop, server, per_client, max_connections));
            match (&station.table, bytes) {
                (Table::Outbound(outbound), _) if outbound.fixed.is_some() => {
                    start(accept::run(station, listener, tcp::serve_outbound));
                }
                (_, true) => start(accept::run(station, listener, tcp::serve_inbound)),
                (_, false) => start(accept::run(station, listener, connection::serve)),
            }
        }
    }

    fn station(&self, hop: Hop, server: Arc<State>, per_client: PerClient, max_connections: u32) -> Station {
        let (kind, name, snapshot, acceptor, log) = match &hop {
            Hop::Ingress(c) => (HopKind::Ingress, &c.name, &c.snapshot, &c.acceptor, &c.access),
            Hop::Outbound(c) => (HopKind::Outbound, &c.name, &c.snapshot, &c.acceptor, &c.access),
            Hop::Inbound(c) => (HopKind::Inbound, &c.name, &c.snapshot, &c.acceptor, &c.access),
        };
        let service = match &hop {
            Hop::Ingress(_) => synego_model::access::INGRESS,
            Hop::Outbound(config) => config.caller.as_str(),
            Hop::Inbound(config) => config.service.as_str(),
        };
        let writer = line::writer(service, name).into();
        let (snapshot, acceptor, log) = (snapshot.clone(), acceptor.clone(), log.clone());
        let denials = match &hop {
            Hop::Ingress(config) => config.denials.clone(),
            Hop::Outbound(config) => config.denials.clone(),
            Hop::Inbound(config) => config.denials.clone(),
        };
        let (table, pool) = match hop {
            Hop::Ingress(config) => {
                let upstreams = self.upstreams(kind, &config.name, || (config.connector.clone(), config.calls.clone()));
                let pool = upstreams.pool.clone();
                let (trusted, introduced_by, hosts) = (config.trusted, config.introduced_by, config.hosts);
                let table = Ingress { upstreams, trusted, introduced_by, hosts, known: RefCell::default() };
                (Table::Ingress(table), pool)
            }
            Hop::Outbound(config) => {
                let upstreams = self.upstreams(kind, &config.name, || (config.connector.clone(), config.calls.clone()));
                let pool = upstreams.pool.clone();
                (Table::Outbound(Outbound::new(&config, upstreams)), pool)
            }
            Hop::Inbound(config) => {
                let table = Inbound {
                    account: Account::new(&self.metrics, kind, &config.service, "".into(), None),
                    service: config.service,
                    target: config.target,
                    parking: config.parking,
                    load: config.load,
                    last: RefCell::default(),
                };
                (Table::Inbound(table), inbound::pool(config.connector))
            }
        };
        let cells = server.cells.get(self.index).cloned().unwrap_or_default();
        Station {
            kind,
            writer,
            table,
            snapshot,
            acceptor,
            pool,
            denials,
            ending: Ending::follow(server.clone()),
            server,
            cells,
            metrics: self.metrics.clone(),
            log,
            log_share: self.log_share.clone(),
            rng: RefCell::new(SmallRng::from_os_rng()),
            last_limits: RefCell::default(),
            max_connections,
            per_client,
            worker: self.index,
            nowhere: OnceCell::new(),
        }
    }

    fn upstreams(
        &self,
        kind: HopKind,
        name: &Arc<str>,
        config: impl FnOnce() -> (synego_identity::Connector, crate::CallBook),
    ) -> Rc<Upstreams> {
        let mut known = self.upstreams.borrow_mut();
        known.retain(|_, upstreams| upstreams.strong_count() > 0);
        let key = (kind, name.clone());
        if let Some(upstreams) = known.get(&key).and_then(Weak::upgrade) {
            return upstreams;
        }
        let (connector, book) = config();
        let fresh = Upstreams::new(kind, connector, &book, self.index, self.metrics.clone());
        known.insert(key, Rc::downgrade(&fresh));
        fresh
    }
}

fn start(listening: impl Future<Output = ()> + 'static) {
    tasks::spawn_local("listener", tasks::Kind::Connection, listening);
}
