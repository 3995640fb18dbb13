//! OpenSSL answers: whom a part of the mesh does not take for the one it called.

mod support;

use support::*;
use synego_identity::{Authority, Cause, ConnectError, Connector, Fingerprint, Own, Side};
use synego_model::{Identity, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Why `orders` does not take `openssl s_server` with these arguments for `users`.
async fn call(shop: &Shop, arguments: &[&str]) -> (&'static str, String) {
    let orders = own(&shop.authority, service("orders"));
    let (_server, address) = s_server(arguments).await;
    match connect(&orders, address, role("users")).await {
        Err(ConnectError::Handshake(refused)) => {
            assert_eq!(orders.refusals(), [(Side::Connecting, refused.cause, 1)]);
            (refused.cause.word(), refused.to_string())
        }
        other => panic!("{other:?}"),
    }
}

async fn call_with(made: Made<'_>) -> (&'static str, String) {
    let shop = Shop::open();
    let (certificate, key) = shop.made("bad", made).await;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    call(&shop, &["-cert", &certificate, "-key", &key]).await
}

const USERS: &str = "URI:spiffe://shop/svc/users";

#[tokio::test]
async fn the_service_that_was_called_is_taken_and_sees_who_calls() {
    let shop = Shop::open();
    let (certificate, key) = shop.made("users", Made { names: USERS, ..Made::default() }).await;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let ca = shop.path("ca.pem").display().to_string();
    let arguments =
        ["-cert", &certificate, "-key", &key, "-CAfile", &ca, "-Verify", "3", "-verify_return_error", "-tls1_3"];
    let (mut server, address) = s_server(&arguments).await;
    let orders = own(&shop.authority, service("orders"));
    let mut stream = connect(&orders, address, role("users")).await.expect("connected");
    assert_eq!(stream.peer(), Some(&service("users")));
    stream.write_all(b"to the other side\n").await.expect("written");
    let mut said = Vec::new();
    let out = server.stdout.as_mut().expect("its output");
    let heard = tokio::time::timeout(PATIENCE, async {
        while !String::from_utf8_lossy(&said).contains("to the other side") {
            assert!(out.read_buf(&mut said).await.expect("read") > 0, "{}", String::from_utf8_lossy(&said));
        }
    });
    heard.await.expect("heard");
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("Client certificate") && said.contains("CIPHER is TLS_AES_128_GCM_SHA256"), "{said}");
}

#[tokio::test]
async fn another_service_than_the_one_called_is_refused() {
    let (cause, text) = call_with(Made { names: "URI:spiffe://shop/svc/billing", ..Made::default() }).await;
    assert_eq!(cause, "other_service", "{text}");
    assert!(text.contains("expected spiffe://shop/svc/users") && text.contains("svc/billing"), "{text}");
}

