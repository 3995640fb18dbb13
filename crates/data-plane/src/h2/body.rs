//! Streams as those hold them who drive them: released when they are dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Error;
use super::mux::Shared;

/// A stream that somebody drives.
pub(super) struct Held {
    pub(super) mux: Shared,
    pub(super) id: u32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.mux.borrow_mut().release(self.id);
    }
}

/// The body of a request.
pub(crate) struct RequestBody {
    mux: Shared,
    id: u32,
}

impl RequestBody {
    pub(super) fn new(mux: Shared, id: u32) -> Self {
        Self { mux, id }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.mux.borrow_mut().poll_data(self.id, cx)
    }

    fn is_end_stream(&self) -> bool {
        self.mux.borrow().is_ended(self.id)
    }

    fn size_hint(&self) -> SizeHint {
        self.mux.borrow().expected(self.id).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
