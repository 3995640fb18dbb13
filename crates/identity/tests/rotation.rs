//! Certificates and roots roll while doors stay open and connections go on.

mod support;

use std::time::Duration;

use support::*;
use synego_identity::{Admit, Authority, Cause, ConnectError, Credential, Own, PrivateKey};

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (own(&authority, service("users")), own(&authority, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    let mut changes = users.changed();
    changes.borrow_and_update();
    let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
    let first = users.current().expect("a certificate");
    users.install(&credential(&authority, &service("users"))).expect("installed");
    assert!(changes.has_changed().expect("it lives"));
    let second = users.current().expect("a certificate");
    assert!(first.serial != second.serial && first.issuer == second.issuer && second.issuer.is_some());
    pass(&mut out, &mut within, "the old connection goes on").await;
    let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
    pass(&mut within, &mut out, "and a new one is made").await;
}

#[tokio::test]
async fn the_root_rolls_without_a_failed_handshake() {
    let (one, two) =
        (Authority::create(mesh(), now()).expect("one"), Authority::create(mesh(), now()).expect("another"));
    let der = |authority: &Authority| authority.root().certificate_der.clone();
    let (users, orders) = (own(&one, service("users")), own(&one, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    let (mut first_out, (mut first_in, _)) = pair(&orders, &door, role("users")).await;
    let all = [&users, &orders];
    // add
    for part in all {
        part.trust(&[der(&one), der(&two)]).expect("trusted");
        let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
        pass(&mut out, &mut within, "added").await;
    }
    // issue
    for part in all {
        part.install(&credential(&two, part.identity())).expect("installed");
        assert_eq!(part.current().and_then(|shown| shown.issuer), Some(two.root().fingerprint));
        let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
        pass(&mut within, &mut out, "issued").await;
    }
    // remove
    let late = own(&one, service("billing"));
    late.trust(&[der(&one), der(&two)]).expect("trusted");
    for part in all {
        part.trust(&[der(&two)]).expect("trusted");
        let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
        pass(&mut out, &mut within, "removed").await;
    }
    pass(&mut first_out, &mut first_in, "the oldest connection goes on").await;
    assert_eq!((users.refusals(), orders.refusals()), (Vec::new(), Vec::new()));
    // Who stayed behind is refused.
    let (_, refusal) = tokio::join!(connect(&late, door.address, role("users")), door.refusal());
    assert_eq!(refusal.0, "unknown_authority");
}

#[tokio::test]
async fn who_has_let_its_certificate_expire_neither_calls_nor_answers() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let key = PrivateKey::generate().expect("a key");
    let request = key.request().expect("a request");
    let long_ago = now() - 3 * DAY;
    let issued = authority.issue(&request, &service("users"), DAY, long_ago).expect("issued");
    let users = Own::new(service("users"));
    users.install(&Credential { chain_der: vec![issued.certificate_der], key }).expect("installed");
    users.trust(&[authority.root().certificate_der.clone()]).expect("trusted");
    let orders = own(&authority, service("orders"));
    let door = Door::of(&users, Admit::Services).await;
    let (made, refusal) = tokio::join!(connect(&orders, door.address, role("users")), door.refusal());
    assert!(made.is_err());
    assert_eq!(refusal.0, "own_expired");
    let door = Door::of(&orders, Admit::Services).await;
    let made = connect(&users, door.address, role("orders")).await;
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::OwnExpired), "{made:?}");
    // It goes on once it was renewed.
    users.install(&credential(&authority, &service("users"))).expect("installed");
    let (mut out, (mut within, _)) = pair(&users, &door, role("orders")).await;
    pass(&mut out, &mut within, "renewed").await;
}

#[tokio::test]
async fn a_certificate_whose_life_ends_leaves_its_connections_open() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (Own::new(service("users")), own(&authority, service("orders")));
    let key = PrivateKey::generate().expect("a key");
    let request = key.request().expect("a request");
    let issued = authority.issue(&request, &service("users"), Duration::from_secs(2), now()).expect("issued");
    let ends = issued.not_after;
    users.install(&Credential { chain_der: vec![issued.certificate_der], key }).expect("installed");
    users.trust(&[authority.root().certificate_der.clone()]).expect("trusted");
    let door = Door::of(&users, Admit::Services).await;
    let (mut out, (mut within, _)) = pair(&orders, &door, role("users")).await;
    while now() <= ends + Duration::from_secs(1) {
        pass(&mut out, &mut within, "on and on").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (made, refusal) = tokio::join!(connect(&orders, door.address, role("users")), door.refusal());
    assert!(made.is_err() && refusal.0 == "own_expired");
    pass(&mut within, &mut out, "and on").await;
}
