//! What one request knows: its id, trace, deadline and caller, and the way to call others in its name.

mod carried;
mod deadline;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::client::Client;
use crate::codes::Code;
use crate::errors::Error;

pub use carried::Priority;
pub(crate) use carried::{CALLER, Carried};
pub(crate) use deadline::{GRPC_TIMEOUT, Transport, grpc_ms};
#[cfg(test)]
pub(crate) use {carried::request_id, deadline::write as write_deadline, trace::Trace};

/// The context of one request: an extractor for handlers, cheap to clone, to be moved into spawned work.
///
/// It is explicit on purpose: what is kept beside a task is lost where another task begins.
///
/// ```
/// # use synego_sdk::{Ctx, Error, Json, Path, Service};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct User { name: String }
/// async fn greeting(ctx: Ctx, Path(id): Path<u64>) -> Result<String, Error> {
///     let user: User = ctx.get(format!("http://users/users/{id}")).await?.json().await?;
///     Ok(format!("good day, {}", user.name))
/// }
/// # let _ = Service::new("greeter").handle("GET /greet/{id}", greeting);
/// ```
#[derive(Clone)]
pub struct Ctx(Arc<Inner>);

struct Inner {
    carried: Carried,
    caller: Option<String>,
    protocol: &'static str,
    span: Span,
    client: Client,
    gone: CancellationToken,
    draining: CancellationToken,
}

impl Ctx {
    pub(crate) fn new(
        carried: Carried,
        caller: Option<String>,
        protocol: &'static str,
        span: Span,
        client: Client,
        draining: CancellationToken,
        is_streaming: bool,
    ) -> Self {
        let gone = if is_streaming { draining.child_token() } else { CancellationToken::new() };
        Self(Arc::new(Inner { carried, caller, protocol, span, client, gone, draining }))
    }

    /// The context of a gRPC request that this SDK's service serves.
    ///
    /// # Errors
    /// [`Code::Internal`] when the request did not come through a [`Service`](crate::Service).
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Error> {
        request.extensions().get::<Self>().cloned().ok_or_else(missing)
    }

    /// Id of the request, one for the whole chain of calls; `None` when it did not come through the mesh.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.carried.request_id.as_deref()
    }

    /// Id of the trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.carried.trace.id()
    }

    /// W3C baggage as it came; never to be used to decide access.
    #[must_use]
    pub fn baggage(&self) -> Option<&str> {
        self.0.carried.baggage.as_ref().and_then(|value| value.to_str().ok())
    }

    /// When the answer is of no use any more; `None`: no deadline was said.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.carried.deadline
    }

    /// Time left until the deadline, zero when it passed; `None`: no deadline was said.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.0.carried.left(Instant::now(), None)
    }

    /// How much the request matters.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.0.carried.priority()
    }

    /// Identity of the calling service as its sidecar proved it, such as `spiffe://shop/svc/web`; `None` when unknown.
    #[must_use]
    pub fn caller(&self) -> Option<&str> {
        self.0.caller.as_deref()
    }

    /// Name of the instance that serves the request, such as `users-1`; empty when nobody gave it one.
    #[must_use]
    pub fn instance(&self) -> String {
        self.0.client.instance()
    }

    /// What was spoken: `http1`, `http2` or `grpc`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        self.0.protocol
    }

    /// The span of the request; work spawned in its name logs with its id by `.instrument(ctx.span())`.
    #[must_use]
    pub fn span(&self) -> Span {
        self.0.span.clone()
    }

    /// Completes when nobody waits for the answer any more: the caller went away, or the deadline passed. The streams
    /// of handlers with [`Options::streaming`](crate::Options::streaming) are cancelled by a drain, too.
    pub async fn cancelled(&self) {
        match self.0.carried.deadline {
            Some(deadline) => {
                tokio::select! {
                    () = self.0.gone.cancelled() => {}
                    () = tokio::time::sleep_until(deadline) => {}
                }
            }
            None => self.0.gone.cancelled().await,
        }
    }

    /// Completes when this service begins to drain: long answers should come to their end.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.0.gone
    }

    pub(crate) fn carried(&self) -> &Carried {
        &self.0.carried
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("carried", &self.0.carried).field("caller", &self.0.caller).finish_non_exhaustive()
    }
}

impl<S: Sync> FromRequestParts<S> for Ctx {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}

fn missing() -> Error {
    Error::new(Code::Internal, crate::errors::FOREIGN)
        .because("a context is known only to requests that a Service serves")
}
