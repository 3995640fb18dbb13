//! A mesh called `shop`, and OpenSSL as its neighbour: good and bad certificates, clients and servers.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::panic,
    reason = "each test file uses its own part of this"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use synego_identity::{AcceptError, Acceptor, Admit, Authority, Connector, Credential, Own, Peer, PrivateKey, Stream};
use synego_model::{Identity, MeshName, Role, ServiceName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// Time for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(synego_runtime::clock::unix_ms())
}

pub fn mesh() -> MeshName {
    MeshName::new("shop").expect("a name")
}

pub fn role(service: &str) -> Role {
    Role::Service(ServiceName::new(service).expect("a name"))
}

pub fn service(name: &str) -> Identity {
    Identity { mesh: mesh(), role: role(name) }
}

pub fn operator(name: &str) -> Identity {
    Identity { mesh: mesh(), role: Role::Operator(ServiceName::new(name).expect("a name")) }
}

/// A credential of this authority; a master's shows the root, too.
pub fn credential(authority: &Authority, id: &Identity) -> Credential {
    let key = PrivateKey::generate().expect("a key");
    let request = key.request().expect("a request");
    let leaf = authority.issue(&request, id, DAY, now()).expect("issued").certificate_der;
    let root = Some(authority.root().certificate_der.clone()).filter(|_| id.role == Role::Master);
    Credential { chain_der: std::iter::once(leaf).chain(root).collect(), key }
}

/// A part of the mesh with a certificate of this authority, which it trusts.
pub fn own(authority: &Authority, id: Identity) -> Own {
    let own = Own::new(id.clone());
    own.install(&credential(authority, &id)).expect("installed");
    own.trust(&[authority.root().certificate_der.clone()]).expect("trusted");
    own
}

/// An authority whose files OpenSSL can use.
pub struct Shop {
    pub authority: Authority,
    pub folder: tempfile::TempDir,
}

/// What a certificate made by OpenSSL shall be like.
pub struct Made<'a> {
    /// Its extension for names, such as `URI:spiffe://shop/svc/users`; empty: none.
    pub names: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    /// More lines of extensions.
    pub constraints: &'a str,
    pub usage: &'a str,
    pub extended: &'a str,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            names: "URI:spiffe://shop/svc/orders",
            from: "20200101000000Z",
            to: "20990101000000Z",
            constraints: "CA:FALSE",
            usage: "critical,digitalSignature",
            extended: "clientAuth,serverAuth",
        }
    }
}

impl Shop {
    pub fn open() -> Self {
        let authority = Authority::create(mesh(), now()).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        let (certificate, key) = authority.to_pem();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("ca.pem", &certificate);
        write("ca.key", &key);
        Self { authority, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key files of what the mesh itself issued to `id`.
    pub fn issued(&self, name: &str, id: &Identity) -> (PathBuf, PathBuf) {
        let credential = credential(&self.authority, id);
        let block = pem::encode(&pem::Pem::new("CERTIFICATE", credential.chain_der[0].clone()));
        let (certificate, key) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&certificate, block).expect("written");
        std::fs::write(&key, credential.key.to_pem().as_bytes()).expect("written");
        (certificate, key)
    }

    /// Certificate and key files of what OpenSSL made with the key of the authority.
    pub async fn made(&self, name: &str, made: Made<'_>) -> (PathBuf, PathBuf) {
        let file = |kind: &str| self.path(&format!("{name}.{kind}"));
        let shown = |path: &Path| path.display().to_string();
        let folder = shown(self.folder.path());
        let names = if made.names.is_empty() { String::new() } else { format!("subjectAltName={}\n", made.names) };
        let config = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/{name}.db\nserial={folder}/{name}.srl\nnew_certs_dir={folder}\n\
             default_md=sha256\npolicy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=optional\n[ext]\n{names}\
             basicConstraints=critical,{}\nkeyUsage={}\nextendedKeyUsage={}\nauthorityKeyIdentifier=keyid\n",
            made.constraints, made.usage, made.extended
        );
        std::fs::write(file("cnf"), config).expect("written");
        std::fs::write(file("db"), "").expect("written");
        let (key, csr, pem) = (shown(&file("key")), shown(&file("csr")), shown(&file("pem")));
        let curve = "ec_paramgen_curve:P-256";
        openssl(&[
            "req", "-new", "-newkey", "ec", "-pkeyopt", curve, "-nodes", "-keyout", &key, "-out", &csr, "-subj",
            "/CN=x",
        ])
        .await;
        let (cnf, ca, ca_key) = (shown(&file("cnf")), shown(&self.path("ca.pem")), shown(&self.path("ca.key")));
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &cnf,
            "-extensions",
            "ext",
            "-cert",
            &ca,
            "-keyfile",
            &ca_key,
            "-in",
            &csr,
            "-out",
            &pem,
            "-startdate",
            made.from,
            "-enddate",
            made.to,
        ])
        .await;
        (file("pem"), file("key"))
    }
}