#[tokio::test]
async fn a_wrong_role_is_refused() {
    for names in ["URI:spiffe://shop/master", "URI:spiffe://shop/operator/users"] {
        let (cause, text) = call_with(Made { names, ..Made::default() }).await;
        assert_eq!(cause, "wrong_role", "{names}: {text}");
    }
    // A service's certificate makes no master.
    let shop = Shop::open();
    let (certificate, key) = shop.issued("users", &service("users"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (_server, address) = s_server(&["-cert", &certificate, "-key", &key]).await;
    let orders = own(&shop.authority, service("orders"));
    let made = connect(&orders, address, Role::Master).await;
    assert!(matches!(made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::WrongRole));
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let (cause, text) = call_with(Made { names: USERS, to: "20210101000000Z", ..Made::default() }).await;
    assert_eq!(cause, "expired", "{text}");
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_refused() {
    let (cause, text) = call_with(Made { names: USERS, from: "20980101000000Z", ..Made::default() }).await;
    assert_eq!(cause, "not_yet_valid", "{text}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let (shop, other) = (Shop::open(), Shop::open());
    let (certificate, key) = other.issued("users", &service("users"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text) = call(&shop, &["-cert", &certificate, "-key", &key]).await;
    assert_eq!(cause, "unknown_authority", "{text}");
}

#[tokio::test]
async fn a_certificate_with_two_uri_names_is_refused() {
    let names = "URI:spiffe://shop/svc/users,URI:spiffe://shop/svc/billing";
    let (cause, text) = call_with(Made { names, ..Made::default() }).await;
    assert_eq!(cause, "several_names", "{text}");
}

#[tokio::test]
async fn an_authority_as_leaf_is_refused() {
    let usage = "critical,digitalSignature,keyCertSign";
    let (cause, text) = call_with(Made { names: USERS, constraints: "CA:TRUE", usage, ..Made::default() }).await;
    assert_eq!(cause, "authority_as_leaf", "{text}");
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let shop = Shop::open();
    let (certificate, key) = shop.issued("users", &service("users"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (cause, text) = call(&shop, &["-cert", &certificate, "-key", &key, "-tls1_2"]).await;
    assert_eq!(cause, "old_tls", "{text}");
}

#[tokio::test]
async fn a_peer_without_tls_is_refused_and_hears_nothing_of_the_request() {
    let shop = Shop::open();
    let orders = own(&shop.authority, service("orders"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let plain = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        let mut heard = Vec::new();
        let _reset = stream.read_to_end(&mut heard).await;
        heard
    };
    let (made, heard) = tokio::join!(connect(&orders, address, role("users")), plain);
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::Plaintext), "{made:?}");
    assert_eq!(heard.first(), Some(&0x16), "a greeting of TLS and nothing else");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_handshake_is_given_up() {
    let shop = Shop::open();
    let orders = own(&shop.authority, service("orders"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (made, _silent) = tokio::join!(connect(&orders, address, role("users")), listener.accept());
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::Stalled), "{made:?}");
}

#[tokio::test]
async fn who_is_refused_learns_it_with_the_first_answer() {
    let (shop, other) = (Shop::open(), Shop::open());
    let (certificate, key) = shop.issued("users", &service("users"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    // It trusts other callers than us.
    let ca = other.path("ca.pem").display().to_string();
    let arguments =
        ["-cert", &certificate, "-key", &key, "-CAfile", &ca, "-Verify", "3", "-verify_return_error", "-tls1_3"];
    let (_server, address) = s_server(&arguments).await;
    let orders = own(&shop.authority, service("orders"));
    let mut stream = connect(&orders, address, role("users")).await.expect("its own side is done");
    let read = stream.read(&mut [0; 16]).await.expect_err("refused").to_string();
    assert!(read.contains("refused_by_peer"), "{read}");
    assert_eq!(orders.refusals(), [(Side::Connecting, Cause::RefusedByPeer, 1)]);
}

#[tokio::test]
async fn without_a_certificate_of_its_own_nobody_is_called() {
    let shop = Shop::open();
    let (certificate, key) = shop.issued("users", &service("users"));
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (_server, address) = s_server(&["-cert", &certificate, "-key", &key]).await;
    let fresh = Own::new(service("orders"));
    let made = connect(&fresh, address, role("users")).await;
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::NotEnrolled), "{made:?}");
}

#[tokio::test]
async fn a_pinned_root_is_the_only_one_that_counts_and_only_for_masters() {
    let shop = Shop::open();
    let master = own(&shop.authority, Identity::master(mesh()));
    let door = Door::of(&master, synego_identity::Admit::MasterDoor).await;
    let call = async |pin: Fingerprint, door: &Door| {
        let connector = Connector::pinned(pin);
        let made = connector.connect(&door.address, &Role::Master, None, PATIENCE);
        let (made, taken) = tokio::join!(made, door.next());
        (made, taken.is_ok())
    };
    let (made, taken) = call(shop.authority.root().fingerprint, &door).await;
    assert_eq!(made.expect("connected").peer(), Some(&Identity::master(mesh())));
    assert!(taken);
    let other = Authority::create(mesh(), now()).expect("an authority");
    let (made, taken) = call(other.root().fingerprint, &door).await;
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::UnknownAuthority));
    assert!(!taken);
    // A service that shows the root with its certificate is no master.
    let users = Own::new(service("users"));
    let mut shown = credential(&shop.authority, &service("users"));
    shown.chain_der.push(shop.authority.root().certificate_der.clone());
    users.install(&shown).expect("installed");
    users.trust(&[shop.authority.root().certificate_der.clone()]).expect("trusted");
    let door = Door::of(&users, synego_identity::Admit::MasterDoor).await;
    let (made, _) = call(shop.authority.root().fingerprint, &door).await;
    assert!(matches!(&made, Err(ConnectError::Handshake(refused)) if refused.cause == Cause::WrongRole), "{made:?}");
}
