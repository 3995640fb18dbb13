//! Several masters: the loss of one.

use std::sync::atomic::Ordering;

use ::http::Method;
use synego_runtime::tasks::{self, Kind};

use crate::edge::{Edge, config, eventually, gateway, spa};
use crate::http::{ask, get};
use crate::master::Master;

#[tokio::test]
async fn no_request_is_lost_with_one_of_two_masters_and_it_is_used_again_when_it_is_back() {
    let (one, two) = (Master::start("one").await, Master::start("two").await);
    let edge = Edge::start(config(gateway(), &[one.address, two.address])).await;
    for _ in 0..20 {
        assert_eq!(get(edge.http(), "/api/name").await.status, 200);
    }
    assert!(one.requests() > 0 && two.requests() > 0, "{} and {}", one.requests(), two.requests());
    let address = one.address;
    one.kill().await;
    for n in 0..200 {
        let method = if n % 2 == 0 { Method::GET } else { Method::POST };
        let answer = ask(edge.http(), method, "/api/name", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "two"), "request {n}");
    }
    let back = Master::start_at("one", address).await;
    eventually("the first master again", || async { get(edge.http(), "/api/name").await.text() == "one" }).await;
    edge.stop().await;
    back.kill().await;
    two.kill().await;
}

/// Sends `count` requests that wait at the masters, kills one master among them, and returns the answers with how many
/// of the requests that master had.
async fn killed_under_way(method: Method, count: u64, has_spa: bool) -> (Vec<(u16, String)>, u64, u64) {
    let dir = tempfile::tempdir().expect("dir");
    let (one, two) = (Master::start("one").await, Master::start("two").await);
    let mut wanted = gateway();
    if has_spa {
        wanted.spa_places = vec![spa("/", dir.path())];
    }
    let edge = Edge::start(config(wanted, &[one.address, two.address])).await;
    let http = edge.http();
    let asking: Vec<_> = (0..count)
        .map(|_| {
            let method = method.clone();
            tasks::spawn("client", Kind::Connection, async move { ask(http, method, "/api/slow", &[]).await })
        })
        .collect();
    let slow = |master: &Master| master.seen.slow.load(Ordering::Relaxed);
    eventually("all under way", || async { slow(&one) + slow(&two) == count }).await;
    let lost = slow(&one);
    assert!(lost > 0 && lost < count, "{lost} of {count}");
    one.kill().await;
    two.seen.release.send_replace(true);
    let mut answers = Vec::new();
    for asked in asking {
        let answer = asked.await.expect("an answer");
        answers.push((answer.status.as_u16(), answer.text()));
    }
    let second = slow(&two);
    edge.stop().await;
    two.kill().await;
    (answers, lost, second)
}

#[tokio::test]
async fn what_may_be_repeated_survives_the_kill_of_its_master() {
    for has_spa in [false, true] {
        let (answers, _, second) = killed_under_way(Method::GET, 20, has_spa).await;
        assert!(answers.iter().all(|answer| *answer == (200, "two".to_owned())), "{answers:?}");
        assert_eq!(second, 20);
    }
}

#[tokio::test]
async fn what_may_not_be_repeated_is_never_sent_twice() {
    let (answers, lost, second) = killed_under_way(Method::POST, 20, false).await;
    let failed = answers.iter().filter(|(status, text)| *status == 502 && text.contains("connect_failed")).count();
    assert_eq!((failed as u64, second), (lost, 20 - lost));
}
