//! What can be said about one handler beside its pattern and function.

use std::time::Duration;

/// Options of one handler, given to [`Service::handle_with`](crate::Service::handle_with).
///
/// ```
/// # use std::time::Duration;
/// # use synego_sdk::{Options, Service};
/// let reports = Service::new("reports").handle_with(
///     "GET /reports/{id}",
///     Options::inline().timeout(Duration::from_secs(5)),
///     async || "…",
/// );
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) is_streaming: bool,
}

impl Options {
    /// Calls run on the server's own scheduler, without a cap.
    #[must_use]
    pub fn inline() -> Self {
        Self::default()
    }

    /// Time for one run, at most a day; when it is over the future is dropped at its next await and the caller gets 504
    /// `handler_timeout`. Without it the request's own deadline alone counts.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit.min(Duration::from_secs(86_400)));
        self
    }

    /// The answer is a stream without end of its own: no total time limit, and
    /// [`Ctx::cancelled`](crate::Ctx::cancelled) also completes when the service drains.
    #[must_use]
    pub fn streaming(mut self) -> Self {
        self.is_streaming = true;
        self
    }
}