/// Runs OpenSSL to its end; it must go well.
pub async fn openssl(arguments: &[&str]) -> String {
    let run = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("openssl is on the machine");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "openssl {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// `openssl s_client`, which sends what it is told and prints all it hears; ended with the test.
pub fn s_client(address: SocketAddr, arguments: &[&str]) -> Child {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-servername", "x"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().expect("openssl is on the machine")
}

/// `openssl s_server` on a free port; ended with the test.
pub async fn s_server(arguments: &[&str]) -> (Child, SocketAddr) {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut server = command.spawn().expect("openssl is on the machine");
    let mut said = Vec::new();
    let out = server.stdout.as_mut().expect("its output");
    let address = tokio::time::timeout(PATIENCE, async {
        loop {
            assert!(out.read_buf(&mut said).await.expect("its output") > 0, "{}", String::from_utf8_lossy(&said));
            let text = String::from_utf8_lossy(&said).into_owned();
            let place = text.lines().find_map(|line| line.strip_prefix("ACCEPT "));
            if let Some(address) = place.and_then(|place| place.trim().parse().ok()) {
                return address;
            }
        }
    });
    let address = address.await.expect("it listens");
    (server, address)
}

/// A port under mutual TLS that is never rebuilt.
pub struct Door {
    pub address: SocketAddr,
    listener: TcpListener,
    acceptor: Acceptor,
}

impl Door {
    pub async fn of(own: &Own, admit: Admit) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { address, listener, acceptor: Acceptor::mutual(own.clone(), admit) }
    }

    /// The next connection.
    pub async fn next(&self) -> Result<(Stream, Peer), AcceptError> {
        let (stream, _) = self.listener.accept().await.expect("a connection");
        self.acceptor.accept(stream).await
    }

    /// The cause for which the next connection is refused; the test fails when it is not.
    pub async fn refusal(&self) -> (&'static str, String) {
        match tokio::time::timeout(PATIENCE, self.next()).await.expect("an end") {
            Err(AcceptError::Refused(refused)) => (refused.cause.word(), refused.to_string()),
            Err(AcceptError::Gone(error)) => panic!("gone: {error}"),
            Ok((_, peer)) => panic!("taken: {peer:?}"),
        }
    }
}

/// A connection of `own` to `address`, where `expected` should be.
pub async fn connect(own: &Own, address: SocketAddr, expected: Role) -> Result<Stream, synego_identity::ConnectError> {
    Connector::mutual(own.clone()).connect(&address, &expected, None, PATIENCE).await
}

/// Both ends of a connection inside the mesh.
pub async fn pair(caller: &Own, door: &Door, expected: Role) -> (Stream, (Stream, Peer)) {
    let (made, taken) = tokio::join!(connect(caller, door.address, expected), door.next());
    (made.expect("connected"), taken.expect("taken"))
}

/// Sends `text` from one end to the other.
pub async fn pass(from: &mut Stream, to: &mut Stream, text: &str) {
    let mut got = vec![0; text.len()];
    let work = async { tokio::join!(from.write_all(text.as_bytes()), to.read_exact(&mut got)) };
    let (sent, read) = tokio::time::timeout(PATIENCE, work).await.expect("in time");
    sent.expect("sent");
    read.expect("read");
    assert_eq!(String::from_utf8_lossy(&got), text);
}
