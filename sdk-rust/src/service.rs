//! What answers: a service with its handlers, checks and hooks, built step by step and then run.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::handler::Handler as AxumHandler;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synego_model::process::ServiceAddress;

use crate::checks::{Check, Need};
use crate::client::Client;
use crate::codes::Code;
use crate::context::Ctx;
use crate::environment::Environment;
use crate::errors::{Error, Form};
use crate::handler::Handler;
use crate::hooks::{Drain, Hooks, Outcome};
use crate::lifecycle::{self, Running};
use crate::load::Figure;
use crate::logs;
use crate::options::Options;

/// Most load figures of its own that a service may have.
const MAX_FIGURES: usize = 16;

/// A service: what it answers, how it is, and what it does when it starts, drains and stops.
///
/// ```no_run
/// use synego_sdk::{Json, Path, Service};
///
/// #[derive(serde::Serialize)]
/// struct User { id: u64, name: &'static str }
///
/// #[tokio::main]
/// async fn main() -> Result<(), synego_sdk::Error> {
///     Service::new("users")
///         .handle("GET /users/{id}", async |Path(id): Path<u64>| Json(User { id, name: "Ada" }))
///         .run()
///         .await
/// }
/// ```
#[must_use = "a service does nothing until it runs"]
pub struct Service {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) problems: Vec<String>,
    pub(crate) routes: Vec<String>,
    pub(crate) checks: Vec<Check>,
    pub(crate) figures: Vec<(String, Figure)>,
    pub(crate) router: Option<Router>,
    pub(crate) on_start: Hooks<()>,
    pub(crate) on_drain: Hooks<Drain>,
    pub(crate) on_stop: Hooks<()>,
    pub(crate) client: Client,
    pub(crate) is_sidecar_required: bool,
}

