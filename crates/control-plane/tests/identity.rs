//! Certificates over real connections: enrolment, renewal, rotation, and masters that are killed in the middle of each.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{WITHIN, announcement, declaration, name, ready, report, until};
use synego_control_plane::authority::{AuthorityConfig, AuthorityHandle};
use synego_control_plane::credential::{self, CredentialError, CredentialHandle, KeeperConfig, Source};
use synego_control_plane::master::{
    Audit, LoginBook, MasterConfig, MasterControl, MasterFacts, MasterHandle, NoPlanner,
};
use synego_control_plane::store::RedbStore;
use synego_control_plane::uplink::{MasterAddress, Uplink, UplinkConfig, UplinkHandle};
use synego_identity::{Acceptor, Admit, Connector, Own, SealingKey};
use synego_model::{InstanceState, Limits, Role, Snapshot};
use synego_runtime::lifecycle::{Stop, Stopper};
use synego_runtime::serve::{BindAddr, Profile, bind, serve};
use synego_runtime::telemetry::Metrics;
use synego_runtime::{clock, tasks};
use synego_wire::pb;
use synego_wire::pb::admin_client::AdminClient;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// A life that no test outlasts.
const LONG: Duration = Duration::from_secs(3600);

/// A master with an authority, on a runtime of its own, so that it can be killed like a process.
struct Master {
    handle: Option<MasterHandle>,
    own: Own,
    address: SocketAddr,
    admin: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Master {
    async fn start(folder: &Path, life: Duration) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), folder, life).await
    }

    async fn start_at(address: SocketAddr, folder: &Path, life: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let folder = folder.to_owned();
        let started = async move {
            let listener = synego_identity::listen(address).expect("a port");
            let address = listener.local_addr().expect("an address");
            let authority = AuthorityHandle::open(AuthorityConfig {
                store: Arc::new(RedbStore::open(&folder.join("master/store.redb")).expect("a store")),
                key: SealingKey::load_or_create(&folder.join("master/ca.key")).expect("a key"),
                mesh: "shop".parse().expect("a name"),
                life,
                first_root: None,
            });
            let authority = authority.await.expect("an authority");
            let (_, stop) = Stopper::new();
            let of = KeeperConfig {
                mesh: Some("shop".parse().expect("a name")),
                role: Role::Master,
                holder: "master@vm1".into(),
                source: Source::Authority(authority.clone()),
                file: None,
                token_file: None,
                metrics: Metrics::new("test"),
            };
            let keepers = credential::open(vec![of], None, &stop).await.expect("its own certificate");
            let keeper = keepers.into_iter().next().expect("one");
            let credential = keeper.handle();
            tasks::spawn("test-keeper", tasks::Kind::Connection, keeper.run(stop.clone()));
            let mut declaration = declaration([]);
            declaration.life = life;
            let (control, handle) = MasterControl::new(MasterConfig {
                name: "master@vm1".into(),
                declaration,
                facts: MasterFacts { mesh: Some(address), version: "test".into(), ..MasterFacts::default() },
                planner: Arc::new(NoPlanner),
                logins: LoginBook::default(),
                audit: Audit::default(),
                authority: Some(authority),
                credential: Some(credential.clone()),
                metrics: Metrics::new("test"),
            });
            let door = Acceptor::mutual(credential.own(), Admit::MasterDoor);
            tasks::spawn("test-master", tasks::Kind::Connection, control.run(vec![listener], door, stop.clone()));
            let at = folder.join("admin.sock");
            let admin = bind(&BindAddr::Unix(at.clone())).await.expect("a socket");
            let serving = serve(vec![admin], handle.admin_router(), Profile::admin(), stop);
            tasks::spawn("test-admin", tasks::Kind::Connection, serving);
            (handle, credential.own(), address, at)
        };
        let (handle, own, address, admin) =
            tasks::spawn_on(runtime.handle(), "test-start", tasks::Kind::Connection, started).await.expect("started");
        Self { handle: Some(handle), own, address, admin, runtime: Some(runtime) }
    }

    /// Ends it as `kill -9` does: its sockets and its store close, nothing is said.
    async fn kill(mut self) -> SocketAddr {
        drop(self.handle.take());
        let runtime = self.runtime.take();
        let dropped = tasks::spawn_blocking("test-kill", move || drop(runtime));
        dropped.await.expect("no panic");
        self.address
    }

    fn tcp(&self) -> Vec<MasterAddress> {
        vec![MasterAddress::Tcp(self.address.to_string())]
    }

    async fn admin(&self) -> AdminClient<Channel> {
        let socket = self.admin.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://admin.synego");
        AdminClient::new(endpoint.connect_with_connector(connect).await.expect("the admin API"))
    }

    /// A token in a file of its own.
    async fn token(&self, folder: &Path, service: &str) -> PathBuf {
        let asked = pb::TokenCreateRequest { service: service.into(), ttl_ms: 0 };
        let made = self.admin().await.token_create(asked).await.expect("a token").into_inner();
        let file = folder.join(format!("token-{}", made.view.expect("what is kept of it").id));
        std::fs::write(&file, made.token).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("closed to others");
        file
    }

    async fn ca(&self) -> pb::CaView {
        self.admin().await.ca_status(pb::CaStatusRequest {}).await.expect("a status").into_inner()
    }

    /// Waits until the authority is as `holds` wants it.
    async fn until_ca(&self, what: &str, holds: impl Fn(&pb::CaView) -> bool) -> pb::CaView {
        let begun = clock::now();
        loop {
            let view = self.ca().await;
            if holds(&view) {
                return view;
            }
            assert!(clock::now() - begun < Duration::from_secs(30), "not in time: {what}: {view:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn of(instance: &str, folder: &Path, masters: Vec<MasterAddress>, token_file: Option<PathBuf>) -> KeeperConfig {
    let (service, _) = instance.split_once('-').expect("name-number");
    KeeperConfig {
        mesh: None,
        role: Role::Service(name(service)),
        holder: instance.into(),
        source: Source::Masters(masters),
        file: Some(folder.join(format!("sidecar/identity-{instance}"))),
        token_file,
        metrics: Metrics::new("test"),
    }
}

async fn enrol(config: KeeperConfig) -> Result<credential::Keeper, CredentialError> {
    let (_stopper, stop) = Stopper::new();
    let mut opened = credential::open(vec![config], Some(WITHIN), &stop).await?;
    Ok(opened.remove(0))
}

/// A sidecar with a certificate, its keeper and its link.
struct Sidecar {
    handle: UplinkHandle,
    credential: CredentialHandle,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    _stopper: Stopper,
}

impl Sidecar {
    async fn start(instance: &str, config: KeeperConfig) -> Self {
        let keeper = enrol(config).await.expect("a certificate");
        Self::link(instance, keeper)
    }

    fn link(instance: &str, keeper: credential::Keeper) -> Self {
        let (stopper, stop) = Stopper::new();
        let credential = keeper.handle();
        let masters = keeper.masters();
        tasks::spawn("test-keeper", tasks::Kind::Connection, keeper.run(stop.clone()));
        let (handle, snapshots) = uplink(instance, &credential, masters, stop);
        Self { handle, credential, snapshots, _stopper: stopper }
    }

    async fn linked(&self) {
        let is_linked = |status: &synego_control_plane::uplink::UplinkStatus| status.masters[0].linked.is_some();
        until("a link", self.handle.status(), is_linked).await;
    }

    fn serial(&self) -> String {
        self.credential.report().serial
    }
}

fn uplink(
    instance: &str,
    credential: &CredentialHandle,
    masters: Vec<MasterAddress>,
    stop: Stop,
) -> (UplinkHandle, watch::Receiver<Arc<Snapshot>>) {
    let said = announcement(instance);
    let (publish, snapshots) = watch::channel(Arc::new(Snapshot::empty()));
    let own = credential.clone();
    let (uplink, handle) = Uplink::new(UplinkConfig {
        mesh: None,
        node: said.node.clone(),
        zone: String::new(),
        version: "test".into(),
        incarnation: said.incarnation.clone(),
        masters,
        connector: Connector::mutual(credential.own()),
        credential: Some(credential.clone()),
        snapshot_file: None,
        announcement: watch::Sender::new(said).subscribe(),
        report: Arc::new(move || synego_model::HealthReport {
            identity: Some(own.report()),
            ..report(InstanceState::Ready)
        }),
        uses: vec![name("users")],
        limits: Limits::default(),
        publish: Arc::new(move |snapshot| {
            publish.send_replace(snapshot);
        }),
        commanded: None,
        output: None,
        metrics: Metrics::new("test"),
    });
    tasks::spawn("test-uplink", tasks::Kind::Connection, uplink.run(stop));
    (handle, snapshots)
}

/// Waits until `check` is true.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begun = clock::now();
    while !check() {
        assert!(clock::now() - begun < Duration::from_secs(30), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_by_a_token_and_never_needs_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let token = master.token(folder.path(), "").await;
    let users =
        Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), Some(token.clone()))).await;
    users.linked().await;
    until("itself in the snapshot", users.snapshots.clone(), |snapshot| ready(snapshot, "users").len() == 1).await;
    assert_eq!(users.credential.identity().to_string(), "spiffe://shop/svc/users");
    let report = users.credential.report();
    let left = Duration::from_millis(report.not_after_unix_ms - clock::unix_ms());
    assert!(left <= LONG && left > LONG - Duration::from_secs(60), "{left:?}");
    let renews = Duration::from_millis(report.renew_unix_ms - clock::unix_ms());
    assert!(renews > LONG * 44 / 100 && renews < LONG * 56 / 100, "{renews:?}");

    let file = folder.path().join("sidecar/identity-users-1@vm2");
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    std::fs::remove_file(&token).expect("removed");
    let serial = users.serial();
    drop(users);
    let again = Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), None)).await;
    assert_eq!(again.serial(), serial, "a restart takes what was kept");
    again.linked().await;

    let seen = master.admin().await.identity(pb::IdentityRequest { instance: vec!["users-1".into()] }).await;
    let seen = seen.expect("an answer").into_inner();
    assert_eq!(seen.instance.len(), 1);
    let listed = master.admin().await.token_list(pb::TokenListRequest {}).await.expect("a list").into_inner();
    assert_eq!(listed.token[0].used_by, ["users-1@vm2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_services_of_a_machine_join_by_one_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let token = master.token(folder.path(), "").await;
    let both = ["users-1@vm2", "orders-1@vm2"].map(|one| of(one, folder.path(), master.tcp(), Some(token.clone())));
    let (_stopper, stop) = Stopper::new();
    let keepers = credential::open(both.to_vec(), Some(WITHIN), &stop).await.expect("certificates");
    let ids: Vec<String> = keepers.iter().map(|keeper| keeper.handle().identity().to_string()).collect();
    assert_eq!(ids, ["spiffe://shop/svc/users", "spiffe://shop/svc/orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn join_token_used_twice_or_for_another_service_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let token = master.token(folder.path(), "users").await;
    let other = enrol(of("orders-1@vm2", folder.path(), master.tcp(), Some(token.clone()))).await;
    let other = other.err().expect("refused").to_string();
    assert!(other.contains("is for the service users, not for orders"), "{other}");
    enrol(of("users-1@vm2", folder.path(), master.tcp(), Some(token.clone()))).await.expect("the first use");
    let twice = enrol(of("users-2@vm3", folder.path(), master.tcp(), Some(token.clone()))).await;
    let twice = twice.err().expect("refused").to_string();
    assert!(twice.contains("has been used already, by users-1@vm2"), "{twice}");
    assert!(twice.contains("synego token create"), "{twice}");
    let secret = std::fs::read_to_string(&token).expect("readable");
    assert!(!twice.contains(&secret) && !other.contains(&secret));
    let none = enrol(of("users-3@vm3", folder.path(), master.tcp(), None)).await.err().expect("no token").to_string();
    assert!(none.contains("--token-file"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_with_another_root_gets_no_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let (master, other) = (Master::start(&ours, LONG).await, Master::start(&theirs, LONG).await);
    let token = master.token(folder.path(), "").await;
    let (_stopper, stop) = Stopper::new();
    let config = of("users-1@vm2", folder.path(), other.tcp(), Some(token));
    let opened = credential::open(vec![config], Some(Duration::from_secs(2)), &stop).await;
    assert!(matches!(opened, Err(CredentialError::NotInTime { .. })), "it keeps the token for its own mesh");
    let listed = other.admin().await.token_list(pb::TokenListRequest {}).await.expect("a list").into_inner();
    assert!(listed.token.is_empty());
    assert!(
        !master.admin().await.token_list(pb::TokenListRequest {}).await.expect("a list").into_inner().token[0]
            .used_by
            .iter()
            .any(|by| by.contains("users"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_as_another_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let token = master.token(folder.path(), "").await;
    let keeper = enrol(of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await.expect("a certificate");
    let orders = Sidecar::link("orders-1@vm2", keeper);
    let refused = |status: &synego_control_plane::uplink::UplinkStatus| status.masters[0].last_error.is_some();
    let status = until("a refusal", orders.handle.status(), refused).await;
    let cause = status.masters[0].last_error.clone().expect("a cause");
    assert!(cause.contains("spiffe://shop/svc/users, not of the service orders"), "{cause}");
    assert!(status.masters[0].linked.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_before_they_end_and_the_link_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), Duration::from_secs(4)).await;
    let token = master.token(folder.path(), "").await;
    let users = Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await;
    users.linked().await;
    let since = users.handle.status().borrow().masters[0].linked.clone().expect("linked").since_unix_ms;
    let masters = master.own.current().expect("a certificate").serial;
    let mut serials = vec![users.serial()];
    while serials.len() < 4 {
        let last = serials.last().expect("one").clone();
        eventually("a renewal", || users.serial() != last).await;
        let left = users.credential.report().not_after_unix_ms.saturating_sub(clock::unix_ms());
        assert!(left > 2_000, "renewed with {left} ms left");
        serials.push(users.serial());
    }
    let now = users.handle.status().borrow().masters[0].linked.clone().expect("linked").since_unix_ms;
    assert_eq!(now, since, "the link was not made anew");
    assert_ne!(master.own.current().expect("a certificate").serial, masters, "the master's own too");
    assert!(users.credential.report().refused.is_empty() && master.own.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_was_away_for_a_while_finds_renewals_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let life = Duration::from_secs(8);
    let master = Master::start(folder.path(), life).await;
    let token = master.token(folder.path(), "").await;
    let users = Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await;
    users.linked().await;
    let address = master.kill().await;
    eventually("a renewal that fails", || !users.credential.report().renewal_error.is_empty()).await;
    let before = users.serial();
    let master = Master::start_at(address, folder.path(), life).await;
    eventually("a renewal", || users.serial() != before).await;
    assert_eq!(users.credential.report().renewal_error, "");
    users.linked().await;
    drop(master);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_was_off_for_longer_than_its_certificate_lived_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), Duration::from_secs(1)).await;
    let token = master.token(folder.path(), "").await;
    let config = of("users-1@vm2", folder.path(), master.tcp(), Some(token));
    let ends = enrol(config).await.expect("a certificate").handle().report().not_after_unix_ms;
    eventually("its end", || clock::unix_ms() > ends).await;
    let ended = enrol(of("users-1@vm2", folder.path(), master.tcp(), None)).await.err().expect("it ended").to_string();
    assert!(ended.contains("ended") && ended.contains("synego token create"), "{ended}");
    let token = master.token(folder.path(), "").await;
    enrol(of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await.expect("a new token helps");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_master_in_the_middle_of_an_issue_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut master = Master::start(folder.path(), LONG).await;
    for round in 0..12_u64 {
        let instance = format!("users-{round}@vm2");
        let token = master.token(folder.path(), "").await;
        let config = of(&instance, folder.path(), master.tcp(), Some(token));
        let joining = tasks::spawn("test-join", tasks::Kind::Connection, async move {
            let (_stopper, stop) = Stopper::new();
            credential::open(vec![config], Some(Duration::from_secs(20)), &stop).await.map(|keepers| keepers.len())
        });
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        let address = master.kill().await;
        master = Master::start_at(address, folder.path(), LONG).await;
        let joined = joining.await.expect("no panic");
        assert_eq!(joined.map_err(|error| error.to_string()), Ok(1), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_master_in_the_middle_of_a_renewal_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let life = Duration::from_secs(3);
    let mut master = Master::start(folder.path(), life).await;
    let token = master.token(folder.path(), "").await;
    let users = Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await;
    let mut serials = std::collections::BTreeSet::new();
    for round in 0..10_u64 {
        // At another moment of its renewal each time: that is due about each 1.5 s.
        let until = clock::now() + Duration::from_millis(700 + round * 40);
        while clock::now() < until {
            assert!(users.credential.report().not_after_unix_ms > clock::unix_ms(), "in round {round}");
            serials.insert(users.serial());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let address = master.kill().await;
        master = Master::start_at(address, folder.path(), life).await;
    }
    users.linked().await;
    assert!(serials.len() >= 4, "renewals took place: {serials:?}");
    assert!(users.credential.report().refused.iter().all(|refused| refused.cause != "own_expired"));
}

/// Two sidecars of a mesh, linked.
async fn two(folder: &Path, master: &Master) -> [Sidecar; 2] {
    let token = master.token(folder, "").await;
    let users = Sidecar::start("users-1@vm2", of("users-1@vm2", folder, master.tcp(), Some(token))).await;
    let token = master.token(folder, "").await;
    let orders = Sidecar::start("orders-1@vm2", of("orders-1@vm2", folder, master.tcp(), Some(token))).await;
    users.linked().await;
    orders.linked().await;
    [users, orders]
}

fn issuing(view: &pb::CaView) -> String {
    view.root.iter().find(|root| root.issues).expect("one issues").fingerprint.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_rotates_fast_without_a_failed_handshake() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let both = two(folder.path(), &master).await;
    let old = issuing(&master.ca().await);
    let begun = master.admin().await.ca_rotate(pb::CaRotateRequest { fast: true, abort: false }).await;
    assert_eq!(begun.expect("begun").into_inner().root.len(), 2);
    let done = master.until_ca("the end of the rotation", |view| view.step == "idle").await;
    assert_eq!(done.root.len(), 1);
    assert_ne!(issuing(&done), old);
    for sidecar in &both {
        eventually("the old root is forgotten", || sidecar.credential.report().trusted == [issuing(&done)]).await;
        let report = sidecar.credential.report();
        assert_eq!((report.issuer.as_str(), report.refused.len()), (issuing(&done).as_str(), 0), "{report:?}");
        sidecar.linked().await;
    }
    assert!(master.own.refusals().is_empty());
    let token = master.token(folder.path(), "").await;
    let late = Sidecar::start("users-2@vm3", of("users-2@vm3", folder.path(), master.tcp(), Some(token))).await;
    late.linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_rotation_ends_within_the_lives_of_the_old_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), Duration::from_secs(4)).await;
    let both = two(folder.path(), &master).await;
    master.admin().await.ca_rotate(pb::CaRotateRequest { fast: false, abort: false }).await.expect("begun");
    let done = master.until_ca("the end of the rotation", |view| view.step == "idle").await;
    assert_eq!(done.root.len(), 1);
    for sidecar in &both {
        assert_eq!(sidecar.credential.report().issuer, issuing(&done));
        assert!(sidecar.credential.report().refused.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_interrupted_at_any_step_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut master = Master::start(folder.path(), LONG).await;
    let both = two(folder.path(), &master).await;
    let mut before = issuing(&master.ca().await);
    for pause in [0_u64, 300, 1_200, 2_500] {
        master.admin().await.ca_rotate(pb::CaRotateRequest { fast: true, abort: false }).await.expect("begun");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let address = master.kill().await;
        master = Master::start_at(address, folder.path(), LONG).await;
        let done = master.until_ca("the end of the rotation", |view| view.step == "idle").await;
        assert_eq!(done.root.len(), 1, "after {pause} ms");
        assert_ne!(issuing(&done), before, "after {pause} ms");
        before = issuing(&done);
        for sidecar in &both {
            eventually("a link with the new root", || {
                let report = sidecar.credential.report();
                report.issuer == before && report.trusted == [before.clone()]
            })
            .await;
            sidecar.linked().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_for_who_is_away_and_can_be_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let master = Master::start(folder.path(), LONG).await;
    let token = master.token(folder.path(), "").await;
    let away = enrol(of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await.expect("a certificate");
    let old = issuing(&master.ca().await);
    master.admin().await.ca_rotate(pb::CaRotateRequest { fast: true, abort: false }).await.expect("begun");
    let waits = master.until_ca("someone is waited for", |view| view.done == 1).await;
    assert_eq!((waits.step.as_str(), waits.step_number, waits.steps), ("trust", 2, 5));
    assert_eq!((waits.waiting[0].holder.as_str(), waits.waiting[0].cause.as_str()), ("users-1@vm2", "is not linked"));
    let again = master.admin().await.ca_rotate(pb::CaRotateRequest { fast: false, abort: false }).await;
    assert!(again.expect_err("one goes on").message().contains("goes on already"));
    let address = master.kill().await;
    let master = Master::start_at(address, folder.path(), LONG).await;
    assert_eq!(master.ca().await.step, "trust", "it is still written down");
    master.admin().await.ca_rotate(pb::CaRotateRequest { fast: false, abort: true }).await.expect("given up");
    let back = master.ca().await;
    assert_eq!((back.step.as_str(), back.root.len(), issuing(&back)), ("idle", 1, old));
    Sidecar::link("users-1@vm2", away).linked().await;
    let nothing = master.admin().await.ca_rotate(pb::CaRotateRequest { fast: false, abort: true }).await;
    assert!(nothing.expect_err("there is none").message().contains("no rotation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_exported_and_another_master_goes_on_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = folder.path().join("first");
    let master = Master::start(&first, LONG).await;
    let token = master.token(folder.path(), "").await;
    let users = Sidecar::start("users-1@vm2", of("users-1@vm2", folder.path(), master.tcp(), Some(token))).await;
    users.linked().await;
    let pem = master.admin().await.ca_export(pb::CaExportRequest {}).await.expect("exported").into_inner();
    let old = issuing(&master.ca().await);
    let address = master.kill().await;
    // Its disk is lost: another one begins with nothing but the backup.
    let master = Master::start_at(address, &folder.path().join("second"), LONG).await;
    assert_ne!(issuing(&master.ca().await), old);
    let broken = pb::CaPem { key: "no key".into(), ..pem.clone() };
    assert!(master.admin().await.ca_import(broken).await.is_err());
    let taken = master.admin().await.ca_import(pem).await.expect("imported").into_inner();
    assert_eq!((taken.step.as_str(), taken.root.len(), issuing(&taken)), ("idle", 1, old));
    users.linked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_sealed_with_another_key_stays_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    Master::start(folder.path(), LONG).await.kill().await;
    let open = |key: SealingKey, mesh: &str| AuthorityConfig {
        store: Arc::new(RedbStore::open(&folder.path().join("master/store.redb")).expect("a store")),
        key,
        mesh: mesh.parse().expect("a name"),
        life: LONG,
        first_root: None,
    };
    let other = AuthorityHandle::open(open(SealingKey::generate().expect("a key"), "shop")).await;
    assert!(other.is_err(), "nothing is made anew over what cannot be opened");
    let key = SealingKey::load(&folder.path().join("master/ca.key")).expect("its key");
    let other = AuthorityHandle::open(open(key.clone(), "blog")).await;
    assert!(other.err().expect("another mesh").to_string().contains("belongs to the mesh shop"));
    AuthorityHandle::open(open(key, "shop")).await.expect("it opens with its own");
}
