//! Who may call: the inbound judges by certificates, the outbound and the ingress refuse early what they know of.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use support::*;
use synego_data_plane::{InboundTarget, Permits};
use synego_model::{Access, AccessMode, AccessRule, AccessRules, Caller, Policy, Protocol, Role, RouteAccess};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn rule(caller: &str, methods: &[&str], path: Option<&str>) -> AccessRule {
    AccessRule {
        caller: caller.parse().expect("a caller"),
        methods: methods.iter().map(ToString::to_string).collect(),
        path: path.map(|path| path.parse().expect("a path")),
    }
}

fn allow(rules: Vec<AccessRule>) -> AccessRules {
    AccessRules { allow: Some(rules), deny: Vec::new() }
}

fn deny(rules: Vec<AccessRule>) -> AccessRules {
    AccessRules { allow: None, deny: rules }
}

/// Declared in the manifest, with these rules.
fn declared(mode: AccessMode, rules: AccessRules) -> Access {
    Access { mode, declared: true, rules, routes: Vec::new() }
}

fn enforced() -> Access {
    declared(AccessMode::Enforce, AccessRules::default())
}

const USES: &str = "reports may not call users: add `users` to `uses` of `services.reports`";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_not_allowed_by_policy_gets_403_denied_and_grpc_permission_denied() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    users.admits(&enforced(), &["orders"]);
    let (orders, reports) = (mesh.outbound("orders"), mesh.outbound("reports"));
    let got = get(orders.local_addr(), "users", "/users/7").await;
    assert_eq!((got.status, got.echoed("x-synego-caller")), (200, Some("orders")), "{}", got.body);

    let got = get(reports.local_addr(), "users", "/users/7").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (403, "denied"), "{}", got.body);
    let said = got.json();
    assert_eq!((&said["code"], &said["reason"], &said["msg"]), (&403.into(), &"denied".into(), &USES.into()));
    assert_eq!(users.service.requests(), 1, "nothing of it reached the service");

    let asked = grpc("users", "/shop.Users/Get").body(full("")).expect("a request");
    let got = Client2::to(reports.local_addr()).await.send(asked).await.expect("an answer");
    assert_eq!((got.status, got.header("grpc-status"), got.header("grpc-message")), (200, "7", USES));
    assert_eq!(got.header("x-synego-reason"), "denied");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_calls_is_whom_the_certificate_names_whatever_headers_say() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    users.admits(&enforced(), &["orders"]);
    let expected = Role::Service(name("users"));
    for (role, status, seen) in [
        (Role::Service(name("orders")), "200", Some("x-synego-caller: orders")),
        (Role::Service(name("reports")), "403", None),
        (Role::Master, "200", None),
    ] {
        let connector = mesh.connector(role.clone());
        let made = connector.connect(&users.inbound.local_addr(), &expected, None, Duration::from_secs(5)).await;
        let mut stream = made.expect("a connection");
        let lie = "GET / HTTP/1.1\r\nhost: users\r\nx-request-id: lie\r\nx-synego-caller: orders-of-others\r\nconnection: close\r\n\r\n";
        stream.write_all(lie.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{role:?}: {answer}");
        assert_eq!(answer.lines().find(|line| line.starts_with("x-synego-caller")), seen, "{role:?}");
    }
    let logged: Vec<_> = mesh.logged("\"lie\"").iter().map(|line| line["caller"].clone()).collect();
    assert!(logged.contains(&"orders".into()) && !format!("{logged:?}").contains("others"), "{logged:?}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_sees_the_same_canonical_path_that_is_forwarded() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let rules = deny(vec![rule("orders", &[], Some("/admin")), rule("orders", &["POST"], Some("/caf%c3%a9"))]);
    users.admits(&declared(AccessMode::Enforce, rules), &["orders"]);
    let orders = mesh.outbound("orders").local_addr();
    for path in ["/admin", "/admin/", "/admin/keys", "//admin", "/x/../admin", "/%61dmin", "/./admin", "/%2e/admin?x=1"]
    {
        let got = get(orders, "users", path).await;
        assert_eq!((got.status, got.header("x-synego-reason")), (403, "denied"), "{path}: {}", got.body);
        assert!(got.body.contains("`deny` of `services.users` names it"), "{}", got.body);
    }
    for path in ["/adminx", "/x/admin", "/admin/../x", "/caf%C3%A9"] {
        assert_eq!(get(orders, "users", path).await.status, 200, "{path}");
    }
    let asked = request(Method::POST, "users", "/caf%C3%A9").body(full("")).expect("a request");
    assert_eq!(send(orders, asked).await.status, 403, "one form of a path, however the rule writes it");
    for path in ["/a%2fadmin", "/a%5c..%5cadmin"] {
        assert_eq!(get(orders, "users", path).await.status, 400, "{path}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_access_holds_for_the_next_request_and_touches_no_connection() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let mut client = Client1::to(mesh.outbound("orders").local_addr()).await;
    for round in 0..5 {
        users.admits(&enforced(), if round % 2 == 0 { &["orders"] } else { &["mails"] });
        let got = client.get("users", "/").await.expect("the same connection");
        assert_eq!(got.status, if round % 2 == 0 { 200 } else { 403 });
    }
    assert_eq!(users.inbound.connections(), 1);
    assert_eq!((users.service.requests(), users.service.connections()), (3, 1));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observing_mesh_lets_pass_and_reports_what_would_be_denied_and_an_open_one_asks_nothing() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    users.admits(&declared(AccessMode::Observe, AccessRules::default()), &["orders"]);
    let reports = mesh.outbound("reports").local_addr();
    for _ in 0..3 {
        assert_eq!(get(reports, "users", "/").await.status, 200);
    }
    let told = mesh.denials.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].caller.to_string(), told[0].observed, told[0].count), ("reports".to_owned(), true, 3));
    assert_eq!(told[0].message, USES);
    let counted = r#"synego_inbound_denials_total{service="users",caller="reports",verdict="observed"} 3"#;
    assert!(mesh.metrics.render().contains(counted), "{}", mesh.metrics.render());

    users.admits(&declared(AccessMode::Open, allow(Vec::new())), &[]);
    assert_eq!(get(reports, "users", "/").await.status, 200);
    assert!(mesh.denials.take().is_empty());
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ingress_is_a_caller_like_any_other() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    mesh.route("/", "users");
    mesh.ruled_route("/keys", "users", deny(vec![rule("ingress", &["DELETE"], None)]));
    let ingress = mesh.ingress().local_addr();
    users.admits(&enforced(), &[]);
    assert_eq!(get(ingress, "a", "/users").await.status, 200, "routes permit it");
    assert_eq!(get(ingress, "a", "/keys/7").await.status, 200);
    let asked = request(Method::DELETE, "a", "/keys/7").body(full("")).expect("a request");
    let got = send(ingress, asked).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (403, "denied"));
    assert!(got.body.contains("`deny` of the route `/keys` of `services.users` names it"), "{}", got.body);

    let inside = declared(AccessMode::Enforce, allow(vec![rule("orders", &[], None)]));
    users.admits(&inside, &["orders"]);
    let got = get(ingress, "a", "/users").await;
    assert_eq!(got.status, 403, "the inbound says it: {}", got.body);
    let before = users.inbound.connections();
    mesh.access("users", inside);
    let got = get(ingress, "a", "/users").await;
    assert_eq!(got.json()["msg"], "ingress may not GET /users of users: add `ingress` to `allow` of `services.users`");
    assert_eq!(users.inbound.connections(), before, "and now the ingress itself");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_narrows_calls_by_name_too() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let route = |path: &str, rules| RouteAccess {
        path: path.parse().expect("a path"),
        exact: false,
        methods: Vec::new(),
        rules,
    };
    let routes = vec![
        route("/users/export", allow(vec![rule("reports", &["GET"], None)])),
        route("/users", AccessRules::default()),
    ];
    users.admits(&Access { routes, ..enforced() }, &["orders", "reports"]);
    let (orders, reports) = (mesh.outbound("orders").local_addr(), mesh.outbound("reports").local_addr());
    assert_eq!(get(orders, "users", "/users/7").await.status, 200);
    assert_eq!(get(reports, "users", "/users/export/all").await.status, 200);
    let got = get(orders, "users", "/users/export/all").await;
    assert!(got.body.contains("add `orders` to `allow` of the route `/users/export`"), "{}", got.body);
    let asked = request(Method::POST, "users", "/users/export").body(full("")).expect("a request");
    assert_eq!(send(reports, asked).await.status, 403);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_own_outbound_refuses_early_and_an_unknown_name_stays_unknown() {
    // Without TLS: what the outbound knows is all there is.
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::echo().await).await;
    let mails = mesh.instance("mails", Service::echo().await).await;
    mesh.asked.unknown.lock().expect("lock").push(name("nobody"));
    mesh.access("users", enforced());
    let orders = mesh.outbound("orders").local_addr();
    assert_eq!(get(orders, "users", "/").await.status, 200, "as long as no master has spoken the inbound decides");
    mesh.permits.store(Arc::new(Permits::new(&[], true)));
    let open = users.inbound.connections();
    let got = get(orders, "users", "/").await;
    let line = "orders may not call users: add `users` to `uses` of `services.orders`";
    assert_eq!((got.status, &got.json()["msg"]), (403, &line.into()));
    assert_eq!((users.inbound.connections(), users.service.requests()), (open, 1), "nothing was sent");
    assert_eq!(get(orders, "mails", "/").await.status, 200, "whom no manifest names everyone may call");
    assert_eq!(mails.service.requests(), 1);
    let got = get(orders, "nobody", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (404, "unknown_service"));

    mesh.permits.store(Arc::new(Permits::new(&[], false)));
    let got = get(orders, "users", "/").await;
    assert!(got.body.contains("start its sidecar with `--uses users`"), "{}", got.body);
    mesh.permits.store(Arc::new(Permits::new(&[name("users")], false)));
    assert_eq!(get(orders, "users", "/").await.status, 200);
    mesh.access("users", declared(AccessMode::Enforce, deny(vec![rule("orders", &[], Some("/keys"))])));
    assert_eq!(get(orders, "users", "/keys").await.status, 403);
    mesh.access("users", declared(AccessMode::Open, deny(vec![rule("orders", &[], Some("/keys"))])));
    assert_eq!(get(orders, "users", "/keys").await.status, 200);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn until_it_is_known_who_may_call_nobody_passes_and_the_caller_may_ask_another_instance() {
    let mesh = Mesh::mutual();
    let users = mesh.instance("users", Service::echo().await).await;
    let target = InboundTarget::clone(&users.target.load());
    users.target.store(Arc::new(InboundTarget { gate: Arc::default(), ..target }));
    let got = get(mesh.outbound("orders").local_addr(), "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, "starting"), "{}", got.body);
    assert!(got.body.contains("does not know yet who may call it"), "{}", got.body);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_refused_when_they_are_connected() {
    let mesh = Mesh::mutual();
    mesh.service("echo", Protocol::Tcp, Policy::default());
    let echo = Service::each(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let echo = mesh.instance("echo", echo.await).await;
    echo.admits(&enforced(), &["orders"]);
    let back = async |caller: &str| {
        let address = mesh.outbound_of(caller, Some("echo")).local_addr();
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let _ = stream.write_all(b"hello").await;
        let _ = stream.shutdown().await;
        let mut got = String::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut got)).await;
        got
    };
    assert_eq!(back("orders").await, "hello");
    assert_eq!(back("reports").await, "");
    assert_eq!(echo.service.connections(), 1);
    let told = mesh.denials.take();
    assert_eq!(told[0].caller, Caller::Service(name("reports")));
    assert_eq!(told[0].message, "reports may not call echo: add `echo` to `uses` of `services.reports`");
    mesh.end().await;
}
