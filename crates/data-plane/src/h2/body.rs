//! Streams as those hold them who drive them: released when they are dropped.

use std::task::Context;

use super::Error;
use super::mux::Shared;
use crate::message::{Body, NextFrame};

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
    type Error = Error;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        self.mux.borrow_mut().poll_data(self.id, cx)
    }

    fn is_ended(&self) -> bool {
        self.mux.borrow().is_ended(self.id)
    }

    fn length(&self) -> Option<u64> {
        self.mux.borrow().expected(self.id)
    }
}
