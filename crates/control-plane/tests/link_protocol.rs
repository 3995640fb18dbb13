//! The mesh API from both of its ends by hand: what is refused, what a slow or broken other side gets.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use common::{Master, Options, Sidecar, WITHIN, announcement, declaration, name, report, spec, until};
use synego_control_plane::uplink::MasterAddress;
use synego_model::{InstanceState, Policy, Reason, ServiceSpec};
use synego_runtime::lifecycle::Stopper;
use synego_runtime::serve::{BindAddr, Profile, bind, serve};
use synego_runtime::tasks;
use synego_wire::convert::report::{Joining, report_to_wire};
use synego_wire::convert::table::Picture;
use synego_wire::pb::from_master::Is as Down;
use synego_wire::pb::from_sidecar::Is as Up;
use synego_wire::pb::mesh_client::MeshClient;
use synego_wire::{pb, status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

fn up(message: Up) -> pb::FromSidecar {
    pb::FromSidecar { is: Some(message) }
}

fn join(instance: &str) -> pb::Join {
    let joining = Joining {
        protocol_min: 1,
        protocol_max: 1,
        mesh: None,
        version: "test".into(),
        announcement: announcement(instance),
    };
    (&joining).into()
}

async fn link(
    master: SocketAddr,
    first: Up,
) -> Result<(mpsc::Sender<pb::FromSidecar>, Streaming<pb::FromMaster>), Status> {
    let mut client = MeshClient::connect(format!("http://{master}")).await.expect("a connection");
    let (to, outbox) = mpsc::channel(16);
    to.send(up(first)).await.expect("room");
    Ok((to, client.link(ReceiverStream::new(outbox)).await?.into_inner()))
}

async fn next(from: &mut Streaming<pb::FromMaster>) -> Down {
    let message = tokio::time::timeout(WITHIN, from.message()).await.expect("in time").expect("sound");
    message.expect("not the end").is.expect("known")
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_that_cannot_be_taken_say_why() {
    let master = Master::start(declaration([]));
    let broken = pb::Join { node: "No Node".into(), incarnation: String::new(), ..join("users-1@vm1") };
    let table = [
        (Up::Report(pb::Report::default()), Reason::InvalidMessage, "the first message is no join"),
        (
            Up::Join(broken),
            Reason::InvalidMessage,
            "node: `No Node` is not a name: expected a-z, 0-9 and -, first a \
          letter, at most 63; incarnation: has 0 entries, expected 1 to 63",
        ),
        (
            Up::Join(pb::Join { mesh: "market".into(), ..join("users-1@vm1") }),
            Reason::WrongMesh,
            "the sidecar belongs to market, this master to shop",
        ),
        (
            Up::Join(pb::Join { protocol_min: 2, protocol_max: 3, ..join("users-1@vm1") }),
            Reason::ProtocolUnsupported,
            "the sidecar speaks 2 to 3, this master 1 to 1",
        ),
    ];
    for (first, reason, message) in table {
        let refusal = link(master.address, first).await.expect_err("refused");
        assert_eq!(status::reason(&refusal), Some(reason));
        assert_eq!(refusal.code() as i32, reason.code() as i32);
        assert_eq!(refusal.message(), message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_breaks_a_range_ends_the_link_with_the_mistake() {
    let master = Master::start(declaration([]));
    let (to, mut from) = link(master.address, Up::Join(join("users-1@vm1"))).await.expect("linked");
    assert!(matches!(next(&mut from).await, Down::Joined(_)));
    let mut broken = report_to_wire(&report(InstanceState::Ready), 1);
    broken.load.get_or_insert_default().p99_seconds = f64::NAN;
    to.send(up(Up::Report(broken))).await.expect("room");
    let refusal = from.message().await.expect_err("the end");
    assert_eq!(status::reason(&refusal), Some(Reason::InvalidMessage));
    assert_eq!(refusal.message(), "load.p99_seconds: is NaN, expected 0 or more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_reads_slowly_gets_the_newest_state_and_no_backlog() {
    let master = Master::start(declaration([spec("users", &[])]));
    let (to, mut from) = link(master.address, Up::Join(join("orders-1@vm1"))).await.expect("linked");
    to.send(up(Up::Subscribe(pb::Subscribe { active: true, service: vec!["users".into()] }))).await.expect("room");
    assert!(matches!(next(&mut from).await, Down::Joined(_)));
    let Down::Snapshot(first) = next(&mut from).await else { panic!("no snapshot") };
    let mut picture = Picture::try_from(&first).expect("sound");
    // Far more changes than may be under way, while nobody reads.
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    let changes = 400;
    for round in 1..=changes {
        let policy = Arc::new(Policy {
            retries: round % 4,
            idle: std::time::Duration::from_millis(round.into()),
            ..Policy::default()
        });
        master.handle.declare(declaration([ServiceSpec { policy, ..spec("users", &[]) }]));
        until("the change", master.handle.snapshots(), |snapshot| {
            snapshot.service("users").is_some_and(|table| table.policy.idle.as_millis() == u128::from(round))
        })
        .await;
    }
    let newest = std::time::Duration::from_millis(changes.into());
    let mut messages = 0;
    let done = |picture: &Picture| {
        let table = picture.services.get(&name("users")).cloned().flatten();
        table.is_some_and(|table| table.policy.idle == newest)
    };
    while !done(&picture) {
        match next(&mut from).await {
            Down::Delta(delta) => picture = picture.apply(&delta).expect("deltas fit on each other"),
            other => panic!("{other:?}"),
        }
        messages += 1;
    }
    assert!(messages < 200, "{messages} messages for {changes} changes");
    users.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_not_active_gets_nothing() {
    let master = Master::start(declaration([]));
    let (to, mut from) = link(master.address, Up::Join(join("orders-1@vm1"))).await.expect("linked");
    assert!(matches!(next(&mut from).await, Down::Joined(_)));
    let subscribe = |active| up(Up::Subscribe(pb::Subscribe { active, service: vec!["users".into()] }));
    to.send(subscribe(true)).await.expect("room");
    assert!(matches!(next(&mut from).await, Down::Snapshot(_)));
    to.send(subscribe(false)).await.expect("room");
    // Reports are taken in order, so once this one shows the subscription has been taken too.
    to.send(up(Up::Report(report_to_wire(&report(InstanceState::Ready), 1)))).await.expect("room");
    master.until_ready("orders", 1).await;
    let users = Sidecar::start("users-1@vm1", vec![master.tcp()]);
    master.until_ready("users", 1).await;
    to.send(subscribe(true)).await.expect("room");
    let Down::Snapshot(snapshot) = next(&mut from).await else { panic!("a delta came while it was off") };
    assert_eq!(snapshot.service[0].endpoint.len(), 1);
    users.stop().await;
}

/// A master that says what a test tells it to.
struct Scripted {
    say: watch::Receiver<Vec<Down>>,
    heard: mpsc::Sender<Up>,
}

#[tonic::async_trait]
impl pb::mesh_server::Mesh for Scripted {
    type LinkStream = Pin<Box<dyn Stream<Item = Result<pb::FromMaster, Status>> + Send>>;

    async fn link(&self, request: Request<Streaming<pb::FromSidecar>>) -> Result<Response<Self::LinkStream>, Status> {
        let (mut from, heard) = (request.into_inner(), self.heard.clone());
        tasks::spawn("test-heard", tasks::Kind::Connection, async move {
            while let Ok(Some(message)) = from.message().await {
                if let Some(message) = message.is.filter(|message| !matches!(message, Up::Report(_))) {
                    heard.send(message).await.expect("the test listens");
                }
            }
        });
        let joined = Down::Joined(pb::Joined {
            protocol: 1,
            mesh: "shop".into(),
            master: "scripted".into(),
            incarnation: "1".into(),
            report_every_ms: 1000,
            ..pb::Joined::default()
        });
        let mut said = 0;
        let script = tokio_stream::wrappers::WatchStream::new(self.say.clone());
        let script = script.map(move |all| {
            let new: Vec<Down> = all.iter().skip(said).cloned().collect();
            said = all.len();
            tokio_stream::iter(new)
        });
        let script = futures_util::StreamExt::flatten(script);
        let all = tokio_stream::once(joined).chain(script);
        Ok(Response::new(Box::pin(all.map(|message| Ok(pb::FromMaster { is: Some(message) })))))
    }

    async fn enrol(&self, _: Request<pb::EnrolRequest>) -> Result<Response<pb::Certificates>, Status> {
        Err(Status::unavailable("not in the script"))
    }

    async fn renew(&self, _: Request<pb::RenewRequest>) -> Result<Response<pb::Certificates>, Status> {
        Err(Status::unavailable("not in the script"))
    }
}

async fn heard(from: &mut mpsc::Receiver<Up>) -> Up {
    tokio::time::timeout(WITHIN, from.recv()).await.expect("in time").expect("not the end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_update_is_refused_and_the_last_good_one_stays() {
    let say = watch::Sender::new(Vec::new());
    let (tell, mut told) = mpsc::channel(64);
    let scripted = Scripted { say: say.subscribe(), heard: tell };
    let listener = bind(&BindAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))).await.expect("a port");
    let BindAddr::Tcp(address) = listener.address().expect("an address") else { panic!("not tcp") };
    let router = tonic::service::Routes::new(pb::mesh_server::MeshServer::new(scripted)).into_axum_router();
    let (stopper, stop) = Stopper::new();
    let serving =
        tasks::spawn("test-scripted", tasks::Kind::Connection, serve(vec![listener], router, Profile::mesh(), stop));

    let options = Options { uses: vec![name("users")], ..Options::default() };
    let sidecar =
        Sidecar::start_with(announcement("orders-1@vm1"), vec![MasterAddress::Tcp(address.to_string())], options);
    let Up::Join(_) = heard(&mut told).await else { panic!("no join") };
    while !matches!(heard(&mut told).await, Up::Subscribe(subscribe) if subscribe.active && subscribe.service == ["users"])
    {
    }

    let endpoint = pb::Endpoint {
        id: "users-1@vm1".into(),
        address: "127.0.0.1:4000".into(),
        state: pb::InstanceState::Ready.into(),
        utilization: -1.0,
        ..pb::Endpoint::default()
    };
    let table = pb::ServiceTable {
        name: "users".into(),
        known: true,
        protocol: pb::Protocol::Http1.into(),
        policy: Some((&Policy::default()).into()),
        endpoint: vec![endpoint.clone()],
        access: None,
    };
    let good = pb::Snapshot { epoch: 5, service: vec![table.clone()] };
    say.send_modify(|all| all.push(Down::Snapshot(good)));
    let Up::Taken(taken) = heard(&mut told).await else { panic!("no word") };
    assert_eq!((taken.epoch, taken.refused.as_str()), (5, ""));
    sidecar.until_ready("users", 1).await;

    let nowhere = pb::Endpoint { address: "nowhere".into(), ..endpoint.clone() };
    let broken = pb::Snapshot { epoch: 6, service: vec![pb::ServiceTable { endpoint: vec![nowhere], ..table }] };
    say.send_modify(|all| all.push(Down::Snapshot(broken)));
    let Up::Taken(taken) = heard(&mut told).await else { panic!("no word") };
    assert_eq!(
        (taken.epoch, taken.refused.as_str()),
        (6, "service[0].endpoint[0].address: invalid socket address syntax")
    );
    assert_eq!(common::ready(&sidecar.snapshots.borrow(), "users"), ["users-1@vm1"]);

    // A delta about a picture that is not in force is refused too, and everything is asked for anew.
    let delta = pb::Delta { base_epoch: 6, epoch: 7, service: Vec::new() };
    say.send_modify(|all| all.push(Down::Delta(delta)));
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        match heard(&mut told).await {
            Up::Taken(taken) => {
                assert_eq!(taken.refused, "base_epoch: is 6, but 5 is in force");
                seen.insert("refused");
            }
            Up::Subscribe(subscribe) => {
                assert!(subscribe.active);
                seen.insert("asked anew");
            }
            other => panic!("{other:?}"),
        }
    }
    sidecar.stop().await;
    stopper.stop();
    serving.await.expect("no panic");
}

/// Reads the SETTINGS that a server sends first on an HTTP/2 connection.
async fn settings_of(address: SocketAddr) -> BTreeMap<u16, u32> {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("written");
    let mut head = [0_u8; 9];
    stream.read_exact(&mut head).await.expect("a frame");
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut body = vec![0_u8; usize::from(head[2]) + 256 * usize::from(head[1])];
    stream.read_exact(&mut body).await.expect("its body");
    let pair = |pair: &[u8]| {
        (u16::from_be_bytes([pair[0], pair[1]]), u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    body.chunks_exact(6).map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_port_tells_its_bounds_in_its_settings() {
    let master = Master::start(declaration([]));
    let settings = settings_of(master.address).await;
    assert_eq!(settings.get(&3), Some(&250), "streams: {settings:?}");
    assert_eq!(settings.get(&4), Some(&(256 * 1024)), "window: {settings:?}");
    assert_eq!(settings.get(&6), Some(&(64 * 1024)), "headers: {settings:?}");
}
