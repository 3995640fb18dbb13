//! The service protocol over a real Unix socket, with a plain gRPC client in the place of a service.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{WITHIN, until};
use hyper_util::rt::TokioIo;
use synego_control_plane::attach::{
    AttachConfig, AttachHandle, AttachServer, Attachment, DrainAnswer, DrainCause, ListenerProtocol, LogLevel,
    OutputLine, Phase, Started,
};
use synego_model::{InstanceName, InstanceState, MeshName, Reason, ServiceName};
use synego_runtime::lifecycle::Stopper;
use synego_runtime::tasks;
use synego_runtime::telemetry::Metrics;
use synego_wire::pb::from_service::Is as From;
use synego_wire::pb::sidecar_client::SidecarClient;
use synego_wire::pb::to_service::Is as To;
use synego_wire::{pb, status};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// A sidecar's socket in a folder of its own.
struct Socket {
    handle: AttachHandle,
    lines: Arc<Mutex<Vec<OutputLine>>>,
    path: PathBuf,
    folder: tempfile::TempDir,
    stopper: Stopper,
    running: JoinHandle<()>,
}

impl Socket {
    async fn open() -> Self {
        Self::open_for(None).await
    }

    async fn open_for(parent_of: Option<watch::Receiver<Started>>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users-1.sock");
        Self::open_at(path, folder, parent_of).await
    }

    async fn open_at(path: PathBuf, folder: tempfile::TempDir, parent_of: Option<watch::Receiver<Started>>) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let (server, handle) = AttachServer::bind(AttachConfig {
            mesh: MeshName::new("shop").expect("a name"),
            service: ServiceName::new("users").expect("a name"),
            instance: InstanceName::new("users-1").expect("a name"),
            zone: "z1".into(),
            outbound: "http://127.0.0.1:4001".into(),
            socket: path.clone(),
            version: "test".into(),
            report_every: Duration::from_millis(250),
            parent_of,
            log_level: LogLevel::Info,
            output: Some(Arc::new(move |line: OutputLine| {
                let mut lines = sink.lock().expect("no panic");
                let room = lines.len() < 3;
                if room {
                    lines.push(line);
                }
                room
            })),
            metrics: Metrics::new("test"),
        })
        .await
        .expect("a socket");
        let (stopper, stop) = Stopper::new();
        let running = tasks::spawn("test-attach", tasks::Kind::Connection, server.run(stop));
        Self { handle, lines, path, folder, stopper, running }
    }

    async fn client(&self) -> SidecarClient<Channel> {
        client(&self.path).await
    }

    async fn attach(&self, hello: pb::Hello) -> Result<Service, Status> {
        let (to, outbox) = mpsc::channel(16);
        to.send(pb::FromService { is: Some(From::Hello(hello)) }).await.expect("room");
        let mut from = self.client().await.attach(ReceiverStream::new(outbox)).await?.into_inner();
        let first = from.message().await?.and_then(|message| message.is);
        let Some(To::Welcome(welcome)) = first else { panic!("no welcome: {first:?}") };
        Ok(Service { to, from, welcome })
    }

    async fn until(&self, what: &str, holds: impl FnMut(&Attachment) -> bool) -> Attachment {
        until(what, self.handle.attachment(), holds).await
    }

    async fn close(self) {
        self.stopper.stop();
        tokio::time::timeout(WITHIN, self.running).await.expect("it ends in time").expect("without a panic");
        assert!(!self.path.exists(), "the socket stays behind");
        self.folder.close().expect("removed");
    }
}

async fn client(path: &Path) -> SidecarClient<Channel> {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    SidecarClient::new(channel.expect("a connection"))
}

/// The service's end of a stream.
struct Service {
    to: mpsc::Sender<pb::FromService>,
    from: Streaming<pb::ToService>,
    welcome: pb::Welcome,
}

impl Service {
    async fn say(&self, message: From) {
        self.to.send(pb::FromService { is: Some(message) }).await.expect("room");
    }

    async fn say_phase(&self, phase: pb::Phase) {
        self.say(From::State(pb::State { phase: phase.into(), check: Vec::new() })).await;
    }

    async fn hear(&mut self) -> Result<Option<To>, Status> {
        let message = tokio::time::timeout(WITHIN, self.from.message()).await.expect("in time")?;
        Ok(message.and_then(|message| message.is))
    }
}

