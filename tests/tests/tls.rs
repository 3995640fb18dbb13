//! Mutual TLS of the real programs: OpenSSL knocks at a sidecar of `synego up`, and the loopback is listened to.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use synego_testkit::daemons::metric;
use synego_testkit::forge::{Forge, GOOD, Made};
use synego_testkit::http::HttpClient;
use synego_testkit::{Daemons, Mesh, ports, wait};

fn manifest() -> String {
    let server = synego_testkit::program::root().join("examples/hello/server.js");
    let run = format!("run: [node, {}]", server.display());
    format!(
        "mesh: shop\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\n\
         masters: {{ ingress: 0, mesh: \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  \
         users: {{ {run}, routes: [/users] }}\n  orders: {{ {run}, routes: [], uses: [users] }}\n"
    )
}

fn inbound(mesh: &Mesh, service: &str) -> SocketAddr {
    let instances = mesh.instances(service);
    let address = instances.first().and_then(|instance| instance["address"].as_str()).expect("an address");
    address.parse().expect("an address")
}

/// With the root that `synego ca export` gives.
fn forge(mesh: &Mesh) -> Forge {
    Forge::with_root(mesh.home.path(), |file| {
        let output = mesh.synego(&["ca", "export", "--out", file]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    })
}

/// What `openssl s_client` hears when it asks for `/users` with these arguments.
fn knock(address: SocketAddr, args: &[&str]) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string(), "-quiet", "-no_ign_eof"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is on the machine");
    let mut input = client.stdin.take().expect("its input");
    let _gone = input.write_all(b"GET /users HTTP/1.1\r\nhost: users\r\nconnection: close\r\n\r\n");
    let output = client.wait_with_output().expect("its end");
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Refused handshakes of the mesh, by cause.
async fn refused(mesh: &Mesh) -> HashMap<String, u64> {
    let url = format!("http://127.0.0.1:{}/metrics", mesh.variable("SHOP_ADMIN"));
    let text = HttpClient::default().get(&url).await.expect("metrics").text();
    let mut counts = HashMap::new();
    for line in text.lines().filter(|line| line.starts_with("synego_tls_refused_total{")) {
        let cause = line.split("cause=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a cause");
        let count: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        *counts.entry(cause.to_owned()).or_default() += count;
    }
    counts
}

/// Waits until one more handshake was refused for this cause.
async fn until_refused(mesh: &Mesh, what: &str, cause: &str, before: u64) {
    wait::until(&format!("{what} is refused as {cause}"), Duration::from_secs(10), || async {
        let counts = refused(mesh).await;
        wait::that(counts.get(cause).copied().unwrap_or(0) > before, format!("{counts:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_refuses_each_bad_peer_by_its_cause_and_answers_none_of_them() {
    let mesh = Mesh::of(&manifest()).await;
    let (users, forge, other) = (inbound(&mesh, "users"), forge(&mesh), Forge::of_its_own(mesh.home.path()));
    let good = forge.make("good", &GOOD);
    let answer = knock(users, &["-cert", &good[0], "-key", &good[1]]);
    assert!(answer.contains("HTTP/1.1 200"), "a caller that uses users is answered: {answer}");

    let two = "URI:spiffe://shop/svc/orders,URI:spiffe://shop/svc/users";
    let authority = Made { constraints: "CA:TRUE", usage: "digitalSignature,keyCertSign", ..GOOD };
    let table = [
        ("an expired certificate", "expired", forge.make("expired", &Made { to: "20210101000000Z", ..GOOD })),
        ("one not yet valid", "not_yet_valid", forge.make("early", &Made { from: "20980101000000Z", ..GOOD })),
        ("another authority", "unknown_authority", other.make("foreign", &GOOD)),
        ("two URI names", "several_names", forge.make("two", &Made { names: two, ..GOOD })),
        ("no URI name", "no_name", forge.make("none", &Made { names: "DNS:orders", ..GOOD })),
        ("an authority as leaf", "authority_as_leaf", forge.make("leaf", &authority)),
        ("a wrong role", "wrong_role", forge.make("role", &Made { names: "URI:spiffe://shop/operator/eve", ..GOOD })),
        ("another mesh", "other_mesh", forge.make("mill", &Made { names: "URI:spiffe://mill/svc/orders", ..GOOD })),
    ];
    for (what, cause, [certificate, key]) in table {
        let before = refused(&mesh).await.get(cause).copied().unwrap_or(0);
        let heard = knock(users, &["-cert", &certificate, "-key", &key]);
        assert!(!heard.contains("HTTP/1.1"), "{what}: {heard}");
        until_refused(&mesh, what, cause, before).await;
    }
    let [certificate, key] = [good[0].as_str(), good[1].as_str()];
    for (what, cause, args) in [
        ("no certificate", "no_certificate", &[][..]),
        ("TLS 1.2", "old_tls", &["-tls1_2", "-cert", certificate, "-key", key][..]),
    ] {
        let before = refused(&mesh).await.get(cause).copied().unwrap_or(0);
        let heard = knock(users, args);
        assert!(!heard.contains("HTTP/1.1"), "{what}: {heard}");
        until_refused(&mesh, what, cause, before).await;
    }
    for (what, cause, bytes) in [
        ("plaintext", "plaintext", &b"GET /users HTTP/1.1\r\nhost: users\r\n\r\n"[..]),
        ("garbage", "garbage", &[0; 64][..]),
    ] {
        let before = refused(&mesh).await.get(cause).copied().unwrap_or(0);
        let mut client = TcpStream::connect(users).expect("a connection");
        client.write_all(bytes).expect("written");
        let mut heard = Vec::new();
        let _reset = client.read_to_end(&mut heard);
        assert!(heard.len() < 16, "{what}: {heard:?}");
        until_refused(&mesh, what, cause, before).await;
    }
    let silent = TcpStream::connect(users).expect("a connection");
    until_refused(&mesh, "a stalled handshake", "stalled", 0).await;
    drop(silent);
    // Nobody else noticed.
    let answer = HttpClient::default().get(&mesh.url("/users")).await.expect("an answer");
    assert!(answer.status.is_success(), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_certificate_opens_no_admin_api_and_makes_no_master() {
    let mesh = Mesh::of(&manifest()).await;
    let forge = forge(&mesh);
    let operator = forge.make("role", &Made { names: "URI:spiffe://shop/operator/eve", ..GOOD });
    let door: SocketAddr = format!("127.0.0.1:{}", mesh.variable("SHOP_MESH")).parse().expect("an address");
    let before = refused(&mesh).await.get("wrong_role").copied().unwrap_or(0);
    let heard = knock(door, &["-cert", &operator[0], "-key", &operator[1]]);
    assert!(!heard.contains("HTTP/"), "{heard}");
    until_refused(&mesh, "an operator at the mesh API", "wrong_role", before).await;
}

/// A session that OpenSSL keeps of a server of its own, by which it sends early data wherever it is told to.
async fn session(mesh: &Mesh, certificate: &str, key: &str) -> String {
    let port = ports::free();
    let file = mesh.home.path().join("state/session.pem").display().to_string();
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", &port.to_string(), "-cert", certificate, "-key", key, "-tls1_3", "-quiet"])
        .args(["-early_data", "-max_early_data", "16384"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is on the machine");
    wait::until("OpenSSL's own server", Duration::from_secs(10), || async {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    })
    .await;
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-tls1_3", "-sess_out", &file])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is on the machine");
    wait::until("a session", Duration::from_secs(10), || async {
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        wait::that(kept.contains("END SSL SESSION"), "none yet")
    })
    .await;
    for child in [&mut client, &mut server] {
        drop(child.stdin.take());
        let _gone = child.kill();
        let _status = child.wait();
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn early_data_is_not_taken_and_nothing_is_resumed() {
    let mesh = Mesh::of(&manifest()).await;
    let users = inbound(&mesh, "users");
    let [certificate, key] = forge(&mesh).make("good", &GOOD);
    let own = ["-cert", certificate.as_str(), "-key", key.as_str()];
    let first = knock(users, &own);
    assert!(first.contains("HTTP/1.1 200") && !first.contains("New Session Ticket"), "{first}");
    let session = session(&mesh, &certificate, &key).await;
    let early = mesh.home.path().join("state/early").display().to_string();
    std::fs::write(&early, "GET /users HTTP/1.1\r\nhost: users\r\n\r\n").expect("written");
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &users.to_string(), "-tls1_3", "-sess_in", &session, "-early_data", &early])
        .args(own)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is on the machine");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Early data was rejected"), "{said}");
    assert!(!said.contains("HTTP/1.1") && !said.contains("Reused"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_at_the_address_of_one_gets_nothing_of_a_request() {
    let mut mesh = Daemons::start("3600s");
    let tokens = [mesh.token(), mesh.token(), mesh.token()];
    let inventory = mesh.start_sidecar("inventory-1", Some(&tokens[0]));
    let orders = mesh.start_sidecar("orders-1", Some(&tokens[1]));
    mesh.enrolled("inventory-1").await;
    mesh.answers("/inventory").await;
    // It tells the address of another service as its own.
    let wrong = format!("127.0.0.1:{}", inventory.inbound);
    let (liar, _) = mesh.sidecar_with("users-1", Some(&tokens[2]), &["--advertise", &wrong]);
    mesh.enrolled("users-1").await;
    let url = format!("http://127.0.0.1:{}/", orders.outbound);
    let client = HttpClient::default();
    wait::until("the refusal", Duration::from_secs(20), || async {
        let answer = client.request("GET", &url, &[("host", "users")], "").await?;
        let said = format!("{} {}", answer.status, answer.text());
        wait::that(answer.status.as_u16() == 502 && said.contains("other_service"), said)
    })
    .await;
    let counted = metric(orders.admin, "synego_tls_refused_total").await.expect("metrics");
    let is_told = |labels: &str| labels.contains("other_service") && labels.contains("connecting");
    assert!(counted.iter().any(|(labels, count)| is_told(labels) && *count > 0.0), "{counted:?}");
    let told = mesh.sidecars[1].output();
    assert!(told.contains("/svc/users") && told.contains("/svc/inventory") && told.contains("other_service"), "{told}");
    drop(liar);
}

/// Listens on the loopback until it is told to stop; `None` where this user may not listen.
fn listen(port: u16) -> Option<impl FnOnce() -> Vec<u8>> {
    // Packets of every protocol (packet(7)).
    let every = Protocol::from(i32::from(0x0003_u16.to_be()));
    let mut socket = Socket::new(Domain::PACKET, Type::RAW, Some(every)).ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
    socket.set_recv_buffer_size(4 << 20).expect("room");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let listener = std::thread::spawn(move || {
        let (mut heard, mut packet) = (Vec::new(), vec![0; 128 * 1024]);
        loop {
            match socket.read(&mut packet) {
                Ok(read) => heard.extend(payload(&packet[..read], port).unwrap_or_default()),
                // What was sent before the end lies in the socket already: it is read first.
                Err(_) if stopped.load(Ordering::Relaxed) => return heard,
                Err(_) => {}
            }
        }
    });
    Some(move || {
        stop.store(true, Ordering::Relaxed);
        listener.join().expect("it listened")
    })
}

/// What a packet from or to this port of TCP over IPv4 carries.
fn payload(packet: &[u8], port: u16) -> Option<&[u8]> {
    let ip = packet.get(14..).filter(|_| packet.get(12..14) == Some(&[8, 0]))?;
    let tcp = ip.get(usize::from(ip.first()? & 15) * 4..).filter(|_| ip.get(9) == Some(&6))?;
    let number = |at: usize| Some(u16::from_be_bytes([*tcp.get(at)?, *tcp.get(at + 1)?]));
    let is_ours = number(0)? == port || number(2)? == port;
    tcp.get(usize::from(tcp.get(12)? >> 4) * 4..).filter(|_| is_ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_between_two_sidecars_hears_nothing_of_a_request() {
    let mesh = Mesh::of(&manifest()).await;
    let users = inbound(&mesh, "users");
    let Some(heard) = listen(users.port()) else {
        eprintln!("not tested here: only root, or who has CAP_NET_RAW, may listen on the loopback");
        return;
    };
    let (_, pid) = mesh.pids("orders").into_iter().next().expect("an instance");
    let outbound = synego_testkit::program::variable_of(pid, "SYNEGO_OUTBOUND").expect("an outbound");
    let fields = [("host", "users"), ("x-secret", "field-of-the-request")];
    for _ in 0..20 {
        let url = format!("{outbound}/users?query=secret-of-the-query");
        let answer = HttpClient::default().request("GET", &url, &fields, "").await.expect("an answer");
        assert!(answer.status.is_success(), "{}", answer.text());
    }
    let heard = heard();
    let holds = |text: &str| heard.windows(text.len()).any(|window| window == text.as_bytes());
    // Records of TLS 1.3 went by: of a handshake, and of what is enciphered.
    assert!(heard.windows(3).any(|window| window == [0x17, 3, 3]), "{} bytes were heard", heard.len());
    for word in
        ["field-of-the-request", "secret-of-the-query", "GET /users", "HTTP/1.1 200", "x-request-id", "spiffe://"]
    {
        assert!(!holds(word), "`{word}` was heard");
    }
    // The ear is good: between the service and its sidecar the same words can be heard.
    let plain: u16 =
        outbound.rsplit(':').next().and_then(|port| port.trim_end_matches('/').parse().ok()).expect("a port");
    let near = listen(plain).expect("as before");
    let url = format!("{outbound}/users?query=secret-of-the-query");
    let answer = HttpClient::default().request("GET", &url, &fields, "").await.expect("an answer");
    assert!(answer.status.is_success());
    let near = near();
    assert!(near.windows(20).any(|window| window == b"field-of-the-request"), "{} bytes were heard", near.len());
}
