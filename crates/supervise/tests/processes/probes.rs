//! Probes against real servers.

use std::path::Path;
use std::time::Duration;

use crate::common::{command, sh};
use synego_model::process::ServiceAddress;
use synego_model::{HealthSpec, Probe, RunAs};
use synego_runtime::tasks::{self, Kind};
use synego_supervise::{ProbeContext, Prober, probe};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::TcpListenerStream;

const SECOND: Duration = Duration::from_secs(1);

fn context(address: ServiceAddress) -> ProbeContext {
    let env = synego_runtime::config::environment();
    ProbeContext { service: "users".to_owned(), address, env, cwd: Path::new("/").to_owned(), run_as: RunAs::default() }
}

async fn listen() -> (TcpListener, ProbeContext) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    (listener, context(ServiceAddress::Tcp(address)))
}

fn http(path: &str) -> Probe {
    Probe::Http(path.to_owned())
}

/// A Node.js server that answers `/ok` 200, `/moved` 302, `/bad` 503 with a text, `/host` 200 only for `Host: users`,
/// and never answers `/never`.
async fn node() -> (crate::common::Run, ProbeContext, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("dir");
    let script = "require('http').createServer((q,r)=>{const u=q.url;if(u==='/never')return;\
        r.statusCode={'/ok':200,'/moved':302,'/bad':503,'/host':q.headers.host==='users'?200:400}[u]||404;\
        r.end(u==='/bad'?'no database\\n':'')}).listen(process.env.PORT,'127.0.0.1')";
    let spec = crate::common::with_port(crate::common::spec(command(&["node", "-e", script]), dir.path()));
    let context = context(spec.address.clone().expect("an address"));
    let mut run = crate::common::start(spec);
    run.ready().await;
    (run, context, dir)
}

#[tokio::test]
async fn http_is_well_with_2xx_and_3xx_and_shows_what_else_came() {
    let (run, context, _dir) = node().await;
    for path in ["/ok", "/moved", "/host"] {
        assert_eq!(probe(&http(path), &context, SECOND).await, Ok(()), "{path}");
    }
    assert_eq!(probe(&http("/bad"), &context, SECOND).await, Err("GET /bad answered 503: no database".into()));
    assert_eq!(probe(&http("/none"), &context, SECOND).await, Err("GET /none answered 404".into()));
    let never = probe(&http("/never"), &context, Duration::from_millis(200)).await;
    assert_eq!(never, Err("GET /never did not answer within 200ms".into()));
    run.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn grpc_asks_a_real_health_service() {
    let (listener, context) = listen().await;
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop.v1.Orders", tonic_health::ServingStatus::NotServing).await;
    reporter.set_service_status("shop.v1.Users", tonic_health::ServingStatus::Serving).await;
    let server = tonic::transport::Server::builder().add_service(service);
    let serving = tasks::spawn("test", Kind::Connection, server.serve_with_incoming(TcpListenerStream::new(listener)));
    let ask = async |name: &str| probe(&Probe::Grpc(name.to_owned()), &context, SECOND).await;
    assert_eq!(ask("").await, Ok(()));
    assert_eq!(ask("shop.v1.Users").await, Ok(()));
    assert_eq!(ask("shop.v1.Orders").await, Err("`shop.v1.Orders` is NOT_SERVING".into()));
    assert_eq!(ask("shop.v1.Nothing").await, Err("grpc.health.v1 does not know `shop.v1.Nothing`".into()));
    serving.abort();
}

#[tokio::test]
async fn grpc_without_a_health_service_is_said_as_such() {
    let (listener, context) = listen().await;
    let server = tonic::transport::Server::builder().add_routes(tonic::service::Routes::default());
    let serving = tasks::spawn("test", Kind::Connection, server.serve_with_incoming(TcpListenerStream::new(listener)));
    let outcome = probe(&Probe::Grpc(String::new()), &context, SECOND).await;
    assert_eq!(outcome, Err("the server has no grpc.health.v1.Health".into()));
    serving.abort();
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp_on_a_port_or_a_socket() {
    let (listener, on_port) = listen().await;
    assert_eq!(probe(&Probe::Tcp, &on_port, SECOND).await, Ok(()));
    drop(listener);
    let refused = format!("cannot connect to {}: connection refused", on_port.address);
    assert_eq!(probe(&Probe::Tcp, &on_port, SECOND).await, Err(refused));
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("s.sock");
    let _listener = UnixListener::bind(&path).expect("bind");
    assert_eq!(probe(&Probe::Tcp, &context(ServiceAddress::Unix(path)), SECOND).await, Ok(()));
}

#[tokio::test]
async fn a_command_is_well_with_code_0_and_is_killed_when_its_time_is_over() {
    let context = context(ServiceAddress::Unix("/nowhere".into()));
    let run = async |script: &str, limit| probe(&Probe::Exec(sh(script)), &context, limit).await;
    assert_eq!(run("exit 0", SECOND * 5).await, Ok(()));
    let failed = run("echo 'cannot reach db' >&2; exit 1", SECOND * 5).await.expect_err("a failure");
    assert!(failed.ends_with("exited with code 1: \"cannot reach db\""), "{failed}");
    let dir = tempfile::tempdir().expect("dir");
    let file = dir.path().join("pid");
    let late = run(&format!("echo $$ > {}; exec sleep 1000", file.display()), Duration::from_millis(500)).await;
    assert!(late.is_err_and(|text| text.ends_with("did not answer within 500ms")));
    let pid: u32 = std::fs::read_to_string(file).expect("read").trim().parse().expect("a pid");
    crate::common::eventually("killed", || !crate::common::runs(pid)).await;
}

#[tokio::test]
async fn a_server_that_dies_is_down_long_before_three_periods_are_over() {
    let (run, context, _dir) = node().await;
    let spec = HealthSpec { every: Duration::from_secs(1), ..HealthSpec::of(http("/ok")) };
    let prober = Prober::start(spec, context);
    let mut state = prober.state();
    let up = tokio::time::timeout(crate::common::LONG, state.wait_for(|state| state.ok == Some(true))).await.is_ok();
    assert!(up);
    run.supervisor.stop(Duration::from_secs(5)).await;
    let began = synego_runtime::clock::now();
    let down = tokio::time::timeout(crate::common::LONG, state.wait_for(|state| state.ok == Some(false))).await;
    let cause = down.expect("down").expect("state").cause.clone();
    assert!(cause.contains("connection refused"), "{cause}");
    assert!(synego_runtime::clock::now().duration_since(began) < Duration::from_millis(2_000));
}
