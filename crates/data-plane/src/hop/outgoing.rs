//! A request on its way out: the same head and body for every try, written as the next hop reads it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use http::header::{COOKIE, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body::Body;
use synego_balance::Failure;
use synego_model::{BalanceKind, HashKey, Policy, Reason};
use synego_runtime::clock;

use super::answer::Refusal;
use super::deadline::Deadline;
use super::head::Head;
use super::intake::{Intake, TryBody};
use super::path;
use super::retry::{Fate, Miss};
use crate::h1::maps;
use crate::h1::out::Out;
use crate::h1::write::{self, Framing};

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

    /// The request as the next hop reads it on HTTP/2.
    pub(crate) fn request(&self) -> Result<Request<TryBody>, Miss> {
        let mut request = Request::new(self.intake.next_try());
        *request.method_mut() = self.head.method.clone();
        *request.version_mut() = Version::HTTP_2;
        let mut headers = self.headers.borrow().clone();
        self.deadline.write(&mut headers, clock::now(), self.intake.progress());
        headers.remove(HOST);
        let authority = Authority::try_from(self.head.authority.as_bytes());
        let authority = authority.unwrap_or(Authority::from_static("localhost"));
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(self.head.target.clone());
        *request.uri_mut() = uri.build().map_err(|_| Miss {
            refusal: Refusal::new(Reason::BadRequest, "the target is malformed"),
            failure: Failure::Abandoned,
            fate: Fate::Final,
        })?;
        *request.headers_mut() = headers;
        Ok(request)
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
