//! Messages, whatever protocol they come in: a head with its fields, and a body in frames.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use crate::fields::{Fields, Span};
use crate::h1::pipe::Piped;
use crate::spare::{Shelf, Spare};

thread_local! {
    /// As many as a worker has requests on their first steps.
    static REQUESTS: Spare<Box<Request>, 64> = const { Spare::new() };
}

/// The head of a request, as it came.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    /// The authority that the target names.
    pub(crate) authority: Option<Span>,
    /// Path and query of the target.
    pub(crate) target: Option<Span>,
    /// Whether one of the two came marked as what nobody on its way may keep (HTTP/2 alone has such a mark).
    pub(crate) is_secret: bool,
}

impl Request {
    /// The same in a box, one that was used before where there is one.
    pub(crate) fn boxed(self) -> Box<Self> {
        match REQUESTS.take() {
            Some(mut place) => {
                *place = self;
                place
            }
            None => Box::new(self),
        }
    }

    /// Takes the fields; the box is used again.
    pub(crate) fn into_fields(mut self: Box<Self>) -> Fields {
        let fields = std::mem::take(&mut self.fields);
        REQUESTS.keep(self);
        fields
    }

    /// The authority that the target names.
    pub(crate) fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| self.fields.at(span))
    }

    /// Path and query of the target.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        self.target.map(|span| self.fields.at(span))
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<B = ()> {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: B,
}

impl<B> Answer<B> {
    /// The same head with another body.
    pub(crate) fn with<C>(self, body: C) -> Answer<C> {
        Answer { status: self.status, fields: self.fields, body }
    }

    /// The same head with what becomes of the body.
    pub(crate) fn map<C>(self, become_: impl FnOnce(B) -> C) -> Answer<C> {
        Answer { status: self.status, fields: self.fields, body: become_(self.body) }
    }
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Some of its bytes.
    Data(Bytes),
    /// What stands behind it: nothing follows.
    Trailers(Fields),
}

/// What a body gives next; `None`: it is over.
pub(crate) type NextFrame<E> = Poll<Option<Result<Frame, E>>>;

/// A body, as it comes.
pub(crate) trait Body {
    /// Why it breaks off.
    type Error;

    /// The next part.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<Self::Error>;

    /// The next part where it lies in a pipe, for whoever can write it from there; `None`: ask for the next part as usual,
    /// which also says what there is to wait for.
    fn piped(&mut self, _cx: &mut Context<'_>) -> Option<Piped> {
        None
    }

    /// Whether it is known that nothing follows.
    fn is_ended(&self) -> bool;

    /// Bytes that are still to come, where that is known.
    fn length(&self) -> Option<u64>;
}
