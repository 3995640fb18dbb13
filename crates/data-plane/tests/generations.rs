//! One generation of a service's process takes over from another, and requests wait for the only one there is.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::{Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use support::*;
use synego_data_plane::{InboundTarget, Tenure};
use synego_model::process::ServiceAddress;
use synego_model::{Park, Policy, Protocol};
use synego_runtime::{clock, tasks};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Puts a service with a tenure of its own behind an instance.
fn serves(instance: &Instance, service: &Service) -> Tenure {
    let tenure = Tenure::new(2);
    change(instance, |target| {
        target.http = Some(ServiceAddress::Tcp(service.address));
        target.tenure = tenure.clone();
    });
    tenure
}

fn change(instance: &Instance, change: impl FnOnce(&mut InboundTarget)) {
    let mut target = (**instance.target.load()).clone();
    change(&mut target);
    instance.target.store(Arc::new(target));
    instance.parking.turn();
}

/// Answers after so long with a word.
async fn slow(word: &'static str, after: Duration) -> Service {
    Service::http(move |_| {
        Box::pin(async move {
            tokio::time::sleep(after).await;
            Response::new(full(word))
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_open_ends_on_the_former_process_and_what_is_new_goes_to_its_successor() {
    let mesh = Mesh::start();
    let old = slow("old", Duration::from_millis(300)).await;
    let instance = mesh.instance("users", old.clone()).await;
    let tenure = serves(&instance, &old);
    let ingress = mesh.route("/", "users").ingress().local_addr();
    let open = tasks::spawn("test-open", tasks::Kind::Connection, async move { get(ingress, "users", "/").await });
    until("it is open", || tenure.in_flight() == 1).await;
    let new = Service::says("new").await;
    let next = serves(&instance, &new);
    assert_eq!(get(ingress, "users", "/").await.body, "new");
    assert!(!tenure.idle(Duration::ZERO).await && next.idle(Duration::ZERO).await);
    assert_eq!(open.await.expect("the task").body, "old");
    assert!(tenure.idle(Duration::from_secs(1)).await);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_leave_with_a_close_of_1001_and_event_streams_after_an_event() {
    let mesh = Mesh::start();
    let chat = Service::each(|stream, _| async move {
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                return;
            }
        }
    })
    .await;
    let instance = mesh.instance("chat", chat.clone()).await;
    let tenure = serves(&instance, &chat);
    let ingress = mesh.route("/", "chat").ingress();
    let stream = TcpStream::connect(ingress.local_addr()).await.expect("a connection");
    let mut socket = tokio_tungstenite::client_async("ws://chat/ws", stream).await.expect("a WebSocket").0;
    socket.send(Message::text("hello")).await.expect("sent");
    assert_eq!(socket.next().await.expect("an echo").expect("sound").to_string(), "hello");
    until("it is counted", || tenure.open_streams() == 1).await;
    tenure.leave(Duration::from_secs(5));
    let last = socket.next().await.expect("a close").expect("sound");
    let Message::Close(Some(close)) = last else { panic!("{last:?}") };
    assert_eq!(close.code, CloseCode::Away);
    assert!(tenure.idle(Duration::from_secs(3)).await, "{tenure:?}");

    let events = Service::http(|_| {
        Box::pin(async {
            let ticks = futures_util::stream::unfold(0, |tick| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let event = bytes::Bytes::from(format!("data: {tick}\n\n"));
                Some((Ok::<_, std::convert::Infallible>(Frame::data(event)), tick + 1))
            });
            let body = StreamBody::new(ticks).map_err(|never| match never {}).boxed_unsync();
            let mut answer = Response::new(body);
            answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/event-stream"));
            answer
        })
    })
    .await;
    let tenure = serves(&instance, &events);
    let address = ingress.local_addr();
    let open =
        tasks::spawn("test-events", tasks::Kind::Connection, async move { get(address, "chat", "/events").await });
    until("it is counted", || tenure.open_streams() == 1).await;
    tenure.leave(Duration::from_secs(5));
    let got = tokio::time::timeout(Duration::from_secs(4), open).await.expect("it ends in time").expect("the task");
    assert!(got.body.ends_with("\n\n"), "{:?}", got.body);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_in_number_and_time_as_the_policy_says() {
    let mesh = Mesh::start();
    let park = Park { within: Duration::from_millis(400), max: 3 };
    let policy = Policy { retries: 0, park: Some(park), ..Policy::default() };
    mesh.service("users", Protocol::Http, policy);
    let instance = mesh.instance("users", Service::says("well").await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    change(&instance, |target| (target.ready, target.parks) = (false, true));
    let waiting: Vec<_> = (0..3)
        .map(|_| tasks::spawn("test-waiting", tasks::Kind::Connection, async move { get(ingress, "users", "/").await }))
        .collect();
    until("three wait", || instance.parking.waiting() == 3).await;
    let fourth = get(ingress, "users", "/").await;
    assert_eq!((fourth.status, fourth.header("x-synego-reason")), (503, "overloaded"));
    change(&instance, |target| (target.ready, target.parks) = (true, false));
    for one in waiting {
        assert_eq!(one.await.expect("the task").body, "well");
    }
    assert_eq!((instance.parking.waiting(), instance.service.requests()), (0, 3));

    change(&instance, |target| (target.ready, target.parks) = (false, true));
    let began = clock::now();
    let post = request(Method::POST, "users", "/").body(full("once")).expect("a request");
    let late = send(ingress, post).await;
    assert_eq!((late.status, late.header("x-synego-reason")), (503, "starting"));
    assert!(!late.header("retry-after").is_empty());
    let waited = clock::now().duration_since(began);
    assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(instance.service.requests(), 3, "nothing of it was processed");
    mesh.end().await;
}
