//! One call to another service: HTTP by URL, or RPC by name.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Answer, CALL_TIMEOUT, Client, Target};
use crate::codes::{Code, Reason, Retry};
use crate::context::{Carried, Priority, Transport};
use crate::errors::{self, Error};
use crate::handler::rpc_path;

/// From a day on there is no limit: headers cannot say more.
const NO_LIMIT: Duration = Duration::from_secs(86_400);

/// An HTTP call; await it to send it. It is sent once: repeating is the sidecar's work.
#[must_use = "a call is sent when it is awaited"]
pub struct Call {
    client: Client,
    carried: Carried,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Body,
    transport: Transport,
    timeout: Duration,
    priority: Option<Priority>,
    problem: Option<Error>,
}

impl Call {
    pub(super) fn new(client: Client, carried: Carried, method: Method, url: String) -> Self {
        Self {
            client,
            carried,
            method,
            url,
            headers: HeaderMap::new(),
            body: Body::empty(),
            transport: Transport::Http,
            timeout: CALL_TIMEOUT,
            priority: None,
            problem: None,
        }
    }

    /// Sends `value` as JSON.
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match serde_json::to_vec(value) {
            Ok(bytes) => self.body = Body::from(bytes),
            Err(cause) => self.problem = Some(Error::foreign(cause)),
        }
        self
    }

    /// Sends this body: bytes, text, or a stream ([`Body::from_stream`]).
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header. Those that carry the request's context are set when the call is sent, over what stands here.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => self.problem = Some(Error::new(Code::InvalidArgument, format!("`{name}` is not a sound header"))),
        }
        self
    }

    /// Longest wait for the whole answer; 10 s when not said. A request's own deadline may only be shortened by it; a
    /// day or more is no limit.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Lowers the priority; a higher one than the request's is not sent.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    async fn send(mut self) -> Result<Answer, Error> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let (service, path) = split(&self.url)?;
        let target = self.client.target(&service)?;
        let now = Instant::now();
        let left = self.carried.left(now, Some(self.timeout).filter(|limit| *limit < NO_LIMIT));
        if left.is_some_and(|left| left < Duration::from_millis(1)) {
            return Err(errors::out_of_time(&service));
        }
        self.carried.write(&mut self.headers, self.transport, left, self.priority);
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = Uri::try_from(format!("{}{path}", target.base)).map_err(Error::foreign)?;
        *request.headers_mut() = self.headers;
        if target.is_outbound {
            let host = HeaderValue::try_from(service.as_str()).map_err(Error::foreign)?;
            request.headers_mut().insert(header::HOST, host);
        }
        let deadline = left.map(|left| now + left);
        let answer = self.client.0.http.request(request);
        let answer = match deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, answer).await.map_err(|_| errors::out_of_time(&service))?
            }
            None => answer.await,
        };
        match answer {
            Ok(answer) => Ok(Answer::new(answer, service, deadline)),
            Err(cause) => Err(unanswered(&service, &target, cause)),
        }
    }
}

/// Why no answer came: nobody there, or the connection broke.
fn unanswered(service: &str, target: &Target, cause: hyper_util::client::legacy::Error) -> Error {
    let error = if cause.is_connect() && target.is_outbound {
        Error::said(Reason::SidecarUnreachable, format!("the outbound at {} does not answer", target.base))
    } else if cause.is_connect() {
        Error::said(Reason::ConnectFailed, format!("{} does not answer", target.base))
    } else {
        Error::new(Code::Unavailable, "the connection broke before the answer came").with_retry(Retry::Never)
    };
    error.with_service(service).because(cause)
}

/// Service and path of `http://SERVICE/path?query`.
fn split(url: &str) -> Result<(String, String), Error> {
    let bad = || Error::new(Code::InvalidArgument, format!("`{url}` is not `http://SERVICE/path`"));
    let uri = Uri::try_from(url).map_err(|_| bad())?;
    let service = uri.host().filter(|host| synego_model::name::is_name(host));
    match (uri.scheme_str(), service, uri.port()) {
        (Some("http"), Some(service), None) => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            Ok((service.to_owned(), path.to_owned()))
        }
        _ => Err(bad()),
    }
}

impl IntoFuture for Call {
    type Output = Result<Answer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A call by name; await it to send it.
#[must_use = "a call is sent when it is awaited"]
pub struct NamedCall<T> {
    call: Call,
    output: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> NamedCall<T> {
    pub(super) fn new(client: Client, carried: Carried, service: &str, name: &str, input: &impl Serialize) -> Self {
        let mut call =
            Call::new(client, carried, Method::POST, format!("http://{service}{}", rpc_path(name))).json(input);
        call.transport = Transport::Connect;
        Self { call, output: PhantomData }
    }

    /// Longest wait for the answer; see [`Call::timeout`].
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.call = self.call.timeout(limit);
        self
    }

    /// Lowers the priority; see [`Call::priority`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.call = self.call.priority(priority);
        self
    }
}

impl<T: DeserializeOwned + 'static> IntoFuture for NamedCall<T> {
    type Output = Result<T, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.call.await?.json().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_the_service() {
        let parts = |url| split(url).map_err(|error| error.code());
        assert_eq!(parts("http://users/a?b=c"), Ok(("users".to_owned(), "/a?b=c".to_owned())));
        assert_eq!(parts("http://user-store"), Ok(("user-store".to_owned(), "/".to_owned())));
        for bad in ["https://users/a", "http://users:80/a", "http://Users.local/a", "/a", "users", ""] {
            assert_eq!(parts(bad), Err(Code::InvalidArgument), "{bad}");
        }
    }
}
