//! The link to the sidecar: what is said on it, what breaks it, what ends it, and the drain that it begins.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use synego_sdk::testing::{LogLevel, Phase, TestMesh};
use synego_sdk::{Code, Ctx, DrainCause, LinkState, Options, Service};
use tokio::sync::Notify;

#[tokio::test]
async fn hello_tells_handlers_routes_and_both_listeners() {
    let service = Service::new("users").version("1.4.2").route("/users").handle("GET /users/{id}", async || ());
    let mesh = TestMesh::new().service(service).start().await.unwrap();
    let hello = mesh.hellos("users").unwrap().remove(0);
    assert_eq!(
        (hello.service.as_str(), hello.instance.as_str(), hello.version.as_str()),
        ("users", "users-1", "1.4.2")
    );
    let handlers = hello.handlers.unwrap();
    assert_eq!((handlers.handler[0].pattern.as_str(), handlers.route), ("GET /users/{id}", vec!["/users".to_owned()]));
    let address = mesh.address("users").unwrap().to_string();
    let listeners: Vec<_> =
        hello.listeners.iter().map(|listener| (listener.protocol().as_str_name(), &listener.address)).collect();
    assert_eq!(listeners, [("PROTOCOL_HTTP1", &address), ("PROTOCOL_GRPC", &address)]);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn no_request_fails_while_the_link_is_broken_and_it_comes_back_with_its_id() {
    let mesh = TestMesh::new().service(Service::new("users").handle("GET /", async || "here")).start().await.unwrap();
    for _ in 0..3 {
        mesh.drop_link("users").await.unwrap();
        assert_eq!(mesh.get("http://users/").await.unwrap().text().await.unwrap(), "here");
    }
    mesh.until_attached("users", 2).await.unwrap();
    let hellos = mesh.hellos("users").unwrap();
    assert_eq!((hellos[0].attachment_id.as_str(), hellos[1].attachment_id.as_str()), ("", "a-1"));
    assert_eq!(hellos[1].state.as_ref().unwrap().phase(), Phase::Ready, "the whole truth is said again");
    mesh.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_moved_is_attached_to_without_delay() {
    let mesh = TestMesh::new().service(Service::new("users")).start().await.unwrap();
    let before = tokio::time::Instant::now();
    mesh.move_link("users").await.unwrap();
    mesh.until_attached("users", 2).await.unwrap();
    // The shortest delay of the back-off is 40 ms of the paused clock.
    assert!(before.elapsed() < Duration::from_millis(40), "{:?}", before.elapsed());
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_final_and_the_service_runs_on() {
    let service = Service::new("users").handle("GET /", async || "here");
    let client = service.client();
    let mesh = TestMesh::new().service(service).start().await.unwrap();
    mesh.refuse("users", Code::AlreadyExists, "another users-1 is attached").await.unwrap();
    let mut link = client.link();
    let refused = async {
        loop {
            if let LinkState::Refused(error) = link.state() {
                return error;
            }
            link.changed().await.unwrap();
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(5), refused).await.unwrap();
    assert_eq!((error.code(), error.message()), (Code::AlreadyExists, "another users-1 is attached"));
    assert_eq!(mesh.get("http://users/").await.unwrap().text().await.unwrap(), "here");
    assert_eq!(mesh.hellos("users").unwrap().len(), 1);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn load_is_reported_with_the_services_own_figures() {
    let mesh = TestMesh::new().service(Service::new("users").load("gpu", || 0.75)).start().await.unwrap();
    let load = mesh.until_load("users", |load| load.sequence >= 2).await.unwrap();
    assert_eq!(load.named["gpu"], 0.75);
    assert!(load.utilization >= 0.75);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn settings_are_answered_with_their_revision() {
    let mesh = TestMesh::new().service(Service::new("users")).start().await.unwrap();
    let revision = mesh.log_level("users", LogLevel::Debug).await.unwrap();
    mesh.until_applied("users", revision).await.unwrap();
    mesh.log_level("users", LogLevel::Info).await.unwrap();
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_says_each_phase_in_order() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let steps: Arc<Mutex<Vec<&str>>> = Arc::default();
    let (entered_in, release_in) = (entered.clone(), release.clone());
    let (at_drain, at_stop) = (steps.clone(), steps.clone());
    let service = Service::new("users")
        .handle("GET /slow", async move || {
            entered_in.notify_one();
            release_in.notified().await;
            "finished"
        })
        .handle("GET /fast", async || "still here")
        .on_drain(async move |drain| {
            assert_eq!(drain.cause, DrainCause::Reload);
            at_drain.lock().unwrap().push("drain");
        })
        .on_stop(async move || at_stop.lock().unwrap().push("stop"));
    let mut mesh = TestMesh::new().service(service).start().await.unwrap();
    let slow = tokio::spawn(mesh.get("http://users/slow").into_future());
    entered.notified().await;
    mesh.drain("users", DrainCause::Reload, Duration::from_secs(60)).await.unwrap();
    mesh.until_phase("users", Phase::Draining).await.unwrap();
    // The sidecar refuses new requests, not the service.
    assert_eq!(mesh.get("http://users/fast").await.unwrap().text().await.unwrap(), "still here");
    assert_eq!(mesh.phases("users").unwrap().last(), Some(&Phase::Draining), "a request is in flight");
    release.notify_one();
    mesh.until_phase("users", Phase::Drained).await.unwrap();
    assert_eq!(slow.await.unwrap().unwrap().text().await.unwrap(), "finished");
    mesh.stop_service("users").await.unwrap();
    assert_eq!(*steps.lock().unwrap(), ["drain", "stop"]);
}

#[tokio::test]
async fn a_stop_without_a_drain_is_said_before_its_hooks_run_and_to_the_end() {
    let (release, hold) = tokio::sync::oneshot::channel::<()>();
    let service = Service::new("users").on_drain(async move |_| hold.await);
    let mesh = TestMesh::new().service(service).start().await.unwrap();
    mesh.begin_stop("users").unwrap();
    mesh.until_phase("users", Phase::Draining).await.unwrap();
    release.send(()).unwrap();
    mesh.until_phase("users", Phase::Drained).await.unwrap();
    let mut phases = mesh.phases("users").unwrap();
    // Whether the link stood before the service was ready is not decided.
    phases.retain(|phase| *phase != Phase::Starting);
    assert_eq!(phases, [Phase::Ready, Phase::Draining, Phase::Drained]);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_streams_by_their_context() {
    let entered = Arc::new(Notify::new());
    let told = entered.clone();
    let stream = async move |ctx: Ctx| {
        told.notify_one();
        ctx.cancelled().await;
        "the end"
    };
    let service = Service::new("users").handle_with("GET /feed", Options::inline().streaming(), stream);
    let mesh = TestMesh::new().service(service).start().await.unwrap();
    let feed = tokio::spawn(mesh.get("http://users/feed").into_future());
    entered.notified().await;
    mesh.drain("users", DrainCause::ScaleDown, Duration::from_secs(60)).await.unwrap();
    assert_eq!(feed.await.unwrap().unwrap().text().await.unwrap(), "the end");
    mesh.until_phase("users", Phase::Drained).await.unwrap();
    mesh.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drained_service_that_nobody_ends_ends_itself_at_the_deadline() {
    let mesh = TestMesh::new().service(Service::new("users")).start().await.unwrap();
    let mut link = mesh.link("users").unwrap();
    mesh.drain("users", DrainCause::Operator, Duration::from_secs(5)).await.unwrap();
    let closed = async {
        while !matches!(link.state(), LinkState::Closed) {
            let _ = link.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_required_sidecar_that_is_missing_ends_the_start_after_10_seconds() {
    let service = Service::new("users").listen(([127, 0, 0, 1], 0).into()).require_sidecar();
    let error = service.start().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}
