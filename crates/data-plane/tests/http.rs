//! Plain requests through all hops: what arrives, what comes back, what the mesh says itself.

mod support;

use http::Method;
use support::*;
use synego_model::process::ServiceAddress;
use synego_model::{AccessLines, Balance, BalanceKind, CallFigures, HashKey, InstanceState, Policy, Protocol};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_passes_the_ingress_and_arrives_whole() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/users", "users").ingress();
    let asked = request(Method::POST, "shop.example", "/users/7?x=1&y").header("x-mine", "1").body(full("hello"));
    let got = send(ingress.local_addr(), asked.expect("a request")).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert!(got.body.starts_with("POST /users/7?x=1&y HTTP/1.1\n"), "{}", got.body);
    assert!(got.body.ends_with("\n\nhello"), "{}", got.body);
    assert_eq!((got.echoed("host"), got.echoed("x-mine")), (Some("shop.example"), Some("1")));
    assert_eq!(got.echoed("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.echoed("x-forwarded-host"), Some("shop.example"));
    let left: u64 = got.echoed("x-synego-timeout").expect("a deadline").parse().expect("a number");
    assert!((29_000..=30_000).contains(&left), "{left}");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_id_and_one_trace_go_through_every_hop_and_its_log() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let asked = request(Method::GET, "a", "/p?secret=1")
        .header("x-request-id", "id-42")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    let got = send(ingress.local_addr(), asked.body(full("")).expect("a request")).await;
    assert_eq!((got.header("x-request-id"), got.echoed("x-request-id")), ("id-42", Some("id-42")));
    let parent = got.echoed("traceparent").expect("a trace");
    assert!(parent.contains(trace) && !parent.contains("b7ad6b7169203331"), "{parent}");
    let lines = mesh.logged("id-42");
    let hops: Vec<_> = lines.iter().map(|line| line["hop"].as_str().unwrap_or_default()).collect();
    assert!(hops.contains(&"ingress") && hops.contains(&"inbound") && hops.len() == 2, "{hops:?}");
    for line in &lines {
        assert_eq!((&line["trace_id"], &line["status"]), (&trace.into(), &200.into()));
        assert_eq!(
            (&line["service"], &line["path"], &line["protocol"]),
            (&"users".into(), &"/p".into(), &"http/1.1".into())
        );
        assert_eq!((&line["tries"], &line["complete"]), (&1.into(), &true.into()));
    }
    assert_ne!(lines[0]["span_id"], lines[1]["span_id"], "each hop has a span of its own");
    assert!(!format!("{lines:?}").contains("secret"), "queries are not logged");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_kept_on_both_sides() {
    let mesh = Mesh::with_workers(1);
    let users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress();
    let mut client = Client1::to(ingress.local_addr()).await;
    for _ in 0..20 {
        assert_eq!(client.get("a", "/").await.expect("an answer").status, 200);
    }
    assert_eq!((users.service.requests(), users.service.connections()), (20, 1));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_outside_cannot_speak_for_the_mesh() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/", "users").ingress_with(|config| config.trusted.clear());
    let asked = request(Method::GET, "a", "/")
        .header("x-synego-caller", "admin")
        .header("x-synego-timeout", "1")
        .header("x_synego_caller", "admin")
        .header("x-request-id", "mine")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-proto", "https")
        .header("baggage", "role=admin")
        .header("connection", "x-secret, x-request-id")
        .header("x-secret", "1");
    let got = send(ingress.local_addr(), asked.body(full("")).expect("a request")).await;
    assert_eq!(got.status, 200, "{}", got.body);
    for gone in ["x-synego-caller", "x_synego_caller", "baggage", "x-secret", "connection"] {
        assert_eq!(got.echoed(gone), None, "{gone}");
    }
    assert_eq!((got.echoed("x-forwarded-for"), got.echoed("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    let id = got.echoed("x-request-id").expect("an id");
    assert!(id != "mine" && id.len() == 32);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mesh_says_itself_why_it_cannot_pass_a_request_on() {
    let mesh = Mesh::start();
    mesh.service("users", Protocol::Http, Policy::default()).route("/users", "users");
    let address = mesh.ingress().local_addr();
    let got = get(address, "shop", "/other").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (404, "no_route"));
    assert_eq!((&got.json()["code"], &got.json()["reason"]), (&404.into(), &"no_route".into()));
    assert_eq!(got.json()["request_id"], got.header("x-request-id"));
    let got = get(address, "shop", "/users/7").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, "no_ready_endpoint"));
    assert!((1..=3).contains(&got.header("retry-after").parse::<u32>().expect("seconds")));
    let asked = request(Method::GET, "shop", "/other").header("accept", "application/problem+json");
    let got = send(address, asked.body(full("")).expect("a request")).await;
    assert_eq!(got.header("content-type"), "application/problem+json");
    let got = send(address, request(Method::HEAD, "shop", "/other").body(full("")).expect("a request")).await;
    assert_eq!((got.status, got.body.as_str(), got.header("x-synego-reason")), (404, "", "no_route"));
    let got = send(address, request(Method::TRACE, "shop", "/").body(full("")).expect("a request")).await;
    assert_eq!((got.status, got.header("x-synego-reason")), (405, "method_not_allowed"));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_is_told_where_it_may_serve_a_page_of_its_own() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    mesh.route("/users", "users");
    let (behind, world) = (mesh.ingress(), mesh.ingress_with(|config| config.trusted.clear()));
    let ask = |address, path: &'static str| async move {
        let asked = request(Method::GET, "shop", path).header("x-synego-fallback", "spa");
        send(address, asked.body(full("")).expect("a request")).await
    };
    let got = ask(behind.local_addr(), "/page").await;
    assert_eq!((got.status, got.header("x-synego-reason"), &got.json()["code"]), (421, "no_route", &404.into()));
    let got = ask(behind.local_addr(), "/users").await;
    assert_eq!((got.status, got.echoed("x-synego-fallback")), (200, None));
    assert_eq!(ask(world.local_addr(), "/page").await.status, 404, "who is no proxy has no such word");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_what_does_not_fail_only_a_share_is_logged() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::says("users").await).await;
    let ingress = mesh.route("/users", "users").ingress().local_addr();
    mesh.handle.log_lines(AccessLines::Off);
    assert_eq!(get(ingress, "a", "/gone").await.status, 404);
    mesh.handle.log_lines(AccessLines::Errors);
    assert_eq!(get(ingress, "a", "/users").await.status, 200);
    assert_eq!(get(ingress, "a", "/other").await.status, 404);
    let lines = mesh.logged("");
    assert_eq!(lines.iter().map(|line| line["status"].clone()).collect::<Vec<_>>(), [404]);
    assert_eq!(lines[0]["detail"], "no route for GET a/other");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_not_served_have_no_route() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::says("users").await).await;
    let hosts = vec!["shop.example".parse().expect("a host")];
    let ingress = mesh.route("/", "users").ingress_with(|config| config.hosts = hosts);
    assert_eq!(get(ingress.local_addr(), "shop.example:8080", "/").await.status, 200);
    assert_eq!(get(ingress.local_addr(), "other.example", "/").await.status, 404);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_path_decides_and_arrives() {
    let mesh = Mesh::start();
    let _admin = mesh.instance("admin", Service::says("admin").await).await;
    let _users = mesh.instance("users", Service::echo().await).await;
    let ingress = mesh.route("/admin", "admin").route("/", "users").ingress();
    for path in ["/admin", "/%61dmin", "//admin", "/x/../admin", "/./admin/", "/%2e/admin"] {
        assert_eq!(get(ingress.local_addr(), "a", path).await.body, "admin", "{path}");
    }
    let got = get(ingress.local_addr(), "a", "/a/../b//c?q=../x").await;
    assert!(got.body.starts_with("GET /b/c?q=../x "), "{}", got.body);
    for path in ["/a%2fb", "/a%5Cb", "/a%00", "/%zz"] {
        let got = get(ingress.local_addr(), "a", path).await;
        assert_eq!((got.status, got.header("x-synego-reason")), (400, "bad_request"), "{path}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_calls_another_in_every_way_of_the_design() {
    let mesh = Mesh::start();
    let _users = mesh.instance("users", Service::echo().await).await;
    let outbound = mesh.outbound("orders").local_addr();
    let by_host = get(outbound, "users", "/7").await;
    assert_eq!((by_host.status, by_host.echoed("x-synego-caller")), (200, Some("orders")), "{}", by_host.body);
    assert_eq!(get(outbound, "users:4001", "/7").await.status, 200);
    let absolute = raw(outbound, b"GET http://users/7 HTTP/1.1\r\nHost: users\r\nConnection: close\r\n\r\n").await;
    assert!(absolute.contains("GET /7 HTTP/1.1"), "{absolute}");
    let fixed = mesh.outbound_of("orders", Some("users")).local_addr();
    let by_port = get(fixed, "127.0.0.1:1234", "/7").await;
    assert_eq!((by_port.status, by_port.echoed("host")), (200, Some("127.0.0.1:1234")));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_was_never_called_is_asked_for_and_waited_for() {
    let mesh = Mesh::start();
    let outbound = mesh.outbound("orders").local_addr();
    let (got, _users) = tokio::join!(get(outbound, "users", "/"), async {
        until("it is asked for", || !mesh.asked.names.lock().expect("lock").is_empty()).await;
        mesh.instance("users", Service::says("users").await).await
    });
    assert_eq!(got.body, "users");
    mesh.asked.unknown.lock().expect("lock").push(name("nobody"));
    for host in ["nobody", "example.com", "Not_A_Name"] {
        let got = get(outbound, host, "/").await;
        assert_eq!((got.status, got.header("x-synego-reason")), (404, "unknown_service"), "{host}");
    }
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_say_the_reasons_of_its_handlers_and_no_others() {
    let mesh = Mesh::start();
    let service = Service::http(|request| {
        Box::pin(async move {
            let reason = request.uri().path().trim_start_matches('/').to_owned();
            http::Response::builder()
                .status(400)
                .header("x-synego-reason", reason)
                .body(full("own"))
                .expect("an answer")
        })
    });
    let _users = mesh.instance("users", service.await).await;
    let ingress = mesh.route("/", "users").ingress().local_addr();
    assert_eq!(get(ingress, "a", "/invalid_body").await.header("x-synego-reason"), "invalid_body");
    assert_eq!(get(ingress, "a", "/no_route").await.header("x-synego-reason"), "");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_not_ready_says_why() {
    let mesh = Mesh::start();
    let users = mesh.instance("users", Service::says("users").await).await;
    let inbound = users.inbound.local_addr();
    assert_eq!(get(inbound, "users", "/").await.status, 200);
    let said = |change: fn(&mut synego_data_plane::InboundTarget)| {
        let mut target = (**users.target.load()).clone();
        change(&mut target);
        users.target.store(target.into());
    };
    said(|target| target.draining = true);
    assert_eq!(get(inbound, "users", "/").await.header("x-synego-reason"), "draining");
    said(|target| {
        target.draining = false;
        target.ready = false;
        let reason = synego_model::Reason::ProbeFailed;
        target.cause = Some(synego_model::Cause { reason, message: "timed out".into(), since_unix_ms: 1 });
    });
    let got = get(inbound, "users", "/").await;
    assert_eq!((got.status, got.header("x-synego-reason")), (503, "probe_failed"));
    assert!(got.body.contains("timed out"), "{}", got.body);
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_is_spread_over_ready_instances_alone() {
    let mesh = Mesh::start();
    let one = mesh.instance("users", Service::says("1").await).await;
    let two = mesh.instance("users", Service::says("2").await).await;
    let three = mesh.instance("users", Service::says("3").await).await;
    mesh.endpoint("users", &three.id, three.inbound.local_addr(), InstanceState::Draining);
    let ingress = mesh.route("/", "users").ingress().local_addr();
    for _ in 0..3 {
        // At once: one after the other may all go to the faster of two.
        let all = futures_util::future::join_all((0..20).map(|_| get(ingress, "a", "/"))).await;
        assert!(all.iter().all(ok));
    }
    assert!(one.service.requests() > 5 && two.service.requests() > 5);
    assert_eq!(three.service.requests(), 0);
    let load = one.load.load();
    assert_eq!((load.requests_total as usize, load.in_flight), (one.service.requests(), 0));
    let text = mesh.metrics.render();
    assert!(text.contains(r#"synego_ingress_requests_total{service="users",route="/",code_class="2xx",reason=""} 60"#));
    assert!(text.contains("synego_inbound_exchange_seconds_count"));
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_one_key_go_to_one_instance_and_their_caller_counts_them() {
    let mesh = Mesh::start();
    let kind = BalanceKind::Hash(HashKey::Header("x-cart".to_owned()));
    let policy = Policy { balance: Balance { kind, ..Balance::default() }, ..Policy::default() };
    mesh.service("carts", Protocol::Http, policy);
    let mut instances = Vec::new();
    for word in ["1", "2", "3"] {
        instances.push(mesh.instance("carts", Service::says(word).await).await);
    }
    let outbound = mesh.outbound("orders").local_addr();
    let ask = |key: String| async move {
        let asked = request(Method::GET, "carts", "/").header("x-cart", key);
        send(outbound, asked.body(full("")).expect("a request")).await.body
    };
    let mut seen = std::collections::BTreeSet::new();
    for key in 0..20 {
        let first = ask(key.to_string()).await;
        for _ in 0..3 {
            assert_eq!(ask(key.to_string()).await, first, "whichever worker it came to");
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "keys are spread");
    let figures = mesh.calls.take_figures();
    assert_eq!(figures, [CallFigures { service: name("carts"), requests: 80, failures: 0 }]);
    assert_eq!(mesh.calls.take_figures(), [], "they are told once");
    mesh.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_may_listen_on_a_unix_socket() {
    let mesh = Mesh::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("service.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let users = mesh.instance("users", Service::says("by port").await).await;
    let mut target = (**users.target.load()).clone();
    target.http = Some(ServiceAddress::Unix(path));
    users.target.store(target.into());
    let asked = get(users.inbound.local_addr(), "users", "/");
    let answered = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.is_ok_and(|bytes| bytes > 0));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nby socket";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("sent");
    };
    assert_eq!(tokio::join!(asked, answered).0.body, "by socket");
    mesh.end().await;
}
