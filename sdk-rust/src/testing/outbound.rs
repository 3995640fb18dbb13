//! The outbound of a test's mesh: one loopback port that passes requests on by the name of their service.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, Version, header};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::codes::Reason;
use crate::errors::{Error, Form};
use crate::extract::Json;

/// What answers for one service.
#[derive(Debug, Clone, Default)]
pub(super) struct Destination {
    pub(super) address: Option<SocketAddr>,
    /// Answers of calls by name, by path.
    pub(super) stubs: HashMap<String, Value>,
}

#[derive(Clone)]
pub(super) struct Outbound {
    destinations: Arc<RwLock<HashMap<String, Destination>>>,
    http1: HyperClient<HttpConnector, Body>,
    http2: HyperClient<HttpConnector, Body>,
    requests: Arc<AtomicU64>,
}

impl Outbound {
    /// Starts it on a free port; gives its base URL.
    pub(super) async fn start(
        destinations: Arc<RwLock<HashMap<String, Destination>>>,
        closing: CancellationToken,
    ) -> Result<String, Error> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::foreign)?;
        let address = listener.local_addr().map_err(Error::foreign)?;
        let outbound = Self {
            destinations,
            http1: HyperClient::builder(TokioExecutor::new()).build_http(),
            http2: HyperClient::builder(TokioExecutor::new()).http2_only(true).build_http(),
            requests: Arc::default(),
        };
        let router = Router::new().fallback(move |request: Request| outbound.clone().pass(request));
        let serve = axum::serve(listener, router).with_graceful_shutdown(closing.cancelled_owned());
        tokio::spawn(serve.into_future());
        Ok(format!("http://{address}"))
    }

    async fn pass(self, mut request: Request) -> Response {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let name =
            request.uri().authority().map(|authority| authority.as_str()).or(host).unwrap_or_default().to_owned();
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let form = if is_grpc { Form::Grpc } else { Form::Http };
        if !request.headers().contains_key("x-request-id") {
            let id = format!("test-{}", self.requests.fetch_add(1, Relaxed) + 1);
            request
                .headers_mut()
                .extend(HeaderValue::try_from(id).ok().map(|id| (header::HeaderName::from_static("x-request-id"), id)));
        }
        let found = self.destinations.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let Some(found) = found else {
            return says(Reason::UnknownService, &name, form);
        };
        if let Some(answer) = found.stubs.get(&path) {
            return Json(answer).into_response();
        }
        let Some(uri) = found.address.and_then(|to| Uri::try_from(format!("http://{to}{path}")).ok()) else {
            return says(Reason::NoReadyEndpoint, &name, form);
        };
        *request.uri_mut() = uri;
        request.headers_mut().remove(header::CONNECTION);
        let client = if request.version() == Version::HTTP_2 { &self.http2 } else { &self.http1 };
        match client.request(request).await {
            Ok(answer) => answer.map(Body::new),
            Err(cause) if cause.is_connect() => says(Reason::ConnectFailed, &name, form),
            Err(_) => says(Reason::UpstreamReset, &name, form),
        }
    }
}

/// An answer of the mesh itself.
fn says(reason: Reason, service: &str, form: Form) -> Response {
    let mut answer = Error::said(reason, format!("{service}: {}", reason.meaning())).answer(form, None);
    answer.headers_mut().insert("x-synego-reason", HeaderValue::from_static(reason.word()));
    answer
}
