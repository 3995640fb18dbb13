//! A channel for gRPC stubs that finds its service by name and carries the request's context.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel as Transported, Endpoint};
use tower::ServiceExt;

use super::{Client, Target};
use crate::codes::Reason;
use crate::context::{Carried, GRPC_TIMEOUT, Transport, grpc_ms};
use crate::errors::{self, Error};

/// Connections by service, each with the base URL that it was made for.
pub(super) type Channels = Mutex<HashMap<String, (String, Transported)>>;

/// What gRPC stubs take for a channel: `UsersClient::new(ctx.channel("users"))`.
///
/// It connects at the first call. A stub's own `grpc-timeout` may only shorten the request's deadline.
#[derive(Debug, Clone)]
pub struct Channel {
    client: Client,
    carried: Option<Carried>,
    service: String,
}

impl Channel {
    pub(super) fn new(client: Client, carried: Option<Carried>, service: &str) -> Self {
        Self { client, carried, service: service.to_owned() }
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Body>, Error> {
        let target = self.client.target(&self.service)?;
        let carried = self.carried.unwrap_or_else(Carried::begin);
        let own = request.headers().get(GRPC_TIMEOUT).and_then(|value| value.to_str().ok()).and_then(grpc_ms);
        let left = carried.left(Instant::now(), own.map(Duration::from_millis));
        if left.is_some_and(|left| left < Duration::from_millis(1)) {
            return Err(errors::out_of_time(&self.service));
        }
        carried.write(request.headers_mut(), Transport::Grpc, left, None);
        let channel = self.client.transported(&self.service, &target)?;
        channel.oneshot(request).await.map_err(|cause| unanswered(&self.service, &target, cause))
    }
}

/// Why no answer came, out of the transport's chain of causes.
fn unanswered(service: &str, target: &Target, cause: tonic::transport::Error) -> Error {
    let status = Status::from_error(cause.into());
    if std::error::Error::source(&status).is_some_and(has_cause::<tonic::TimeoutExpired>) {
        return errors::out_of_time(service);
    }
    let is_unconnected = std::error::Error::source(&status).is_some_and(has_cause::<tonic::ConnectError>);
    if is_unconnected && target.is_outbound {
        let message = format!("the outbound at {} does not answer", target.base);
        return Error::said(Reason::SidecarUnreachable, message).with_service(service).because(status);
    }
    Error::from(status).with_service(service)
}

fn has_cause<E: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<E>())
}

impl Client {
    /// The connection to a service, made anew when the outbound moved.
    fn transported(&self, service: &str, target: &Target) -> Result<Transported, Error> {
        let mut channels = self.0.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((base, channel)) = channels.get(service)
            && *base == target.base
        {
            return Ok(channel.clone());
        }
        let origin = Uri::try_from(format!("http://{service}")).map_err(Error::foreign)?;
        let endpoint = Endpoint::from_shared(target.base.clone())
            .map_err(Error::foreign)?
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5));
        let endpoint = if target.is_outbound { endpoint.origin(origin) } else { endpoint };
        let channel = endpoint.connect_lazy();
        channels.insert(service.to_owned(), (target.base.clone(), channel.clone()));
        Ok(channel)
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    /// Always ready: the connection is chosen when the call is made.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let send = self.clone().send(request);
        Box::pin(async move { send.await.map_err(Status::from) })
    }
}
