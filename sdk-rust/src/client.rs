//! Calling other services by their names, over HTTP, gRPC and RPC by name.

mod answer;
mod call;
mod channel;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Body;
use http::Method;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::attach::{self, Link, LinkState};
use crate::codes::{Code, Reason};
use crate::context::{Carried, Ctx};
use crate::environment::{Environment, SidecarAddress};
use crate::errors::Error;

pub use answer::Answer;
pub use call::{Call, NamedCall};
pub use channel::Channel;

/// Longest wait for the head of an answer unless a call or its request says less.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `dial` tries to reach the sidecar.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

/// What calls: by the name of a service, through the sidecar. Cheap to clone; all clones share their connections.
///
/// Within a request, call through [`Ctx`] instead: it carries request id, trace, deadline and priority along.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    place: RwLock<Environment>,
    http: HyperClient<HttpConnector, Body>,
    channels: channel::Channels,
    link: watch::Sender<LinkState>,
}

/// Where a call goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Base URL without a slash at its end.
    pub(crate) base: String,
    /// Whether the sidecar must be told the service's name, since the base URL is everybody's.
    pub(crate) is_outbound: bool,
}

impl Client {
    /// A client for a program that serves nothing: finds its sidecar in the environment and asks what it is.
    ///
    /// Without a sidecar (`SYNEGO_SIDECAR` unset or `off`) calls go to `SYNEGO_URL_<SERVICE>`, or fail with
    /// `no_sidecar`. A service's own client is [`Service::client`](crate::Service::client).
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when a variable cannot be understood; [`Code::Unavailable`] when the sidecar does not
    /// answer within 10 s.
    pub async fn dial() -> Result<Self, Error> {
        let environment = Environment::from_process();
        if !environment.problems.is_empty() {
            return Err(Error::new(Code::InvalidArgument, environment.problems.join("; ")));
        }
        let client = Self::new(environment);
        client.find_outbound().await?;
        Ok(client)
    }

    pub(crate) fn new(environment: Environment) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self(Arc::new(Inner {
            place: RwLock::new(environment),
            http,
            channels: channel::Channels::default(),
            link: watch::Sender::new(LinkState::Off),
        }))
    }

    pub(crate) async fn find_outbound(&self) -> Result<(), Error> {
        let address = self.environment().sidecar;
        if matches!(address, SidecarAddress::Off) {
            tracing::warn!("no sidecar: calls by name go to SYNEGO_URL_<SERVICE> alone");
            return Ok(());
        }
        let description = tokio::time::timeout(DIAL_LIMIT, attach::describe(&address)).await.map_err(|_| {
            Error::said(Reason::SidecarUnreachable, format!("the sidecar did not answer within {DIAL_LIMIT:?}"))
        })?;
        self.take_told(&description.outbound, &description.instance);
        Ok(())
    }

    /// Takes the environment of the process, or of a test mesh, in place of the one so far.
    pub(crate) fn take_environment(&self, environment: Environment) {
        *self.0.place.write().unwrap_or_else(PoisonError::into_inner) = environment;
    }

    pub(crate) fn environment(&self) -> Environment {
        self.0.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what the sidecar itself told: after its restart the outbound may have another address.
    pub(crate) fn take_told(&self, outbound: &str, instance: &str) {
        let mut place = self.0.place.write().unwrap_or_else(PoisonError::into_inner);
        if !outbound.is_empty() {
            place.outbound = Some(outbound.trim_end_matches('/').to_owned());
        }
        if !instance.is_empty() {
            instance.clone_into(&mut place.instance);
        }
    }

    /// Name of this instance, such as `users-1`; empty when nobody gave it one.
    #[must_use]
    pub fn instance(&self) -> String {
        self.0.place.read().unwrap_or_else(PoisonError::into_inner).instance.clone()
    }

    pub(crate) fn link_state(&self) -> &watch::Sender<LinkState> {
        &self.0.link
    }

    /// The link to the sidecar, to look at and to wait for. It is `off` for a client that was dialled: only services
    /// attach.
    #[must_use]
    pub fn link(&self) -> Link {
        Link::new(self.0.link.subscribe())
    }

    pub(crate) fn target(&self, service: &str) -> Result<Target, Error> {
        let place = self.0.place.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbound) = &place.outbound {
            return Ok(Target { base: outbound.clone(), is_outbound: true });
        }
        match place.url(service) {
            Some(url) => Ok(Target { base: url.to_owned(), is_outbound: false }),
            None => {
                let message = format!("{service} cannot be called: no sidecar, and no SYNEGO_URL_… names it");
                Err(Error::said(Reason::NoSidecar, message).with_service(service))
            }
        }
    }

    fn begin(&self, carried: Carried, method: Method, url: String) -> Call {
        Call::new(self.clone(), carried, method, url)
    }

    /// A call outside of any request: it begins a trace of its own.
    pub fn request(&self, method: Method, url: impl Into<String>) -> Call {
        self.begin(Carried::begin(), method, url.into())
    }

    /// `GET` outside of any request.
    pub fn get(&self, url: impl Into<String>) -> Call {
        self.request(Method::GET, url)
    }

    /// `POST` outside of any request.
    pub fn post(&self, url: impl Into<String>) -> Call {
        self.request(Method::POST, url)
    }

    /// RPC by name outside of any request; see [`Ctx::call`].
    pub fn call<T: DeserializeOwned>(&self, service: &str, name: &str, input: &impl Serialize) -> NamedCall<T> {
        NamedCall::new(self.clone(), Carried::begin(), service, name, input)
    }

    /// A channel for gRPC stubs outside of any request.
    #[must_use]
    pub fn channel(&self, service: &str) -> Channel {
        Channel::new(self.clone(), None, service)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outbound = self.environment().outbound;
        f.debug_struct("Client")
            .field("outbound", &outbound)
            .field("link", &*self.0.link.borrow())
            .finish_non_exhaustive()
    }
}

impl Ctx {
    /// A call in the name of this request: `http://SERVICE/path`.
    pub fn request(&self, method: Method, url: impl Into<String>) -> Call {
        self.client().begin(self.carried().clone(), method, url.into())
    }

    /// `GET http://SERVICE/path`.
    pub fn get(&self, url: impl Into<String>) -> Call {
        self.request(Method::GET, url)
    }

    /// `POST http://SERVICE/path`.
    pub fn post(&self, url: impl Into<String>) -> Call {
        self.request(Method::POST, url)
    }

    /// `PUT http://SERVICE/path`.
    pub fn put(&self, url: impl Into<String>) -> Call {
        self.request(Method::PUT, url)
    }

    /// `PATCH http://SERVICE/path`.
    pub fn patch(&self, url: impl Into<String>) -> Call {
        self.request(Method::PATCH, url)
    }

    /// `DELETE http://SERVICE/path`.
    pub fn delete(&self, url: impl Into<String>) -> Call {
        self.request(Method::DELETE, url)
    }

    /// RPC by name: `quote` of `prices`, or `shop.v1.Prices/Quote`; JSON in, JSON out.
    pub fn call<T: DeserializeOwned>(&self, service: &str, name: &str, input: &impl Serialize) -> NamedCall<T> {
        NamedCall::new(self.client().clone(), self.carried().clone(), service, name, input)
    }

    /// A channel for gRPC stubs: `UsersClient::new(ctx.channel("users"))`.
    #[must_use]
    pub fn channel(&self, service: &str) -> Channel {
        Channel::new(self.client().clone(), Some(self.carried().clone()), service)
    }
}

#[cfg(test)]
mod tests;
