//! The admin API over a real connection: looking, watching, applying, reading logs, ending.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Master, Options, Sidecar, WITHIN, announcement, declaration, name, spec, until};
use synego_control_plane::master::{
    ApplyAsked, DownOutcome, DownStep, GatewayStatus, Notice, Planned, PlannedChange, Planner, Refusal,
};
use synego_control_plane::uplink::OutputSource;
use synego_control_plane::{LevelWanted, LinesWanted, LogLevel, OutputLine};
use synego_model::{Diagnostic, Engine, InstanceState, Policy, Reason, ServiceSpec, Severity};
use synego_runtime::lifecycle::Stopper;
use synego_runtime::serve::{BindAddr, Profile, bind, serve};
use synego_runtime::tasks;
use synego_wire::pb::admin_client::AdminClient;
use synego_wire::{pb, status};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// A master's admin API on a Unix socket of its own.
struct Api {
    _folder: tempfile::TempDir,
    client: AdminClient<Channel>,
    channel: Channel,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Api {
    async fn of(master: &Master) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("admin.sock");
        let listener = bind(&BindAddr::Unix(socket.clone())).await.expect("a socket");
        let (stopper, stop) = Stopper::new();
        let serving = serve(vec![listener], master.handle.admin_router(), Profile::admin(), stop);
        let serving = tasks::spawn("test-admin", tasks::Kind::Connection, serving);
        // Diagnostics travel in a header, so that a client that wants them takes long ones.
        let endpoint = Endpoint::from_static("http://admin.synego").http2_max_header_list_size(1024 * 1024);
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connect).await.expect("a connection");
        Self { _folder: folder, client: AdminClient::new(channel.clone()), channel, stopper, serving }
    }

    async fn close(self) {
        drop((self.client, self.channel));
        self.stopper.stop();
        tokio::time::timeout(WITHIN, self.serving).await.expect("it ends in time").expect("without a panic");
    }
}

