//! Mutual TLS of the real programs: OpenSSL knocks at a sidecar of `synego up`, and the loopback is listened to.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use synego_testkit::http::HttpClient;
use synego_testkit::{Mesh, wait};

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

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl is on the machine");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a certificate shall be like, made by OpenSSL under the root of the mesh.
struct Made {
    names: &'static str,
    from: &'static str,
    to: &'static str,
    constraints: &'static str,
    usage: &'static str,
}

const GOOD: Made = Made {
    names: "URI:spiffe://shop/svc/orders",
    from: "20200101000000Z",
    to: "20990101000000Z",
    constraints: "CA:FALSE",
    usage: "digitalSignature",
};

/// The root of a mesh in two files, and what is made with it.
struct Forge {
    folder: PathBuf,
}

impl Forge {
    /// With the root that `synego ca export` gives.
    fn of(mesh: &Mesh) -> Self {
        let folder = mesh.home.path().join("state/forge");
        fs::create_dir(&folder).expect("a folder");
        let file = folder.join("root.pem").display().to_string();
        let output = mesh.synego(&["ca", "export", "--out", &file]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }

    /// With a root of its own.
    fn other(mesh: &Mesh) -> Self {
        let folder = mesh.home.path().join("state/other");
        fs::create_dir(&folder).expect("a folder");
        let [key, root] = ["key", "pem"].map(|kind| folder.join(format!("own.{kind}")).display().to_string());
        let curve = "ec_paramgen_curve:P-256";
        let what = ["-x509", "-days", "30", "-subj", "/O=shop/CN=root", "-addext", "keyUsage=keyCertSign"];
        let how = ["req", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", &root];
        openssl(&[&how[..], &what].concat());
        let text = fs::read_to_string(&root).expect("a root") + &fs::read_to_string(&key).expect("a key");
        fs::write(folder.join("root.pem"), text).expect("written");
        Self { folder }
    }

    fn make(&self, name: &str, made: &Made) -> [String; 2] {
        let file = |kind: &str| self.folder.join(format!("{name}.{kind}")).display().to_string();
        let folder = self.folder.display();
        let config = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/{name}.db\nnew_certs_dir={folder}\ndefault_md=sha256\n\
             policy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=optional\n[ext]\nsubjectAltName={}\n\
             basicConstraints=critical,{}\nkeyUsage=critical,{}\nextendedKeyUsage=clientAuth,serverAuth\n",
            made.names, made.constraints, made.usage
        );
        fs::write(file("cnf"), config).expect("written");
        fs::write(file("db"), "").expect("written");
        let [key, csr, pem, cnf] = ["key", "csr", "pem", "cnf"].map(file);
        let curve = "ec_paramgen_curve:P-256";
        openssl(&[
            "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", &csr, "-subj",
            "/CN=x",
        ]);
        let root = self.folder.join("root.pem").display().to_string();
        let what =
            ["ca", "-batch", "-notext", "-config", &cnf, "-extensions", "ext", "-cert", &root, "-keyfile", &root];
        openssl(&[&what[..], &["-in", &csr, "-out", &pem, "-startdate", made.from, "-enddate", made.to]].concat());
        [pem, key]
    }
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
    let (users, forge, other) = (inbound(&mesh, "users"), Forge::of(&mesh), Forge::other(&mesh));
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
    let forge = Forge::of(&mesh);
    let operator = forge.make("role", &Made { names: "URI:spiffe://shop/operator/eve", ..GOOD });
    let door: SocketAddr = format!("127.0.0.1:{}", mesh.variable("SHOP_MESH")).parse().expect("an address");
    let before = refused(&mesh).await.get("wrong_role").copied().unwrap_or(0);
    let heard = knock(door, &["-cert", &operator[0], "-key", &operator[1]]);
    assert!(!heard.contains("HTTP/"), "{heard}");
    until_refused(&mesh, "an operator at the mesh API", "wrong_role", before).await;
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
