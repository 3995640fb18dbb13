//! Several masters: the loss of one.

use ::http::Method;

use crate::edge::{Edge, config, gateway};
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
    crate::edge::eventually("the first master again", || async { get(edge.http(), "/api/name").await.text() == "one" })
        .await;
    edge.stop().await;
    back.kill().await;
    two.kill().await;
}