fn get(services: &[&str]) -> pb::GetRequest {
    pb::GetRequest { service: services.iter().map(ToString::to_string).collect(), every_ms: 100 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_services_instances_routes_and_what_a_person_should_know() {
    let master = Master::start(declaration([spec("users", &["prices"])]));
    let mut api = Api::of(&master).await;
    let mut said = announcement("orders-1@vm2");
    said.routes = Some(vec!["/orders".into()]);
    let orders = Sidecar::start_with(said, vec![master.tcp()], Options::default());
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    master.until_ready("orders", 1).await;
    master.handle.warn(vec![Notice { code: "no_nginx".into(), message: "nginx is not found".into(), service: None }]);
    master.handle.set_gateway(Some(GatewayStatus {
        engine: Engine::Master,
        nginx_version: String::new(),
        listen: vec!["http 127.0.0.1:8080".into()],
        state: InstanceState::Ready,
        cause: None,
        static_places: Vec::new(),
        spa_places: Vec::new(),
        url: "http://localhost:8080".into(),
    }));
    let view = api.client.get(get(&[])).await.expect("a view").into_inner();
    assert_eq!((view.mesh.as_str(), view.revision), ("shop", 1));
    let names: Vec<&str> = view.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["orders", "users"]);
    let users_view = &view.service[1];
    assert_eq!((users_view.state(), users_view.ready, users_view.wanted), (pb::InstanceState::Ready, 1, 1));
    assert!(users_view.declared && !view.service[0].declared);
    assert_eq!(
        (users_view.uses.as_slice(), users_view.version.as_slice()),
        (["prices".to_owned()].as_slice(), ["1.0".to_owned()].as_slice())
    );
    assert_eq!(users_view.instance[0].id, "users-1@vm1");
    assert_eq!(
        view.route.iter().map(|route| format!("{} {}", route.place, route.origin)).collect::<Vec<_>>(),
        ["/orders sidecar"]
    );
    assert_eq!(
        view.node.iter().map(|node| (node.name.as_str(), node.instances)).collect::<Vec<_>>(),
        [("vm1", 1), ("vm2", 1)]
    );
    assert_eq!(view.warning[0].code, "no_nginx");
    assert_eq!(view.gateway.expect("a gateway").engine, "master");
    let one = api.client.get(get(&["users"])).await.expect("a view").into_inner();
    assert_eq!((one.service.len(), one.route.len()), (1, 0));
    for sidecar in [orders, users] {
        sidecar.stop().await;
    }
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_each_change_soon() {
    let master = Master::start(declaration([spec("users", &[])]));
    let mut api = Api::of(&master).await;
    let mut views = api.client.watch(get(&[])).await.expect("views").into_inner();
    let first = views.message().await.expect("sound").expect("not the end");
    assert_eq!(first.service[0].state(), pb::InstanceState::Starting);
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    let ready = async {
        loop {
            let view = views.message().await.expect("sound").expect("not the end");
            if view.service[0].state() == pb::InstanceState::Ready {
                return;
            }
        }
    };
    tokio::time::timeout(WITHIN, ready).await.expect("in time");
    drop(views);
    users.stop().await;
    api.close().await;
}

/// Understands a manifest that is one number of milliseconds: the timeout of `users`.
#[derive(Default)]
struct Milliseconds {
    taken: AtomicUsize,
}

impl Planner for Milliseconds {
    fn plan(&self, asked: &ApplyAsked) -> Planned {
        let text = &asked.files[0].text;
        let Ok(timeout) = text.parse() else {
            let diagnostic = |line| Diagnostic {
                file: asked.files[0].path.clone(),
                line,
                column: 1,
                width: 1,
                severity: Severity::Error,
                code: "wrong_type".into(),
                message: format!("`{text}` is no number"),
                source: text.clone(),
                expected: "a number".into(),
                nearest: None,
                help: "x".repeat(2_000),
            };
            return Planned { diagnostics: (1..=40).map(diagnostic).collect(), ..Planned::default() };
        };
        let policy = Policy { timeout: Duration::from_millis(timeout), ..Policy::default() };
        let change = PlannedChange {
            path: "services.users.policy.timeout".into(),
            action: "change".into(),
            before: "30s".into(),
            after: format!("{timeout}ms"),
            effect: "live".into(),
            touches: "users".into(),
            applies: true,
        };
        let refusal = (timeout == 1).then(|| Refusal { reason: Reason::NotLive, message: "1 is never live".into() });
        let spec = ServiceSpec { policy: Arc::new(policy), ..spec("users", &[]) };
        Planned { changes: vec![change], declaration: Some(declaration([spec])), refusal, ..Planned::default() }
    }

    fn taken(&self, _planned: &Planned) {
        self.taken.fetch_add(1, Ordering::SeqCst);
    }
}

fn apply(text: &str, dry_run: bool, expected_revision: u64) -> pb::ApplyRequest {
    let file = pb::ManifestFile { path: "synego.yaml".into(), text: text.into(), overlay: false };
    pb::ApplyRequest { file: vec![file], dry_run, expected_revision, ..pb::ApplyRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_taken_whole_or_refused_whole() {
    let planner = Arc::new(Milliseconds::default());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let master = Master::start_at(any, declaration([spec("users", &[])]), Arc::clone(&planner) as Arc<dyn Planner>);
    let mut api = Api::of(&master).await;
    let timeout = || {
        let snapshot = Arc::clone(&master.handle.snapshots().borrow());
        snapshot.service("users").map(|table| table.policy.timeout.as_millis())
    };

    let refusal = api.client.apply(apply("soon", false, 0)).await.expect_err("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::ManifestRefused));
    assert_eq!((refusal.code(), refusal.message()), (tonic::Code::InvalidArgument, "40 mistakes in the manifest"));
    let details = status::detail::<pb::ApplyResult>(&refusal).expect("every diagnostic");
    assert_eq!((details.diagnostic.len(), details.diagnostic[39].line), (40, 40));

    let planned = api.client.apply(apply("7000", true, 1)).await.expect("planned").into_inner();
    assert_eq!((planned.applied, planned.revision, planned.change[0].after.as_str()), (false, 1, "7000ms"));
    let refusal = api.client.apply(apply("1", false, 1)).await.expect_err("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::NotLive));
    let refusal = api.client.apply(apply("7000", false, 9)).await.expect_err("refused");
    assert_eq!((refusal.code(), status::reason(&refusal)), (tonic::Code::Aborted, Some(Reason::EpochConflict)));
    let empty = api.client.apply(pb::ApplyRequest::default()).await.expect_err("refused");
    assert_eq!(status::reason(&empty), Some(Reason::InvalidMessage));
    assert_eq!((timeout(), planner.taken.load(Ordering::SeqCst)), (Some(30_000), 0), "nothing changed so far");

    let applied = api.client.apply(apply("7000", false, 1)).await.expect("applied").into_inner();
    assert_eq!((applied.applied, applied.revision), (true, 2));
    assert_eq!((timeout(), planner.taken.load(Ordering::SeqCst)), (Some(7_000), 1), "in force when it is answered");
    assert_eq!(api.client.get(get(&[])).await.expect("a view").into_inner().revision, 2);
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_a_manifest_says_that_nothing_can_be_applied() {
    let master = Master::start(declaration([]));
    let mut api = Api::of(&master).await;
    let refusal = api.client.apply(apply("7000", false, 0)).await.expect_err("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::NotLive));
    api.close().await;
}

/// Output of a process that wrote `recent` and writes what the test tells it to.
struct Output {
    recent: Vec<OutputLine>,
    followers: Mutex<Vec<mpsc::Sender<OutputLine>>>,
    levels: Mutex<Vec<LevelWanted>>,
}

impl Output {
    fn of(instance: usize) -> Arc<Self> {
        let line = |number: usize| line(number * 10 + instance, &format!("line {number} of {instance}"));
        Arc::new(Self { recent: (1..=700).map(line).collect(), followers: Mutex::default(), levels: Mutex::default() })
    }

    fn write(&self, line: &OutputLine) -> usize {
        let followers = self.followers.lock().expect("no panic");
        followers.iter().filter(|follower| follower.try_send(line.clone()).is_ok()).count()
    }
}

fn line(unix_us: usize, message: &str) -> OutputLine {
    OutputLine {
        unix_us: u64::try_from(unix_us).expect("small"),
        level: LogLevel::Info,
        message: message.into(),
        ..OutputLine::default()
    }
}

impl OutputSource for Output {
    fn recent(&self, wanted: LinesWanted) -> futures_util::future::BoxFuture<'static, Vec<OutputLine>> {
        let skip = self.recent.len().saturating_sub(wanted.recent);
        let lines = self.recent.iter().skip(skip).cloned().collect();
        Box::pin(async move { lines })
    }

    fn follow(&self, _: LinesWanted) -> mpsc::Receiver<OutputLine> {
        let (to, lines) = mpsc::channel(64);
        self.followers.lock().expect("no panic").push(to);
        lines
    }

    fn set_level(&self, wanted: LevelWanted) {
        self.levels.lock().expect("no panic").push(wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_all_instances_are_merged_by_time_and_followed() {
    let master = Master::start(declaration([]));
    let mut api = Api::of(&master).await;
    let outputs = [Output::of(1), Output::of(2)];
    let start = |number: usize, output: &Arc<Output>| {
        let options = Options { output: Some(Arc::clone(output) as Arc<dyn OutputSource>), ..Options::default() };
        Sidecar::start_with(announcement(&format!("users-{number}@vm1")), vec![master.tcp()], options)
    };
    let sidecars = [start(1, &outputs[0]), start(2, &outputs[1])];
    let silent = Sidecar::start("orders-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 2).await;
    master.until_ready("orders", 1).await;
    let request =
        pb::LogsRequest { service: vec!["users".into()], recent: 600, follow: true, ..pb::LogsRequest::default() };
    let mut batches = api.client.logs(request).await.expect("lines").into_inner();
    let mut lines = Vec::new();
    loop {
        let batch =
            tokio::time::timeout(WITHIN, batches.message()).await.expect("in time").expect("sound").expect("more");
        assert!(batch.line.len() <= 500);
        lines.extend(batch.line);
        if batch.recent_complete {
            break;
        }
    }
    assert_eq!(lines.len(), 1_200);
    let times: Vec<u64> = lines.iter().map(|line| line.line.as_ref().expect("a line").unix_us).collect();
    assert!(times.is_sorted());
    assert_eq!((lines[0].instance.as_str(), lines[0].service.as_str()), ("users-1@vm1", "users"));

    assert_eq!(outputs[1].write(&line(1_000_000, "new")), 1);
    let batch = tokio::time::timeout(WITHIN, batches.message()).await.expect("in time").expect("sound").expect("more");
    assert_eq!(batch.line[0].line.as_ref().map(|line| line.message.as_str()), Some("new"));
    // An instance that comes later is followed too.
    let late = Output::of(3);
    let third = start(3, &late);
    let followed = async {
        while late.write(&line(2_000_000, "late")) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, followed).await.expect("in time");
    let batch = tokio::time::timeout(WITHIN, batches.message()).await.expect("in time").expect("sound").expect("more");
    assert_eq!(batch.line[0].instance, "users-3@vm1");
    // When the asker leaves, the sidecars stop sending.
    drop(batches);
    let left = async {
        while outputs[0].write(&line(3_000_000, "to no one")) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, left).await.expect("in time");
    for sidecar in sidecars.into_iter().chain([silent, third]) {
        sidecar.stop().await;
    }
    api.close().await;
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WITHIN, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_is_told_to_every_instance_of_a_service_and_to_no_other() {
    let master = Master::start(declaration([]));
    let mut api = Api::of(&master).await;
    let outputs = [Output::of(1), Output::of(2), Output::of(3)];
    let start = |id: &str, output: &Arc<Output>| {
        let options = Options { output: Some(Arc::clone(output) as Arc<dyn OutputSource>), ..Options::default() };
        Sidecar::start_with(announcement(id), vec![master.tcp()], options)
    };
    let sidecars =
        [start("users-1@vm1", &outputs[0]), start("users-2@vm1", &outputs[1]), start("orders-1@vm1", &outputs[2])];
    master.until_ready("users", 2).await;
    master.until_ready("orders", 1).await;
    let ask = |target: &str, level: pb::LogLevel, for_ms| pb::SetLogLevelRequest {
        target: target.into(),
        level: level.into(),
        for_ms,
    };
    let told = api.client.set_log_level(ask("users", pb::LogLevel::Debug, 60_000)).await.expect("told").into_inner();
    assert_eq!(told.told, ["users-1@vm1", "users-2@vm1"]);
    assert!(told.until_unix_ms > synego_runtime::clock::unix_ms());
    let heard = |number: usize| outputs[number].levels.lock().expect("no panic").clone();
    eventually("both were told", || heard(0).len() == 1 && heard(1).len() == 1).await;
    let wanted = LevelWanted { level: LogLevel::Debug, within: Some(Duration::from_secs(60)), mesh: false };
    assert_eq!((heard(0), heard(2)), (vec![wanted], Vec::new()));

    let told = api.client.set_log_level(ask("mesh", pb::LogLevel::Warn, 0)).await.expect("told").into_inner();
    assert_eq!((told.told.len(), told.until_unix_ms), (3, 0));
    eventually("all were told", || heard(2).iter().any(|wanted| wanted.mesh && wanted.within.is_none())).await;

    let refused = api.client.set_log_level(ask("nobody", pb::LogLevel::Warn, 0)).await.expect_err("nobody");
    assert_eq!(refused.code(), tonic::Code::NotFound);
    for (level, for_ms) in [(pb::LogLevel::Unspecified, 0), (pb::LogLevel::Info, 86_400_001)] {
        let refused = api.client.set_log_level(ask("users", level, for_ms)).await.expect_err("refused");
        assert_eq!(status::reason(&refused), Some(Reason::InvalidMessage));
    }
    for sidecar in sidecars {
        sidecar.stop().await;
    }
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_handed_to_the_assembly_and_each_step_is_told() {
    let master = Master::start(declaration([]));
    let mut api = Api::of(&master).await;
    let refusal = api.client.down(pb::DownRequest::default()).await.expect_err("nobody listens");
    assert_eq!(refusal.code(), tonic::Code::Unimplemented);
    let mut downs = master.handle.downs().expect("not taken yet");
    let refusal = api.client.down(pb::DownRequest { within_ms: 600_001, now: false }).await.expect_err("refused");
    assert_eq!(status::reason(&refusal), Some(Reason::InvalidMessage));
    let mut steps = api.client.down(pb::DownRequest::default()).await.expect("steps").into_inner();
    let asked = downs.recv().await.expect("asked");
    assert_eq!((asked.within, asked.now), (Duration::from_secs(25), false));
    let step = |outcome| DownStep { instance: "users-1@vm1".into(), outcome, open_streams: 2, open_requests: 0 };
    for outcome in [DownOutcome::Draining, DownOutcome::CutOff] {
        asked.steps.send(step(outcome)).await.expect("someone listens");
    }
    drop(asked);
    let mut told = Vec::new();
    while let Some(progress) = steps.message().await.expect("sound") {
        told.push((progress.instance, progress.outcome, progress.open_streams));
    }
    let expected = [("users-1@vm1", "draining", 2), ("users-1@vm1", "cut_off", 2)];
    assert_eq!(told, expected.map(|(id, outcome, streams)| (id.to_owned(), outcome.to_owned(), streams)));
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_says_by_grpc_health_that_it_serves_until_its_end_begins() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let master = Master::start(declaration([]));
    let api = Api::of(&master).await;
    let mut client = HealthClient::new(api.channel.clone());
    let asked = HealthCheckRequest { service: String::new() };
    let mut watched = client.watch(asked).await.expect("watched").into_inner();
    let serving = watched.message().await.expect("sound").expect("a word");
    assert_eq!(serving.status(), ServingStatus::Serving);
    master.stop();
    let ending =
        tokio::time::timeout(WITHIN, watched.message()).await.expect("in time").expect("sound").expect("a word");
    assert_eq!(ending.status(), ServingStatus::NotServing);
    drop(watched);
    drop(client);
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ingress_leaves_out_is_shown_on_the_instance() {
    let master = Master::start(declaration([]));
    let mut api = Api::of(&master).await;
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    let cause = synego_model::Cause { reason: Reason::ConnectFailed, message: "refused".into(), since_unix_ms: 7 };
    let ejection = synego_model::EjectionReport { instance: common::id("users-1@vm1"), cause, remaining_ms: 30_000 };
    let calls = synego_model::CallFigures { service: name("users"), requests: 9, failures: 9 };
    master.handle.ingress_report(vec![ejection], vec![calls], Vec::new());
    until("degraded", master.handle.services(), |services| services[0].state == InstanceState::Degraded).await;
    let left_out = async {
        loop {
            let view = api.client.get(get(&["users"])).await.expect("a view").into_inner();
            let instance = view.service.into_iter().flat_map(|service| service.instance).next();
            // The service has been seen degraded before the view told who leaves the instance out.
            if let Some(instance) = instance.filter(|instance| !instance.ejected_by.is_empty()) {
                return instance;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let instance = tokio::time::timeout(WITHIN, left_out).await.expect("shown in time");
    assert_eq!(instance.ejected_by[0].instance, "ingress");
    let cause = instance.cause.as_ref().expect("a cause");
    assert_eq!(cause.reason(), pb::Reason::Ejected);
    assert_eq!(cause.message, "1 of 1 callers leave it out: connect_failed: refused");
    users.stop().await;
    api.close().await;
}
