//! The token of whoever asks, on each call.

use tonic::Status;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;

use crate::credentials::Kept;
use crate::failure::Failure;

/// Puts the token of whoever asks on each call, where there is one.
#[derive(Debug, Clone)]
pub(super) struct Bearer(Option<AsciiMetadataValue>);

impl Bearer {
    pub(super) fn new(token: Option<&str>) -> Result<Self, Failure> {
        let value = token.map(|token| format!("Bearer {token}").parse::<AsciiMetadataValue>()).transpose();
        let mut value = value.map_err(|_| Failure::misuse("this is no token: it holds what no header can"))?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self(value))
    }

    /// That of a login; one with a certificate has none.
    pub(super) fn of(login: Option<&Kept>) -> Result<Self, Failure> {
        Self::new(login.map(|login| login.token.as_str()).filter(|token| !token.is_empty()))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}
