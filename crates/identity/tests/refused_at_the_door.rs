//! OpenSSL knocks: what a part of the mesh refuses, and why it says it does.

mod support;

use support::*;
use synego_identity::{Admit, Authority, Cause, Own, Side};
use synego_model::{Identity, MeshName, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the inbound of `users` says to `openssl s_client` with these arguments.
async fn knock(shop: &Shop, arguments: &[&str]) -> (&'static str, String, Own) {
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    let _client = s_client(door.address, arguments);
    let (cause, text) = door.refusal().await;
    (cause, text, users)
}

/// The same with a certificate that OpenSSL made under the authority of the mesh.
async fn knock_with(made: Made<'_>) -> (&'static str, String) {
    let shop = Shop::open();
    let (certificate, key) = shop.made("bad", made).await;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text, _) = knock(&shop, &["-cert", &certificate, "-key", &key]).await;
    (cause, text)
}

#[tokio::test]
async fn a_good_certificate_is_taken_and_http2_agreed() {
    let shop = Shop::open();
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    let (certificate, key) = shop.issued("orders", &service("orders"));
    let (certificate, key, ca) = (certificate.display().to_string(), key.display().to_string(), shop.path("ca.pem"));
    let ca = ca.display().to_string();
    let arguments =
        ["-cert", &certificate, "-key", &key, "-CAfile", &ca, "-verify_return_error", "-alpn", "h2,http/1.1"];
    let mut client = s_client(door.address, &arguments);
    let (mut stream, peer) = door.next().await.expect("taken");
    assert_eq!((peer.id, stream.agreed()), (Some(service("orders")), Some(synego_identity::Alpn::Http2)));
    client.stdin.as_mut().expect("its input").write_all(b"hello\n").await.expect("written");
    let mut heard = [0; 6];
    stream.read_exact(&mut heard).await.expect("read");
    assert_eq!(&heard, b"hello\n");
    stream.write_all(b"the answer of users\n").await.expect("written");
    stream.shutdown().await.expect("closed");
    let mut said = String::new();
    client.stdout.as_mut().expect("its output").read_to_string(&mut said).await.expect("read");
    for part in ["the answer of users", "TLSv1.3", "Verify return code: 0 (ok)", "ALPN protocol: h2"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    // No ticket: the next connection proves itself as this one did.
    assert!(!said.contains("New Session Ticket"), "{said}");
    assert_eq!(users.refusals(), []);
    assert_eq!(users.peers().first().map(|peer| peer.id.clone()), Some(service("orders")));
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let shop = Shop::open();
    let (cause, text, users) = knock(&shop, &[]).await;
    assert_eq!(cause, "no_certificate", "{text}");
    assert_eq!(users.refusals(), [(Side::Accepting, Cause::NoCertificate, 1)]);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (cause, text) = knock_with(Made { to: "20210101000000Z", ..Made::default() }).await;
    assert_eq!(cause, "expired", "{text}");
    for part in ["svc/orders", "a service or a master of mesh shop", "synego identity"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_refused() {
    let (cause, text) = knock_with(Made { from: "20980101000000Z", ..Made::default() }).await;
    assert_eq!(cause, "not_yet_valid", "{text}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let shop = Shop::open();
    // It has the same name: only its key tells it from ours.
    let other = Shop::open();
    let (certificate, key) = other.issued("orders", &service("orders"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text, _) = knock(&shop, &["-cert", &certificate, "-key", &key]).await;
    assert_eq!(cause, "unknown_authority", "{text}");
}

#[tokio::test]
async fn a_certificate_with_two_uri_names_is_refused() {
    let names = "URI:spiffe://shop/svc/orders,URI:spiffe://shop/svc/users";
    let (cause, text) = knock_with(Made { names, ..Made::default() }).await;
    assert_eq!(cause, "several_names", "{text}");
}

#[tokio::test]
async fn a_certificate_without_a_uri_name_is_refused() {
    let (cause, text) = knock_with(Made { names: "DNS:orders", ..Made::default() }).await;
    assert_eq!(cause, "no_name", "{text}");
}

#[tokio::test]
async fn a_name_that_is_none_of_a_mesh_is_refused() {
    for names in ["URI:https://shop/svc/orders", "URI:spiffe://shop/svc/Orders", "URI:spiffe://shop/ns/x/sa/orders"] {
        let (cause, text) = knock_with(Made { names, ..Made::default() }).await;
        assert_eq!(cause, "foreign_name", "{names}: {text}");
    }
}

#[tokio::test]
async fn a_part_of_another_mesh_is_refused() {
    let (cause, text) = knock_with(Made { names: "URI:spiffe://mill/svc/orders", ..Made::default() }).await;
    assert_eq!(cause, "other_mesh", "{text}");
}

#[tokio::test]
async fn an_authority_as_leaf_is_refused() {
    let made = Made { constraints: "CA:TRUE", usage: "critical,digitalSignature,keyCertSign", ..Made::default() };
    let (cause, text) = knock_with(made).await;
    assert_eq!(cause, "authority_as_leaf", "{text}");

    let shop = Shop::open();
    let (certificate, key) = (shop.path("ca.pem").display().to_string(), shop.path("ca.key").display().to_string());
    let (cause, text, _) = knock(&shop, &["-cert", &certificate, "-key", &key]).await;
    assert_eq!(cause, "authority_as_leaf", "the root itself: {text}");
}

#[tokio::test]
async fn a_certificate_that_is_not_for_signing_is_refused() {
    let (cause, text) = knock_with(Made { usage: "critical,keyAgreement", ..Made::default() }).await;
    assert_eq!(cause, "wrong_use", "{text}");
}

#[tokio::test]
async fn a_certificate_that_is_for_servers_alone_is_refused() {
    let (cause, text) = knock_with(Made { extended: "serverAuth", ..Made::default() }).await;
    assert_eq!(cause, "wrong_use", "{text}");
}

#[tokio::test]
async fn a_wrong_role_is_refused() {
    let shop = Shop::open();
    let (certificate, key) = shop.issued("alice", &operator("alice"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text, _) = knock(&shop, &["-cert", &certificate, "-key", &key]).await;
    assert_eq!(cause, "wrong_role", "{text}");

    // A service's certificate opens no admin API.
    let master = own(&shop.authority, Identity::master(mesh()));
    let door = Door::of(&master, Admit::Operators).await;
    let (certificate, key) = shop.issued("orders", &service("orders"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let _client = s_client(door.address, &["-cert", &certificate, "-key", &key]);
    assert_eq!(door.refusal().await.0, "wrong_role");
}

#[tokio::test]
async fn at_the_mesh_api_someone_without_a_certificate_is_let_in_and_someone_with_a_bad_one_is_not() {
    let shop = Shop::open();
    let master = own(&shop.authority, Identity::master(mesh()));
    let door = Door::of(&master, Admit::MasterDoor).await;
    let _joins = s_client(door.address, &[]);
    assert_eq!(door.next().await.expect("taken").1.id, None);
    let (certificate, key) = shop.made("old", Made { to: "20210101000000Z", ..Made::default() }).await;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let _comes_late = s_client(door.address, &["-cert", &certificate, "-key", &key]);
    assert_eq!(door.refusal().await.0, "expired");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let shop = Shop::open();
    let (certificate, key) = shop.issued("orders", &service("orders"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text, _) = knock(&shop, &["-tls1_2", "-cert", &certificate, "-key", &key]).await;
    assert_eq!(cause, "old_tls", "{text}");
}

#[tokio::test]
async fn early_data_is_never_taken() {
    let shop = Shop::open();
    let (certificate, key) = shop.issued("orders", &service("orders"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    // A ticket that allows early data, of a server that gives some.
    let (server, address) =
        s_server(&["-cert", &certificate, "-key", &key, "-tls1_3", "-early_data", "-naccept", "1"]).await;
    let (session, early) = (shop.path("session").display().to_string(), shop.path("early").display().to_string());
    std::fs::write(&early, "DELETE /users HTTP/1.1\r\n\r\n").expect("written");
    let mut first = s_client(address, &["-sess_out", &session]);
    until("a ticket", || std::path::Path::new(&session).exists()).await;
    first.kill().await.expect("ended");
    drop(server);

    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    let arguments = ["-sess_in", &session, "-early_data", &early, "-cert", &certificate, "-key", &key];
    let mut client = s_client(door.address, &arguments);
    let outcome = door.next().await;
    if let Ok((mut stream, peer)) = outcome {
        // It was dropped, and the client proved itself as if it had sent none.
        assert_eq!(peer.id, Some(service("orders")));
        client.stdin.as_mut().expect("its input").write_all(b"late\n").await.expect("written");
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.expect("read");
        assert_eq!(&heard, b"late\n", "what comes first is what was sent after the handshake");
        stream.shutdown().await.expect("closed");
        drop(stream);
    }
    let mut said = String::new();
    client.stdout.as_mut().expect("its output").read_to_string(&mut said).await.expect("read");
    assert!(said.contains("Early data was rejected") || said.contains("Early data was not sent"), "{said}");
}

#[tokio::test]
async fn plaintext_on_a_tls_port_is_refused() {
    let shop = Shop::open();
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    for bytes in ["GET /users HTTP/1.1\r\nhost: users\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = TcpStream::connect(door.address).await.expect("connected");
        client.write_all(bytes.as_bytes()).await.expect("written");
        assert_eq!(door.refusal().await.0, "plaintext");
        // It hears an alert at most, and never an answer.
        let mut heard = Vec::new();
        let _reset = client.read_to_end(&mut heard).await;
        assert!(!heard.starts_with(b"HTTP") && heard.len() < 16, "{heard:?}");
    }
}

#[tokio::test]
async fn garbage_is_refused() {
    let shop = Shop::open();
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    let table: [&[u8]; 4] = [
        &[0; 64],
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
        &[0x17, 3, 3, 0, 3, 1, 2, 3],
    ];
    for bytes in table {
        let mut client = TcpStream::connect(door.address).await.expect("connected");
        client.write_all(bytes).await.expect("written");
        assert_eq!(door.refusal().await.0, "garbage", "{bytes:02x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_is_given_up() {
    let shop = Shop::open();
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    let silent = TcpStream::connect(door.address).await.expect("connected");
    assert_eq!(door.refusal().await.0, "stalled");
    drop(silent);
    let mut slow = TcpStream::connect(door.address).await.expect("connected");
    slow.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.expect("written");
    assert_eq!(door.refusal().await.0, "stalled");
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_told_from_a_mere_visit() {
    let shop = Shop::open();
    let users = own(&shop.authority, service("users"));
    let door = Door::of(&users, Admit::Services).await;
    drop(TcpStream::connect(door.address).await.expect("connected"));
    assert!(matches!(door.next().await, Err(synego_identity::AcceptError::Gone(_))));
    let mut half = TcpStream::connect(door.address).await.expect("connected");
    half.write_all(&[0x16, 3, 1, 2, 0]).await.expect("written");
    drop(half);
    assert_eq!(door.refusal().await.0, "broken_off");
    assert_eq!(users.refusals(), [(Side::Accepting, Cause::BrokenOff, 1)]);
}

#[tokio::test]
async fn without_a_certificate_of_its_own_a_door_stays_shut() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let fresh = Own::new(service("users"));
    let door = Door::of(&fresh, Admit::Services).await;
    let caller = own(&authority, service("orders"));
    let (made, refusal) = tokio::join!(connect(&caller, door.address, role("users")), door.refusal());
    assert!(made.is_err());
    assert_eq!(refusal.0, "not_enrolled");
    // The same door, once it has one.
    fresh.install(&credential(&authority, &service("users"))).expect("installed");
    fresh.trust(&[authority.root().certificate_der.clone()]).expect("trusted");
    let (mut out, (mut within, _)) = pair(&caller, &door, role("users")).await;
    pass(&mut out, &mut within, "hello").await;
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_never_installed() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let users = own(&authority, service("users"));
    let before = users.current();
    let other = credential(&authority, &service("orders"));
    assert!(users.install(&other).is_err());
    let mut mixed = credential(&authority, &service("users"));
    mixed.key = other.key;
    assert!(users.install(&mixed).is_err());
    assert!(users.trust(&[b"no root".to_vec()]).is_err() && users.trust(&[]).is_err());
    assert!(users.trust(&[other.chain_der[0].clone()]).is_err(), "a leaf is no root");
    assert_eq!(users.current(), before);
    assert_eq!(users.trusted().len(), 1);
    let stranger = Authority::create(MeshName::new("mill").expect("a name"), now()).expect("an authority");
    assert!(stranger.root().fingerprint != authority.root().fingerprint);
    assert!(matches!(before.map(|shown| shown.identity.role), Some(Role::Service(_))));
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = synego_runtime::clock::now() + PATIENCE;
    while !holds() {
        assert!(synego_runtime::clock::now() < end, "never: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
