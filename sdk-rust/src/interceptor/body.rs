//! The body of an answer, which holds what must last until its last byte.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use tokio_util::sync::DropGuard;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::load::Run;

/// Counts its request as in flight, and tells the context when the caller goes away in the middle.
pub(super) struct Tracked {
    inner: Body,
    gone: Option<DropGuard>,
    _in_flight: TaskTrackerToken,
    _running: Option<Run>,
}

impl Tracked {
    pub(super) fn new(inner: Body, in_flight: TaskTrackerToken, running: Option<Run>, gone: DropGuard) -> Self {
        Self { inner, gone: Some(gone), _in_flight: in_flight, _running: running }
    }

    fn finish(&mut self) {
        if let Some(gone) = self.gone.take() {
            gone.disarm();
        }
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(None) = frame {
            self.finish();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tracked {
    /// A body of known length is never asked for more than its length, so its end shows only here.
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}
