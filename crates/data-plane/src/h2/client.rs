//! HTTP/2 to an upstream: one stream for each request, driven by whoever waits for its answer; one task reads and writes
//! the connection.

use std::task::{Context, Poll};

use bytes::BytesMut;
use http::Method;
use synego_identity::Stream;
use synego_model::Limits;
use synego_runtime::clock;

use super::body::Held;
use super::mux::{Mux, Role, Shared};
use super::wire::Wire;
use super::{Code, Error};
use crate::hop::connection::{Ended, Late};
use crate::hop::early::Early;
use crate::hop::intake::TryBody;
use crate::hop::outgoing::Outgoing;
use crate::hop::timer::Alarm;
use crate::message::{Answer, Body, Frame, NextFrame};
use crate::pool::SendError;

/// A request on its stream, until the end of its answer.
pub(crate) struct Call {
    held: Held,
    /// What is still to be sent.
    body: Option<TryBody>,
}

/// A connection that has just been made: its streams begin at once.
pub(crate) fn begin(limits: &Limits) -> Shared {
    Mux::new(Role::Client, limits, None).shared()
}

/// Reads and writes a connection to its end.
pub(crate) async fn drive(mux: Shared, stream: Stream, limits: &Limits) {
    let mut wire = Wire::new(stream, BytesMut::new());
    let mut alarm = Alarm::default();
    let ended = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = wire.poll(&mux, cx, |_| {}) {
                return Poll::Ready(ended);
            }
            let mut mux = mux.borrow_mut();
            if mux.is_idle() && mux.out.is_empty() && (mux.is_away || mux.ends_when_idle) {
                return Poll::Ready(Ended::Well);
            }
            let next = match wire.next(&mut mux, limits, clock::now()) {
                Ok(next) => next,
                Err(ended) => return Poll::Ready(ended),
            };
            if !mux.out.is_empty() && !wire.is_stalled() {
                continue;
            }
            std::task::ready!(alarm.poll(next, cx));
        }
    });
    let ended = ended.await;
    mux.borrow_mut().die();
    let why = match ended {
        Ended::Well | Ended::Late(Late::Idle) => Code::NO_ERROR,
        Ended::Faulty(code) => code,
        Ended::Broken(_) | Ended::Cut | Ended::Late(_) => return,
    };
    tracing::debug!(?why, "connection to an upstream ends");
    wire.close(&mux, Some(why)).await;
}

impl Call {
    /// Begins a stream for a request: its head is on its way.
    pub(crate) fn begin(mux: &Shared, outgoing: &Outgoing<'_>) -> Self {
        let mut this = mux.borrow_mut();
        let id = this.begin(outgoing.head.method == Method::HEAD);
        let body = outgoing.intake.next_try();
        let ends = body.is_ended();
        this.write_head(id, ends, |encoder, out| outgoing.encode(encoder, out, body.length()));
        Self { held: Held { mux: mux.clone(), id }, body: Some(body).filter(|_| !ends) }
    }

    /// Sends the request, and waits for the head of its answer.
    ///
    /// # Errors
    /// Why there is none, and what that says of the request.
    pub(crate) async fn answer(mut self, early: &Early) -> Result<Answer<Self>, SendError> {
        let answer = std::future::poll_fn(|cx| {
            if let Err(cause) = self.pump(cx) {
                return Poll::Ready(Err(SendError::Client(cause.into())));
            }
            let mut mux = self.held.mux.borrow_mut();
            mux.take_interim(self.held.id).into_iter().for_each(|answer| early.came(answer));
            let polled = mux.poll_answer(self.held.id, cx);
            drop(mux);
            polled.map_err(|error| self.failed(error))
        });
        Ok(answer.await?.with(self))
    }

    /// What the end of the stream says of the request.
    fn failed(&self, error: Error) -> SendError {
        match error {
            Error::Away | Error::Reset(Code::REFUSED_STREAM) => SendError::Refused,
            Error::Broken(_) => SendError::BadResponse(error.into()),
            Error::Short if !self.held.mux.borrow().has_left(self.held.id) => SendError::Unsent,
            Error::Short | Error::Reset(_) | Error::Superseded => SendError::Reset(error.into()),
        }
    }

    /// Sends what can be sent.
    ///
    /// # Errors
    /// When the client's own body broke off.
    pub(crate) fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), crate::hop::body::BodyError> {
        let Held { mux, id } = &self.held;
        while let Some(body) = &mut self.body {
            if mux.borrow_mut().poll_room(*id, cx).is_pending() {
                break;
            }
            match body.poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(Frame::Data(data)))) => {
                    let ends = body.is_ended();
                    mux.borrow_mut().send(*id, data, ends);
                    if ends {
                        self.body = None;
                    }
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                    mux.borrow_mut().finish(*id, Some(trailers));
                    self.body = None;
                }
                Poll::Ready(None) => {
                    mux.borrow_mut().finish(*id, None);
                    self.body = None;
                }
                Poll::Ready(Some(Err(error))) => {
                    self.body = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl Body for Call {
    type Error = Error;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> NextFrame<Error> {
        if self.pump(cx).is_err() {
            // The client's own body broke off: the upstream will not get the rest.
            return Poll::Ready(Some(Err(Error::Superseded)));
        }
        self.held.mux.borrow_mut().poll_data(self.held.id, cx)
    }

    fn is_ended(&self) -> bool {
        self.held.mux.borrow().is_ended(self.held.id)
    }

    fn length(&self) -> Option<u64> {
        self.held.mux.borrow().expected(self.held.id)
    }
}
