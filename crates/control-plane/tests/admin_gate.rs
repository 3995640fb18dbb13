//! Who may ask the admin API what: over TCP by form, origin and token, at the Unix socket by user.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Master, WITHIN, declaration, spec};
use synego_control_plane::master::{Audit, LoginBook, NoPlanner};
use synego_control_plane::store::RedbStore;
use synego_runtime::config::private_dir;
use synego_runtime::lifecycle::Stopper;
use synego_runtime::logs::{LineWriter, To};
use synego_runtime::serve::{BindAddr, Profile, bind, serve};
use synego_runtime::tasks;
use synego_wire::pb;
use synego_wire::pb::admin_client::AdminClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

struct Api {
    folder: tempfile::TempDir,
    master: Master,
    tcp: SocketAddr,
    socket: PathBuf,
    audit: LineWriter,
    stopper: Stopper,
    serving: JoinHandle<()>,
}

impl Api {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder")).await
    }

    async fn start_in(folder: tempfile::TempDir) -> Self {
        let store = RedbStore::open(&folder.path().join("state/store.redb")).expect("a store");
        let to = To::Dir { dir: folder.path().join("logs"), name: "audit".to_owned() };
        let audit = LineWriter::open(to).expect("a log");
        let master = Master::start_with(
            SocketAddr::from(([127, 0, 0, 1], 0)),
            declaration([spec("users", &[])]),
            Arc::new(NoPlanner),
            LoginBook::new(Arc::new(store)),
            Audit::to(audit.clone()),
        );
        let run = private_dir(&folder.path().join("run")).expect("a folder");
        let socket = run.join("admin.sock");
        let tcp = bind(&BindAddr::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))).await.expect("a port");
        let BindAddr::Tcp(address) = tcp.address().expect("an address") else { panic!("not tcp") };
        let local = bind(&BindAddr::Unix(socket.clone())).await.expect("a socket");
        let (stopper, stop) = Stopper::new();
        let serving = serve(vec![tcp, local], master.handle.admin_router(), Profile::admin(), stop);
        let serving = tasks::spawn("test-admin", tasks::Kind::Connection, serving);
        Self { folder, master, tcp: address, socket, audit, stopper, serving }
    }

    async fn local(&self) -> AdminClient<Channel> {
        let socket = self.socket.clone();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://admin.synego");
        AdminClient::new(endpoint.connect_with_connector(connect).await.expect("a connection"))
    }

    async fn over_tcp(&self) -> AdminClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.tcp)).expect("an address");
        AdminClient::new(endpoint.connect().await.expect("a connection"))
    }

    async fn token(&self, name: &str, role: pb::AdminRole) -> pb::IssuedLogin {
        let request = pb::IssueLoginRequest { name: name.into(), role: role.into(), ttl_s: 0 };
        self.local().await.issue_login(request).await.expect("a token").into_inner()
    }

    /// Status and body of the answer to a request of HTTP/1.1 with these lines.
    async fn raw(&self, first: &str, lines: &[String]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.tcp).await.expect("a connection");
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let text = format!("{first} HTTP/1.1\r\n{lines}content-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = String::new();
        let _ = tokio::time::timeout(WITHIN, stream.read_to_string(&mut answer)).await.expect("an end");
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.unwrap_or_else(|| panic!("no answer: {answer}")), answer)
    }

    fn audited(&self) -> Vec<serde_json::Value> {
        self.audit.flush(WITHIN);
        let files = std::fs::read_dir(self.folder.path().join("logs")).expect("the folder");
        let texts = files.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn close(self) -> tempfile::TempDir {
        self.stopper.stop();
        tokio::time::timeout(WITHIN, self.serving).await.expect("it ends in time").expect("without a panic");
        self.master.kill();
        self.folder
    }
}

