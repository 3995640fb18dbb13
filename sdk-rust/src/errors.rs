//! The one error of this crate, on every transport: what kind, why, whose fault, and whether a repeat helps.

mod read;
mod send;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::codes::{self, Blame, Code, Reason, Retry};

pub(crate) use read::out_of_time;
pub(crate) use send::{Form, Sent};

/// What a failure that is not ours looks like from outside: its own text might hold a secret.
pub(crate) const FOREIGN: &str = "internal error";

/// A failure, made here or read from an answer.
///
/// A handler returns it (`Err(Error::new(Code::NotFound, "no such user"))`), a call yields it. It leaves as a JSON body
/// on HTTP, as Connect's form on calls by name, and as status with a `Fault` detail on gRPC.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    status: u16,
    reason: String,
    message: String,
    blame: Blame,
    retry: Retry,
    retry_after: Option<Duration>,
    request_id: Option<String>,
    service: Option<String>,
    from_mesh: bool,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of this kind. Status, blame, retry and reason follow from the code until they are set.
    ///
    /// - `message`: for people, sent to the caller; lower case, no secrets.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let code = if code == Code::Ok { Code::Unknown } else { code };
        Self(Box::new(Inner {
            code,
            status: codes::status(code),
            reason: codes::word(code).to_owned(),
            message: message.into(),
            blame: codes::blame(code),
            retry: codes::retry(code),
            retry_after: None,
            request_id: None,
            service: None,
            from_mesh: false,
            cause: None,
        }))
    }

    /// Any other failure: the caller gets 500 with a fixed text, the log gets the cause.
    ///
    /// ```
    /// # fn read() -> Result<String, synego_sdk::Error> {
    /// let text = std::fs::read_to_string("/no/such/file").map_err(synego_sdk::Error::foreign)?;
    /// # Ok(text) }
    /// # assert_eq!(read().unwrap_err().message(), "internal error");
    /// ```
    #[must_use]
    pub fn foreign(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, FOREIGN).because(cause)
    }

    /// A failure that the SDK itself makes, with the defaults of its reason.
    pub(crate) fn said(reason: Reason, message: impl Into<String>) -> Self {
        let mut error = Self::new(reason.code(), message);
        let inner = &mut *error.0;
        inner.status = reason.status();
        inner.reason = reason.word().to_owned();
        inner.blame = reason.blame();
        inner.retry = reason.retry();
        error
    }

    /// Says why in one word: `[a-z][a-z0-9_]{0,63}`. Any other text is logged and leaves the reason as it was.
    #[must_use]
    pub fn reason(mut self, word: impl Into<String>) -> Self {
        let word = word.into();
        if is_word(&word) {
            self.0.reason = word;
        } else {
            tracing::warn!(reason = word, "not a reason: expected a-z, 0-9 and _, first a letter, at most 64");
        }
        self
    }

    /// Leaves with this HTTP status instead of the code's; statuses outside 400 to 599 are ignored.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        if (400..600).contains(&status) {
            self.0.status = status;
        }
        self
    }

    /// Says whether a repeat helps.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says how long to wait before a repeat, and that one may help.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        if self.0.retry == Retry::Never {
            self.0.retry = Retry::Later;
        }
        self
    }

    /// Keeps the cause for the log; it is never sent.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    pub(crate) fn with_service(mut self, service: &str) -> Self {
        self.0.service = Some(service.to_owned());
        self
    }

    pub(crate) fn with_request_id(mut self, request_id: Option<&str>) -> Self {
        if self.0.request_id.is_none() {
            self.0.request_id = request_id.map(str::to_owned);
        }
        self
    }

    pub(crate) fn blamed(mut self, blame: Blame) -> Self {
        self.0.blame = blame;
        self
    }

    /// What kind.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// HTTP status that it leaves or came with.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status
    }

    /// Why, in one word: the service's own, the mesh's ([`Error::from_mesh`]), or the code's.
    #[must_use]
    pub fn reason_word(&self) -> &str {
        &self.0.reason
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whose fault: the caller's, that of the service called (or its machine), or this program's.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.0.blame
    }

    /// Whether a repeat helps.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// How long to wait before a repeat, when that was said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Id of the request that failed.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// The service that was called, when the failure comes from a call.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.0.service.as_deref()
    }

    /// Whether the mesh made this failure, and not the service that was called.
    #[must_use]
    pub fn from_mesh(&self) -> bool {
        self.0.from_mesh
    }
}

/// Whether `text` may be a reason.
pub(crate) fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.len() <= 64
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = self.service() {
            write!(f, "{service}: ")?;
        }
        write!(f, "{}", self.0.message)?;
        if self.0.reason != codes::word(self.0.code) {
            write!(f, " ({})", self.0.reason)?;
        }
        match &self.0.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("code", &self.0.code)
            .field("status", &self.0.status)
            .field("reason", &self.0.reason)
            .field("message", &self.0.message)
            .field("blame", &self.0.blame)
            .field("retry", &self.0.retry)
            .field("service", &self.0.service)
            .field("from_mesh", &self.0.from_mesh)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}
