//! The handlers of a service: each a pattern, its options, and a function behind one route of axum.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::handler::Handler as AxumHandler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synego_wire::pb;

use crate::context::Ctx;
use crate::errors::{Error, Form};
use crate::extract::Json;
use crate::load::HandlerMeter;
use crate::options::Options;
use crate::pattern::{Found, Pattern, Patterns};

/// Most that a handler reads of a body unless it takes the body as a stream, in bytes.
pub(crate) const MAX_BODY: usize = 10 * 1024 * 1024;

/// Most handlers that a service may have.
const MAX_HANDLERS: usize = 1000;

/// One handler as declared.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(crate) pattern: Pattern,
    pub(crate) options: Options,
    pub(crate) form: Form,
    pub(crate) router: Router,
    pub(crate) meter: Arc<HandlerMeter>,
}

impl Handler {
    pub(crate) fn new<H, T>(pattern: &str, options: Options, form: Form, handler: H) -> Result<Self, String>
    where
        H: AxumHandler<T, ()>,
        T: 'static,
    {
        let pattern = Pattern::parse(pattern).map_err(|bad| bad.to_string())?;
        let method = Method::from_bytes(pattern.method.as_bytes()).map_err(|bad| bad.to_string())?;
        let filter = MethodFilter::try_from(method).map_err(|bad| bad.to_string())?;
        let router =
            Router::new().route(&pattern.axum_path(), on(filter, handler)).layer(DefaultBodyLimit::max(MAX_BODY));
        let meter = Arc::new(HandlerMeter { is_streaming: options.is_streaming, ..HandlerMeter::default() });
        Ok(Self { pattern, options, form, router, meter })
    }

    /// A handler that is called by name: JSON in, JSON out, errors in Connect's form.
    pub(crate) fn rpc<F, Fut, In, Out>(name: &str, function: F) -> Result<Self, String>
    where
        F: Fn(Ctx, In) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, Error>> + Send,
        In: DeserializeOwned + Send,
        Out: Serialize,
    {
        let path = rpc_path(name);
        let run = move |ctx: Ctx, request: Request| async move { answer_rpc(function, ctx, request).await };
        Self::new(&format!("POST {path}"), Options::inline(), Form::Connect, run)
    }

    fn declaration(&self) -> pb::Handler {
        pb::Handler {
            pattern: self.pattern.as_str().to_owned(),
            model: pb::Model::Inline.into(),
            isolation: pb::Isolation::Shared.into(),
            timeout_ms: self.options.timeout.map_or(0, |limit| limit.as_millis() as u32),
            streaming: self.options.is_streaming,
            ..pb::Handler::default()
        }
    }
}

/// Where a name is called: `/rpc/quote` for `quote`, `/pkg.Service/Method` for `pkg.Service/Method`.
pub(crate) fn rpc_path(name: &str) -> String {
    if name.contains('/') { format!("/{}", name.trim_start_matches('/')) } else { format!("/rpc/{name}") }
}

async fn answer_rpc<F, Fut, In, Out>(function: F, ctx: Ctx, request: Request) -> Response
where
    F: Fn(Ctx, In) -> Fut,
    Fut: Future<Output = Result<Out, Error>>,
    In: DeserializeOwned,
    Out: Serialize,
{
    let input = match Json::from_request(request, &()).await {
        Ok(Json(input)) => input,
        Err(refusal) => return refusal.into_response(),
    };
    match function(ctx, input).await {
        Ok(output) => Json(output).into_response(),
        Err(error) => error.into_response(),
    }
}

/// All handlers of a service, with the table that finds them.
#[derive(Default)]
pub(crate) struct Handlers {
    patterns: Patterns,
    all: Vec<Handler>,
}

impl Handlers {
    /// The table; errors are all mistakes at once.
    pub(crate) fn new(all: Vec<Handler>) -> Result<Self, Vec<String>> {
        let patterns = Patterns::new(all.iter().map(|handler| handler.pattern.clone()));
        let conflicts = patterns.conflicts();
        let mut problems: Vec<_> =
            conflicts.iter().map(|(one, two)| format!("`{one}` and `{two}` take the same requests")).collect();
        if all.len() > MAX_HANDLERS {
            problems.push(format!("{} handlers, at most {MAX_HANDLERS} are allowed", all.len()));
        }
        drop(conflicts);
        if problems.is_empty() { Ok(Self { patterns, all }) } else { Err(problems) }
    }

    pub(crate) fn find(&self, method: &str, path: &str) -> Result<&Handler, Found> {
        match self.patterns.find(method, path) {
            Found::Handler(index) => self.all.get(index).ok_or(Found::Nothing),
            other => Err(other),
        }
    }

    pub(crate) fn meters(&self) -> Vec<Arc<HandlerMeter>> {
        self.all.iter().map(|handler| handler.meter.clone()).collect()
    }

    pub(crate) fn declaration(&self, routes: &[String]) -> pb::Handlers {
        pb::Handlers {
            handler: self.all.iter().map(Handler::declaration).collect(),
            route: routes.to_vec(),
            ..pb::Handlers::default()
        }
    }
}
