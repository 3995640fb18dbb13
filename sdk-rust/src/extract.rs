//! Extractors of axum whose refusals are the JSON errors of the mesh.

mod mistakes;

use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codes::{Code, Reason};
use crate::errors::Error;

/// A JSON body, in or out. One that does not fit the type is refused with 400 `invalid_body` and every mistake; at
/// most 10 MiB are read.
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
        if !is_json(request.headers()) {
            return Err(Error::said(Reason::InvalidBody, "expected a body of type `application/json`"));
        }
        let body = Bytes::from_request(request, state).await.map_err(|refusal| unread(&refusal))?;
        mistakes::read(&body).map(Self).map_err(|text| Error::said(Reason::InvalidBody, text))
    }
}

/// Whether the body says that it is JSON: `application/json`, or a type that ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// A body that could not be read to its end.
fn unread(refusal: &BytesRejection) -> Error {
    if refusal.status().as_u16() == 413 {
        return Error::new(Code::ResourceExhausted, "body is larger than 10 MiB")
            .reason("body_too_large")
            .with_status(413);
    }
    Error::said(Reason::InvalidBody, refusal.body_text())
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
            Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
            Err(cause) => Error::foreign(cause).into_response(),
        }
    }
}
