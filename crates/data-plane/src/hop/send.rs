//! pick and send: one try, and another one elsewhere when the first did nothing that could not be repeated.

use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{COOKIE, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use rand::Rng;
use synego_balance::{PickError, Slot, backoff_ceiling};
use synego_model::{BalanceKind, HashKey, InstanceId, Limits, Policy, Reason};
use synego_runtime::clock;

use super::answer::{self, Refusal};
use super::deadline::{Deadline, Lapse};
use super::head::Head;
use super::intake::{Intake, TryBody};
use super::record::Exchange;
use super::retry::{self, Fate, Miss};
use super::station::{Station, To, Way};
use super::{headers, path};
use crate::pool::{Lease, SendError, Speak, Target};
use crate::upstreams::{Flight, Service};

/// Time for a connection to the own service.
const OWN_CONNECT: Duration = Duration::from_millis(300);

/// A request, ready for any number of tries.
pub(crate) struct Outgoing {
    pub(crate) head: Head,
    pub(crate) headers: HeaderMap,
    pub(crate) intake: Intake,
    pub(crate) deadline: Deadline,
}

/// The head of an answer, and what its body needs.
pub(crate) struct Sent {
    pub(crate) answer: Response<Incoming>,
    pub(crate) lease: Lease,
    /// `None`: it went to the own service.
    pub(crate) flight: Option<Flight>,
}

/// Where one try goes.
struct Try {
    target: Rc<Target>,
    speak: Speak,
    connect: Duration,
    flight: Option<Flight>,
    id: Option<InstanceId>,
}

/// Sends a request until it has an answer or no further try is right.
///
/// # Errors
/// Why there is no answer, as the last try saw it.
pub(crate) async fn send(
    station: &Station,
    limits: &Limits,
    way: &Way,
    outgoing: &Outgoing,
    exchange: &mut Exchange,
) -> Result<Sent, Refusal> {
    if let To::Service(service) = &way.to {
        service.budget.borrow_mut().deposit(exchange.started);
    }
    let mut tried: Vec<Slot> = Vec::new();
    let mut missed: Option<Refusal> = None;
    loop {
        // pick
        let mut picked = match pick(station, limits, way, outgoing, &tried).await {
            Ok(picked) => picked,
            Err(refusal) => return Err(missed.unwrap_or(refusal)),
        };
        exchange.tried(picked.id.clone());
        tried.extend(picked.flight.as_ref().map(|flight| flight.slot));
        // send
        let began = clock::now();
        let whom = picked.id.as_ref().map_or_else(|| way.service.to_string(), InstanceId::to_string);
        let miss = match attempt(station, limits, outgoing, &picked, &whom).await {
            Ok((answer, lease)) => {
                let peer = picked.flight.as_ref().and(headers::reason(answer.headers())).and_then(retry::of_peer);
                let Some((fate, failure)) = peer else {
                    note_answer(station, &mut picked, &answer, began);
                    return Ok(Sent { answer, lease, flight: picked.flight });
                };
                note_failure(station, &mut picked, failure);
                if !may_repeat(fate, way, outgoing, tried.len()) {
                    return Ok(Sent { answer, lease, flight: picked.flight });
                }
                drain(answer, lease);
                None
            }
            Err(miss) => Some(miss),
        };
        if let Some(miss) = miss {
            note_failure(station, &mut picked, miss.failure);
            if !may_repeat(miss.fate, way, outgoing, tried.len()) {
                return Err(miss.refusal);
            }
            missed = Some(miss.refusal);
        }
    }
}

/// An instance for the next try; the own service has only itself.
async fn pick(
    station: &Station,
    limits: &Limits,
    way: &Way,
    outgoing: &Outgoing,
    tried: &[Slot],
) -> Result<Try, Refusal> {
    match &way.to {
        To::Own { address, speak, idle_limit } => Ok(Try {
            target: station.pool.target(address, *idle_limit),
            speak: *speak,
            connect: OWN_CONNECT,
            flight: None,
            id: None,
        }),
        To::Service(service) => {
            let key = hash_key(&way.policy, outgoing);
            let mut picked = service.pick(key, tried, clock::now(), &mut station.rng.borrow_mut());
            if matches!(picked, Err(PickError::AllTried)) {
                // Only those that failed are left: they get a moment.
                let ceiling = backoff_ceiling(tried.len() as u32);
                let wait = station.rng.borrow_mut().random_range(Duration::ZERO..=ceiling);
                tokio::time::sleep(wait).await;
                picked = service.pick(key, &[], clock::now(), &mut station.rng.borrow_mut());
            }
            let picked = picked.map_err(|error| not_picked(&error, service))?;
            let speak = if outgoing.head.is_http2() { Speak::Http2 } else { Speak::Http1 };
            Ok(Try {
                target: station.pool.target(&picked.address, limits.pool_idle),
                speak,
                connect: way.policy.connect,
                flight: Some(picked.flight),
                id: Some(picked.id),
            })
        }
    }
}

fn not_picked(error: &PickError, service: &Service) -> Refusal {
    let name = &service.name;
    match error {
        PickError::NoEndpoint { known } => {
            Refusal::new(Reason::NoReadyEndpoint, format!("no ready endpoint for {name}, {known} known"))
        }
        PickError::AllTried => Refusal::new(Reason::NoReadyEndpoint, format!("every endpoint of {name} was tried")),
        PickError::AllFull => {
            Refusal::new(Reason::Overloaded, format!("every endpoint of {name} has as many requests as it may have"))
        }
    }
}

/// One try: connects if it must, sends, waits for the head of the answer.
async fn attempt(
    station: &Station,
    limits: &Limits,
    outgoing: &Outgoing,
    picked: &Try,
    whom: &str,
) -> Result<(Response<Incoming>, Lease), Miss> {
    let began = clock::now();
    let mut fresh = false;
    loop {
        let connect = picked.target.ready(picked.speak, limits, outgoing.time_to(picked.connect), fresh);
        let ready = connect.await.map_err(|error| Miss::connect(format!("cannot reach {whom}: {error}")))?;
        let is_reused = ready.is_reused();
        let request = outgoing.request(picked.speak)?;
        let error = match in_time(ready.send(request), outgoing, began).await {
            Ok(Ok((answer, lease))) => return checked(outgoing, answer, lease, limits, whom),
            Ok(Err(error)) => error,
            Err(lapse) => return Err(Miss::lapse(lapse, whom)),
        };
        tracing::debug!(hop = station.kind.word(), whom, ?error, is_reused, "try failed");
        // A connection that was kept may have died unseen: that says nothing about the instance.
        let died = match error {
            SendError::Unsent => true,
            SendError::Reset(_) => {
                picked.flight.is_none()
                    && Fate::Unknown.allows_repeat(outgoing.head.is_idempotent(), outgoing.intake.can_repeat())
            }
            _ => false,
        };
        if fresh || !is_reused || !died {
            return Err(Miss::send(&error, whom));
        }
        fresh = true;
    }
}

/// Waits for an answer while the limits of the request hold.
async fn in_time<T>(answer: impl Future<Output = T>, outgoing: &Outgoing, began: Instant) -> Result<T, Lapse> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let look = outgoing.deadline.look(began, outgoing.intake.progress(), clock::now());
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = tokio::time::sleep_until(look.into()) => {}
        }
        let now = clock::now();
        if outgoing.intake.is_too_slow(now) {
            return Err(Lapse::ClientSilent);
        }
        let (when, lapse) = outgoing.deadline.next(began, outgoing.intake.progress());
        if when <= now {
            return Err(lapse);
        }
    }
}

