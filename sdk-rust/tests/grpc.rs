//! gRPC beside HTTP on one port: a service of tonic taken over, channels by name, errors as faults, standard health.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::pin::Pin;
use std::time::Duration;

use synego_sdk::testing::TestMesh;
use synego_sdk::tonic::service::Routes;
use synego_sdk::tonic::{self, Request, Response, Status, Streaming};
use synego_sdk::{Code, Ctx, Error, Json, Retry, Service};
use synego_wire::pb::sidecar_client::SidecarClient;
use synego_wire::pb::sidecar_server::{Sidecar, SidecarServer};
use synego_wire::pb::{DescribeRequest, Description, FromService, LogLine, LogTotals, ToService};
use tokio_stream::{Stream, StreamExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Any gRPC service serves as a guinea pig; this one is generated already.
struct Guinea;

#[tonic::async_trait]
impl Sidecar for Guinea {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<ToService, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<FromService>>) -> Result<Response<Self::AttachStream>, Status> {
        let answers = request.into_inner().map(|message| message.map(|_| ToService { is: None }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn log(&self, request: Request<Streaming<LogLine>>) -> Result<Response<LogTotals>, Status> {
        let received = request.into_inner().fold(0, |count, _| count + 1).await;
        Ok(Response::new(LogTotals { received, dropped: 0 }))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<Description>, Status> {
        let ctx = Ctx::of(&request)?;
        if ctx.request_id() == Some("fail") {
            let error = Error::new(Code::FailedPrecondition, "too few").reason("out_of_stock");
            return Err(error.with_retry_after(Duration::from_secs(2)).into());
        }
        Ok(Response::new(Description {
            version: ctx.request_id().unwrap_or_default().to_owned(),
            mesh: ctx.trace_id(),
            service: ctx.protocol().to_owned(),
            max_message_bytes: ctx.left().map_or(0, |left| left.as_millis() as u32),
            ..Description::default()
        }))
    }
}

fn guinea() -> Service {
    let router = Routes::new(SidecarServer::new(Guinea)).into_axum_router();
    Service::new("guinea").handle("GET /plain", async || "http").serve(router)
}

#[tokio::test]
async fn one_port_serves_http_and_every_kind_of_grpc_call() {
    let mesh = TestMesh::new().service(guinea()).start().await.unwrap();
    assert_eq!(mesh.get("http://guinea/plain").await.unwrap().text().await.unwrap(), "http");
    let mut stub = SidecarClient::new(mesh.client().channel("guinea"));
    let unary = stub.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!(unary.service, "grpc");
    let lines = tokio_stream::iter(vec![LogLine::default(); 3]);
    assert_eq!(stub.log(lines).await.unwrap().into_inner().received, 3);
    let messages = tokio_stream::iter(vec![FromService { is: None }; 4]);
    let answers = stub.attach(messages).await.unwrap().into_inner();
    assert_eq!(answers.collect::<Vec<_>>().await.len(), 4);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_channel_carries_the_context_and_the_smallest_deadline() {
    let shop = Service::new("shop").handle("GET /ask", async |ctx: Ctx| {
        let mut stub = SidecarClient::new(ctx.channel("guinea"));
        let told = stub.describe(DescribeRequest {}).await?.into_inner();
        let mut short = Request::new(DescribeRequest {});
        short.set_timeout(Duration::from_millis(700));
        let shorter = stub.describe(short).await?.into_inner();
        let is_one_trace = told.mesh == ctx.trace_id();
        Ok::<_, Error>(Json((told.version, is_one_trace, told.max_message_bytes, shorter.max_message_bytes)))
    });
    let mesh = TestMesh::new().service(guinea()).service(shop).start().await.unwrap();
    let asked =
        mesh.get("http://shop/ask").header("x-request-id", "r-1").timeout(Duration::from_secs(3)).await.unwrap();
    let (request_id, is_one_trace, left, shorter): (String, bool, u32, u32) = asked.json().await.unwrap();
    assert_eq!((request_id.as_str(), is_one_trace), ("r-1", true));
    assert!((701..=3000).contains(&left) && (1..=700).contains(&shorter), "{left} {shorter}");
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_crosses_grpc_with_reason_and_retry() {
    let shop = Service::new("shop").handle("GET /ask", async |ctx: Ctx| {
        let status = SidecarClient::new(ctx.channel("guinea")).describe(DescribeRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        let error = Error::from(status);
        assert_eq!((error.retry(), error.retry_after()), (Retry::Later, Some(Duration::from_secs(2))));
        Err::<(), _>(error.with_status(422))
    });
    let mesh = TestMesh::new().service(guinea()).service(shop).start().await.unwrap();
    let error =
        mesh.get("http://shop/ask").header("x-request-id", "fail").await.unwrap().error_for_status().await.unwrap_err();
    assert_eq!((error.status(), error.reason_word(), error.message()), (422, "out_of_stock", "too few"));
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn what_nobody_serves_is_a_grpc_status_not_a_page() {
    let mesh = TestMesh::new().service(Service::new("plain")).start().await.unwrap();
    let status = SidecarClient::new(mesh.client().channel("plain")).describe(DescribeRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert_eq!(Error::from(status).reason_word(), "no_handler");
    let status = SidecarClient::new(mesh.client().channel("nobody")).describe(DescribeRequest {}).await.unwrap_err();
    let error = Error::from(status);
    assert_eq!((error.reason_word(), error.from_mesh()), ("unknown_service", true));
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_sidecar_a_channel_says_so() {
    let client = synego_sdk::Client::dial().await.unwrap();
    let status = SidecarClient::new(client.channel("users")).describe(DescribeRequest {}).await.unwrap_err();
    let error = Error::from(status);
    assert_eq!((error.code(), error.reason_word()), (Code::Unavailable, "no_sidecar"));
}

#[tokio::test]
async fn standard_health_turns_when_the_drain_begins() {
    let (release, hold) = tokio::sync::oneshot::channel::<()>();
    let service = guinea().on_drain(async move |_| hold.await);
    let running = service.listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address())).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    running.stop();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2);
    release.send(()).unwrap();
    drop((watch, health));
    running.stopped().await.unwrap();
}
