//! The answer to an HTTP call.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::codes::{Blame, Code};
use crate::errors::{self, Error};
use crate::handler::MAX_BODY;

/// An answer whose head has come; the body is read on demand.
#[derive(Debug)]
pub struct Answer {
    head: http::response::Parts,
    body: Incoming,
    service: String,
    deadline: Option<Instant>,
}

impl Answer {
    pub(super) fn new(answer: Response<Incoming>, service: String, deadline: Option<Instant>) -> Self {
        let (head, body) = answer.into_parts();
        Self { head, body, service, deadline }
    }

    /// Status, whichever it is: a call that was answered has not failed.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// Headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The answer itself when its status is below 400, else the error that it tells.
    ///
    /// # Errors
    /// What the service or the mesh answered.
    pub async fn error_for_status(self) -> Result<Self, Error> {
        let status = self.head.status;
        if status.as_u16() < 400 {
            return Ok(self);
        }
        let (service, headers) = (self.service.clone(), self.head.headers.clone());
        // What cannot be read of the body does not hide what the head says.
        let body = self.bytes().await.unwrap_or_default();
        Err(Error::read(&service, status.as_u16(), &headers, &body))
    }

    /// The body as a value.
    ///
    /// # Errors
    /// What the service or the mesh answered, when the status is 400 or more; [`Code::Internal`] when the body is not of
    /// this form; those of [`Answer::bytes`].
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let answer = self.error_for_status().await?;
        let service = answer.service.clone();
        let body = answer.bytes().await?;
        serde_json::from_slice(&body).map_err(|cause| {
            let message = format!("{service} answered in another form than expected");
            Error::new(Code::Internal, message).with_service(&service).blamed(Blame::Upstream).because(cause)
        })
    }

    /// The whole body, at most 10 MiB.
    ///
    /// # Errors
    /// [`Code::DeadlineExceeded`], [`Code::Unavailable`] when the connection breaks, [`Code::ResourceExhausted`] when the
    /// body is longer.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        let service = self.service;
        let declared =
            self.head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let too_long = || {
            let message = format!("{service} answered with more than {MAX_BODY} bytes");
            Error::new(Code::ResourceExhausted, message).with_service(&service).blamed(Blame::Upstream)
        };
        if declared.is_some_and(|length: usize| length > MAX_BODY) {
            return Err(too_long());
        }
        let body = Limited::new(self.body, MAX_BODY).collect();
        let body = match self.deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline, body).await.map_err(|_| errors::out_of_time(&service))?
            }
            None => body.await,
        };
        match body {
            Ok(body) => Ok(body.to_bytes()),
            Err(cause) if cause.is::<http_body_util::LengthLimitError>() => Err(too_long()),
            Err(cause) => Err(Error::new(Code::Unavailable, "the connection broke within the answer")
                .with_service(&service)
                .blamed(Blame::Upstream)
                .because(cause)),
        }
    }

    /// The body as text; what is not UTF-8 is replaced.
    ///
    /// # Errors
    /// Those of [`Answer::bytes`].
    pub async fn text(self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.bytes().await?).into_owned())
    }

    /// The body as it comes, of any length.
    pub fn into_body(self) -> Body {
        Body::new(self.body)
    }
}