impl Service {
    /// A service of this name: `[a-z]([-a-z0-9]{0,61}[a-z0-9])?`. Mistakes are told by [`Service::run`], all at once.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            listen: None,
            handlers: Vec::new(),
            problems: Vec::new(),
            routes: Vec::new(),
            checks: Vec::new(),
            figures: Vec::new(),
            router: None,
            on_start: Hooks::default(),
            on_drain: Hooks::default(),
            on_stop: Hooks::default(),
            client: Client::new(Environment::from_process()),
            is_sidecar_required: false,
        }
    }

    /// Version of the service, for people and for split traffic; at most 64 bytes.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Where to listen when it is neither the socket that `SOCKET` names nor `127.0.0.1` at `PORT` (a free port when both
    /// are unset): an address of the loopback, by which the sidecar comes, or `0.0.0.0`, or `[::]`.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Asks the mesh to route a place to this service: `/users`, or `shop.example.com/users`. It counts only where the
    /// manifest leaves the service's routes open.
    pub fn route(mut self, place: impl Into<String>) -> Self {
        self.routes.push(place.into());
        self
    }

    /// Answers a pattern, `METHOD /path` with `{name}` for one segment and `{name...}` for the rest, by any handler of
    /// axum. The more literal pattern wins.
    pub fn handle<H, T>(self, pattern: &str, handler: H) -> Self
    where
        H: AxumHandler<T, ()>,
        T: 'static,
    {
        self.handle_with(pattern, Options::inline(), handler)
    }

    /// The same, with options.
    pub fn handle_with<H, T>(self, pattern: &str, options: Options, handler: H) -> Self
    where
        H: AxumHandler<T, ()>,
        T: 'static,
    {
        self.add(Handler::new(pattern, options, Form::Http, handler))
    }

    /// Answers calls by name: `quote` at `POST /rpc/quote`, `pkg.Service/Method` at that path; JSON in, JSON out.
    ///
    /// ```
    /// # use synego_sdk::{Ctx, Error, Service};
    /// #[derive(serde::Deserialize)] struct Quote { sku: String }
    /// #[derive(serde::Serialize)] struct Price { cents: u64 }
    ///
    /// let prices = Service::new("prices")
    ///     .rpc("quote", async |_: Ctx, quote: Quote| Ok(Price { cents: 100 * quote.sku.len() as u64 }));
    /// ```
    pub fn rpc<F, Fut, In, Out>(self, name: &str, function: F) -> Self
    where
        F: Fn(Ctx, In) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, Error>> + Send + 'static,
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
    {
        self.add(Handler::rpc(name, function))
    }

    fn add(mut self, handler: Result<Handler, String>) -> Self {
        match handler {
            Ok(handler) => self.handlers.push(handler),
            Err(problem) => self.problems.push(problem),
        }
        self
    }

    /// Takes over an existing router, gRPC services included (`Routes::new(…).into_axum_router()`): it answers, on the
    /// same port or socket, what no handler takes. Address, link, context, health and drain are the SDK's.
    pub fn serve(mut self, router: Router) -> Self {
        self.router = Some(match self.router.take() {
            Some(first) => first.merge(router),
            None => router,
        });
        self
    }

    /// Checks every 5 s something that the service needs; a run lasts 1 s at most, which is what the check is given.
    /// Three failures in a row make it fail, two passes in a row make it pass again; the first result counts at once.
    pub fn check<F, Fut>(mut self, name: impl Into<String>, check: F, need: Need) -> Self
    where
        F: Fn(Duration) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.checks.push(Check::new(name.into(), need, check));
        self
    }

    /// A figure of the service's own, 0 (idle) to 1 (nothing more is possible); asked for with each report.
    pub fn load(mut self, name: impl Into<String>, figure: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        self.figures.push((name.into(), Arc::new(figure)));
        self
    }

    /// Runs before the service is ready; a failure ends it.
    pub fn on_start<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.on_start.push(move |()| hook());
        self
    }

    /// Runs when the drain begins; all of it has until [`Drain::deadline`].
    pub fn on_drain<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce(Drain) -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.on_drain.push(hook);
        self
    }

    /// Runs last, when nothing is in flight any more.
    pub fn on_stop<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: Outcome> + Send + 'static,
    {
        self.on_stop.push(move |()| hook());
        self
    }

    /// Fails after 10 s without a link, instead of serving on and trying for ever.
    pub fn require_sidecar(mut self) -> Self {
        self.is_sidecar_required = true;
        self
    }

    /// What calls other services in this one's name, for work that no request began.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Listens, attaches, gets ready, serves and drains; returns when drained. Logs become JSON lines on standard
    /// output unless the program has set a subscriber of its own. TERM or INT begins the drain, a second one ends the
    /// process at once.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] with every mistake of the declaration; the cause when the address is taken, a start hook
    /// fails, or a required sidecar is missing.
    pub async fn run(self) -> Result<(), Error> {
        let environment = Environment::from_process();
        logs::install(&self.name, &environment.instance);
        lifecycle::run(self, environment).await
    }

    /// Starts the service within a program that goes on; returns once it is ready. Signals and logs stay the program's.
    ///
    /// # Errors
    /// Those of [`Service::run`].
    pub async fn start(self) -> Result<Running, Error> {
        lifecycle::start(self, Environment::from_process()).await
    }

    /// Where to listen: what the program says, else what its parent says, else a free port.
    pub(crate) fn address(&self, environment: &Environment) -> ServiceAddress {
        match (self.listen, &environment.socket) {
            (Some(address), _) => ServiceAddress::Tcp(address),
            (None, Some(path)) => ServiceAddress::Unix(path.clone()),
            (None, None) => ServiceAddress::Tcp((Ipv4Addr::LOCALHOST, environment.port).into()),
        }
    }

    /// Every mistake that shows before the service listens, but for those of its `Hello`.
    pub(crate) fn declared_problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        if self.figures.len() > MAX_FIGURES {
            problems.push(format!("{} load figures, at most {MAX_FIGURES} are allowed", self.figures.len()));
        }
        problems
    }
}

/// Serves an existing router as the service that `SYNEGO_SERVICE` names (alone: the program's name): the one line that
/// brings a program of axum and tonic into the mesh.
///
/// ```no_run
/// # async fn example() -> Result<(), synego_sdk::Error> {
/// let router = axum::Router::new().route("/", axum::routing::get(async || "hello"));
/// synego_sdk::serve(router).await
/// # }
/// ```
///
/// # Errors
/// Those of [`Service::run`].
pub async fn serve(router: Router) -> Result<(), Error> {
    let name = Environment::from_process().service.or_else(program).ok_or_else(|| {
        Error::new(Code::InvalidArgument, "SYNEGO_SERVICE is not set, and the program's name is no name of a service")
    })?;
    Service::new(name).serve(router).run().await
}

fn program() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    synego_model::name::nearest_name(path.file_stem()?.to_str()?)
}