fn hello() -> pb::Hello {
    pb::Hello {
        protocol_min: 1,
        protocol_max: 1,
        features: vec![pb::Feature::LiveConfig.into(), pb::Feature::InPlaceDrain.into(), 99],
        service: "users".into(),
        version: "1.4.2".into(),
        sdk: "raw/1".into(),
        pid: 1,
        listeners: vec![pb::Listener {
            protocol: pb::Protocol::Http1.into(),
            address: "127.0.0.1:9000".into(),
            keep_alive_ms: 5_000,
        }],
        handlers: Some(pb::Handlers {
            handler: vec![pb::Handler { pattern: "GET /users/{id}".into(), ..pb::Handler::default() }],
            metrics_path: String::new(),
            route: vec!["/users".into()],
        }),
        state: Some(pb::State { phase: pb::Phase::Starting.into(), check: Vec::new() }),
        ..pb::Hello::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_attaches_is_welcomed_and_believed() {
    let socket = Socket::open().await;
    let service = socket.attach(hello()).await.expect("welcome");
    let welcome = &service.welcome;
    assert_eq!((welcome.protocol, welcome.mesh.as_str(), welcome.instance.as_str()), (1, "shop", "users-1"));
    assert_eq!((welcome.zone.as_str(), welcome.outbound.as_str()), ("z1", "http://127.0.0.1:4001"));
    assert_eq!(welcome.report_every_ms, 250);
    assert_eq!(welcome.features, [1, 2], "what both name");
    assert_eq!(
        welcome.settings.as_ref().map(|settings| (settings.revision, settings.log_level())),
        Some((1, pb::LogLevel::Info))
    );
    let said = socket.until("starting", |now| now.said.is_some()).await;
    assert_eq!(said.said.map(|said| said.state), Some(InstanceState::Starting));
    assert_eq!(said.pid, std::process::id(), "the kernel's word, not the service's");
    let facts = said.hello.expect("facts");
    assert_eq!(facts.listeners[0].protocol, ListenerProtocol::Http1);
    assert_eq!(said.handlers.routes[0].to_string(), "/users");
    service.say_phase(pb::Phase::Ready).await;
    let said = socket.until("ready", |now| now.phase == Some(Phase::Ready)).await.said.expect("its word");
    assert_eq!((said.state, said.cause), (InstanceState::Ready, None));
    let check = pb::Check { name: "db".into(), ok: false, required: true, cause: "refused".into() };
    service.say(From::State(pb::State { phase: pb::Phase::Ready.into(), check: vec![check] })).await;
    let said =
        socket.until("unhealthy", |now| now.said.as_ref().is_some_and(|said| said.state == InstanceState::Unhealthy));
    let cause = said.await.said.and_then(|said| said.cause).expect("a cause");
    assert_eq!((cause.reason, cause.message.as_str()), (Reason::SaidByService, "its check db fails: refused"));
    let handlers = pb::Handlers { route: vec!["/people".into()], ..pb::Handlers::default() };
    service.say(From::Handlers(handlers)).await;
    socket
        .until("new handlers", |now| now.handlers.routes.first().is_some_and(|place| place.to_string() == "/people"))
        .await;
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_hello_is_refused_with_all_its_mistakes() {
    let socket = Socket::open().await;
    let wrong = pb::Hello { service: "orders".into(), instance: "users-9".into(), listeners: Vec::new(), ..hello() };
    let refusal = socket.attach(wrong).await.err().expect("refused");
    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert_eq!(status::reason(&refusal), Some(Reason::InvalidMessage));
    assert_eq!(
        refusal.message(),
        "listeners: has 0 entries, expected 1 to 8; service: is `orders`, but this sidecar serves `users`; \
         instance: is `users-9`, but this sidecar serves `users-1`"
    );
    let newer = pb::Hello { protocol_min: 2, protocol_max: 4, ..hello() };
    let refusal = socket.attach(newer).await.err().expect("refused");
    assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
    assert_eq!(status::reason(&refusal), Some(Reason::ProtocolUnsupported));
    assert_eq!(refusal.message(), "the service speaks 2 to 4, this sidecar 1 to 1");
    assert!(socket.attach(pb::Hello { protocol_max: 4, ..hello() }).await.is_ok(), "the highest common one is 1");
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_begin_with_hello_is_refused() {
    let socket = Socket::open().await;
    let (to, outbox) = mpsc::channel(16);
    to.send(pb::FromService { is: Some(From::State(pb::State::default())) }).await.expect("room");
    let refusal = socket.client().await.attach(ReceiverStream::new(outbox)).await.expect_err("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::InvalidMessage));
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_breaks_a_range_ends_the_stream_with_the_mistake() {
    let socket = Socket::open().await;
    let mut service = socket.attach(hello()).await.expect("welcome");
    service.say(From::Load(pb::Load { utilization: f64::NAN, ..pb::Load::default() })).await;
    let refusal = service.hear().await.expect_err("the end");
    assert_eq!(status::reason(&refusal), Some(Reason::InvalidMessage));
    assert_eq!(refusal.message(), "utilization: is NaN, expected 0 to 1");
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_is_the_same_and_its_word_counts_meanwhile() {
    let socket = Socket::open().await;
    let service = socket.attach(hello()).await.expect("welcome");
    service.say_phase(pb::Phase::Ready).await;
    socket.until("ready", |now| now.phase == Some(Phase::Ready)).await;
    let attachment_id = service.welcome.attachment_id.clone();
    drop(service);
    let lost = socket.until("lost", |now| !now.attached).await;
    assert_eq!(lost.said.map(|said| said.state), Some(InstanceState::Ready));
    let again = pb::Hello { attachment_id: attachment_id.clone(), ..hello() };
    let service = socket.attach(again).await.expect("welcome");
    assert_eq!(service.welcome.attachment_id, attachment_id);
    socket.until("back", |now| now.attached && now.phase == Some(Phase::Starting)).await;
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_stream_of_the_same_process_ends_the_first() {
    let socket = Socket::open().await;
    let mut first = socket.attach(hello()).await.expect("welcome");
    let _second = socket.attach(hello()).await.expect("welcome");
    let refusal = first.hear().await.expect_err("the end");
    assert_eq!(status::reason(&refusal), Some(Reason::InstanceTaken));
    socket.until("still attached", |now| now.attached).await;
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_loads_cease_is_degraded_and_well_again_with_the_next() {
    let socket = Socket::open().await;
    let service = socket.attach(hello()).await.expect("welcome");
    service.say_phase(pb::Phase::Ready).await;
    let load = |sequence| From::Load(pb::Load { sequence, utilization: 0.5, ..pb::Load::default() });
    service.say(load(1)).await;
    let now = socket.until("a load", |now| now.load.is_some()).await;
    assert_eq!(now.load.map(|load| load.utilization), Some(0.5));
    let blocked = |now: &Attachment| now.said.as_ref().is_some_and(|said| said.state == InstanceState::Degraded);
    let now = socket.until("blocked", blocked).await;
    assert_eq!(now.said.and_then(|said| said.cause).map(|cause| cause.reason), Some(Reason::LoopBlocked));
    assert!(now.attached, "it is not gone");
    service.say(load(2)).await;
    socket.until("well", |now| now.said.as_ref().is_some_and(|said| said.state == InstanceState::Ready)).await;
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_word_of_the_service() {
    let socket = Socket::open().await;
    assert_eq!(socket.handle.drain(None, DrainCause::Stop, WITHIN).await, DrainAnswer::NotAttached);
    let mut service = socket.attach(hello()).await.expect("welcome");
    let handle = socket.handle.clone();
    let draining = tasks::spawn("test-drain", tasks::Kind::Connection, async move {
        handle.drain(None, DrainCause::Operator, Duration::from_secs(9)).await
    });
    let Some(To::Drain(drain)) = service.hear().await.expect("sound") else { panic!("no drain") };
    assert_eq!((drain.cause(), drain.deadline_ms), (pb::DrainCause::Operator, 9_000));
    service.say_phase(pb::Phase::Draining).await;
    let now = socket.until("draining", |now| now.phase == Some(Phase::Draining)).await;
    assert_eq!(now.said.map(|said| said.state), Some(InstanceState::Draining));
    assert!(!draining.is_finished());
    service.say_phase(pb::Phase::Drained).await;
    assert_eq!(draining.await.expect("no panic"), DrainAnswer::Drained);
    assert_eq!(socket.handle.drain(None, DrainCause::Stop, WITHIN).await, DrainAnswer::Drained, "it is so already");
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_not_understood_or_takes_too_long_says_so() {
    let socket = Socket::open().await;
    let slow = socket.attach(hello()).await.expect("welcome");
    let answer = socket.handle.drain(None, DrainCause::Stop, Duration::from_millis(50)).await;
    assert_eq!(answer, DrainAnswer::NotInTime);
    drop(slow);
    let simple = socket.attach(pb::Hello { features: Vec::new(), ..hello() }).await.expect("welcome");
    assert_eq!(simple.welcome.features, Vec::<i32>::new());
    assert_eq!(socket.handle.drain(None, DrainCause::Stop, WITHIN).await, DrainAnswer::NotUnderstood);
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_level_is_told_with_a_new_revision() {
    let socket = Socket::open().await;
    let mut service = socket.attach(hello()).await.expect("welcome");
    socket.handle.set_log_level(LogLevel::Debug);
    let Some(To::Settings(settings)) = service.hear().await.expect("sound") else { panic!("no settings") };
    assert_eq!((settings.revision, settings.log_level()), (2, pb::LogLevel::Debug));
    let problem = pb::Problem { path: "log_level".into(), message: "never".into() };
    service.say(From::Applied(pb::Applied { revision: 2, problem: vec![problem] })).await;
    service.say_phase(pb::Phase::Ready).await;
    socket.until("the stream goes on", |now| now.phase == Some(Phase::Ready)).await;
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_for_a_successor_is_shown() {
    let socket = Socket::open().await;
    let service = socket.attach(hello()).await.expect("welcome");
    service.say_phase(pb::Phase::Ready).await;
    let wish = pb::Replace { reason: pb::Reason::HandlerStuck.into(), cause: "3 runs are stuck".into() };
    service.say(From::Replace(wish)).await;
    let wish = socket.until("a wish", |now| now.replace.is_some()).await.replace.expect("a wish");
    assert_eq!(
        (wish.number, wish.cause.reason, wish.cause.message.as_str()),
        (1, Reason::ReplaceWanted, "3 runs are stuck")
    );
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_are_taken_and_those_without_room_are_counted() {
    let socket = Socket::open().await;
    let line = |number: u64| pb::LogLine {
        unix_us: number,
        level: pb::LogLevel::Warn.into(),
        message: "x".repeat(5_000),
        request_id: "r1".into(),
        ..pb::LogLine::default()
    };
    let lines = tokio_stream::iter((1..=5).map(line));
    let totals = socket.client().await.log(lines).await.expect("totals").into_inner();
    assert_eq!((totals.received, totals.dropped), (3, 2));
    let taken = socket.lines.lock().expect("no panic").clone();
    assert_eq!((taken[0].level, taken[0].message.len(), taken[0].pid), (LogLevel::Warn, 4096, std::process::id()));
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sidecar_describes_itself_to_anyone_who_may_connect() {
    let socket = Socket::open().await;
    let described = socket.client().await.describe(pb::DescribeRequest {}).await.expect("described").into_inner();
    assert_eq!((described.protocol_min, described.protocol_max), (1, 1));
    assert_eq!((described.service.as_str(), described.instance.as_str()), ("users", "users-1"));
    assert_eq!(described.max_message_bytes, 1024 * 1024);
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_a_mebibyte_is_refused() {
    let socket = Socket::open().await;
    let large = pb::Hello { sdk: "x".repeat(1024 * 1024 + 1), ..hello() };
    let refusal = socket.attach(large).await.err().expect("refused");
    assert_eq!(refusal.code(), tonic::Code::OutOfRange);
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_process_that_was_started_and_its_own_may_attach() {
    let parent_of = watch::Sender::new(BTreeMap::from([(0, std::process::id())]));
    let socket = Socket::open_for(Some(parent_of.subscribe())).await;
    drop(socket.attach(hello()).await.expect("this process is the one"));
    let mut child = std::process::Command::new("sleep").arg("30").spawn().expect("a process");
    parent_of.send_replace(BTreeMap::from([(0, child.id())]));
    let refusal = socket.attach(hello()).await.err().expect("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::Denied));
    assert_eq!(refusal.message(), format!("process {} was not started by this sidecar", std::process::id()));
    child.kill().expect("ended");
    child.wait().expect("collected");
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_generations_are_attached_at_once_told_by_their_processes_and_drained_alone() {
    let own = std::process::id();
    let parent_of = watch::Sender::new(BTreeMap::from([(3, own)]));
    let socket = Socket::open_for(Some(parent_of.subscribe())).await;
    // Both say that they are the first, as programs without an SDK do.
    let mut old = socket.attach(hello()).await.expect("welcome");
    socket.until("the third", |now| now.generation == 3 && now.attached).await;
    parent_of.send_replace(BTreeMap::from([(3, 1), (4, own)]));
    let new = socket.attach(hello()).await.expect("a second one is welcome beside it");
    new.say_phase(pb::Phase::Ready).await;
    let all = until("both", socket.handle.attachments(), |all| {
        all.get(&4).is_some_and(|new| new.phase == Some(Phase::Ready)) && all.get(&3).is_some_and(|old| old.attached)
    });
    assert_eq!(all.await.into_keys().collect::<Vec<_>>(), [3, 4]);
    let handle = socket.handle.clone();
    let draining = tasks::spawn("test-drain", tasks::Kind::Connection, async move {
        handle.drain(Some(3), DrainCause::Reload, Duration::from_secs(9)).await
    });
    let Some(To::Drain(drain)) = old.hear().await.expect("sound") else { panic!("no drain") };
    assert_eq!(drain.cause(), pb::DrainCause::Reload);
    old.say_phase(pb::Phase::Drained).await;
    assert_eq!(draining.await.expect("no panic"), DrainAnswer::Drained);
    let now = socket.until("the fourth", |now| now.generation == 4).await;
    assert_eq!(now.phase, Some(Phase::Ready), "it was not told of the drain");
    socket.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_its_user_alone_and_a_dead_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users-1.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that dies"));
    let socket = Socket::open_at(path.clone(), folder, None).await;
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(socket.handle.socket(), path);
    assert!(socket.attach(hello()).await.is_ok());
    socket.close().await;
}