fn authorized<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_change_without_token_from_another_origin_by_get_or_without_grpc_type_gets_401_403_405_415() {
    let api = Api::start().await;
    let token = api.token("ci", pb::AdminRole::Write).await.token;
    let host = format!("host: {}", api.tcp);
    let (grpc, bearer) = ("content-type: application/grpc".to_owned(), format!("authorization: Bearer {token}"));
    let with = |lines: &[&String]| lines.iter().map(ToString::to_string).collect::<Vec<String>>();
    let down = "POST /synego.v1.Admin/Down";
    let forged = bearer.replace("login-", "login-0");
    for (what, first, lines, status, reason) in [
        ("no token", down, with(&[&host, &grpc]), 401, "unauthenticated"),
        ("a wrong token", down, with(&[&host, &grpc, &forged]), 401, "unauthenticated"),
        ("another origin", down, with(&[&host, &grpc, &bearer, &"origin: https://evil.example".into()]), 403, "denied"),
        ("no origin at all", down, with(&[&host, &grpc, &bearer, &"origin: null".into()]), 403, "denied"),
        ("another site", down, with(&[&host, &grpc, &bearer, &"sec-fetch-site: cross-site".into()]), 403, "denied"),
        ("a name pointed here", down, with(&[&"host: evil.example:3002".into(), &grpc, &bearer]), 403, "denied"),
        ("GET", "GET /synego.v1.Admin/Down", with(&[&host, &grpc, &bearer]), 405, "method_not_allowed"),
        ("no type", down, with(&[&host, &bearer]), 415, "unsupported_type"),
        ("a form", down, with(&[&host, &bearer, &"content-type: text/plain".into()]), 415, "unsupported_type"),
        (
            "grpc-web",
            down,
            with(&[&host, &bearer, &"content-type: application/grpc-web".into()]),
            415,
            "unsupported_type",
        ),
    ] {
        let (got, answer) = api.raw(first, &lines).await;
        assert_eq!(got, status, "{what}: {answer}");
        assert!(answer.contains(&format!("x-synego-reason: {reason}")), "{what}: {answer}");
    }
    let origin = format!("origin: http://{}", api.tcp);
    let (got, answer) = api.raw(down, &with(&[&host, &grpc, &bearer, &origin])).await;
    assert!(got == 200 && answer.contains("grpc-status"), "the same origin with a token reaches the method: {answer}");
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_who_has_no_token_may_look_and_roles_hold() {
    let api = Api::start().await;
    let (read, write) = (api.token("eye", pb::AdminRole::Read).await, api.token("hand", pb::AdminRole::Write).await);
    let mut client = api.over_tcp().await;
    let view = client.get(pb::GetRequest::default()).await.expect("anyone of this machine may look").into_inner();
    assert_eq!((view.mesh.as_str(), view.access.as_str()), ("shop", "enforce"));
    let logs = client.logs(pb::LogsRequest::default()).await.expect_err("lines of output are not for everyone");
    assert_eq!(logs.code(), tonic::Code::Unauthenticated, "{logs:?}");
    assert!(logs.message().contains("synego login"), "{}", logs.message());

    let who = async |client: &mut AdminClient<Channel>, token: &str| {
        client.who_am_i(authorized(pb::WhoAmIRequest {}, token)).await.map(tonic::Response::into_inner)
    };
    let known = who(&mut client, &read.token).await.expect("known");
    assert_eq!((known.who.as_str(), known.role()), ("eye", pb::AdminRole::Read));
    client.logs(authorized(pb::LogsRequest::default(), &read.token)).await.expect("may read");
    let file = pb::ManifestFile { path: "synego.yaml".into(), text: "mesh: shop".into(), overlay: false };
    let apply = |dry_run| pb::ApplyRequest { file: vec![file.clone()], dry_run, ..pb::ApplyRequest::default() };
    client.apply(authorized(apply(true), &read.token)).await.expect("may plan");
    let refused = client.apply(authorized(apply(false), &read.token)).await.expect_err("may not change");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("eye may `read`, Apply needs `write`"), "{}", refused.message());
    let login = pb::IssueLoginRequest { name: "more".into(), ..pb::IssueLoginRequest::default() };
    let refused = client.issue_login(authorized(login.clone(), &read.token)).await.expect_err("nor help itself");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    client.issue_login(authorized(login, &write.token)).await.expect("who may write may issue");

    let all = client.list_logins(authorized(pb::ListLoginsRequest {}, &read.token)).await.expect("a list").into_inner();
    let names: Vec<&str> = all.login.iter().map(|login| login.name.as_str()).collect();
    assert_eq!(names, ["eye", "hand", "more"]);
    let id = read.login.expect("what is kept").id;
    let revoke = pb::RevokeLoginRequest { id };
    client.revoke_login(authorized(revoke.clone(), &write.token)).await.expect("revoked");
    assert!(client.revoke_login(authorized(revoke, &write.token)).await.is_err(), "once");
    let gone = who(&mut client, &read.token).await.expect_err("worthless");
    assert_eq!(gone.code(), tonic::Code::Unauthenticated);
    api.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_256_bits_kept_as_hashes_with_an_end_and_outlive_a_restart() {
    let api = Api::start().await;
    let issued = api.token("ci", pb::AdminRole::Write).await;
    let secret = issued.token.trim_start_matches("synego-login-");
    assert_eq!((secret.len(), issued.token.len()), (64, 77), "256 bits");
    let kept = std::fs::read(api.folder.path().join("state/store.redb")).expect("the store");
    let holds = |text: &str| kept.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("logins/") && !holds(secret), "the secret is nowhere");
    for (ttl_s, name) in [(59, "ci"), (31_536_001, "ci"), (60, ""), (60, "two words")] {
        let request = pb::IssueLoginRequest { name: name.into(), role: 0, ttl_s };
        let refused = api.local().await.issue_login(request).await.expect_err("out of range");
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{ttl_s} {name}");
    }
    let short = pb::IssueLoginRequest { name: "short".into(), role: 0, ttl_s: 60 };
    let short = api.local().await.issue_login(short).await.expect("a token").into_inner();
    let ends = short.login.expect("what is kept");
    assert_eq!(ends.expires_unix_ms - ends.created_unix_ms, 60_000);

    let again = Api::start_in(api.close().await).await;
    let known = again.over_tcp().await.who_am_i(authorized(pb::WhoAmIRequest {}, &issued.token)).await;
    assert_eq!(known.expect("known after a restart").into_inner().who, "ci");
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_its_user_alone_and_every_change_is_written_down() {
    let api = Api::start().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&api.socket), mode(api.socket.parent().expect("a folder"))), (0o600, 0o700));
    let mut client = api.local().await;
    let me = client.who_am_i(pb::WhoAmIRequest {}).await.expect("known").into_inner();
    assert_eq!(
        (me.who, me.role),
        (format!("user {}", rustix::process::geteuid().as_raw()), pb::AdminRole::Write.into())
    );
    client.get(pb::GetRequest::default()).await.expect("a view");
    assert!(api.audited().is_empty(), "looking changes nothing");

    let token = api.token("ci", pb::AdminRole::Write).await.token;
    let file = pb::ManifestFile { path: "synego.yaml".into(), text: "mesh: shop".into(), overlay: false };
    let apply = pb::ApplyRequest { file: vec![file], ..pb::ApplyRequest::default() };
    let _refused = api.over_tcp().await.apply(authorized(apply, &token)).await.expect_err("nothing can be applied");
    let lines = api.audited();
    let said: Vec<_> = lines.iter().map(|line| (line["who"].as_str(), line["what"].as_str())).collect();
    assert_eq!(said, [(Some(me_of().as_str()), Some("IssueLogin")), (Some("ci"), Some("Apply"))]);
    assert!(lines[1]["outcome"].as_str().is_some_and(|outcome| outcome.starts_with("refused: ")), "{lines:?}");
    for line in &lines {
        assert_eq!(line["before"], line["after"], "nothing declared changed");
        assert_eq!(line["before"].as_str().map(str::len), Some(12));
    }
    assert!(!format!("{lines:?}").contains(&token));
    api.close().await;
}

fn me_of() -> String {
    format!("user {}", rustix::process::geteuid().as_raw())
}
