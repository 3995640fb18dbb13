//! The configuration as text: what the gateway says, sorted into server blocks, put into the template.

mod servers;
mod types;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use synego_model::Reason;
use synego_model::gateway::GatewaySpec;

use crate::quote::{quoted, safe, safe_path};
use servers::{Server, servers};

const TEMPLATE: &str = include_str!("../../../nginx/nginx.conf.jinja");
/// Connections of one worker at most, those to masters included: twice the clients of `limits.connections`.
const MAX_CONNECTIONS: u64 = 20_000;
/// Files of a worker that are no connections.
const OTHER_FILES: u64 = 100;
/// Time that workers which are replaced give to open streams: the age that any connection reaches. An end of Nginx as a
/// whole is bounded by its supervisor.
const SHUTDOWN: Duration = Duration::from_secs(3_600);

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessTo {
    /// Nowhere.
    Off,
    /// Standard output of Nginx, one JSON line for each exchange.
    Stdout,
    /// Daily files `YYYY-MM-DD.nginx.log` in this folder; absolute.
    Dir(PathBuf),
}

/// What Nginx is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NginxConfig {
    /// Addresses, hosts, files. No port is 0: Nginx cannot say which one it took.
    pub gateway: GatewaySpec,
    /// The masters' ingresses; at least one.
    pub masters: Vec<SocketAddr>,
    /// Loopback address on which Nginx answers itself while no master can be reached; used only with SPAs.
    pub unreachable: SocketAddr,
    /// Where the access log goes.
    pub access: AccessTo,
    /// Largest body of a request; bytes; `None`: no limit.
    pub body_limit: Option<u64>,
    /// Longest silence that any route allows; longer than every timeout of the mesh, so that the mesh answers first.
    pub idle: Duration,
    /// Files that a worker may have open.
    pub file_limit: u64,
    /// Worker processes; at least 1.
    pub workers: usize,
    /// User of the workers; only for a start as root, where Nginx would change to another one.
    pub user: Option<String>,
}

impl NginxConfig {
    /// With the defaults: no access log, no limit of bodies, 5 min of silence and 30 s on top, 1,024 files, one worker;
    /// as root, workers that stay root: they could not read the folders of their own prefix otherwise.
    #[must_use]
    pub fn new(gateway: GatewaySpec, masters: Vec<SocketAddr>) -> Self {
        Self {
            gateway,
            masters,
            unreachable: (Ipv4Addr::LOCALHOST, 0).into(),
            access: AccessTo::Off,
            body_limit: None,
            idle: Duration::from_secs(330),
            file_limit: 1_024,
            workers: 1,
            user: rustix::process::geteuid().is_root().then(|| "root".to_owned()),
        }
    }
}

/// A configuration that cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct RenderError {
    /// All mistakes, each with its key and value.
    pub problems: Vec<String>,
}

/// What the template sees.
#[derive(Serialize)]
struct Context {
    user: Option<String>,
    workers: usize,
    file_limit: u64,
    worker_connections: u64,
    shutdown_seconds: u64,
    idle_seconds: u64,
    body_limit: u64,
    access: Option<String>,
    types: &'static [(&'static str, &'static str)],
    masters: Vec<String>,
    unreachable: String,
    servers: Vec<Server>,
    has_files: bool,
    has_spas: bool,
    errors: Vec<ErrorPage>,
    no_route: &'static str,
    connect_failed: &'static str,
    internal: &'static str,
}

/// What Nginx itself answers, in the form of the mesh.
#[derive(Serialize)]
struct ErrorPage {
    on: &'static str,
    status: u16,
    sets_status: bool,
    reason: &'static str,
    meaning: &'static str,
}

/// Statuses that Nginx itself makes, and what they mean here.
const ERRORS: [(&str, Reason); 9] = [
    ("404", Reason::NoRoute),
    ("502 504", Reason::ConnectFailed),
    ("400", Reason::BadRequest),
    ("405", Reason::MethodNotAllowed),
    ("408", Reason::ClientTooSlow),
    ("413", Reason::BodyTooLarge),
    ("414", Reason::TargetTooLong),
    // Nginx's own number for a head that is too large.
    ("494", Reason::HeadersTooLarge),
    ("500", Reason::Internal),
];

/// The configuration as text.
///
/// # Errors
/// All values that cannot stand in it, at once.
pub fn render(config: &NginxConfig) -> Result<String, RenderError> {
    let mut problems = Vec::new();
    let mut take = |value: Result<String, String>| value.map_err(|problem| problems.push(problem)).ok();
    let access = match &config.access {
        AccessTo::Off => None,
        AccessTo::Stdout => Some("/dev/stdout".to_owned()),
        // The one variable that the value may hold is our own.
        AccessTo::Dir(dir) => {
            take(safe_path("telemetry.logs.dir", dir)).map(|dir| quoted(&format!("{dir}/$synego_day.nginx.log")))
        }
    };
    let user = config.user.as_ref().and_then(|user| take(safe("user", user)));
    let servers = servers(&config.gateway, &mut problems);
    if config.masters.is_empty() {
        problems.push("masters: Nginx needs at least one address of an ingress".to_owned());
    }
    let has_spas = !config.gateway.spa_places.is_empty();
    if has_spas && config.unreachable.port() == 0 {
        problems.push("unreachable: a port other than 0 is needed".to_owned());
    }
    if !problems.is_empty() {
        return Err(RenderError { problems });
    }
    let context = Context {
        user,
        workers: config.workers.max(1),
        file_limit: config.file_limit,
        worker_connections: config.file_limit.saturating_sub(OTHER_FILES).clamp(64, MAX_CONNECTIONS),
        shutdown_seconds: SHUTDOWN.as_secs(),
        idle_seconds: config.idle.as_secs().max(1),
        body_limit: config.body_limit.unwrap_or(0),
        access,
        types: types::TYPES,
        masters: config.masters.iter().map(ToString::to_string).collect(),
        unreachable: config.unreachable.to_string(),
        servers,
        has_files: has_spas || !config.gateway.static_places.is_empty(),
        has_spas,
        errors: ERRORS.iter().map(|(on, reason)| error_page(on, *reason)).collect(),
        no_route: Reason::NoRoute.meaning(),
        connect_failed: Reason::ConnectFailed.meaning(),
        internal: Reason::Internal.meaning(),
    };
    // The template is part of the program: a mistake in it is found by every test, and told here all the same.
    fill(&context)
        .map_err(|error| RenderError { problems: vec![format!("the template of Nginx is broken: {error:#}")] })
}

fn error_page(on: &'static str, reason: Reason) -> ErrorPage {
    let (status, sets_status) = (reason.status(), on != reason.status().to_string());
    ErrorPage { on, status, sets_status, reason: reason.word(), meaning: reason.meaning() }
}

fn fill(context: &Context) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.add_filter("q", |text: String| quoted(&text));
    environment.render_str(TEMPLATE, context)
}

#[cfg(test)]
#[path = "render/tests.rs"]
mod tests;
