//! A request on its way out: the same head and body for every try, written as the next hop reads it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::{HeaderMap, HeaderValue};
use http_body::Body;
use synego_model::{BalanceKind, HashKey, Policy};
use synego_runtime::clock;

use super::deadline::Deadline;
use super::head::Head;
use super::intake::{Intake, TryBody};
use super::path;
use crate::h1::maps;
use crate::h1::out::Out;
use crate::h1::write::{self, Framing};
use crate::h2::hpack::Encoder;

/// A request, ready for any number of tries.
pub(crate) struct Outgoing {
    pub(crate) head: Head,
    /// What goes out with every try, but for the time that is left.
    pub(crate) headers: RefCell<HeaderMap>,
    pub(crate) intake: Intake,
    pub(crate) deadline: Deadline,
}

impl Outgoing {
    /// The time for a connection: never longer than what is left of the request.
    pub(crate) fn time_to(&self, connect: Duration, now: Instant) -> Duration {
        let left = self.deadline.ends(self.intake.progress()).map(|end| end.saturating_duration_since(now));
        left.map_or(connect, |left| left.min(connect))
    }

    /// Writes the head of the request as the next hop reads it on HTTP/1.1: its body, and how that is framed.
    pub(crate) fn write(&self, out: &mut Out) -> (TryBody, Framing) {
        let body = self.intake.next_try();
        let mut headers = self.headers.borrow_mut();
        self.deadline.write(&mut headers, clock::now(), self.intake.progress());
        if self.head.is_http2() {
            join_cookies(&mut headers);
        }
        let head = &self.head;
        let framing =
            write::request(out, &head.method, &head.target, &head.authority, &headers, body.size_hint().exact());
        (body, framing)
    }

    /// Writes the head of the request as the next hop reads it on HTTP/2; `length`: of its body, where it is known.
    pub(crate) fn encode(&self, encoder: &mut Encoder, out: &mut Vec<u8>, length: Option<u64>) {
        let mut headers = self.headers.borrow_mut();
        self.deadline.write(&mut headers, clock::now(), self.intake.progress());
        let head = &self.head;
        encoder.method(out, &head.method);
        encoder.scheme(out);
        encoder.authority(out, &head.authority);
        encoder.path(out, &head.target);
        headers.remove(HOST);
        encoder.fields(out, &headers);
        if let Some(length) = length.filter(|length| *length > 0 && !headers.contains_key(CONTENT_LENGTH)) {
            encoder.field(out, &CONTENT_LENGTH, &HeaderValue::from(length));
        }
    }

    /// The hash of what the policy hashes requests by.
    pub(crate) fn hash_key(&self, policy: &Policy) -> Option<u64> {
        let BalanceKind::Hash(key) = &policy.balance.kind else { return None };
        let headers = &*self.headers.borrow();
        let value = match key {
            HashKey::Header(name) => headers.get(name.as_str())?.as_bytes(),
            HashKey::Query(name) => path::query_values(self.head.target.query()?, name).next()?.as_bytes(),
            HashKey::Cookie(name) => {
                let crumbs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
                let mut pairs =
                    crumbs.flat_map(|crumb| crumb.split(';')).filter_map(|pair| pair.trim().split_once('='));
                pairs.find(|(key, _)| key == name)?.1.as_bytes()
            }
        };
        Some(synego_balance::hash_key(value))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        maps::give(self.headers.take());
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 wants one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
