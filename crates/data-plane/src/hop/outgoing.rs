//! A request on its way out: the same head and body for every try, written as the next hop reads it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use synego_model::{BalanceKind, HashKey, Policy};
use synego_runtime::clock;

use super::deadline::Deadline;
use super::early::Early;
use super::head::Head;
use super::intake::{Intake, TryBody};
use super::path;
use crate::fields::{self, Fields, Name};
use crate::h1::out::Out;
use crate::h1::write::{self, Framing};
use crate::h2::hpack::Encoder;
use crate::message::Body;

/// A request, ready for any number of tries.
pub(crate) struct Outgoing<'a> {
    pub(crate) head: Rc<Head>,
    /// What goes out with every try, but for the time that is left.
    pub(crate) fields: RefCell<Fields>,
    pub(crate) intake: Intake,
    pub(crate) deadline: Deadline,
    /// Takes what comes before the answer.
    pub(crate) early: &'a Early,
}

impl Outgoing<'_> {
    /// The time for a connection: never longer than what is left of the request.
    pub(crate) fn time_to(&self, connect: Duration, now: Instant) -> Duration {
        let left = self.deadline.ends(self.intake.progress()).map(|end| end.saturating_duration_since(now));
        left.map_or(connect, |left| left.min(connect))
    }

    /// Writes the head of the request as the next hop reads it on HTTP/1.1: its body, and how that is framed.
    pub(crate) fn write(&self, out: &mut Out) -> (TryBody, Framing) {
        let body = self.intake.next_try();
        let mut fields = self.fields.borrow_mut();
        self.deadline.write(&mut fields, clock::now(), self.intake.progress());
        if self.head.is_http2() {
            join_cookies(&mut fields);
        }
        let framing = write::request(out, &self.head, &fields, body.length());
        (body, framing)
    }

    /// Writes the head of the request as the next hop reads it on HTTP/2; `length`: of its body, where it is known.
    pub(crate) fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>, length: Option<u64>) {
        let mut fields = self.fields.borrow_mut();
        self.deadline.write(&mut fields, clock::now(), self.intake.progress());
        let head = &self.head;
        encoder.method(out, &head.method);
        encoder.scheme(out);
        encoder.authority(out, head.authority(), head.is_secret);
        encoder.path(out, head.target(), head.is_secret);
        fields.remove(Name::Host);
        if let Some(length) = length.filter(|length| *length > 0 && !fields.has(Name::ContentLength)) {
            fields.set_number(Name::ContentLength, length);
        }
        encoder.fields(out, &fields);
    }

    /// The hash of what the policy hashes requests by.
    pub(crate) fn hash_key(&self, policy: &Policy) -> Option<u64> {
        let BalanceKind::Hash(key) = &policy.balance.kind else { return None };
        let fields = &*self.fields.borrow();
        let value = match key {
            HashKey::Header(name) => fields.named(name).next()?,
            HashKey::Query(name) => path::query_values(self.head.query()?, name).next()?.as_bytes(),
            HashKey::Cookie(name) => {
                let crumbs = fields.all(Name::Cookie).filter_map(fields::ascii);
                let mut pairs =
                    crumbs.flat_map(|crumb| crumb.split(';')).filter_map(|pair| pair.trim().split_once('='));
                pairs.find(|(key, _)| key == name)?.1.as_bytes()
            }
        };
        Some(synego_balance::hash_key(value))
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 wants one field (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut Fields) {
    if fields.has(Name::Cookie) && fields.only(Name::Cookie).is_none() {
        let crumbs: Vec<&[u8]> = fields.all(Name::Cookie).collect();
        let joined = crumbs.join(&b"; "[..]);
        fields.set(Name::Cookie, &joined);
    }
}
