//! Extractors of axum whose refusals are the JSON errors of the mesh.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codes::{Code, Reason};
use crate::errors::Error;

/// A JSON body, in or out. One that does not fit the type is refused with 400 `invalid_body`, at most 10 MiB are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json<T>(
    /// The value.
    pub T,
);

/// Parameters of the pattern: one value, a tuple in their order, or a struct by their names. What does not fit is
/// refused with 400 `invalid_path`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Path<T>(
    /// The value.
    pub T,
);

/// The query as a struct. What does not fit is refused with 400 `invalid_query`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Query<T>(
    /// The value.
    pub T,
);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(refusal) => Err(invalid_body(&refusal)),
        }
    }
}

pub(crate) fn invalid_body(refusal: &JsonRejection) -> Error {
    if refusal.status().as_u16() == 413 {
        return Error::new(Code::ResourceExhausted, "body is larger than 10 MiB")
            .reason("body_too_large")
            .with_status(413);
    }
    let text = refusal.body_text();
    let text = text.rsplit_once("target type: ").map_or(text.as_str(), |(_, cause)| cause);
    Error::said(Reason::InvalidBody, text)
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(refusal @ PathRejection::FailedToDeserializePathParams(_)) => {
                Err(Error::new(Code::InvalidArgument, refusal.body_text()).reason("invalid_path"))
            }
            Err(refusal) => Err(Error::foreign(refusal)),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(refusal) => Err(invalid_query(&refusal)),
        }
    }
}

fn invalid_query(refusal: &QueryRejection) -> Error {
    Error::new(Code::InvalidArgument, refusal.body_text()).reason("invalid_query")
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(http::header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(cause) => Error::foreign(cause).into_response(),
        }
    }
}
