//! Idle WebSockets stay open while instances come and go.

use std::time::Duration;

use synego_testkit::socket::Socket;
use synego_testkit::{Mesh, wait};

const SOCKETS: usize = 2_000;
const INSTANCES: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_websockets_stay_open_while_a_hundred_instances_join_and_leave() {
    let chat = synego_testkit::program::root().join("examples/shop");
    let mesh = Mesh::of(&format!(
        "mesh: sockets\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: 0, mesh: \"${{SHOP_MESH}}\", admin: 0 \
         }}\nservices:\n  chat:\n    run: node chat/main.js\n    cwd: {}\n    routes: [/ws/chat]\n",
        chat.display()
    ))
    .await;
    let mut sockets = Vec::with_capacity(SOCKETS);
    while sockets.len() < SOCKETS {
        // A room for each, so that they are idle and not busy with telling each other who came.
        let urls: Vec<String> =
            (0..50).map(|number| mesh.socket_url(&format!("/ws/chat?room=r{}", sockets.len() + number))).collect();
        for socket in futures_util::future::join_all(urls.iter().map(|url| Socket::connect(url))).await {
            sockets.push(socket.expect("a WebSocket"));
        }
    }

    // Each instance is a sidecar of its own beside one small process that all of them share.
    let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = target.local_addr().expect("its address").port().to_string();
    let taking = tokio::spawn(async move { while target.accept().await.is_ok() {} });
    let master = format!("127.0.0.1:{}", mesh.variable("SHOP_MESH"));
    for round in 0..INSTANCES / 10 {
        let sidecars: Vec<_> = (0..10)
            .map(|number| {
                let instance = format!("guest-{}", round * 10 + number);
                let token = mesh.home.token().display().to_string();
                let args = [
                    "--service",
                    "guest",
                    "--instance",
                    &instance,
                    "--port",
                    &port,
                    "--master",
                    &master,
                    "--token-file",
                    &token,
                    "--inbound",
                    "0",
                    "--outbound",
                    "0",
                    "--admin",
                    "0",
                ];
                mesh.home.start("synego-sidecar", &args)
            })
            .collect();
        wait::until("all of the round are ready", Duration::from_secs(30), || async {
            let ready = mesh.instances("guest").iter().filter(|item| item["state"] == "ready").count();
            wait::that(ready == 10, format!("{ready} of 10"))
        })
        .await;
        drop(sidecars);
        wait::until("all of the round are gone", Duration::from_secs(30), || async {
            let ready = mesh.instances("guest").iter().filter(|item| item["state"] == "ready").count();
            wait::that(ready == 0, format!("{ready} still there"))
        })
        .await;
    }

    taking.abort();

    // Every socket still carries a message both ways.
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.send("still here").await.unwrap_or_else(|error| panic!("socket {number}: {error}"));
        loop {
            let text = tokio::time::timeout(Duration::from_secs(30), socket.receive()).await.expect("in time");
            if text.unwrap_or_else(|error| panic!("socket {number}: {error}")).contains("still here") {
                break;
            }
        }
    }
}