/// An answer that keeps to the rules: no upgrade unasked, no head beyond the limits.
fn checked(
    outgoing: &Outgoing,
    answer: Response<Incoming>,
    lease: Lease,
    limits: &Limits,
    whom: &str,
) -> Result<(Response<Incoming>, Lease), Miss> {
    let size: usize = answer.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let unasked = answer.status() == StatusCode::SWITCHING_PROTOCOLS && !outgoing.head.is_upgrade;
    let fault = match (unasked, size as u64 > limits.headers) {
        (true, _) => "changed the protocol unasked",
        (_, true) => "has a head beyond the limits",
        _ => return Ok((answer, lease)),
    };
    let refusal = Refusal::new(Reason::BadResponse, format!("the answer of {whom} {fault}"));
    Err(Miss { refusal, failure: synego_balance::Failure::Reset, fate: Fate::Final })
}

/// Whether another try is right, allowed, and affordable.
fn may_repeat(fate: Fate, way: &Way, outgoing: &Outgoing, tries: usize) -> bool {
    let To::Service(service) = &way.to else { return false };
    let now = clock::now();
    let in_time = outgoing.deadline.ends(outgoing.intake.progress()).is_none_or(|end| end > now);
    tries <= way.policy.retries as usize
        && in_time
        && fate.allows_repeat(outgoing.head.is_idempotent(), outgoing.intake.can_repeat())
        && service.budget.borrow_mut().try_withdraw(now)
}

