//! What stands around each request: its context, span and time limit, and what becomes of its failures.

mod body;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt;
use http::{HeaderValue, Method, StatusCode, Version, header};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use self::body::Tracked;
use crate::checks::Health;
use crate::client::Client;
use crate::codes::{Code, Reason};
use crate::context::{CALLER, Carried, Ctx};
use crate::errors::{Error, Form, Sent};
use crate::handler::{Handler, Handlers};
use crate::load::Run;
use crate::pattern::Found;

/// Everything that answers the requests of one service; cheap to clone.
#[derive(Clone)]
pub(crate) struct Interceptor(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) handlers: Handlers,
    /// The user's own router, for what no handler takes.
    pub(crate) router: Option<Router>,
    /// `grpc.health.v1`, answered beside everything else.
    pub(crate) grpc_health: Router,
    pub(crate) client: Client,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) in_flight: TaskTracker,
    pub(crate) draining: CancellationToken,
}

impl Interceptor {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// As a router that takes every request.
    pub(crate) fn into_router(self) -> Router {
        Router::new().fallback(move |request: Request| self.clone().answer(request))
    }

    async fn answer(self, request: Request) -> Response {
        let found = self.0.handlers.find(request.method().as_str(), request.uri().path());
        match found {
            Ok(handler) => self.run(request, Some(handler), handler.form).await,
            Err(missed) => self.answer_beside(request, missed).await,
        }
    }

    /// A request that no handler takes: health, else the user's router, else a refusal.
    async fn answer_beside(&self, request: Request, missed: Found) -> Response {
        let form = if is_grpc(&request) { Form::Grpc } else { Form::Http };
        let path = request.uri().path();
        if path.starts_with("/grpc.health.v1.Health/") {
            return call(self.0.grpc_health.clone(), request).await;
        }
        if missed == Found::Nothing && (path == "/livez" || path == "/readyz") && request.method() == Method::GET {
            return self.health(path == "/livez");
        }
        if self.0.router.is_some() {
            return self.run(request, None, form).await;
        }
        let carried = Carried::read(request.headers(), Instant::now());
        refuse(&request, missed, form, carried.request_id.as_deref())
    }

    /// Runs a handler, or the user's router, with all that stands around it.
    async fn run(&self, mut request: Request, handler: Option<&Handler>, form: Form) -> Response {
        let ctx = self.context(&request, handler);
        request.extensions_mut().insert(ctx.clone());
        let limit = handler.and_then(|handler| {
            let left = ctx.carried().left(Instant::now(), handler.options.timeout);
            left.filter(|_| !handler.options.is_streaming)
        });
        // Held until the last byte of the answer is out: only then is nothing in flight.
        let in_flight = self.0.in_flight.token();
        let running = handler.map(|handler| Run::begin(&handler.meter));
        let gone = ctx.gone().clone().drop_guard();
        let router = handler.map(|handler| &handler.router).or(self.0.router.as_ref()).cloned().unwrap_or_default();
        let run = AssertUnwindSafe(call(router, request)).catch_unwind();
        let run = async {
            match limit {
                Some(limit) => tokio::time::timeout(limit, run).await.ok(),
                None => Some(run.await),
            }
        };
        let span = ctx.span();
        let result = run.instrument(span.clone()).await;
        let answer = span.in_scope(|| match result {
            Some(Ok(mut answer)) => match answer.extensions_mut().remove::<Sent>() {
                Some(Sent(error)) => error.answered_after(&answer, form, ctx.request_id()),
                None => answer,
            },
            Some(Err(panic)) => {
                tracing::error!(panic = panic_text(&*panic), "the handler panicked");
                Error::new(Code::Internal, crate::errors::FOREIGN).answer(form, ctx.request_id())
            }
            None => {
                if let Some(handler) = handler {
                    handler.meter.timed_out.fetch_add(1, Relaxed);
                }
                let ms = limit.unwrap_or_default().as_millis();
                let late = Error::said(Reason::HandlerTimeout, format!("no answer within {ms} ms"));
                late.answered(form, ctx.request_id())
            }
        });
        answer.map(|body| Body::new(Tracked::new(body, in_flight, running, gone)))
    }

    fn context(&self, request: &Request, handler: Option<&Handler>) -> Ctx {
        let carried = Carried::read(request.headers(), Instant::now());
        let caller = request.headers().get(CALLER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let protocol = match request.version() {
            _ if is_grpc(request) => "grpc",
            Version::HTTP_2 => "http2",
            _ => "http1",
        };
        let label = handler.map_or_else(|| request.uri().path(), |handler| handler.pattern.as_str());
        // Of the highest level, so that no log level leaves a line without its request.
        let span = tracing::error_span!(
            "request",
            request_id = carried.request_id.as_deref(),
            trace_id = carried.trace.id(),
            handler = label
        );
        let is_streaming = handler.is_some_and(|handler| handler.options.is_streaming);
        let draining = self.0.draining.clone();
        Ctx::new(carried, caller, protocol, span, self.0.client.clone(), draining, is_streaming)
    }

    fn health(&self, is_live_asked: bool) -> Response {
        let health = self.0.health.borrow();
        let is_well = is_live_asked || health.is_serving();
        let failing: Vec<_> =
            health.checks.iter().filter(|check| !check.is_ok).map(|check| check.name.as_str()).collect();
        let word = health.said_phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
        let body = serde_json::json!({ "phase": word, "failing": failing });
        let mut answer = Response::new(Body::from(body.to_string()));
        *answer.status_mut() = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }
}

impl Error {
    /// The answer, after the log was told what its receiver must not see.
    fn answered(&self, form: Form, request_id: Option<&str>) -> Response {
        let code = crate::codes::word(self.code());
        match std::error::Error::source(self) {
            Some(cause) if self.status() >= 500 => tracing::error!(%cause, code, "{}", self.message()),
            Some(cause) => tracing::info!(%cause, code, "{}", self.message()),
            None => {}
        }
        self.answer(form, request_id)
    }

    /// The answer in place of a first one, whose further headers (cookies and the like) stay.
    fn answered_after(&self, first: &Response, form: Form, request_id: Option<&str>) -> Response {
        let mut answer = self.answered(form, request_id);
        for (name, value) in first.headers() {
            if name != header::CONTENT_LENGTH && !answer.headers().contains_key(name) {
                answer.headers_mut().append(name, value.clone());
            }
        }
        answer
    }
}

async fn call(router: Router, request: Request) -> Response {
    router.oneshot(request).await.unwrap_or_else(|never| match never {})
}

fn refuse(request: &Request, missed: Found, form: Form, request_id: Option<&str>) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    let Found::OtherMethods(methods) = missed else {
        return Error::said(Reason::NoHandler, format!("no handler takes {method} {path}")).answer(form, request_id);
    };
    let allow = methods.join(", ");
    let error = Error::new(Code::Unimplemented, format!("{path} takes {allow}, not {method}"))
        .reason(Reason::MethodNotAllowed.word())
        .with_status(405);
    let mut answer = error.answer(form, request_id);
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        answer.headers_mut().insert(header::ALLOW, allow);
    }
    answer
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of another kind than text")
}
