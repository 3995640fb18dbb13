//! The PROXY header in front of a real Nginx: who is listed is believed.

use synego_model::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::{Edge, config, gateway};
use crate::master::Master;

/// What the master saw of a request behind `header`; empty: nothing was answered.
async fn echoed(edge: &Edge, header: &str) -> String {
    let mut stream = TcpStream::connect(edge.http()).await.expect("connect");
    let ask = format!("{header}GET /api/echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn edge(master: &Master, ranges: &[&str]) -> Edge {
    let mut gateway = gateway();
    gateway.listen[0].proxy_protocol = ranges.iter().map(|range| range.parse::<Network>().expect("a range")).collect();
    Edge::start(config(gateway, &[master.address])).await
}

#[tokio::test]
async fn a_listed_load_balancer_is_believed_and_another_is_not() {
    const LINE: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n";
    let master = Master::start("one").await;
    let listed = edge(&master, &["127.0.0.0/8"]).await;
    let seen = echoed(&listed, LINE).await;
    assert!(seen.contains("x-forwarded-for: 203.0.113.7\n"), "{seen}");
    let refused = echoed(&listed, "").await;
    assert!(!refused.contains("x-forwarded-for"), "it must introduce its clients: {refused}");
    let not_listed = edge(&master, &["10.0.0.0/8"]).await;
    let seen = echoed(&not_listed, LINE).await;
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\n"), "{seen}");
    listed.stop().await;
    not_listed.stop().await;
    master.kill().await;
}