fn note_answer(station: &Station, picked: &mut Try, answer: &Response<Incoming>, began: Instant) {
    let Some(flight) = &mut picked.flight else { return };
    let failed =
        answer.status().is_server_error() || answer::grpc_status(answer.headers()).is_some_and(answer::is_failure);
    flight.answered(clock::now().duration_since(began), failed, &mut *station.rng.borrow_mut());
}

fn note_failure(station: &Station, picked: &mut Try, failure: synego_balance::Failure) {
    if let Some(flight) = &mut picked.flight {
        flight.failed(failure, &mut *station.rng.borrow_mut());
    }
}

/// Reads the little that a refusal holds, so that its connection can be used again.
fn drain(answer: Response<Incoming>, lease: Lease) {
    use http_body_util::{BodyExt, Limited};
    const MOST: usize = 16 * 1024;
    synego_runtime::tasks::spawn_local("drain-refusal", synego_runtime::tasks::Kind::Connection, async move {
        let all = Limited::new(answer.into_body(), MOST).collect();
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(1), all).await {
            lease.done();
        }
    });
}

/// The hash of what the policy hashes requests by.
fn hash_key(policy: &Policy, outgoing: &Outgoing) -> Option<u64> {
    let BalanceKind::Hash(key) = &policy.balance.kind else { return None };
    let headers = &outgoing.headers;
    let value = match key {
        HashKey::Header(name) => headers.get(name.as_str())?.as_bytes(),
        HashKey::Query(name) => path::query_values(outgoing.head.target.query()?, name).next()?.as_bytes(),
        HashKey::Cookie(name) => {
            let crumbs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
            let mut pairs = crumbs.flat_map(|crumb| crumb.split(';')).filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| key == name)?.1.as_bytes()
        }
    };
    Some(synego_balance::hash_key(value))
}

impl Outgoing {
    /// The time for a connection: never longer than what is left of the request.
    fn time_to(&self, connect: Duration) -> Duration {
        let left = self.deadline.ends(self.intake.progress()).map(|end| end.saturating_duration_since(clock::now()));
        left.map_or(connect, |left| left.min(connect))
    }

    /// The request as the next hop reads it.
    fn request(&self, speak: Speak) -> Result<Request<TryBody>, Miss> {
        let mut request = Request::new(self.intake.next_try());
        *request.method_mut() = self.head.method.clone();
        let mut headers = self.headers.clone();
        self.deadline.write(&mut headers, clock::now(), self.intake.progress());
        let uri = match speak {
            Speak::Http1 => {
                join_cookies(&mut headers);
                headers.insert(HOST, self.head.authority.clone());
                Uri::builder().path_and_query(self.head.target.clone()).build()
            }
            Speak::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                headers.remove(HOST);
                let authority = Authority::try_from(self.head.authority.as_bytes());
                let authority = authority.unwrap_or(Authority::from_static("localhost"));
                let target = self.head.target.clone();
                Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(target).build()
            }
        };
        *request.uri_mut() = uri.map_err(|_| Miss {
            refusal: Refusal::new(Reason::BadRequest, "the target is malformed"),
            failure: synego_balance::Failure::Abandoned,
            fate: Fate::Final,
        })?;
        *request.headers_mut() = headers;
        Ok(request)
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
