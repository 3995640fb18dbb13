//! What a service speaks.

use serde::{Deserialize, Serialize};

/// What a service speaks to those that reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 with WebSocket and SSE; HTTP/2 where the request came so and the service takes it.
    #[default]
    Http,
    /// gRPC over HTTP/2 by prior knowledge.
    Grpc,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// The word, as in the manifest.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "http" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            "tcp" => Ok(Self::Tcp),
            other => Err(format!("`{other}` is no protocol: expected http, grpc or tcp")),
        }
    }
}
